"""What an evaluation found: plain containers that the report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import GeometryErrors
from nequip_hessian.analysis.bootstrap import Interval, change_intervals
from nequip_hessian.analysis.gas_errors import GasErrors
from nequip_hessian.analysis.md import Dynamics
from nequip_hessian.analysis.neighbours import distance_bin, distance_bins, size_bin, size_bins
from nequip_hessian.analysis.outcome_figures import (
    summarise_dynamics,
    summarise_gases,
    summarise_ircs,
    summarise_saddles,
)
from nequip_hessian.analysis.outcomes import IrcErrors, SaddleErrors
from nequip_hessian.analysis.path import ReactionPath
from nequip_hessian.analysis.reactions import ReactionErrors, summarise_reactions
from nequip_hessian.analysis.relaxed import RelaxedErrors, summarise_relaxed
from nequip_hessian.analysis.summary import Figure, by_label, summarise

Array = npt.NDArray[np.floating[Any]]

_OVER_ALL: Final = ("failure_rate", "agreement", "single_point_barrier_mae", "_success", "first_order", "survival")


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
        """Figures of one model over everything: geometries, own minima, reactions, consistency."""
        figures = self.figures(model)
        figures |= summarise_relaxed(list(model.relaxed.values()))
        barriers = [error for pair in model.gibbs_barriers.values() for error in pair]
        figures |= summarise_gases(list(model.gases.values()), barriers)
        figures |= summarise_reactions(model.reactions)
        figures |= summarise_saddles(model.saddles) | summarise_ircs(model.ircs)
        figures |= summarise_dynamics(model.dynamics)
        worst = max(model.consistency) if model.consistency else None
        figures["consistency"] = Figure(worst, len(model.consistency), "1")
        return figures

    def paired_figures(self, first: ModelResult, second: ModelResult) -> tuple[dict[str, Figure], dict[str, Figure]]:
        """Figures of two models over the cases that both answered, so that a failure does not flatter either.

        The rates (failures, agreements) are over all cases.
        """
        shared = [i for i in range(len(self.geometries)) if not (first.errors[i].failure or second.errors[i].failure)]
        minima = [i for i in first.relaxed if i in second.relaxed]
        minima = [i for i in minima if not (first.relaxed[i].failure or second.relaxed[i].failure)]
        pair = (first, second)
        failed = {error.name for model in pair for error in model.reactions if error.failure}
        searches = {(e.name, e.start) for model in pair for e in model.saddles if e.failure}
        paths = {e.name for model in pair for e in model.ircs if e.failure}
        gases = {i for model in pair for i, e in model.gases.items() if e.failure}
        barriers = {n for model in pair for n, errors in model.gibbs_barriers.items() if None in errors}
        found = []
        for model in pair:
            everything = self.all_figures(model)
            figures = everything | self.figures(model, shared)
            figures |= summarise_relaxed([model.relaxed[i] for i in minima])
            figures |= summarise_reactions([error for error in model.reactions if error.name not in failed])
            figures |= summarise_saddles([e for e in model.saddles if (e.name, e.start) not in searches])
            figures |= summarise_ircs([e for e in model.ircs if e.name not in paths])
            figures |= summarise_gases(
                [e for i, e in model.gases.items() if i not in gases],
                [e for name, errors in model.gibbs_barriers.items() if name not in barriers for e in errors],
            )
            figures |= {name: everything[name] for name in everything if name.endswith(_OVER_ALL)}
            found.append(figures)
        return found[0], found[1]

    def intervals(self, first: ModelResult, second: ModelResult) -> dict[str, Interval]:
        """How far the change of each figure over geometries would vary with the choice of test groups.

        Over the geometries that both models answered, the rates over all; a geometry without a group is its own.
        """
        pair = (first.name, second.name)
        if pair not in self._intervals:
            self._intervals[pair] = self._find_intervals(first, second)
        return self._intervals[pair]

    def _find_intervals(self, first: ModelResult, second: ModelResult) -> dict[str, Interval]:
        alone = [[self.figures(model, [i]) for i in range(len(self.geometries))] for model in (first, second)]
        groups = [geometry.group or geometry.index for geometry in self.geometries]
        shared = [i for i in range(len(groups)) if not (first.errors[i].failure or second.errors[i].failure)]
        if not shared:
            return {}
        over_all = change_intervals(alone[0], alone[1], groups)
        some = [[one[i] for i in shared] for one in alone]
        over_shared = change_intervals(some[0], some[1], [groups[i] for i in shared])
        rates = {name: interval for name, interval in over_all.items() if name.endswith(_OVER_ALL)}
        return {name: interval for name, interval in over_shared.items() if not name.endswith(_OVER_ALL)} | rates

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
