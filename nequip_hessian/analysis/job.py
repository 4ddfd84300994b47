"""A whole reaction with one model: ends, path, transition state, reaction coordinate, vibrations.

Each stage is kept in a folder as soon as it is done, so that an interrupted job goes on where it was. A stage
that fails ends the job; what came before stays, and the reason is part of the result.

reactant, product   minimised; no imaginary mode; the same atoms in the same order
path                nudged elastic band between them; its highest image is the guess
transition_state    Sella with the model's Hessian from that guess; one imaginary mode
irc                 both sides of it; they have to lead to the reactant and the product given

A band that does not converge can still hold a good guess: where its highest image lies inside, the search goes on
from there and the failure of the band is a remark. Barriers are those of the transition state, not of the band.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ase import Atoms

from nequip_hessian.analysis.geometries import other_atoms, require_molecule
from nequip_hessian.analysis.irc import STEP, ReactionCoordinate, intrinsic_reaction_coordinate
from nequip_hessian.analysis.job_cache import JobCache
from nequip_hessian.analysis.optimisation import Relaxation, relax
from nequip_hessian.analysis.path import IMAGES, NEB_STEPS, ReactionPath, reaction_path
from nequip_hessian.analysis.saddle import SaddleSearch, SaddleVerdict, judge, search_saddle
from nequip_hessian.analysis.single import SingleVibrations, model_vibrations
from nequip_hessian.errors import ConfigError, MissingExtraError, reason_of

STAGES: Final = ("reactant", "product", "path", "transition_state", "irc")
"""In the order in which they run."""

_PUSH: Final = 0.1  # angstrom, largest displacement off a ridge


@dataclass
class ReactionJob:
    """What came out.

    Attributes:
        points: vibrations at the stationary points found: `reactant`, `transition_state`, `product`
        path: the band; search: the transition state; irc: both its sides, the reactant's as the reverse one
        verdict: whether the transition state connects the two ends
        failed: the stage that failed, None where none did; reason: why
        remarks: what is worth knowing and no failure
    """

    points: dict[str, SingleVibrations] = field(default_factory=dict)
    path: ReactionPath | None = None
    search: SaddleSearch | None = None
    irc: ReactionCoordinate | None = None
    verdict: SaddleVerdict | None = None
    failed: str | None = None
    reason: str | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def ends(self) -> dict[str, Atoms]:
        """The two minima by name."""
        return {name: self.points[name].atoms for name in ("reactant", "product") if name in self.points}


class _StageError(Exception):
    """Why a stage failed."""


def run_reaction(
    reactant: Atoms,
    product: Atoms,
    calculator: Any,
    cache: JobCache,
    *,
    images: int = IMAGES,
    band_steps: int = NEB_STEPS,
    irc_step: float = STEP,
    on_stage: Callable[[str], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> ReactionJob:
    """Take a reaction through all stages, or as far as it goes.

    Args:
        reactant, product: guesses of the two minima, free molecules, atoms in the same order, angstrom
        calculator: ASE calculator with `get_hessian`
        cache: where the stages are kept; what is there already is not done again
        images: of the band, with both ends; band_steps: at most so many of FIRE; irc_step: u^(1/2) angstrom
        on_stage: called with the name of each stage as it begins; on_step: after every step of band and irc

    Raises:
        ConfigError: other atoms or another order, one atom, a periodic geometry; MissingExtraError: no Sella.
    """
    if difference := other_atoms(reactant, product):
        raise ConfigError(
            f"reactant and product: expected the same atoms in the same order, found {difference}; reorder or replace "
            "one of the files"
        )
    for name, atoms in (("reactant", reactant), ("product", product)):
        require_molecule(f"reaction: {name}", atoms)
    job = ReactionJob()
    stages: dict[str, Callable[[], None]] = {
        "reactant": lambda: _end(job, "reactant", reactant, calculator, cache),
        "product": lambda: _end(job, "product", product, calculator, cache),
        "path": lambda: _path(job, calculator, cache, images, band_steps, on_step),
        "transition_state": lambda: _state(job, calculator, cache),
        "irc": lambda: _irc(job, calculator, cache, irc_step, on_step),
    }
    for name in STAGES:
        if on_stage is not None:
            on_stage(name)
        try:
            stages[name]()
        except _StageError as exc:
            job.failed, job.reason = name, str(exc)
            break
        except MissingExtraError:
            raise
        except Exception as exc:  # whatever a model raises ends the stage, not the job's report
            job.failed, job.reason = name, reason_of(exc)
            break
    return job


def _end(job: ReactionJob, name: str, atoms: Atoms, calculator: Any, cache: JobCache) -> None:
    kept = cache.relaxation(name, atoms)
    outcome = relax(atoms, calculator) if kept is None else kept
    if outcome.failure:
        raise _StageError(f"cannot be minimised: {outcome.failure}")
    if kept is None:
        outcome = _off_ridge(job, name, outcome, calculator)
    found = model_vibrations(calculator, outcome.atoms, outcome.atoms.get_masses())
    if found.result.n_imaginary:
        raise _StageError(f"no minimum: {found.result.n_imaginary} imaginary modes after the minimisation")
    if kept is None:
        cache.put_relaxation(name, outcome)
    job.points[name] = found


def _off_ridge(job: ReactionJob, name: str, outcome: Relaxation, calculator: Any) -> Relaxation:
    """Leave a saddle point along its first imaginary mode, once: symmetry can hold a minimisation there."""
    found = model_vibrations(calculator, outcome.atoms, outcome.atoms.get_masses())
    if not found.result.n_imaginary:
        return outcome
    pushed = outcome.atoms.copy()
    mode = found.displacements()[0]
    pushed.positions += _PUSH / np.max(np.linalg.norm(mode, axis=1)) * mode
    again = relax(pushed, calculator)
    if again.failure:
        raise _StageError(f"no minimum, and cannot be minimised from beside it: {again.failure}")
    job.remarks.append(f"the {name} stopped on a ridge and was minimised again from beside it")
    return again


def _path(
    job: ReactionJob,
    calculator: Any,
    cache: JobCache,
    images: int,
    steps: int,
    on_step: Callable[[], None] | None,
) -> None:
    path = cache.path(0, images, steps)
    if path is None:
        ends = job.ends
        answers = cache.path_answers(0, images, steps)
        path = reaction_path(
            ends["reactant"], ends["product"], calculator, images=images, steps=steps, on_step=on_step, answers=answers
        )
        if path.failure is None:
            cache.put_path(0, images, steps, path)
    job.path = path
    if path.failure is None:
        return
    if not len(path.energies) or path.highest in (0, len(path.energies) - 1):
        raise _StageError(path.failure)
    job.remarks.append(f"the band: {path.failure}; its highest image is the guess all the same")


def _state(job: ReactionJob, calculator: Any, cache: JobCache) -> None:
    if job.path is None:
        raise _StageError("no guess")
    template = job.points["reactant"].atoms
    search = cache.search(template)
    if search is None:
        guess = template.copy()
        guess.positions = job.path.positions[job.path.highest]
        search = search_saddle(guess, calculator)
        if search.failure is None:
            cache.put_search(search)
    job.search = search
    if search.failure:
        raise _StageError(search.failure)
    job.points["transition_state"] = model_vibrations(calculator, search.atoms, search.atoms.get_masses())


def _irc(job: ReactionJob, calculator: Any, cache: JobCache, step: float, on_step: Callable[[], None] | None) -> None:
    if job.search is None:
        raise _StageError("no transition state")
    path = cache.irc(job.search.atoms)
    if path is None:
        path = intrinsic_reaction_coordinate(
            job.search.atoms, calculator, step=step, hessian=job.search.hessian, on_step=on_step, journal=cache
        )
        if path.failure is None:
            cache.put_irc(path)
    verdict = judge(job.search, path=path, ends=job.ends)
    if verdict.forward is not None and verdict.forward.name == "reactant" and verdict.connects:
        path = path.turned()
        verdict = judge(job.search, path=path, ends=job.ends)
    job.irc, job.verdict = path, verdict
    job.remarks += path.shortfalls
    if not verdict.success:
        raise _StageError("; ".join(verdict.reasons))
