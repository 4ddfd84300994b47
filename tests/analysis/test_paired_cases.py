"""Two models over the cases that both answered, against means taken by hand."""

import numpy as np
import pytest

from nequip_hessian.analysis.cases import Case, Family, paired_figures, paired_intervals
from nequip_hessian.analysis.summary import Figure


def summarise(errors):
    known = [error for error in errors if error is not None]
    return {
        "barrier_mae": Figure(float(np.mean(known)) if known else None, len(known), "eV"),
        "neb_failure_rate": Figure(1 - len(known) / len(errors) if errors else None, len(errors), "1"),
    }


def family(errors, groups=None):
    groups = range(len(errors)) if groups is None else groups
    cases = {f"r{k}": Case(e, g, e is None) for k, (e, g) in enumerate(zip(errors, groups, strict=True))}
    return Family(cases, summarise)


def test_a_failure_of_one_model_flatters_neither():
    first, second = family([0.1, 0.2, None, 0.4]), family([0.2, None, 0.5, 0.6])
    assert first.figures()["barrier_mae"].value == pytest.approx(0.7 / 3)
    one, other = paired_figures([first], [second])
    assert one["barrier_mae"].value == pytest.approx((0.1 + 0.4) / 2)  # r0 and r3 only
    assert other["barrier_mae"].value == pytest.approx((0.2 + 0.6) / 2)
    assert (one["barrier_mae"].n, other["barrier_mae"].n) == (2, 2)
    assert (one["neb_failure_rate"].value, one["neb_failure_rate"].n) == (pytest.approx(0.25), 4)  # rates over all


def test_intervals_are_over_the_same_cases():
    """Each shared case improves by 30 %; those that one model failed would say otherwise."""
    errors = np.random.default_rng(3).uniform(0.1, 1.0, 40).tolist()
    first, second = [*errors, None, 9.0], [0.7 * e for e in errors] + [9.0, None]
    found = paired_intervals([family(first)], [family(second)])
    assert found["barrier_mae"].relative == pytest.approx((-0.3, -0.3))
    assert found["barrier_mae"].groups == 40
    rate = found["neb_failure_rate"]  # one of 42 each, another one
    assert rate.groups == 42
    assert rate.difference[0] < 0 < rate.difference[1]
    assert not rate.decided


def test_families_do_not_mix_and_what_nobody_answered_has_no_interval():
    empty = family([None] * 20)
    assert paired_figures([empty], [empty])[0]["barrier_mae"].value is None
    assert set(paired_intervals([empty], [empty])) == {"neb_failure_rate"}
    assert paired_intervals([family([])], [family([])]) == {}
