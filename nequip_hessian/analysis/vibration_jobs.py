"""Vibrations of several geometries with one model: kept when done, over a pool of processes where wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from nequip_hessian import __version__
from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.jobs import Source, Store, job_name, run_jobs
from nequip_hessian.analysis.optimisation import relax
from nequip_hessian.analysis.single import SingleVibrations, model_vibrations, vibrations_from
from nequip_hessian.errors import MissingExtraError, reason_of


def frozen_atoms(atoms: Atoms) -> list[int]:
    """Indices of the atoms that the constraints of a geometry hold fixed."""
    return sorted({int(k) for c in atoms.constraints if isinstance(c, FixAtoms) for k in c.get_indices()})


def _analyse(optimise: bool, calculator: Any, atoms: Atoms, cache: Cache | None, name: str) -> dict[str, Any]:
    if optimise:
        outcome = relax(atoms, calculator)
        if outcome.failure:
            return {"failure": outcome.failure}
        atoms = outcome.atoms
    try:
        found = model_vibrations(calculator, atoms, atoms.get_masses(), frozen_atoms(atoms))
    except MissingExtraError:
        raise
    except Exception as exc:  # whatever a model raises is that model's failure
        return {"failure": reason_of(exc)}
    return {
        "positions": atoms.positions.tolist(),
        "energy": found.energy,
        "forces": np.asarray(found.forces).tolist(),
        "hessian": np.asarray(found.hessian).tolist(),
        "failure": None,
    }


def run_vibrations(
    frames: Sequence[Atoms],
    calculator: Any,
    source: Source,
    *,
    optimise: bool = False,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> list[SingleVibrations | str]:
    """Normal modes of several geometries.

    Args:
        frames: angstrom; their masses are used, atoms that their constraints fix are frozen
        calculator: used in this process; source: makes it in a worker
        optimise: minimise each with the model first
        folder: where finished geometries are kept; identity: what they belong to (the model)
        workers: processes of one thread each

    Returns:
        One result a geometry, in order; a string is why there is none.
    """
    settings = [{"optimise": optimise, "frozen": frozen_atoms(a), "cell": a.cell.tolist()} for a in frames]
    found = run_jobs(
        partial(_analyse, optimise),
        list(frames),
        [job_name("vibrations", atoms, one) for atoms, one in zip(frames, settings, strict=True)],
        calculator,
        source,
        store=None if folder is None else Store(folder, {**(identity or {}), "version": __version__}),
        workers=workers,
        title="vibrations",
    )
    return [_result(atoms, facts) for atoms, facts in zip(frames, found, strict=True)]


def _result(template: Atoms, facts: dict[str, Any] | str) -> SingleVibrations | str:
    if isinstance(facts, str) or facts["failure"] is not None:
        return facts if isinstance(facts, str) else str(facts["failure"])
    atoms = template.copy()
    atoms.calc = None
    atoms.set_positions(np.array(facts["positions"]), apply_constraint=False)
    arrays = (np.array(facts["forces"]), np.array(facts["hessian"]))
    return vibrations_from(atoms, float(facts["energy"]), *arrays, atoms.get_masses(), frozen_atoms(atoms))
