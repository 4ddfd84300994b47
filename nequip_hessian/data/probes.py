"""Probes: the unit-norm vectors v along which a Hessian is learnt.

With unit-norm probes `full`, `columns` and `random` estimate the same loss,
L_H = (1/n^2) ||dH||_F^2, as the mean over probes of (1/n) |dH v|^2: `full`
exactly, `columns` (without replacement) and `random` in expectation. n is the
number of degrees of freedom, 3 x atoms, or 3 x active atoms. `modes` and
`stored` give the error along those probes, which is not an estimate of L_H.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.data.settings import ProbeSettings

Array = npt.NDArray[np.floating[Any]]


def draw(settings: ProbeSettings, n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the probes of one geometry.

    Args:
        settings: what to draw; mode `full`, `columns` or `random`
        n: degrees of freedom
        rng: source of randomness; unused for `full`

    Returns:
        (k', n) unit-norm rows, dimensionless; k' = n for `full`, min(k, n) for `columns`, else k.
    """
    if settings.mode == "full":
        return np.eye(n)
    k = settings.k or 1
    if settings.mode == "columns":
        rows = np.zeros((min(k, n), n))
        chosen = rng.choice(n, size=len(rows), replace=False)
        rows[np.arange(len(rows)), chosen] = 1.0
        return rows
    if settings.distribution == "rademacher":
        return (2.0 * rng.integers(0, 2, size=(k, n)) - 1.0) / np.sqrt(n)
    gaussian = rng.standard_normal((k, n))
    return gaussian / np.linalg.norm(gaussian, axis=1, keepdims=True)


def geometry_rng(numbers: npt.NDArray[Any], positions: Array, seed: int) -> np.random.Generator:
    """Return a generator that depends on the geometry and the seed only: fixed probes for validation.

    Args:
        numbers: (N,) atomic numbers or types
        positions: (N, 3), angstrom
        seed: seed of the data
    """
    return np.random.default_rng(int.from_bytes(geometry_digest(numbers, positions, seed), "little"))


def geometry_digest(numbers: npt.NDArray[Any], positions: Array, seed: int = 0) -> bytes:
    """Return 16 bytes that depend on atomic numbers (N,), positions (N, 3) in angstrom and the seed only."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(numbers, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(positions, dtype=np.float64).tobytes())
    digest.update(int(seed).to_bytes(8, "little", signed=True))
    return digest.digest()


def choose(n_geometries: int, fraction: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose which geometries carry a probe: each with probability `fraction`, and as even a number as there can be.

    floor(n x fraction) or one more of them are chosen, so that a batch seldom goes without.

    Args:
        n_geometries: number of labelled geometries
        fraction: above 0, up to 1
        rng: source of randomness; unused where the fraction is 1

    Returns:
        (n_geometries,) boolean.
    """
    if fraction >= 1.0:
        return np.ones(n_geometries, dtype=bool)
    count = int(np.floor(n_geometries * fraction + rng.random()))
    chosen = np.zeros(n_geometries, dtype=bool)
    chosen[rng.permutation(n_geometries)[:count]] = True
    return chosen
