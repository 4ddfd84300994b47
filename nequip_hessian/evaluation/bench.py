"""What all pieces of one evaluation share, in this process and in its workers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from nequip_hessian import __version__
from nequip_hessian.analysis.cache import Cache, file_name
from nequip_hessian.analysis.prediction import masses_of
from nequip_hessian.errors import ConfigError, HessianDataWarning
from nequip_hessian.evaluation.models import Model
from nequip_hessian.evaluation.of_geometries import Consistency, Minima, Predictions, Ramps
from nequip_hessian.evaluation.of_reactions import Bands, Coordinates, Saddles
from nequip_hessian.evaluation.options import Options
from nequip_hessian.evaluation.task import Key, Task
from nequip_hessian.potentials import PotentialSource
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, Reaction

ALL_TASKS: Final[tuple[Task, ...]] = (
    Predictions(),
    Consistency(),
    Minima(),
    Bands(),
    Saddles(),
    Coordinates(),
    Ramps(),
)
"""Everything that takes time; what follows from predictions alone is computed when they are read."""


@dataclass(frozen=True)
class Piece:
    """One piece of work: which model, which of ALL_TASKS, which of its pieces."""

    model: str
    task: str
    key: Key


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know; it pickles.

    Attributes:
        store, checksum: the store; indices: evaluated geometries; reactions: complete ones
        options: what to do; out: folder for `cache/`
        identities, sources: of the models, by name
    """

    store: Path
    checksum: str
    indices: list[int]
    reactions: list[Reaction]
    options: Options
    out: Path
    identities: Mapping[str, str]
    sources: Mapping[str, PotentialSource | None]


class Bench:
    """The store, the selection and the models.

    Args:
        plan: what is evaluated
        calculators: those that are made already, by the model's name
    """

    def __init__(self, plan: Plan, calculators: Mapping[str, Any] | None = None) -> None:
        self.plan, self.options = plan, plan.options
        self.indices, self.reactions = plan.indices, plan.reactions
        self.store = HessianStore(plan.store)
        self._calculators = dict(calculators or {})
        self._caches: dict[str, Cache] = {}

    @cached_property
    def free(self) -> list[int]:
        """Positions of the reactions of free molecules."""
        return [k for k, reaction in enumerate(self.reactions) if not np.any(self.members(reaction)[0]["reactant"].pbc)]

    @cached_property
    def with_saddle(self) -> list[int]:
        """Positions of those of them with a labelled transition state."""
        return [k for k in self.free if self.reactions[k].transition_state is not None]

    def name(self, reaction: Reaction) -> str:
        """What a reaction is called."""
        return reaction.label or f"reaction {reaction.group}"

    def masses(self, record: LabelledGeometry) -> Any:
        """Masses (N,), u, of the atoms of a record."""
        return masses_of(record.numbers, self.options.masses, record.masses)

    def members(self, reaction: Reaction) -> tuple[dict[str, LabelledGeometry], list[LabelledGeometry]]:
        """Labelled stationary points of a reaction by role, and its other points in order."""
        roles = {name: getattr(reaction, name) for name in ("reactant", "transition_state", "product")}
        named = {role: self.store[index] for role, index in roles.items() if index is not None}
        return named, [self.store[i] for i in reaction.path if i not in roles.values()]

    def cache(self, model: str) -> Cache:
        """The folder of one model."""
        if model not in self._caches:
            key = {"model": self.plan.identities[model], "store": self.plan.checksum, "version": __version__}
            self._caches[model] = Cache(self.plan.out / "cache" / file_name(model), key)
        return self._caches[model]

    def calculator(self, model: str) -> Any:
        """The calculator of one model, made where it is needed first."""
        if model not in self._calculators:
            source = self.plan.sources[model]
            if source is None:
                raise ConfigError(f"{model}: a calculator made in Python cannot be sent to workers; take workers=1")
            self._calculators[model] = source.load()
        return self._calculators[model]

    def do(self, piece: Piece) -> None:
        """Do one piece and keep it."""
        task = next(task for task in ALL_TASKS if task.name == piece.task)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HessianDataWarning)  # said once, in the notes
            task.work(self, self.cache(piece.model), self.calculator(piece.model), piece.key)


_BENCH: list[Bench] = []  # of a worker process


def _do(plan: Plan, piece: Piece) -> None:
    if not _BENCH or _BENCH[0].plan != plan:
        _BENCH[:] = [Bench(plan)]
    _BENCH[0].do(piece)


def do_all(bench: Bench, models: list[Model], disable: bool | None) -> dict[Piece, str]:
    """Do everything that is not kept yet, with a bar.

    Args:
        bench: of this process; models: in order
        disable: the bar; None: shown on a terminal only

    Returns:
        Pieces whose worker died, and why.
    """
    wanted = [task for task in ALL_TASKS if bench.options.wants(task.name)]
    pieces = [
        Piece(model.name, task.name, key)
        for model in models
        for task in wanted
        for key in task.missing(bench, bench.cache(model.name))
    ]
    lost: dict[Piece, str] = {}
    with tqdm(total=len(pieces), disable=disable, leave=False, dynamic_ncols=True, unit=" pieces") as bar:
        for piece, reason in _done(bench, pieces):
            if reason is not None:
                lost[piece] = reason
            bar.set_description(f"{piece.model}: {piece.task}")
            bar.update()
    return lost


def _done(bench: Bench, pieces: list[Piece]) -> Iterator[tuple[Piece, str | None]]:
    workers = min(bench.options.workers, len(pieces))
    if workers <= 1:
        for piece in pieces:
            bench.do(piece)
            yield piece, None
        return
    unsent = [name for name in dict.fromkeys(p.model for p in pieces) if bench.plan.sources[name] is None]
    if unsent:
        raise ConfigError(
            f"{', '.join(unsent)}: a calculator made in Python cannot be sent to {workers} workers; name it as "
            "ase:module:Name, or take one worker"
        )
    from nequip_hessian.executors import Executor, Lost

    tasks = {str(number): piece for number, piece in enumerate(pieces)}
    for key, answer in Executor(workers).run(partial(_do, bench.plan), tasks):
        yield tasks[key], answer.reason if isinstance(answer, Lost) else None
