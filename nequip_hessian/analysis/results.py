"""What an evaluation found: plain containers that the report is made from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import GeometryErrors
from nequip_hessian.analysis.bootstrap import Interval
from nequip_hessian.analysis.cases import Case, Family, paired_figures, paired_intervals
from nequip_hessian.analysis.gas_errors import GasErrors
from nequip_hessian.analysis.md import Dynamics
from nequip_hessian.analysis.neighbours import distance_bin, distance_bins, size_bin, size_bins
from nequip_hessian.analysis.outcome_figures import (
    summarise_dynamics,
    summarise_gases,
    summarise_gibbs_barriers,
    summarise_ircs,
    summarise_saddles,
)
from nequip_hessian.analysis.outcomes import IrcErrors, SaddleErrors
from nequip_hessian.analysis.path import ReactionPath
from nequip_hessian.analysis.reactions import ReactionErrors, summarise_reactions
from nequip_hessian.analysis.relaxed import RelaxedErrors, summarise_relaxed
from nequip_hessian.analysis.summary import Figure, by_label, summarise

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Geometry:
    """One evaluated geometry: its place in the store and what it is called there.

    `stationary` says whether harmonic frequencies are compared: it is of a stationary kind, or of no kind
    and the reference forces are all below 0.05 eV/angstrom. `distance`: see `neighbours.stationary_distances`.
    """

    index: int
    label: str | None
    formula: str
    n_atoms: int
    kind: str | None
    group: str | None
    part: str | None
    has_hessian: bool
    stationary: bool
    distance: float | None = None


@dataclass(frozen=True, eq=False)
class ReferencePath:
    """Labelled geometries of one reaction from reactant to product.

    Attributes:
        name: the reaction; numbers: (N,)
        distance: (M,), angstrom, cumulated rmsd between neighbours, 0 at the transition state
        energies: (M,), eV, relative to the reactant
        roles: (M,) `reactant`, `transition_state`, `product` or `path`
    """

    name: str
    numbers: Array
    distance: Array
    energies: Array
    roles: tuple[str, ...]


@dataclass(eq=False)
class ModelResult:
    """Everything one model got.

    Attributes:
        errors: one a geometry of the evaluation; relaxed, reactions: by geometry index and by reaction name
        parity: `energy`, `force`, `hessian`, `frequency` -> (reference, model) samples for plots
        consistency: relative difference of Hessian and force differences, one a probed geometry
        gases: thermochemistry by geometry index; gibbs_barriers: errors (forward, reverse), eV, by reaction name
        saddles, ircs, dynamics: one a search, reaction and molecule
        notes: what a reader has to know of this model
    """

    name: str
    path: str | None
    checksum: str | None
    errors: list[GeometryErrors]
    relaxed: dict[int, RelaxedErrors] = field(default_factory=dict)
    reactions: list[ReactionErrors] = field(default_factory=list)
    paths: dict[str, ReactionPath] = field(default_factory=dict)
    parity: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    consistency: list[float] = field(default_factory=list)
    gases: dict[int, GasErrors] = field(default_factory=dict)
    gibbs_barriers: dict[str, list[float | None]] = field(default_factory=dict)
    saddles: list[SaddleErrors] = field(default_factory=list)
    ircs: list[IrcErrors] = field(default_factory=list)
    dynamics: list[Dynamics] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _cases(answers: Mapping[Any, Any], group: Callable[[Any], Hashable]) -> dict[Any, Case]:
    return {key: Case(answer, group(key), answer.failure is not None) for key, answer in answers.items()}


@dataclass(eq=False)
class Evaluation:
    """Several models on the same labelled geometries; the first model is the baseline of all comparisons."""

    store: str
    store_checksum: str
    attributes: Mapping[str, Any]
    settings: Mapping[str, Any]
    geometries: list[Geometry]
    models: list[ModelResult]
    references: list[ReferencePath] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _intervals: dict[tuple[str, str], dict[str, Interval]] = field(default_factory=dict, repr=False)

    def figures(self, model: ModelResult, indices: list[int] | None = None) -> dict[str, Figure]:
        """Figures of one model over some positions in `geometries`, default all."""
        chosen = list(range(len(self.geometries))) if indices is None else indices
        stationary = [self.geometries[i].stationary for i in chosen]
        return summarise([model.errors[i] for i in chosen], stationary)

    def all_figures(self, model: ModelResult) -> dict[str, Figure]:
        """Figures of one model over everything: geometries, own minima, reactions, searches, dynamics, consistency."""
        figures = {name: figure for family in self._families(model) for name, figure in family.figures().items()}
        return figures | self._consistency(model)

    def paired_figures(self, first: ModelResult, second: ModelResult) -> tuple[dict[str, Figure], dict[str, Figure]]:
        """Figures of two models that can be compared, see `cases`."""
        one, other = paired_figures(self._families(first), self._families(second))
        return one | self._consistency(first), other | self._consistency(second)

    def intervals(self, first: ModelResult, second: ModelResult) -> dict[str, Interval]:
        """How far the change of each figure would vary with the choice of test groups, see `cases`.

        A geometry without a group is its own.
        """
        pair = (first.name, second.name)
        if pair not in self._intervals:
            self._intervals[pair] = paired_intervals(self._families(first), self._families(second))
        return self._intervals[pair]

    def _families(self, model: ModelResult) -> list[Family]:
        groups = {geometry.index: geometry.group or geometry.index for geometry in self.geometries}
        places = {geometry.index: place for place, geometry in enumerate(self.geometries)}
        points = {i: Case(k, groups[i], model.errors[k].failure is not None) for i, k in places.items()}
        barriers = {name: Case(pair, name, None in pair) for name, pair in model.gibbs_barriers.items()}
        searches = {(error.name, error.start): error for error in model.saddles}
        return [
            Family(points, lambda chosen: self.figures(model, list(chosen))),
            Family(_cases(model.relaxed, groups.get), summarise_relaxed),
            Family(_cases(model.gases, groups.get), summarise_gases),
            Family(barriers, summarise_gibbs_barriers),
            Family(_cases({e.name: e for e in model.reactions}, str), summarise_reactions),
            Family(_cases(searches, lambda key: key[0]), summarise_saddles),
            Family(_cases({e.name: e for e in model.ircs}, str), summarise_ircs),
            Family(_cases(dict(enumerate(model.dynamics)), lambda k: model.dynamics[k].label), summarise_dynamics),
        ]

    @staticmethod
    def _consistency(model: ModelResult) -> dict[str, Figure]:
        worst = max(model.consistency) if model.consistency else None
        return {"consistency": Figure(worst, len(model.consistency), "1")}

    def by_kind(self, model: ModelResult) -> dict[str, dict[str, Figure]]:
        """Figures by the kind of geometry."""
        labels = [geometry.kind or "unknown" for geometry in self.geometries]
        return by_label(labels, lambda indices: self.figures(model, indices))

    def by_part(self, model: ModelResult) -> dict[str, dict[str, Figure]]:
        """Figures by the part of the split."""
        return by_label([geometry.part for geometry in self.geometries], lambda indices: self.figures(model, indices))

    def by_distance(self, model: ModelResult) -> dict[str, dict[str, Figure]]:
        """Figures by the distance from the nearest stationary point of the same group; empty bins are left out."""
        labels = [distance_bin(geometry.distance) for geometry in self.geometries]
        found = by_label(labels, lambda indices: self.figures(model, indices))
        return {name: found[name] for name in distance_bins() if name in found}

    def by_size(self, model: ModelResult) -> dict[str, dict[str, Figure]]:
        """Figures by the number of atoms; empty bins are left out."""
        labels = [size_bin(geometry.n_atoms) for geometry in self.geometries]
        found = by_label(labels, lambda indices: self.figures(model, indices))
        return {name: found[name] for name in size_bins() if name in found}
