"""Pairs of reference and predicted numbers for parity plots, and reference profiles of reactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import composition_shift, is_stationary, record_vibrations
from nequip_hessian.analysis.path import path_length
from nequip_hessian.analysis.prediction import Prediction, masses_of
from nequip_hessian.analysis.results import ReferencePath
from nequip_hessian.analysis.superpose import rmsd
from nequip_hessian.analysis.vibrations import match_modes
from nequip_hessian.curvature import pack
from nequip_hessian.record import LabelledGeometry

Array = npt.NDArray[np.floating[Any]]

ELEMENTS_PER_GEOMETRY: Final = 1000
"""At most so many Hessian elements (or force components) of one geometry enter a plot, drawn at random."""


def _pairs(found: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    if not found:
        return np.zeros(0), np.zeros(0)
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _thin(reference: Array, model: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    if len(reference) <= ELEMENTS_PER_GEOMETRY:
        return reference, model
    chosen = generator.choice(len(reference), ELEMENTS_PER_GEOMETRY, replace=False)
    return reference[chosen], model[chosen]


def parity(
    records: Sequence[LabelledGeometry], predictions: Sequence[Prediction], masses: str = "standard"
) -> dict[str, tuple[Array, Array]]:
    """Collect (reference, model) samples of one model.

    Args:
        records, predictions: the same geometries in the same order; failures are left out
        masses: see `prediction.masses_of`

    Returns:
        `energy` eV, relative to a composition fit of the reference, the model's composition shift
        removed; `force` eV/angstrom; `hessian` eV/angstrom^2 (lower triangle); `frequency` cm^-1, matched
        modes of stationary points.
    """
    generator = np.random.default_rng(0)
    forces, hessians, frequencies = [], [], []
    for record, prediction in zip(records, predictions, strict=True):
        if prediction.failure is not None:
            continue
        if record.forces is not None and prediction.forces is not None:
            known = np.isfinite(record.forces)
            forces.append(_thin(record.forces[known], prediction.forces[known], generator))
        if record.hessian is not None and prediction.hessian is not None:
            hessians.append(_thin(pack(np.asarray(record.hessian)), pack(prediction.hessian), generator))
            if is_stationary(record):
                frequencies.append(_frequencies(record, prediction.hessian, masses))
    return {
        "energy": _energies(records, predictions),
        "force": _pairs(forces),
        "hessian": _pairs(hessians),
        "frequency": _pairs(frequencies),
    }


def _frequencies(record: LabelledGeometry, hessian: Array, masses: str) -> tuple[Array, Array]:
    weights = masses_of(record.numbers, masses, record.masses)
    reference = record_vibrations(record, np.asarray(record.hessian), weights)
    model = record_vibrations(record, hessian, weights)
    partner, _ = match_modes(reference, model)
    return reference.wavenumbers, model.wavenumbers[partner]


def _energies(records: Sequence[LabelledGeometry], predictions: Sequence[Prediction]) -> tuple[Array, Array]:
    used = [
        (record.numbers, record.energy, prediction.energy)
        for record, prediction in zip(records, predictions, strict=True)
        if record.energy is not None and prediction.energy is not None
    ]
    if not used:
        return np.zeros(0), np.zeros(0)
    numbers = [np.asarray(z, dtype=int) for z, _, _ in used]
    truth = np.array([e for _, e, _ in used])
    error = np.array([e for _, _, e in used]) - truth
    baseline, shift = composition_shift(numbers, truth.tolist()), composition_shift(numbers, error.tolist())
    if baseline is None or shift is None:
        return truth, truth + error
    relative = truth - np.array([baseline[z].sum() for z in numbers])
    return relative, relative + error - np.array([shift[z].sum() for z in numbers])


def _is_reversed(
    members: Mapping[str, LabelledGeometry], before: Sequence[LabelledGeometry], after: Sequence[LabelledGeometry]
) -> bool:
    if not {"reactant", "product"} <= set(members) or not (before or after):
        return False
    outermost = np.asarray((before[0] if before else after[-1]).positions)
    nearer = rmsd(outermost, np.asarray(members["reactant"].positions)) < rmsd(
        outermost, np.asarray(members["product"].positions)
    )
    return nearer != bool(before)


def reference_path(
    name: str, members: Mapping[str, LabelledGeometry], points: Sequence[LabelledGeometry]
) -> ReferencePath:
    """Order the labelled geometries of a reaction from reactant to product.

    Args:
        name: the reaction
        members: `reactant`, `transition_state`, `product`, those there are
        points: path geometries in the order of their signed path coordinate, 0 at the transition state;
            which sign is the reactant's side is decided by the geometries

    Returns:
        The profile; geometries without an energy are left out.
    """
    before = [r for r in points if (r.path_coordinate or 0.0) < 0]
    after = [r for r in points if (r.path_coordinate or 0.0) >= 0]
    if _is_reversed(members, before, after):
        before, after = after[::-1], before[::-1]
    ordered: list[tuple[str, LabelledGeometry]] = []
    for role, following in (("reactant", before), ("transition_state", after), ("product", [])):
        if role in members:
            ordered.append((role, members[role]))
        ordered += [("path", record) for record in following]
    ordered = [(role, record) for role, record in ordered if record.energy is not None]
    if not ordered:
        return ReferencePath(name, np.zeros(0), np.zeros(0), np.zeros(0), ())
    energies = np.array([record.energy for _, record in ordered], dtype=np.float64)
    distance = path_length(np.array([record.positions for _, record in ordered]))
    roles = tuple(role for role, _ in ordered)
    origin = roles.index("transition_state") if "transition_state" in roles else int(np.argmax(energies))
    start = members["reactant"].energy if "reactant" in members else None
    return ReferencePath(
        name,
        np.asarray(ordered[0][1].numbers),
        distance - distance[origin],
        energies - (energies[0] if start is None else start),
        roles,
    )
