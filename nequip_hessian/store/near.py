"""Geometries that are the same but for rounding: moved, turned, mirrored, or printed with fewer digits.

A potential that does not change with the frame cannot tell them apart, so that one of them in the training set and
another in the test set is a leak.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.store.reader import HessianStore

TOLERANCE = 1e-3
"""Angstrom, largest distance of an atom from its partner: three printed decimals."""

Float64 = npt.NDArray[np.float64]


def near_pairs(store: HessianStore, tolerance: float = TOLERANCE) -> list[tuple[int, int]]:
    """Find pairs of geometries that are the same within a tolerance.

    Args:
        store: the store
        tolerance: angstrom

    Returns:
        Pairs (i, j), i < j, with the same atoms in the same order. Molecules are compared after the best shift and
        rotation, mirror images included; periodic geometries where they lie, with the same cell and periodicity.
        Of each cluster of equal geometries there are enough pairs to connect it. Those that are equal bit for bit
        count once.
    """
    offset, number, position = store.atom_offset, store.number, store.position
    alike: dict[tuple[bytes, bool], list[int]] = {}
    for i, (a, b) in enumerate(itertools.pairwise(offset.tolist())):
        alike.setdefault((number[a:b].tobytes(), bool(np.any(store.pbc[i]))), []).append(i)
    found: list[tuple[int, int]] = []
    for (_, periodic), members in tqdm(alike.items(), desc="near geometries", disable=None, delay=3):
        members = list({position[offset[i] : offset[i + 1]].tobytes(): i for i in reversed(members)}.values())[::-1]
        if len(members) > 1:
            shapes = [np.asarray(position[offset[i] : offset[i + 1]], dtype=np.float64) for i in members]
            cells = [np.append(store.cell[i].ravel(), store.pbc[i]) for i in members] if periodic else None
            found += [(members[i], members[j]) for i, j in _near(shapes, cells, tolerance)]
    return found


def _near(shapes: list[Float64], cells: list[Float64] | None, tolerance: float) -> list[tuple[int, int]]:
    """Pairs among geometries of the same atoms; candidates come from a tree over what no rotation changes."""
    from scipy.spatial import cKDTree

    # Singular values of the centred positions move by at most the Frobenius norm of a change (Weyl).
    keys = np.array([np.linalg.svd(x - x.mean(axis=0), compute_uv=False) for x in shapes])
    radius = tolerance * float(np.sqrt(len(shapes[0])))
    pairs = sorted(cKDTree(keys).query_pairs(radius + 1e-9))
    joined: dict[int, int] = {}
    kept = []
    for i, j in pairs:
        if joined.get(i, i) == joined.get(j, j):
            continue  # they are connected already
        same = (
            distance_in_place(shapes[i], shapes[j], cells[i], cells[j])
            if cells is not None
            else distance_superposed(shapes[i], shapes[j])
        )
        if same <= tolerance:
            kept.append((i, j))
            joined[j] = joined.get(i, i)
    return kept


def distance_in_place(first: Float64, second: Float64, cell: Float64, other: Float64) -> float:
    """Largest distance, angstrom, of two periodic (N, 3) geometries as they lie; infinite where the cells differ.

    Args:
        first, second: (N, 3), angstrom
        cell, other: (12,), elements of the cell, angstrom, and periodicity
    """
    if np.max(np.abs(cell - other)) > TOLERANCE:
        return float("inf")
    return float(np.max(np.linalg.norm(first - second, axis=1)))


def distance_superposed(first: Float64, second: Float64) -> float:
    """Largest distance, angstrom, of two (N, 3) geometries after the best shift and rotation, mirror included."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    u, _, vt = np.linalg.svd(a.T @ b)
    return float(np.max(np.linalg.norm(a @ (u @ vt) - b, axis=1)))
