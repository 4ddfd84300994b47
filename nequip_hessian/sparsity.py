"""Which blocks of a Hessian are exactly zero, and the least number of products that give the others.

A local potential is a sum of atomic energies, each of which feels the atoms within R hops of the neighbour list. So
atoms more than 2R hops apart do not share an energy and their block is zero. Columns of atoms of one colour
are then asked for in one product. A colouring is *acyclic* when neighbours in the pattern differ in
colour and no two colours alone close a cycle; the blocks of each pair of colours form trees, which are solved from
their leaves using H_ij = H_ji^T (Coleman and Cai, SIAM J. Algebraic Discrete Methods 1986, 7, 221; greedy
colouring as in Gebremedhin et al., SIAM J. Sci. Comput. 2007, 29, 1042). A one-dimensional pattern of half width b
needs b + 1 colours in place of the 2b + 1 of columns that share no row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import bsr_array, csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


def block_pattern(edges: npt.NDArray[np.integer[Any]], n_atoms: int, hops: int) -> csr_array:
    """Pairs of atoms at most `hops` steps apart, the periodic images of an atom taken as one.

    Args:
        edges: (2, E) atom indices of a neighbour list, in one or both directions
        n_atoms: N
        hops: number of steps

    Returns:
        (N, N) boolean, symmetric, diagonal included, columns sorted.
    """
    ones = np.ones(edges.shape[1] + n_atoms, dtype=bool)
    diagonal = np.arange(n_atoms)
    rows, columns = np.concatenate([edges[0], diagonal]), np.concatenate([edges[1], diagonal])
    step = csr_array((ones, (rows, columns)), shape=(n_atoms, n_atoms))
    step = (step + step.T).astype(bool)
    pattern = csr_array((np.ones(n_atoms, dtype=bool), (diagonal, diagonal)), shape=(n_atoms, n_atoms))
    for _ in range(hops):
        wider = (pattern @ step).astype(bool)
        if wider.nnz == pattern.nnz:
            break
        pattern = wider
    pattern = csr_array(pattern)
    pattern.sort_indices()
    return pattern


def acyclic_colouring(pattern: csr_array) -> Int:
    """Greedy acyclic colouring, the best of the natural and the reverse Cuthill-McKee order.

    Args:
        pattern: (N, N) boolean, symmetric; its diagonal plays no part

    Returns:
        (N,) colours 0, 1, ... without gaps.
    """
    orders = (np.arange(pattern.shape[0]), reverse_cuthill_mckee(pattern.astype(np.int8), symmetric_mode=True))
    return min((_greedy(pattern, order.astype(np.int64)) for order in orders), key=lambda colours: int(colours.max()))


def _greedy(pattern: csr_array, order: Int) -> Int:
    n = pattern.shape[0]
    colours = np.full(n, -1, dtype=np.int64)
    trees = np.empty((n, 16), dtype=np.int64)  # [v, c]: tree of atom v in the forest of colours colour(v) and c
    members: list[list[int]] = []
    for v in order.tolist():
        near = pattern.indices[pattern.indptr[v] : pattern.indptr[v + 1]]
        near = near[(colours[near] >= 0) & (near != v)]
        taken = colours[near]
        clear = np.ones(len(members), dtype=bool)
        clear[taken] = False
        free = np.flatnonzero(clear)
        # v may take colour c if no tree of (c, another colour) touches two of its neighbours
        touched = np.sort(trees[np.ix_(near, free)], axis=0)
        fits = np.flatnonzero(~(touched[1:] == touched[:-1]).any(axis=0))
        c = int(free[fits[0]]) if len(fits) else len(members)
        if c == len(members):
            members.append([])
            if c == trees.shape[1]:
                trees = np.concatenate([trees, np.empty_like(trees)], axis=1)
            trees[:, c] = np.arange(n) * (n + 1) + c
        colours[v] = c
        members[c].append(v)
        trees[v] = v * (n + 1) + np.arange(trees.shape[1])
        if len(near):
            _join(trees, members, v, c, near, taken)
    return colours


def _join(trees: Int, members: list[list[int]], v: int, c: int, near: Int, taken: Int) -> None:
    """Make one tree of those that the new atom `v` of colour `c` touches, for each colour among its neighbours."""
    order = np.argsort(taken, kind="stable")
    starts = np.flatnonzero(np.diff(taken[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        d = int(taken[order[start]])
        touched = trees[near[order[start:end]], c]
        trees[v, d] = touched[0]
        if len(touched) > 1:
            for own, other in ((d, c), (c, d)):
                atoms = np.array(members[own])
                trees[atoms[np.isin(trees[atoms, other], touched)], other] = touched[0]


def solve_blocks(pattern: csr_array, colours: Int, products: Float) -> bsr_array:
    """Recover the blocks of a symmetric matrix from the sums of its columns over each colour.

    Args:
        pattern: (N, N) boolean, symmetric with its diagonal, columns sorted
        colours: (N,) an acyclic colouring of it with C colours
        products: (C, 3, N, 3), eV/angstrom^2; [c, a, i, b] = sum over the atoms j of colour c of H[3i + b, 3j + a]

    Returns:
        (3N, 3N) symmetric, 3x3 blocks on the pattern, unit of the products.

    Raises:
        ValueError: the colouring is not acyclic.
    """
    n, n_colours = pattern.shape[0], len(products)
    rows = np.repeat(np.arange(n), np.diff(pattern.indptr))
    columns = pattern.indices.astype(np.int64)
    mirror = np.lexsort((rows, columns))  # entry k is (i, j): entry mirror[k] is (j, i)
    rest = products.transpose(2, 0, 3, 1).reshape(n * n_colours, 3, 3).astype(np.float64)  # [i, c] -> (b, a)
    blocks = np.zeros((len(rows), 3, 3))
    diagonal = np.flatnonzero(rows == columns)
    own = rest[rows[diagonal] * n_colours + colours[rows[diagonal]]]
    blocks[diagonal] = (own + own.transpose(0, 2, 1)) / 2

    slot = rows * n_colours + colours[columns]  # the sum that an entry is part of
    open_ = np.flatnonzero(rows != columns)
    while len(open_):
        alone = np.bincount(slot[open_], minlength=n * n_colours) == 1
        leaves = open_[alone[slot[open_]]]
        if not len(leaves):
            raise ValueError("the colouring is not acyclic: some blocks cannot be told apart")
        twins = mirror[leaves]
        once = (leaves < twins) | ~alone[slot[twins]]  # an edge between two leaves is solved from one side
        leaves, twins = leaves[once], twins[once]
        blocks[leaves] = rest[slot[leaves]]
        blocks[twins] = blocks[leaves].transpose(0, 2, 1)
        np.subtract.at(rest, slot[twins], blocks[twins])
        done = np.zeros(len(rows), dtype=bool)
        done[leaves] = done[twins] = True
        open_ = open_[~done[open_]]
    return bsr_array((blocks, columns, pattern.indptr), shape=(3 * n, 3 * n))
