"""Rotational symmetry number: how many proper rotations turn a molecule into itself, like atoms exchanged."""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.superpose import best_rotation
from nequip_hessian.curvature import is_linear

Array = npt.NDArray[np.floating[Any]]

TOLERANCE: Final = 0.1
"""Largest distance, angstrom, of an atom from the place of a like atom after the rotation."""


def symmetry_number(
    numbers: npt.NDArray[np.integer[Any]], positions: Array, masses: Array, tolerance: float = TOLERANCE
) -> int:
    """Count the proper rotations of a molecule.

    Args:
        numbers: (N,) atomic numbers; positions: (N, 3), angstrom
        masses: (N,), u; isotopes of an element are different atoms
        tolerance: angstrom

    Returns:
        1 for one atom; 2 or 1 for a linear molecule with or without a centre of inversion; else the order of the
        group of rotations, e.g. 2 for water, 3 for ammonia, 12 for methane and benzene.
    """
    if len(numbers) == 1:
        return 1
    centred = positions - np.average(positions, axis=0, weights=masses)
    kinds = [(int(z), round(float(m), 3)) for z, m in zip(numbers, masses, strict=True)]
    if is_linear(positions, masses) or _distance_from_axis(centred) < tolerance:
        return 2 if _matches(-centred, centred, kinds, tolerance) else 1
    first, second = _reference_pair(centred, kinds)
    rotations: list[Array] = []
    candidates = [[i for i, kind in enumerate(kinds) if kind == kinds[atom]] for atom in (first, second)]
    for pair in itertools.product(*candidates):
        if pair[0] == pair[1] or not _same_lengths(centred, (first, second), pair, tolerance):
            continue
        # the pair and the normal of its plane fix a rotation; the other atoms refine and decide
        frame, target = _frame(centred[first], centred[second]), _frame(centred[pair[0]], centred[pair[1]])
        rotation = target @ frame.T
        partner = _partners(centred @ rotation.T, centred, kinds, 3 * tolerance)
        if partner is None:
            continue
        rotation = best_rotation(centred, centred[partner])
        partner = _partners(centred @ rotation.T, centred, kinds, tolerance)
        if partner is not None and all(np.linalg.norm(rotation - other) > 0.1 for other in rotations):
            rotations.append(rotation)
    return max(len(rotations), 1)


def _distance_from_axis(centred: Array) -> float:
    """Largest distance of an atom from the longest axis, angstrom: a nearly linear molecule counts as linear."""
    axis = np.linalg.svd(centred)[2][0]
    return float(np.max(np.linalg.norm(centred - np.outer(centred @ axis, axis), axis=1)))


def _reference_pair(centred: Array, kinds: list[tuple[int, float]]) -> tuple[int, int]:
    """Two atoms that are not in line with the centre of mass; of the rarest kinds, so that few pairs are tried."""
    count = {kind: kinds.count(kind) for kind in kinds}
    best: tuple[float, int, int] | None = None
    norms = np.linalg.norm(centred, axis=1)
    for i, j in itertools.permutations(range(len(kinds)), 2):
        area = float(np.linalg.norm(np.cross(centred[i], centred[j])))
        if area > 0.2 * norms[i] * norms[j] and min(norms[i], norms[j]) > 0.5:
            cost = float(count[kinds[i]] * count[kinds[j]])
            if best is None or cost < best[0]:
                best = (cost, i, j)
    if best is None:  # every pair is nearly in line: the widest one
        areas = np.linalg.norm(np.cross(centred[:, None], centred[None]), axis=-1)
        widest = divmod(int(np.argmax(areas)), len(kinds))
        return widest[0], widest[1]
    return best[1], best[2]


def _same_lengths(centred: Array, pair: tuple[int, int], other: tuple[int, ...], tolerance: float) -> bool:
    a, b = centred[list(pair)], centred[list(other)]
    lengths = [np.append(np.linalg.norm(x, axis=1), np.linalg.norm(x[0] - x[1])) for x in (a, b)]
    return bool(np.all(np.abs(lengths[0] - lengths[1]) < 2 * tolerance))


def _frame(a: Array, b: Array) -> Array:
    x = a / np.linalg.norm(a)
    y = b - (b @ x) * x
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _partners(
    moved: Array, fixed: Array, kinds: list[tuple[int, float]], tolerance: float
) -> npt.NDArray[np.intp] | None:
    """Index of the like atom at the place of each moved atom, one to one; None where one has none."""
    distance = np.linalg.norm(moved[:, None] - fixed[None], axis=-1)
    alike = np.array([[a == b for b in kinds] for a in kinds])
    distance[~alike] = np.inf
    partner = np.argmin(distance, axis=1)
    near = distance[np.arange(len(kinds)), partner] < tolerance
    return partner if bool(near.all()) and len(set(partner.tolist())) == len(kinds) else None


def _matches(moved: Array, fixed: Array, kinds: list[tuple[int, float]], tolerance: float) -> bool:
    return _partners(moved, fixed, kinds, tolerance) is not None
