"""Recognising the same geometry bit for bit: atoms, positions, cell and periodicity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from nequip_hessian.store.reader import HessianStore


def fingerprints(store: HessianStore) -> list[bytes]:
    """Return 16 bytes a geometry, equal where all numbers of the geometries are."""
    offset, number, position, cell, pbc = store.atom_offset, store.number, store.position, store.cell, store.pbc
    found = []
    for i in tqdm(range(len(store)), desc="geometries", disable=None, delay=3):
        rows = slice(int(offset[i]), int(offset[i + 1]))
        found.append(digest((number[rows].tobytes(), position[rows].tobytes(), cell[i].tobytes(), pbc[i].tobytes())))
    return found


def digest(parts: Iterable[bytes]) -> bytes:
    """Return the fingerprint of atomic numbers, positions, cell and pbc given as bytes."""
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def runs_of(kept: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return the (first, end) runs of true values of a mask (G,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(kept, dtype=np.int8), [0]])))
    return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
