"""Intervals of changes: exact where nothing varies, and covering the truth as often as they say."""

import numpy as np
import pytest

from nequip_hessian.analysis.bootstrap import LEAST_GROUPS, change_intervals
from nequip_hessian.analysis.summary import Figure


def figures(values, name="force_mae", counts=None):
    counts = [1] * len(values) if counts is None else counts
    return [{name: Figure(v, n, "eV/Å")} for v, n in zip(values, counts, strict=True)]


def test_a_change_that_is_the_same_everywhere_has_no_width():
    errors = np.random.default_rng(1).uniform(0.1, 1.0, 40)
    for name in ("force_mae", "force_rmse"):
        found = change_intervals(figures(errors, name), figures(0.75 * errors, name), list(range(40)))[name]
        assert found.relative == pytest.approx((-0.25, -0.25))
        assert found.decided
        assert found.groups == 40


def test_equal_models_are_not_told_apart():
    errors = np.random.default_rng(1).uniform(0.1, 1.0, 40)
    found = change_intervals(figures(errors), figures(errors), list(range(40)))["force_mae"]
    assert found.difference == (0.0, 0.0)
    assert not found.decided


def test_means_are_those_of_all_elements():
    """Two kinds of groups: 90 elements of error 1 and 10 of error 2; the second model has the second kind at 1."""
    n, counts = 30, [90, 10] * 15
    first = figures([1.0, 2.0] * 15, counts=counts)
    second = figures([1.0, 1.0] * 15, counts=counts)
    found = change_intervals(first, second, [k // 2 for k in range(n)])["force_mae"]
    assert found.relative == pytest.approx((1 / 1.1 - 1, 1 / 1.1 - 1))  # each group holds one of each kind
    squares = change_intervals(
        figures([1.0, 2.0] * 15, "force_rmse", counts),
        figures([1.0, 1.0] * 15, "force_rmse", counts),
        [k // 2 for k in range(n)],
    )["force_rmse"]
    assert squares.relative == pytest.approx((1 / np.sqrt(1.3) - 1,) * 2)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    """Groups of geometries that share most of their error: single geometries as units would be far too sure."""
    rng = np.random.default_rng(0)
    held = {"groups": 0, "geometries": 0}
    turns, n_groups, size = 200, 40, 6
    for _ in range(turns):
        common = np.repeat(rng.gamma(4.0, 0.25, n_groups), size)
        first = common * rng.uniform(0.9, 1.1, n_groups * size)
        second = 0.8 * np.repeat(rng.gamma(4.0, 0.25, n_groups), size) * rng.uniform(0.9, 1.1, n_groups * size)
        for kind, groups in (("groups", np.repeat(np.arange(n_groups), size)), ("geometries", np.arange(len(first)))):
            low, high = change_intervals(figures(first), figures(second), groups.tolist())["force_mae"].difference
            held[kind] += low <= -0.2 <= high
    assert held["groups"] / turns == pytest.approx(0.95, abs=0.05)
    assert held["geometries"] / turns < 0.7


def test_few_groups_give_no_interval_and_missing_values_count_for_nothing():
    errors = [1.0] * LEAST_GROUPS
    assert change_intervals(figures(errors[1:]), figures(errors[1:]), list(range(LEAST_GROUPS - 1))) == {}
    holes = [{"force_mae": Figure(None, 0, "eV/Å")}, *figures(errors)]
    full = [{"force_mae": Figure(0.5, 1, "eV/Å")}, *figures([0.5] * LEAST_GROUPS)]
    found = change_intervals(holes, full, list(range(LEAST_GROUPS + 1)))["force_mae"]
    assert found.relative == pytest.approx((-0.5, -0.5))
    few = [{"force_mae": Figure(None, 0, "eV/Å")}] * 3 + figures(errors[3:])
    assert change_intervals(few, figures(errors), list(range(LEAST_GROUPS))) == {}
