"""How far a difference between two models would vary with the choice of test molecules: a paired bootstrap.

Groups of geometries (a reaction, a molecule with its conformers) are drawn with replacement, the same ones for both
models, and each figure is taken over what was drawn (Efron, Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8,
13: percentile interval, groups as units because geometries of one molecule are not independent). It knows nothing of
how the models would vary with another seed of their training.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.summary import Figure

Array = npt.NDArray[np.floating[Any]]

RESAMPLES: Final = 2000
LEAST_GROUPS: Final = 10
"""With fewer the interval would be a guess, and none is given."""

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """Where 95 of 100 resamples lie.

    Attributes:
        difference: of the second model's figure minus the first's, in the unit of the figure: (low, high)
        relative: the same over the first's figure; None where that is zero in a resample
        groups: how many groups were drawn from
    """

    difference: tuple[float, float]
    relative: tuple[float, float] | None
    groups: int

    @property
    def decided(self) -> bool:
        """Whether both ends have one sign."""
        return self.difference[0] > 0 or self.difference[1] < 0


def change_intervals(
    first: Sequence[Mapping[str, Figure]], second: Sequence[Mapping[str, Figure]], groups: Sequence[Hashable]
) -> dict[str, Interval]:
    """Intervals of the change from one model to the other, for each figure that is a mean over geometries.

    Args:
        first, second: the figures of each geometry alone, in the same order; RMSE are joined by their squares, all
            others as means, each with its number of cases as weight
        groups: what each geometry belongs to

    Returns:
        figure -> interval; only those that both models have in `LEAST_GROUPS` groups.
    """
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    if len(places) < LEAST_GROUPS:
        return {}
    member = np.array([places[group] for group in groups])
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=RESAMPLES).astype(np.float64)
    found = {}
    for name in first[0]:
        sums = [_sums(name, figures, member, len(places)) for figures in (first, second)]
        if min(np.count_nonzero(counts) for _, counts in sums) >= LEAST_GROUPS:
            found[name] = _interval(name, drawn, sums, len(places))
    return found


def _sums(
    name: str, figures: Sequence[Mapping[str, Figure]], member: npt.NDArray[np.int64], n_groups: int
) -> tuple[Array, Array]:
    """Sum over each group of values times cases (of squares for an RMSE), and of cases."""
    known = [(figure[name].value or 0.0, figure[name].n if figure[name].value is not None else 0) for figure in figures]
    values, counts = np.array(known, dtype=np.float64).T
    values = values**2 if name.endswith("_rmse") else values
    total, count = np.zeros(n_groups), np.zeros(n_groups)
    np.add.at(total, member, values * counts)
    np.add.at(count, member, counts)
    return total, count


def _interval(name: str, drawn: Array, sums: Sequence[tuple[Array, Array]], n_groups: int) -> Interval:
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [(drawn @ total) / (drawn @ count) for total, count in sums]
        if name.endswith("_rmse"):
            means = [np.sqrt(mean) for mean in means]
        differences = means[1] - means[0]
        ratios = differences / means[0]
    return Interval(
        _percentiles(differences[np.isfinite(differences)]),
        _percentiles(ratios) if np.all(np.isfinite(ratios)) else None,
        n_groups,
    )


def _percentiles(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
