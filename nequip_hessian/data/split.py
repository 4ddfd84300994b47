"""Which geometries of a store train, validate and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import ConfigError
from nequip_hessian.store import HessianStore

Indices = npt.NDArray[np.int64]


def split_by_scheme(store: HessianStore, scheme: str) -> dict[str, Indices]:
    """Return part name -> geometry indices of a split that the store holds.

    Raises:
        ConfigError: the store has no such scheme; the message names those it has.
    """
    if scheme not in store.split_schemes:
        known = ", ".join(store.split_schemes) or "none"
        raise ConfigError(
            f"split: the store has no scheme {scheme!r} (it has: {known}); name one of them or give fractions, "
            "e.g. {train: 0.8, val: 0.1, test: 0.1}"
        )
    codes, parts = store.split(scheme)
    return {part: np.flatnonzero(codes == code) for code, part in enumerate(parts)}


def split_by_group(store: HessianStore, fractions: Mapping[str, float], seed: int) -> dict[str, Indices]:
    """Split at random, whole groups (reactions, molecules, trajectories) at a time.

    Geometries of one group stay together, so nothing leaks; a geometry without a group is its
    own. Parts are filled in the order given, counted in groups.

    Args:
        store: the store
        fractions: part name -> share; they sum to 1 (or less: the rest is unused)
        seed: seed of the shuffle

    Raises:
        ConfigError: shares below 0 or above 1 in sum, or a part that would be empty.
    """
    positive = all(share > 0 for share in fractions.values())
    if not fractions or not (positive and sum(fractions.values()) <= 1 + 1e-9):
        raise ConfigError(f"split: expected shares above 0 that sum to at most 1, found {dict(fractions)}")
    group = np.asarray(store.group).copy()
    lone = group < 0
    group[lone] = group.max(initial=-1) + 1 + np.arange(lone.sum())
    names = np.unique(group)
    order = np.random.default_rng(seed).permutation(names)
    edges = np.rint(np.cumsum([0.0, *fractions.values()]) * len(order)).astype(int)
    result = {}
    for part, start, end in zip(fractions, edges[:-1], edges[1:], strict=True):
        if end <= start:
            raise ConfigError(
                f"split: part {part!r} ({fractions[part]:g}) would be empty: the store has {len(names)} groups in all"
            )
        result[part] = np.flatnonzero(np.isin(group, order[start:end]))
    return result


def select(store: HessianStore, split: str | Mapping[str, float], part: str, seed: int) -> Indices:
    """Return the geometry indices (int64, ascending) of one part of a split.

    Raises:
        ConfigError: unknown scheme or part, or an empty part.
    """
    parts: dict[str, Any]
    parts = split_by_scheme(store, split) if isinstance(split, str) else split_by_group(store, split, seed)
    if part not in parts:
        raise ConfigError(f"split: no part {part!r}; the split has {', '.join(parts)}")
    if len(parts[part]) == 0:
        raise ConfigError(f"split: part {part!r} is empty")
    return np.asarray(parts[part], dtype=np.int64)
