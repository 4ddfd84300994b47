"""Dynamics of several molecules, each going on from the last temperature that was over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from nequip_hessian import __version__
from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.geometries import require_molecule
from nequip_hessian.analysis.jobs import Source, Store, job_name, run_jobs
from nequip_hessian.analysis.md import Dynamics, RampSettings, RampState, run_dynamics

_Item = tuple[str, Atoms]


def _run(settings: RampSettings, calculator: Any, item: _Item, cache: Cache | None, name: str) -> dict[str, Any]:
    label, atoms = item
    kept = None if cache is None else cache.json(f"{name}-state")

    def keep(state: RampState) -> None:
        if cache is not None:
            cache.put_json(f"{name}-state", asdict(state))

    state = None if kept is None else RampState(**kept)
    return asdict(run_dynamics(atoms, calculator, settings, label=label, state=state, on_stage=keep))


def run_molecules(
    molecules: Sequence[Atoms],
    calculator: Any,
    source: Source,
    settings: RampSettings,
    *,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> list[Dynamics]:
    """Run several molecules.

    Args:
        molecules: free molecules of two or more atoms, angstrom
        calculator: used in this process; source: makes it in a worker
        settings: temperatures and times
        folder: where states and results are kept; identity: what they belong to (the model)
        workers: processes of one thread each

    Returns:
        One outcome a molecule, in order; a worker that died is a failure.

    Raises:
        ConfigError: one atom, or a periodic geometry.
    """
    labels = [f"molecule {index}" for index in range(len(molecules))]
    for label, atoms in zip(labels, molecules, strict=True):
        require_molecule(f"md: {label}", atoms)
    key = {**(identity or {}), "version": __version__}
    found = run_jobs(
        partial(_run, settings),
        list(zip(labels, molecules, strict=True)),
        [job_name("md", atoms, asdict(settings)) for atoms in molecules],
        calculator,
        source,
        store=None if folder is None else Store(folder, key),
        workers=workers,
        title="md",
    )
    results = []
    for label, atoms, one in zip(labels, molecules, found, strict=True):
        what = (label, atoms.get_chemical_formula(), len(atoms))
        results.append(Dynamics(*what, failure=one) if isinstance(one, str) else Dynamics(**{**one, "label": label}))
    return results
