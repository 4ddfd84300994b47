"""Barriers and paths of elementary reactions, model against reference (definitions in `path`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.connectivity import other_species
from nequip_hessian.analysis.path import ReactionPath, distance_to_path
from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.summary import Figure, Metric
from nequip_hessian.analysis.superpose import rmsd
from nequip_hessian.record import LabelledGeometry


@dataclass(frozen=True)
class ReactionErrors:
    """One reaction, one model; energies in eV, lengths in angstrom, None where something is missing.

    Attributes:
        reference_forward, reference_reverse: labelled barriers
        single_forward, single_reverse: errors of the model's barriers at the reference geometries
        forward, reverse: barriers of the converged NEB
        forward_error, reverse_error: model minus reference
        ts_rmsd, path_rmsd: geometry errors of the converged NEB
        reactant_rmsd, product_rmsd: how far the model moved the end points from the reference
        n_imaginary: imaginary modes at the highest image; steps, residual, guess: of the NEB
        searched: whether a NEB was run; failure: why it counts as failed
    """

    name: str
    n_atoms: int
    reference_forward: float | None = None
    reference_reverse: float | None = None
    single_forward: float | None = None
    single_reverse: float | None = None
    forward: float | None = None
    reverse: float | None = None
    forward_error: float | None = None
    reverse_error: float | None = None
    ts_rmsd: float | None = None
    path_rmsd: float | None = None
    reactant_rmsd: float | None = None
    product_rmsd: float | None = None
    n_imaginary: int | None = None
    steps: int | None = None
    residual: float | None = None
    guess: str | None = None
    searched: bool = False
    failure: str | None = None


REACTION_METRICS: Final[dict[str, Metric]] = {
    "barrier_mae": Metric("eV", "NEB barrier MAE"),
    "barrier_forward_mae": Metric("eV", "NEB barrier MAE, forward"),
    "barrier_reverse_mae": Metric("eV", "NEB barrier MAE, reverse"),
    "single_point_barrier_mae": Metric("eV", "Barrier MAE at the reference geometries"),
    "ts_rmsd": Metric("Å", "RMSD of the highest image from the transition state"),
    "path_rmsd": Metric("Å", "RMSD of the reference geometries from the path"),
    "first_order": Metric("1", "Highest image has exactly one imaginary mode", "higher"),
    "neb_failure_rate": Metric("1", "Failed NEBs"),
}


def _difference(members: Mapping[str, float | None], top: str, bottom: str) -> float | None:
    high, low = members.get(top), members.get(bottom)
    return None if high is None or low is None else high - low


def _minus(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference


def _end_rmsd(record: LabelledGeometry | None, positions: npt.NDArray[Any]) -> float | None:
    return None if record is None else rmsd(positions, np.asarray(record.positions))


def _other_ends(members: Mapping[str, LabelledGeometry], path: ReactionPath) -> str | None:
    """Why a band is none of this reaction: an end that is another species than the labelled one."""
    for role, image in (("reactant", 0), ("product", -1)):
        if role in members:
            record = members[role]
            moved = other_species(record.numbers, np.asarray(record.positions), path.positions[image])
            if moved is not None:
                return f"the {role} {moved}"
    return None


def reaction_errors(
    name: str,
    members: Mapping[str, LabelledGeometry],
    points: Sequence[LabelledGeometry],
    predictions: Mapping[str, Prediction],
    path: ReactionPath | None,
) -> ReactionErrors:
    """Compare one model with the reference on one reaction.

    Args:
        name: the reaction
        members: the labelled `reactant`, `transition_state`, `product`, those there are
        points: further labelled geometries along the path
        predictions: the model's answers at the members
        path: the NEB, None where none was run
    """
    truth = {role: record.energy for role, record in members.items()}
    model = {role: prediction.energy for role, prediction in predictions.items()}
    single = [_difference(model, "transition_state", end) for end in ("reactant", "product")]
    base = ReactionErrors(
        name,
        max((len(record) for record in members.values()), default=0),
        reference_forward=_difference(truth, "transition_state", "reactant"),
        reference_reverse=_difference(truth, "transition_state", "product"),
        searched=path is not None,
        failure=None if path is None else path.failure or _other_ends(members, path),
    )
    base = replace(
        base,
        single_forward=_minus(single[0], base.reference_forward),
        single_reverse=_minus(single[1], base.reference_reverse),
    )
    if path is None or base.failure is not None:
        return base
    known = [*members.values(), *points]
    state = members.get("transition_state")
    return replace(
        base,
        forward=path.barrier_forward,
        reverse=path.barrier_reverse,
        forward_error=_minus(path.barrier_forward, base.reference_forward),
        reverse_error=_minus(path.barrier_reverse, base.reference_reverse),
        ts_rmsd=None if state is None else rmsd(path.positions[path.highest], np.asarray(state.positions)),
        path_rmsd=float(np.mean([distance_to_path(np.asarray(r.positions), path.positions) for r in known])),
        reactant_rmsd=_end_rmsd(members.get("reactant"), path.positions[0]),
        product_rmsd=_end_rmsd(members.get("product"), path.positions[-1]),
        n_imaginary=path.n_imaginary,
        steps=path.steps,
        residual=path.residual,
        guess=path.guess,
    )


def summarise_reactions(errors: Sequence[ReactionErrors]) -> dict[str, Figure]:
    """Join the errors of several reactions into one figure for each name in `REACTION_METRICS`."""
    searched = [error for error in errors if error.searched]
    forward = [e.forward_error for e in searched]
    reverse = [e.reverse_error for e in searched]
    order = [None if e.n_imaginary is None else float(e.n_imaginary == 1) for e in searched]
    values: dict[str, list[float | None]] = {
        "barrier_mae": [*forward, *reverse],
        "barrier_forward_mae": list(forward),
        "barrier_reverse_mae": list(reverse),
        "single_point_barrier_mae": [v for e in errors for v in (e.single_forward, e.single_reverse)],
        "ts_rmsd": [e.ts_rmsd for e in searched],
        "path_rmsd": [e.path_rmsd for e in searched],
        "first_order": list(order),
        "neb_failure_rate": [float(e.failure is not None) for e in searched],
    }
    figures = {}
    for name, metric in REACTION_METRICS.items():
        known = [abs(value) for value in values[name] if value is not None]
        figures[name] = Figure(float(np.mean(known)) if known else None, len(known), metric.unit)
    return figures
