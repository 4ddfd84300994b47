"""A reaction coordinate that is kept as it comes, with the minima it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase import Atoms

from nequip_hessian import __version__
from nequip_hessian.analysis.geometries import other_atoms
from nequip_hessian.analysis.irc import ReactionCoordinate, intrinsic_reaction_coordinate
from nequip_hessian.analysis.job_cache import JobCache
from nequip_hessian.analysis.jobs import job_name
from nequip_hessian.analysis.optimisation import relax
from nequip_hessian.errors import ConfigError


def open_journal(folder: Path, model: str, transition_state: Atoms, settings: Mapping[str, Any]) -> JobCache:
    """Open the folder of one reaction coordinate; what another model, geometry or setting left there is removed.

    Args:
        folder: made where it is missing
        model: what the results belong to, see `PotentialSource.identity`
        transition_state: the start, with its masses and electronic state
        settings: of `intrinsic_reaction_coordinate`
    """
    start = job_name("irc", transition_state, settings)
    return JobCache(folder, {"model": model, "start": start, "version": __version__})


def follow(
    transition_state: Atoms, calculator: Any, journal: JobCache | None = None, **settings: Any
) -> ReactionCoordinate:
    """Follow both sides, or go on where that was interrupted.

    Args:
        transition_state: free molecule, angstrom
        calculator: ASE calculator with `get_hessian`
        journal: of `open_journal`; None: nothing is kept
        settings: of `intrinsic_reaction_coordinate`

    Raises:
        ConfigError: as `intrinsic_reaction_coordinate`.
    """
    kept = None if journal is None else journal.irc(transition_state)
    if kept is not None:
        return kept
    path = intrinsic_reaction_coordinate(transition_state, calculator, journal=journal, **settings)
    if journal is not None and path.failure is None:
        journal.put_irc(path)
    return path


def known_minimum(
    name: str, atoms: Atoms, calculator: Any, transition_state: Atoms, journal: JobCache | None = None
) -> Atoms:
    """Minimise an end that a reaction coordinate should lead to.

    Args:
        name: of the file, for messages
        atoms: near the minimum, angstrom; transition_state: has to have the same atoms in the same order
        calculator: ASE calculator; journal: where the minimum is kept

    Raises:
        ConfigError: other atoms or another order, or one that cannot be minimised.
    """
    if difference := other_atoms(transition_state, atoms):
        raise ConfigError(
            f"{name}: expected the atoms of the transition state in the same order, found {difference}; reorder or "
            "replace the file"
        )
    key = job_name("minimum", atoms, {})
    kept = None if journal is None else journal.relaxation(key, atoms)
    if kept is not None:
        return kept.atoms
    outcome = relax(atoms, calculator)
    if outcome.failure:
        raise ConfigError(f"{name}: cannot be minimised with this model: {outcome.failure}")
    if journal is not None:
        journal.put_relaxation(key, outcome)
    return outcome.atoms
