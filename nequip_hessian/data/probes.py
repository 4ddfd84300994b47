"""Probes: the unit-norm vectors v along which a Hessian is learnt.

With unit-norm probes every mode below estimates the same loss,
L_H = (1/n^2) ||dH||_F^2, as the mean over probes of (1/n) |dH v|^2:
`full` exactly, `columns` (without replacement) and `random` in expectation.
n is the number of degrees of freedom, 3 x atoms, or 3 x active atoms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import ConfigError

MODES: Final = ("full", "columns", "random")
DISTRIBUTIONS: Final = ("rademacher", "sphere")

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ProbeSettings:
    """How Hessians are supervised.

    Attributes:
        mode: `full` (all n unit vectors), `columns` (k of them) or `random` (k random directions)
        k: number of probes a geometry and step; not for `full`
        distribution: of `random` probes: `rademacher` (signs / sqrt(n)) or `sphere` (uniform)
    """

    mode: str = "random"
    k: int | None = None
    distribution: str = "rademacher"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"hessian mode: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if self.mode == "full" and self.k is not None:
            raise ConfigError(f"hessian k: mode `full` takes all columns; leave k out (found k = {self.k})")
        if self.mode != "full":
            k = 1 if self.k is None else self.k
            if not isinstance(k, int) or isinstance(k, bool) or k < 1:
                raise ConfigError(f"hessian k: expected a whole number of 1 or more, found {self.k!r}")
            object.__setattr__(self, "k", k)
        if self.distribution not in DISTRIBUTIONS:
            raise ConfigError(
                f"hessian distribution: expected one of {', '.join(DISTRIBUTIONS)}, found {self.distribution!r}"
            )
        if self.mode != "random" and self.distribution != "rademacher":
            raise ConfigError(f"hessian distribution: has no meaning with mode `{self.mode}`; leave it out")

    def width(self, max_atoms: int) -> int:
        """Number of probes K that every geometry of a dataloader is padded to."""
        return 3 * max_atoms if self.k is None else self.k


def draw(settings: ProbeSettings, n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the probes of one geometry.

    Args:
        settings: what to draw
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
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(numbers, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(positions, dtype=np.float64).tobytes())
    digest.update(int(seed).to_bytes(8, "little", signed=True))
    return np.random.default_rng(int.from_bytes(digest.digest(), "little"))
