"""Transition-state searches from many starts: kept when done, over a pool of processes where wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from nequip_hessian import __version__
from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.geometries import require_molecule
from nequip_hessian.analysis.jobs import Source, Store, job_name, run_jobs
from nequip_hessian.analysis.saddle import SaddleSearch, require_sella, search_saddle
from nequip_hessian.analysis.vibrations import vibrations

_PLAIN = ("converged", "steps", "gradient_calls", "hessian_calls", "seconds", "with_hessian", "failure")


def search_facts(search: SaddleSearch) -> dict[str, Any]:
    """Return a search as what JSON can hold, exactly."""
    found = {name: getattr(search, name) for name in _PLAIN}
    found |= {"positions": search.atoms.positions.tolist(), "energy": search.energy, "forces": search.forces.tolist()}
    return found | {"hessian": None if search.hessian is None else np.asarray(search.hessian).tolist()}


def search_from(facts: Mapping[str, Any], template: Atoms) -> SaddleSearch:
    """Return the search that `search_facts` was made from.

    Args:
        facts: of the search
        template: its start: atoms and masses
    """
    atoms = template.copy()
    atoms.calc = None
    atoms.positions = np.array(facts["positions"])
    hessian = None if facts["hessian"] is None else np.array(facts["hessian"])
    modes = None if hessian is None else vibrations(hessian, atoms.positions, atoms.get_masses())
    plain = {name: facts[name] for name in _PLAIN}
    return SaddleSearch(atoms, float(facts["energy"]), np.array(facts["forces"]), hessian, modes, **plain)


def _search(
    settings: Mapping[str, Any], calculator: Any, item: tuple[Atoms, bool], cache: Cache | None, name: str
) -> dict[str, Any]:
    atoms, with_hessian = item
    return search_facts(search_saddle(atoms, calculator, with_hessian=with_hessian, **settings))


def run_searches(
    starts: Sequence[Atoms],
    with_hessian: Sequence[bool],
    calculator: Any,
    source: Source,
    settings: Mapping[str, Any],
    *,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> list[SaddleSearch]:
    """Search from several starts.

    Args:
        starts: free molecules, angstrom; their masses are used
        with_hessian: of each start, whether Sella gets the model's Hessian
        calculator: used in this process; source: makes it in a worker
        settings: of `search_saddle`
        folder: where finished searches are kept; identity: what they belong to (the model)
        workers: processes of one thread each

    Returns:
        The searches in order; a worker that died is a failed one.

    Raises:
        ConfigError: one atom, a periodic geometry, settings out of range; MissingExtraError: no Sella.
    """
    require_sella()
    for index, atoms in enumerate(starts):
        require_molecule(f"saddle search: start {index}", atoms)
    names = [
        job_name("ts", atoms, {**settings, "with_hessian": use})
        for atoms, use in zip(starts, with_hessian, strict=True)
    ]
    found = run_jobs(
        partial(_search, dict(settings)),
        list(zip(starts, with_hessian, strict=True)),
        names,
        calculator,
        source,
        store=None if folder is None else Store(folder, {**(identity or {}), "version": __version__}),
        workers=workers,
        title="ts",
    )
    results = []
    for atoms, use, facts in zip(starts, with_hessian, found, strict=True):
        results.append(_died(atoms, use, facts) if isinstance(facts, str) else search_from(facts, atoms))
    return results


def _died(atoms: Atoms, with_hessian: bool, reason: str) -> SaddleSearch:
    nothing = np.full((len(atoms), 3), np.nan)
    return SaddleSearch(
        atoms.copy(), float("nan"), nothing, None, None, False, 0, 0, 0, float("nan"), with_hessian, reason
    )
