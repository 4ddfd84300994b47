"""Printed frequencies against those that follow from a Hessian.

Programs differ in what they take out of a Hessian before they print: translations
and rotations, translations only, nothing; five motions or six for a molecule that
is nearly linear; now and then a mode is dropped. A printed list is accepted when one
of these ways gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import is_linear, normal_modes

Array = npt.NDArray[np.floating[Any]]

_NEARLY_LINEAR = 1e-2  # smallest over largest moment of inertia below which both counts are tried


@dataclass(frozen=True)
class FrequencyMatch:
    """The best way to explain a list of printed frequencies.

    Attributes:
        deviation: largest difference, cm^-1; infinite where more are printed than there are modes
        printed, recomputed: the pair it occurs at, cm^-1
        projected: whether rigid motions were projected out in that way
        missing: how many vibrations are not in the printed list
    """

    deviation: float
    printed: float
    recomputed: float
    projected: bool
    missing: int


def match_frequencies(
    printed: Array, hessian: Array, positions: Array, masses: Array, *, periodic: bool = False
) -> FrequencyMatch:
    """Compare printed frequencies with recomputed ones, trying the ways programs project.

    Args:
        printed: (m,), cm^-1, imaginary negative, without the zeros of rigid motions, any order
        hessian: (3N, 3N), eV/angstrom^2
        positions: (N, 3), angstrom
        masses: (N,), u
        periodic: only translations are rigid motions

    Returns:
        The match of the smallest deviation; each printed frequency is paired with another recomputed
        one, in ascending order, and at most three vibrations may be missing from the list.
    """
    wanted = np.sort(np.asarray(printed, dtype=np.float64))
    best = FrequencyMatch(np.inf, float(wanted[-1]), np.nan, True, 0)
    linear = is_linear(positions, masses)
    counts: list[bool | None] = [linear]
    if len(positions) > 2 and is_linear(positions, masses, _NEARLY_LINEAR):
        counts.append(not linear)
    for count in counts:
        values = normal_modes(hessian, positions, masses, periodic=periodic, linear=count)[0]
        spare = len(values) - len(wanted)
        if 0 <= spare <= 3:
            best = _better(best, wanted, values, True, spare)
    if best.deviation > 0.01:
        values = normal_modes(hessian, positions, masses, project=False)[0]
        spare = len(values) - len(wanted)
        if 0 <= spare <= 6:
            best = _better(best, wanted, values, False, 0)
    return best


def _better(best: FrequencyMatch, wanted: Array, values: Array, projected: bool, missing: int) -> FrequencyMatch:
    partners = values[_pairing(wanted, values)]
    difference = np.abs(partners - wanted)
    worst = int(np.argmax(difference))
    found = FrequencyMatch(float(difference[worst]), float(wanted[worst]), float(partners[worst]), projected, missing)
    return found if found.deviation < best.deviation else best


def _pairing(wanted: Array, values: Array) -> npt.NDArray[np.int_]:
    """Indices of the ascending subset of `values` (k,) closest to `wanted` (m <= k,) in its largest difference."""
    spare = len(values) - len(wanted)
    # cost[s]: best largest difference so far with s values skipped; dynamic programming over `wanted`.
    cost = np.zeros(spare + 1)
    choice = np.zeros((len(wanted), spare + 1), dtype=int)
    for index, value in enumerate(wanted):
        new = np.empty_like(cost)
        for skipped in range(spare + 1):
            before = int(np.argmin(cost[: skipped + 1]))
            choice[index, skipped] = before
            new[skipped] = max(cost[before], abs(values[index + skipped] - value))
        cost = new
    picked = np.empty(len(wanted), dtype=int)
    skipped = int(np.argmin(cost))
    for index in range(len(wanted) - 1, -1, -1):
        picked[index] = index + skipped
        skipped = choice[index, skipped]
    return picked
