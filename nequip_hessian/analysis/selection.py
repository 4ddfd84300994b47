"""Which geometries and reactions of a store are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nequip_hessian.errors import ConfigError, OptionError

if TYPE_CHECKING:
    from nequip_hessian.store import HessianStore, Reaction


def select(
    store: HessianStore, wanted: Sequence[str] = (), limit: int | None = None, reactions: int | None = None
) -> tuple[list[int], list[str | None], list[str]]:
    """Choose the geometries to evaluate.

    Args:
        store: the store
        wanted: `scheme:part` each, or `scheme` for all its test parts. Default: all test
            parts (the third part and those after it) of the only scheme that has some; everything where none has
        limit: at most so many geometries, evenly spread over those chosen
        reactions: so many complete reactions, evenly spread, whose stationary points no limit leaves out

    Returns:
        Geometry indices, ascending; the part of each (None without a split); remarks for the reader.

    Raises:
        ConfigError: an unknown scheme or part, or nothing is left; OptionError: none wanted where several schemes
            have test parts.
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
    kept = _members(complete_reactions(store, indices, reactions)) if reactions is not None else []
    others = sorted(set(indices) - set(kept))
    if limit is not None and limit < len(others):
        if limit < 1:
            raise OptionError(f"limit: expected 1 or more, found {limit}")
        beside = f", beside the {len(kept)} stationary points of the reactions" if kept else ""
        notes.append(f"{limit} of {len(others)} geometries, evenly spread (limit){beside}")
        others = [others[i] for i in np.linspace(0, len(others) - 1, limit).round().astype(int)]
    indices = sorted({*kept, *others})
    return indices, [chosen[i] for i in indices], notes


def _codes(store: HessianStore, scheme: str, part: str) -> dict[int, str | None]:
    codes, parts = store.split(scheme)
    if part not in parts:
        raise ConfigError(f"{store.path}: split {scheme!r} has no part {part!r}; it has {', '.join(parts)}")
    return {int(i): part for i in np.flatnonzero(codes == parts.index(part))}


def test_parts(store: HessianStore, scheme: str) -> list[str]:
    """Return the names of the test parts of a split scheme; raises StoreError where the store has no such scheme."""
    return list(store.split(scheme)[1][2:])  # the standard: train, val, test, then further test parts


def _wanted_part(store: HessianStore, entry: str) -> dict[int, str | None]:
    scheme, colon, part = entry.partition(":")
    if colon:
        return _codes(store, scheme, part)
    tests = test_parts(store, scheme)
    if not tests:
        raise ConfigError(
            f"{store.path}: split {scheme!r} has no test part; name one: "
            + ", ".join(f"{scheme}:{name}" for name in store.split(scheme)[1])
        )
    found: dict[int, str | None] = {}
    for name in tests:
        found |= _codes(store, scheme, name)
    return found


def default_scheme(store: HessianStore) -> str | None:
    """Return the only scheme with test parts, None where there is none.

    Raises:
        OptionError: there are several, of which a model may have seen the test parts of all but one.
    """
    schemes = [scheme for scheme in store.split_schemes if test_parts(store, scheme)]
    if len(schemes) > 1:
        raise OptionError(
            f"{store.path}: expected one split scheme with test parts, found {len(schemes)}: {', '.join(schemes)}; "
            "name the one that the models were trained with, e.g. --split "
            f"{schemes[0]}: of the others they have seen test geometries"
        )
    return schemes[0] if schemes else None


def _default_parts(store: HessianStore) -> tuple[dict[int, str | None], str]:
    scheme = default_scheme(store)
    if scheme is not None:
        return _wanted_part(store, scheme), f"split {scheme}: parts {', '.join(test_parts(store, scheme))}"
    everything: dict[int, str | None] = dict.fromkeys(range(len(store)))
    return everything, "the store has no split with a test part: all its geometries were evaluated"


def complete_reactions(store: HessianStore, indices: Sequence[int], limit: int | None = None) -> list[Reaction]:
    """Reactions of which reactant and product are there and all stationary points are among `indices`.

    Args:
        store: the store
        indices: the geometries at hand
        limit: at most so many, evenly spread; those with a transition state come first
    """
    evaluated = set(indices)
    found = [
        reaction
        for reaction in store.reactions()
        if None not in (reaction.reactant, reaction.product) and evaluated.issuperset(_members([reaction]))
    ]
    if limit is None or limit >= len(found):
        return found
    with_state = [reaction for reaction in found if reaction.transition_state is not None]
    pool = with_state if len(with_state) >= limit else found
    return [pool[i] for i in np.linspace(0, len(pool) - 1, limit).round().astype(int)]


def _members(reactions: Sequence[Reaction]) -> list[int]:
    members = [(reaction.reactant, reaction.transition_state, reaction.product) for reaction in reactions]
    return [index for trio in members for index in trio if index is not None]
