"""Answers case by case: figures over all, over what two models both answered, and the part of chance in a change.

A family is one kind of question (energies and Hessians at the labelled geometries, bands of reactions, searches of
transition states, ...); its cases are put to every model. Two models are compared over the cases that both answered, so
that a failure does not flatter either; rates (of failures, successes, agreements) are over all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nequip_hessian.analysis.bootstrap import Interval, change_intervals
from nequip_hessian.analysis.summary import Figure

_RATES: Final = ("failure_rate", "agreement", "single_point_barrier_mae", "_success", "first_order", "survival")
"""How the names of figures end that are over all cases."""


@dataclass(frozen=True, eq=False)
class Case:
    """One answer.

    Attributes:
        answer: what the family's `summarise` takes a list of
        group: what the case belongs to (a reaction, a molecule): cases of one group are not independent
        failed: whether there is no answer
    """

    answer: Any
    group: Hashable
    failed: bool


@dataclass(frozen=True, eq=False)
class Family:
    """The cases of one kind of question by their keys, and how answers are joined into figures."""

    cases: Mapping[Any, Case]
    summarise: Callable[[Sequence[Any]], dict[str, Figure]]

    def figures(self, keys: Sequence[Any] | None = None) -> dict[str, Figure]:
        """Figures over some cases, default all."""
        return self.summarise([self.cases[key].answer for key in (self.cases if keys is None else keys)])


def _both(first: Family, second: Family) -> list[Any]:
    return [key for key in first.cases if key in second.cases]


def _answered(first: Family, second: Family) -> list[Any]:
    return [key for key in _both(first, second) if not (first.cases[key].failed or second.cases[key].failed)]


def paired_figures(first: Sequence[Family], second: Sequence[Family]) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Figures of two models that can be compared: over the cases that both answered, rates over all."""
    found: tuple[dict[str, Figure], dict[str, Figure]] = ({}, {})
    for pair in zip(first, second, strict=True):
        shared = _answered(*pair)
        for family, figures in zip(pair, found, strict=True):
            rates = {name: figure for name, figure in family.figures().items() if name.endswith(_RATES)}
            figures |= family.figures(shared) | rates
    return found


def paired_intervals(first: Sequence[Family], second: Sequence[Family]) -> dict[str, Interval]:
    """How far the change of each figure from one model to the other would vary with the choice of test groups.

    Over the same cases as `paired_figures`; see `bootstrap`.
    """
    found: dict[str, Interval] = {}
    for pair in zip(first, second, strict=True):
        alone = [{key: family.figures([key]) for key in _both(*pair)} for family in pair]
        for keys, rates in ((_answered(*pair), False), (_both(*pair), True)):
            if not keys:
                continue
            before, after = ([figures[key] for key in keys] for figures in alone)
            intervals = change_intervals(before, after, [pair[0].cases[key].group for key in keys])
            found |= {name: interval for name, interval in intervals.items() if name.endswith(_RATES) is rates}
    return found
