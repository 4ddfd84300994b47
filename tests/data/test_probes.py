import itertools

import numpy as np
import pytest

from nequip_hessian.data.probes import choose, draw, geometry_rng
from nequip_hessian.data.settings import ProbeSettings


def difference(n, seed=0):
    matrix = np.random.default_rng(seed).normal(size=(n, n))
    return (matrix + matrix.T) / 2


def estimates(settings, matrix, draws, seed=1):
    rng = np.random.default_rng(seed)
    n = len(matrix)
    return np.array([np.mean(np.sum((draw(settings, n, rng) @ matrix) ** 2, axis=1)) / n for _ in range(draws)])


def test_full_is_exactly_the_mean_squared_element():
    matrix = difference(9)
    assert estimates(ProbeSettings("full"), matrix, 1)[0] == pytest.approx(np.mean(matrix**2), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize(("mode", "distribution"), [("random", "rademacher"), ("random", "sphere"), ("columns", None)])
def test_expectation_and_variance_are_those_of_theory(mode, distribution, k):
    n = 9
    matrix = difference(n)
    q = matrix @ matrix
    trace, squares, diagonal = np.trace(q), np.sum(q**2), np.sum(np.diag(q) ** 2)
    variance = {
        "rademacher": 2 * (squares - diagonal) / n**4 / k,
        "sphere": 2 * n / (n + 2) * (squares - trace**2 / n) / n**4 / k,
        None: (n * diagonal - trace**2) / n**4 * (n - k) / ((n - 1) * k),
    }[distribution]
    settings = ProbeSettings(mode, k) if distribution is None else ProbeSettings(mode, k, distribution)
    found = estimates(settings, matrix, 20000)
    assert found.mean() == pytest.approx(trace / n**2, abs=5 * np.sqrt(variance / 20000))
    assert found.var() == pytest.approx(variance, rel=0.08)


def test_columns_are_drawn_without_replacement_and_all_pairs_occur():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        rows = draw(ProbeSettings("columns", 2), 4, rng)
        picked = tuple(sorted(np.argmax(rows, axis=1)))
        assert rows.sum() == 2
        seen.add(picked)
    assert seen == set(itertools.combinations(range(4), 2))
    assert draw(ProbeSettings("columns", 7), 4, rng).shape == (4, 4)


@pytest.mark.parametrize("settings", [ProbeSettings("random", 3, "sphere"), ProbeSettings("random", 3)])
def test_probes_have_norm_one(settings):
    rows = draw(settings, 12, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-12)


def test_fixed_probes_depend_on_geometry_and_seed_only():
    numbers, positions = np.array([1, 8]), np.arange(6.0).reshape(2, 3)
    first = geometry_rng(numbers, positions, 1).normal(size=4)
    np.testing.assert_array_equal(first, geometry_rng(numbers.copy(), positions.copy(), 1).normal(size=4))
    for other in (geometry_rng(numbers, positions + 1e-9, 1), geometry_rng(numbers, positions, 2)):
        assert not np.array_equal(first, other.normal(size=4))


@pytest.mark.parametrize(("n", "fraction"), [(8, 0.25), (5, 0.3), (1, 0.4), (3, 1.0)])
def test_each_geometry_is_chosen_with_the_probability_asked_for(n, fraction):
    rng = np.random.default_rng(0)
    chosen = np.array([choose(n, fraction, rng) for _ in range(4000)])
    np.testing.assert_allclose(chosen.mean(axis=0), fraction, atol=4 * np.sqrt(0.25 / 4000))
    assert set(chosen.sum(axis=1)) <= {int(np.floor(n * fraction)), int(np.floor(n * fraction)) + 1}
