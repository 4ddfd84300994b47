"""Which geometries and reactions of a store are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nequip_hessian.errors import ConfigError

if TYPE_CHECKING:
    from nequip_hessian.store import HessianStore, Reaction


def select(
    store: HessianStore, wanted: Sequence[str] = (), limit: int | None = None
) -> tuple[list[int], list[str | None], list[str]]:
    """Choose the geometries to evaluate.

    Args:
        store: the store
        wanted: `scheme:part` each, or `scheme` for all its test parts. Default: all test
            parts (the third part and those after it) of the first scheme; everything where there is none
        limit: at most so many geometries, evenly spread over those chosen

    Returns:
        Geometry indices, ascending; the part of each (None without a split); remarks for the reader.

    Raises:
        ConfigError: an unknown scheme or part, or nothing is left.
    """
    notes: list[str] = []
    chosen: dict[int, str | None] = {}
    if wanted:
        for entry in wanted:
            chosen |= _wanted_part(store, entry)
    else:
        chosen, note = _default_parts(store)
        notes.append(note)
    if not chosen:
        raise ConfigError(f"{store.path}: the selection {', '.join(wanted) or 'of all geometries'} is empty")
    indices = sorted(chosen)
    if limit is not None and limit < len(indices):
        if limit < 1:
            raise ConfigError(f"limit: expected 1 or more, found {limit}")
        notes.append(f"{limit} of {len(indices)} geometries, evenly spread (limit)")
        indices = [indices[i] for i in np.linspace(0, len(indices) - 1, limit).round().astype(int)]
    return indices, [chosen[i] for i in indices], notes


def _codes(store: HessianStore, scheme: str, part: str) -> dict[int, str | None]:
    codes, parts = store.split(scheme)
    if part not in parts:
        raise ConfigError(f"{store.path}: split {scheme!r} has no part {part!r}; it has {', '.join(parts)}")
    return {int(i): part for i in np.flatnonzero(codes == parts.index(part))}


def _test_parts(store: HessianStore, scheme: str) -> list[str]:
    return list(store.split(scheme)[1][2:])  # the standard: train, val, test, then further test parts


def _wanted_part(store: HessianStore, entry: str) -> dict[int, str | None]:
    scheme, colon, part = entry.partition(":")
    if colon:
        return _codes(store, scheme, part)
    tests = _test_parts(store, scheme)
    if not tests:
        raise ConfigError(
            f"{store.path}: split {scheme!r} has no test part; name one: "
            + ", ".join(f"{scheme}:{name}" for name in store.split(scheme)[1])
        )
    found: dict[int, str | None] = {}
    for name in tests:
        found |= _codes(store, scheme, name)
    return found


def _default_parts(store: HessianStore) -> tuple[dict[int, str | None], str]:
    for scheme in store.split_schemes:
        if _test_parts(store, scheme):
            return _wanted_part(store, scheme), f"split {scheme}: parts {', '.join(_test_parts(store, scheme))}"
    everything: dict[int, str | None] = dict.fromkeys(range(len(store)))
    return everything, "the store has no split with a test part: all its geometries were evaluated"


def complete_reactions(store: HessianStore, indices: Sequence[int]) -> list[Reaction]:
    """Reactions of which reactant and product are there and all stationary points are among `indices`."""
    evaluated = set(indices)
    found = []
    for reaction in store.reactions():
        members = [reaction.reactant, reaction.product]
        if None in members:
            continue
        members += [] if reaction.transition_state is None else [reaction.transition_state]
        if all(member in evaluated for member in members):
            found.append(reaction)
    return found
