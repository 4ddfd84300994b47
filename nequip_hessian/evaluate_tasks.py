"""The questions of an evaluation as pieces of work: what is still to do, how it is done, what was found.

A piece is done in this process or in a worker, and kept in the model's `Cache` as soon as it is done; the
results are read from there. A piece that killed its worker is not kept: it is a failure of this run only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.connectivity import bonds, fragments
from nequip_hessian.analysis.consistency import consistency_error
from nequip_hessian.analysis.md import Dynamics, RampState, run_dynamics
from nequip_hessian.analysis.outcomes import IrcErrors, SaddleErrors, follow_irc, search_reaction
from nequip_hessian.analysis.path import ReactionPath, reaction_path
from nequip_hessian.analysis.prediction import Prediction, atoms_of, predict, unknown_elements
from nequip_hessian.analysis.relaxed import RelaxedMinimum, can_relax, relaxed_minimum
from nequip_hessian.errors import HessianDataError

if TYPE_CHECKING:
    from nequip_hessian.evaluate_bench import Bench

BATCH: Final = 16
"""Geometries that are predicted and kept together."""

PROBED: Final = 3
"""Geometries whose Hessian is held against differences of the model's own forces."""

Key = tuple[int, ...]


class Task(Protocol):
    """One question."""

    name: str

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Return the pieces that are not kept yet."""

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Do one piece and keep it."""

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> Any:
        """Read all results; `lost` are pieces whose worker died, with the reason."""


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


class Predictions:
    """Energies, forces and Hessians at the reference geometries; a key is a batch."""

    name = "accuracy"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Batches of geometries."""
        done = cache.predictions()
        left = [i for i in bench.indices if i not in done]
        return [tuple(left[k : k + BATCH]) for k in range(0, len(left), BATCH)]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Predict one batch; elements the model has not seen are failures."""
        records = bench.store[list(key)]
        reasons = [unknown_elements(calculator, record.numbers.tolist()) for record in records]
        known = [record for record, reason in zip(records, reasons, strict=True) if reason is None]
        answers = iter(predict(calculator, known) if known else [])
        found = [next(answers) if reason is None else Prediction(failure=reason) for reason in reasons]
        cache.put_predictions(key, found)

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> dict[int, Prediction]:
        """By geometry index."""
        gone = {index: Prediction(failure=reason) for key, reason in lost.items() for index in key}
        return gone | cache.predictions()


class Consistency:
    """The Hessian against differences of the model's own forces."""

    name = "consistency"

    def _chosen(self, bench: Bench) -> list[int]:
        store = bench.store
        fit = [i for i in bench.indices if store.has_hessian[i] and store.active(i) is None]
        fit = [i for i in fit if np.diff(store.atom_offset[i : i + 2])[0] > 1]
        return sorted({fit[k] for k in np.linspace(0, len(fit) - 1, PROBED).astype(int)}) if fit else []

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Up to PROBED geometries, evenly spread."""
        return [(i,) for i in self._chosen(bench) if cache.json(f"consistency-{i}") is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Take the differences at one geometry; of a compiled model without products they are its Hessian."""
        value = None
        record = bench.store[key[0]]
        if getattr(calculator, "products", True) and not unknown_elements(calculator, record.numbers.tolist()):
            try:
                value = consistency_error(atoms_of(record), calculator)
            except HessianDataError:
                raise
            except Exception:  # a failure of the model that the predictions have already counted
                value = None
        cache.put_json(f"consistency-{key[0]}", {"value": value})

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> list[float]:
        """The errors that there are."""
        kept = [cache.json(f"consistency-{i}") for i in self._chosen(bench)]
        return [entry["value"] for entry in kept if entry is not None and entry["value"] is not None]


class Minima:
    """The models' own minima."""

    name = "minima"

    def _wanted(self, bench: Bench) -> list[int]:
        return [i for i in bench.indices if bench.store.has_hessian[i] and can_relax(bench.store[i])]

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Reference minima with a Hessian."""
        return [(i,) for i in self._wanted(bench) if cache.minimum(i) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Minimise one."""
        record = bench.store[key[0]]
        reason = unknown_elements(calculator, record.numbers.tolist())
        failed = RelaxedMinimum(np.asarray(record.positions), np.zeros((0, 0)), 0, reason)
        cache.put_minimum(key[0], failed if reason else relaxed_minimum(record, calculator))

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> dict[int, RelaxedMinimum]:
        """By geometry index."""
        found = {}
        for index in self._wanted(bench):
            kept = cache.minimum(index)
            reason = lost.get((index,), "not done")
            found[index] = kept or RelaxedMinimum(np.zeros((0, 3)), np.zeros((0, 0)), 0, reason)
        return found


class Bands:
    """Nudged elastic bands; a key is a position among the bench's reactions."""

    name = "neb"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Complete reactions."""
        images, steps = bench.options.images, bench.options.neb_steps
        return [(k,) for k, r in enumerate(bench.reactions) if cache.path(r.group, images, steps) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Search one path."""
        reaction = bench.reactions[key[0]]
        named, _ = bench.members(reaction)
        images, steps = bench.options.images, bench.options.neb_steps
        if reason := unknown_elements(calculator, named["reactant"].numbers.tolist()):
            path = _no_path(reason)
        else:
            ends = [atoms_of(named[role]) for role in ("reactant", "product")]
            path = reaction_path(ends[0], ends[1], calculator, images=images, steps=steps)
        cache.put_path(reaction.group, images, steps, path)

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> dict[str, ReactionPath]:
        """By the reaction's name."""
        found = {}
        for position, reaction in enumerate(bench.reactions):
            kept = cache.path(reaction.group, bench.options.images, bench.options.neb_steps)
            found[bench.name(reaction)] = kept or _no_path(lost.get((position,), "not done"))
        return found


def _no_path(reason: str) -> ReactionPath:
    return ReactionPath(np.zeros((0, 0, 3)), np.zeros(0), np.zeros((0, 0, 3)), failure=reason)


class Saddles:
    """Transition-state searches of each reaction."""

    name = "saddle"

    def _file(self, bench: Bench, position: int) -> str:
        settings = {"starts": bench.options.starts, "spread": bench.options.spread, "masses": bench.options.masses}
        return f"saddle-{bench.reactions[position].group}-{_digest(settings)}"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Reactions with a labelled transition state."""
        return [(k,) for k in bench.with_saddle if cache.json(self._file(bench, k)) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Search from all starts of one reaction."""
        reaction = bench.reactions[key[0]]
        named, _ = bench.members(reaction)
        record = named["transition_state"]
        if reason := unknown_elements(calculator, record.numbers.tolist()):
            found = self._failed(bench, key[0], reason)
        else:
            options = bench.options
            found = search_reaction(
                bench.name(reaction),
                named,
                calculator,
                bench.masses(record),
                starts=options.starts,
                spread=options.spread,
            )
        cache.put_json(self._file(bench, key[0]), {"starts": [asdict(error) for error in found]})

    def _failed(self, bench: Bench, position: int, reason: str) -> list[SaddleErrors]:
        names = ["interpolated", *(f"perturbed {k}" for k in range(1, bench.options.starts + 1))]
        return [SaddleErrors(bench.name(bench.reactions[position]), name, reason) for name in names]

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> list[SaddleErrors]:
        """One a start, reaction by reaction."""
        found: list[SaddleErrors] = []
        for position in bench.with_saddle:
            kept = cache.json(self._file(bench, position))
            if kept is None:
                found += self._failed(bench, position, lost.get((position,), "not done"))
            else:
                found += [SaddleErrors(**entry) for entry in kept["starts"]]
        return found


class Coordinates:
    """Intrinsic reaction coordinates."""

    name = "irc"

    def _file(self, bench: Bench, position: int) -> str:
        return f"irc-{bench.reactions[position].group}-{bench.options.masses}"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Reactions with a labelled transition state."""
        return [(k,) for k in bench.with_saddle if cache.json(self._file(bench, k)) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Follow one."""
        reaction = bench.reactions[key[0]]
        named, points = bench.members(reaction)
        record = named["transition_state"]
        name = bench.name(reaction)
        if reason := unknown_elements(calculator, record.numbers.tolist()):
            found = IrcErrors(name, reason)
        else:
            found = follow_irc(name, named, points, calculator, bench.masses(record))
        cache.put_json(self._file(bench, key[0]), asdict(found))

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> list[IrcErrors]:
        """One a reaction."""
        found = []
        for position in bench.with_saddle:
            kept = cache.json(self._file(bench, position))
            name, reason = bench.name(bench.reactions[position]), lost.get((position,), "not done")
            found.append(IrcErrors(name, reason) if kept is None else IrcErrors(**kept))
        return found


class Ramps:
    """Molecular dynamics of some minima; a temperature that is over is not run again."""

    name = "md"

    def _chosen(self, bench: Bench) -> list[int]:
        store, fit = bench.store, []
        for index in bench.indices:
            record = store[index]
            free = not np.any(record.pbc) and record.active is None and len(record) > 1
            if free and record.kind == "minimum":
                bonded = bonds(record.numbers, np.asarray(record.positions))
                fit += [index] if len(fragments(bonded)) == 1 else []
        count = min(bench.options.molecules, len(fit))
        return [fit[k] for k in np.linspace(0, len(fit) - 1, count).round().astype(int)] if fit else []

    def _file(self, bench: Bench, index: int) -> str:
        return f"md-{index}-{_digest(asdict(bench.options.ramp))}"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Minima of one molecule each, evenly spread."""
        return [(i,) for i in self._chosen(bench) if cache.json(self._file(bench, i)) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Run one molecule."""
        record, file = bench.store[key[0]], self._file(bench, key[0])
        label = record.label or f"geometry {key[0]}"
        if reason := unknown_elements(calculator, record.numbers.tolist()):
            found = Dynamics(label, record.formula, len(record), failure=reason)
        else:
            atoms = atoms_of(record)
            atoms.set_masses(bench.masses(record))
            kept = cache.json(f"{file}-state")
            state = None if kept is None else RampState(**kept)
            found = run_dynamics(
                atoms,
                calculator,
                bench.options.ramp,
                label=label,
                state=state,
                on_stage=lambda now: cache.put_json(f"{file}-state", asdict(now)),
            )
        cache.put_json(file, asdict(found))

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> list[Dynamics]:
        """One a molecule."""
        found = []
        for index in self._chosen(bench):
            kept, record = cache.json(self._file(bench, index)), bench.store[index]
            failed = Dynamics(
                record.label or f"geometry {index}",
                record.formula,
                len(record),
                failure=lost.get((index,), "not done"),
            )
            found.append(failed if kept is None else Dynamics(**kept))
        return found


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
