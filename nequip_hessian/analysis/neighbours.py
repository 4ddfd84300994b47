"""How far a geometry is from the nearest stationary point of its group, and which size it has: subsets of tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import STATIONARY_KINDS
from nequip_hessian.analysis.superpose import rmsd
from nequip_hessian.record import KINDS

if TYPE_CHECKING:
    from nequip_hessian.store import HessianStore

DISTANCES: Final = (0.05, 0.1, 0.2, 0.4)
"""Borders of the bins of distance, angstrom; a stationary point itself is a bin of its own."""

SIZES: Final = (5, 10, 15, 20)
"""Largest number of atoms of each bin of size but the last."""


def stationary_distances(store: HessianStore, indices: Sequence[int]) -> list[float | None]:
    """Distances to the nearest labelled stationary point of the same group.

    Args:
        store: labelled geometries
        indices: which to measure

    Returns:
        RMSD after superposition, angstrom, atoms in the given order, mirror images counted as equal; 0 for a stationary
        point itself; None where the group has none with the same atoms, and for periodic geometries.
    """
    codes = {KINDS.index(kind) for kind in STATIONARY_KINDS}
    stationary = np.isin(store.kind, list(codes))
    members: dict[int, list[int]] = {}
    for index in np.flatnonzero(stationary).tolist():
        members.setdefault(int(store.group[index]), []).append(index)
    found: list[float | None] = []
    for index in indices:
        if stationary[index]:
            found.append(0.0)
            continue
        group = int(store.group[index])
        near = members.get(group, []) if group >= 0 and not np.any(store.pbc[index]) else []
        own_numbers, own = _geometry(store, index)
        pairs = [_geometry(store, other) for other in near]
        distances = [rmsd(place, own) for numbers, place in pairs if np.array_equal(numbers, own_numbers)]
        found.append(min(distances, default=None))
    return found


def _geometry(store: HessianStore, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    rows = slice(*store.atom_offset[index : index + 2].tolist())
    return store.number[rows], np.asarray(store.position[rows], dtype=np.float64)


def distance_bin(distance: float | None) -> str | None:
    """The name of the bin of a distance, angstrom."""
    if distance is None:
        return None
    if distance == 0.0:
        return "stationary"
    borders = (0.0, *DISTANCES)
    place = int(np.searchsorted(DISTANCES, distance, side="right"))
    if place == len(DISTANCES):
        return f"{DISTANCES[-1]:g} Å and more"
    return f"{borders[place]:g} to {borders[place + 1]:g} Å"


def distance_bins() -> list[str]:
    """All bins of distance in order."""
    middles = [0.5 * DISTANCES[0], *(0.5 * (a + b) for a, b in itertools.pairwise(DISTANCES)), 1e3]
    return ["stationary", *(str(distance_bin(value)) for value in middles)]


def size_bin(n_atoms: int) -> str:
    """The name of the bin of a number of atoms."""
    place = int(np.searchsorted(SIZES, n_atoms))
    if place == len(SIZES):
        return f"more than {SIZES[-1]} atoms"
    return f"{1 + (0, *SIZES)[place]} to {SIZES[place]} atoms"


def size_bins() -> list[str]:
    """All bins of size in order."""
    return [size_bin(value) for value in (*SIZES, SIZES[-1] + 1)]
