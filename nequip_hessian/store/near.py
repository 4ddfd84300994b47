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

_RADII = 5  # atoms whose distances from the centre go into the tree
_SLACK = 1e-6  # angstrom, of rounding
_BLOCK = 100_000

Float64 = npt.NDArray[np.float64]


def near_pairs(store: HessianStore, tolerance: float = TOLERANCE, *, most: int | None = None) -> list[tuple[int, int]]:
    """Find pairs of geometries that are the same within a tolerance.

    The time grows with the number of geometries times its logarithm, and with the number of pairs that no number
    which is the same in each frame tells apart.

    Args:
        store: the store
        tolerance: angstrom
        most: of these pairs that are compared, for each composition; then only as many of its geometries are looked
            at, the first ones. None: all

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
            shapes = np.array([position[offset[i] : offset[i + 1]] for i in members], dtype=np.float64)
            cells = np.array([np.append(store.cell[i], store.pbc[i]) for i in members]) if periodic else None
            found += [(members[i], members[j]) for i, j in _near(shapes, cells, tolerance, most)]
    return found


def clusters_of(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Return the sorted members of each cluster that pairs connect."""
    root: dict[int, int] = {}
    for i, j in pairs:
        root[_root(root, j)] = _root(root, i)
    members: dict[int, list[int]] = {}
    for i in sorted({index for pair in pairs for index in pair}):
        members.setdefault(_root(root, i), []).append(i)
    return list(members.values())


def _root(root: dict[int, int], i: int) -> int:
    while root.setdefault(i, i) != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


def _near(shapes: Float64, cells: Float64 | None, tolerance: float, most: int | None) -> list[tuple[int, int]]:
    """Pairs among (M, N, 3) geometries of the same atoms; candidates come from a tree over what no rotation changes."""
    from scipy.spatial import cKDTree

    centred = shapes - shapes.mean(axis=1, keepdims=True)
    radii = np.linalg.norm(centred, axis=2)  # each moves by at most the tolerance
    # Singular values move by at most the Frobenius norm of a change (Weyl), which is sqrt(N) tolerances.
    squares = np.linalg.eigvalsh(np.einsum("mni,mnj->mij", centred, centred))
    singular = np.sqrt(np.clip(squares, 0.0, None) / shapes.shape[1])
    spread = np.argsort(-np.ptp(radii, axis=0))[:_RADII]
    keys = np.concatenate([singular, radii[:, spread]], axis=1)
    tree, reach = cKDTree(keys), tolerance + _SLACK
    count = (int(tree.count_neighbors(tree, reach, p=np.inf)) - len(keys)) // 2
    if most is not None and count > most:
        tree = cKDTree(keys[: max(2, int(len(keys) * (most / count) ** 0.5))])
    pairs = tree.query_pairs(reach, p=np.inf, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    kept: list[tuple[int, int]] = []
    root: dict[int, int] = {}
    for begin in range(0, len(pairs), _BLOCK):
        i, j = pairs[begin : begin + _BLOCK].T
        close = np.max(np.abs(radii[i] - radii[j]), axis=1) <= reach
        for a, b in zip(i[close].tolist(), j[close].tolist(), strict=True):
            if _root(root, a) == _root(root, b):
                continue  # they are connected already
            same = (
                distance_in_place(shapes[a], shapes[b], cells[a], cells[b])
                if cells is not None
                else distance_superposed(shapes[a], shapes[b])
            )
            if same <= tolerance:
                kept.append((a, b))
                root[_root(root, b)] = _root(root, a)
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
