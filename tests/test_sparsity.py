"""Colouring and recovery on patterns of all kinds: the matrix comes back, from fewer products."""

import numpy as np
import pytest

from nequip_hessian.sparsity import acyclic_colouring, block_pattern, solve_blocks


def chain(n, width, *, ring=False):
    edges = np.array([(i, i + step) for i in range(n) for step in range(1, width + 1)]).T
    return edges % n if ring else edges[:, edges[1] < n]


def lattice(side):
    points = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)
    apart = np.abs(points[:, None] - points[None])
    return np.array(np.nonzero(np.minimum(apart, side - apart).sum(axis=-1) == 1))


def scattered(n, share, seed):
    return np.array(np.nonzero(np.random.default_rng(seed).random((n, n)) < share))


PATTERNS = {
    "chain": (chain(60, 2), 60, 2),
    "ring": (chain(45, 2, ring=True), 45, 2),
    "bulk": (lattice(5), 125, 2),
    "fragments": (np.array([(0, 1), (1, 2), (4, 5), (5, 6), (7, 9)]).T, 12, 2),
    "no neighbours": (np.zeros((2, 0), dtype=int), 7, 4),
    "one atom": (np.zeros((2, 0), dtype=int), 1, 2),
    "one cell that is its own neighbour": (np.zeros((2, 4), dtype=int), 1, 2),
    "all with all": (scattered(9, 1.1, 0), 9, 1),
    **{f"random {seed}": (scattered(40, 0.04, seed), 40, 1 + seed % 3) for seed in range(6)},
}


def random_matrix(pattern, seed=0):
    n = pattern.shape[0]
    full = np.random.default_rng(seed).normal(size=(n, 3, n, 3)) * pattern.toarray()[:, None, :, None]
    full = full.reshape(3 * n, 3 * n)
    return full + full.T


def sums_over_colours(matrix, colours):
    n = len(colours)
    columns = [[3 * np.flatnonzero(colours == c) + axis for axis in range(3)] for c in range(colours.max() + 1)]
    return np.array([[matrix[:, own].sum(axis=1).reshape(n, 3) for own in three] for three in columns])


@pytest.mark.parametrize("name", PATTERNS)
def test_a_symmetric_matrix_comes_back_from_the_sums_of_its_columns(name):
    edges, n, hops = PATTERNS[name]
    pattern = block_pattern(edges, n, hops)
    colours = acyclic_colouring(pattern)
    matrix = random_matrix(pattern)
    found = solve_blocks(pattern, colours, sums_over_colours(matrix, colours)).toarray()
    assert np.abs(found - matrix).max() < 1e-12
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_is_the_distance_in_the_graph(name):
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    edges, n, hops = PATTERNS[name]
    graph = csr_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(n, n))
    distance = shortest_path(graph, directed=False, unweighted=True)
    np.testing.assert_array_equal(block_pattern(edges, n, hops).toarray(), distance <= hops)


def test_numbers_of_colours():
    """b + 1 for a band of half width b (its lower bound); one where no atoms interact; all where all do."""
    for width in (1, 2, 5):
        assert acyclic_colouring(block_pattern(chain(80, width), 80, 1)).max() + 1 == width + 1
    assert acyclic_colouring(block_pattern(np.zeros((2, 0), dtype=int), 30, 3)).max() == 0
    assert acyclic_colouring(block_pattern(scattered(9, 1.1, 0), 9, 1)).max() + 1 == 9


def test_no_more_colours_than_columns_that_share_no_row():
    """The pattern of the bulk: 25 blocks in each row, so columns without a common row need at least 25 colours."""
    pattern = block_pattern(lattice(6), 216, 2)
    assert np.diff(pattern.indptr).max() == 25
    assert acyclic_colouring(pattern).max() + 1 < 25


def test_a_colouring_with_a_cycle_is_refused():
    square = np.array([(0, 1), (1, 2), (2, 3), (3, 0)]).T
    pattern = block_pattern(square, 4, 1)
    colours = np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="not acyclic"):
        solve_blocks(pattern, colours, sums_over_colours(random_matrix(pattern), colours))
