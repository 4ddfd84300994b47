"""The questions about whole reactions: nudged elastic bands, transition states, reaction coordinates.

A key is a position among the bench's reactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.outcomes import IrcErrors, SaddleErrors, follow_irc, search_reaction
from nequip_hessian.analysis.path import ReactionPath, reaction_path
from nequip_hessian.analysis.prediction import atoms_of, unknown_elements
from nequip_hessian.evaluation.task import Key, digest

if TYPE_CHECKING:
    from nequip_hessian.evaluation.bench import Bench


class Bands:
    """Nudged elastic bands."""

    name = "neb"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Complete reactions of free molecules."""
        images, steps = bench.options.images, bench.options.neb_steps
        return [(k,) for k in bench.free if cache.path(bench.reactions[k].group, images, steps) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Search one path."""
        reaction = bench.reactions[key[0]]
        named, _ = bench.members(reaction)
        images, steps = bench.options.images, bench.options.neb_steps
        if reason := unknown_elements(calculator, named["reactant"].numbers.tolist()):
            path = _no_path(reason)
        else:
            ends = [atoms_of(named[role]) for role in ("reactant", "product")]
            answers = cache.path_answers(reaction.group, images, steps)
            path = reaction_path(ends[0], ends[1], calculator, images=images, steps=steps, answers=answers)
        cache.put_path(reaction.group, images, steps, path)

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> dict[str, ReactionPath]:
        """By the reaction's name."""
        found = {}
        for position in bench.free:
            reaction = bench.reactions[position]
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
        settings["ends"] = "same bonds"  # what was found before ends were looked at counts no longer
        return f"saddle-{bench.reactions[position].group}-{digest(settings)}"

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
        settings = {"masses": bench.options.masses, "ends": "same bonds"}
        return f"irc-{bench.reactions[position].group}-{digest(settings)}"

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
