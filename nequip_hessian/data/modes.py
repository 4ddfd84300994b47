"""Normal modes of the reference as probes, kept in memory once they are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import normal_modes, rigid_motions

Float64 = npt.NDArray[np.float64]


def mode_probes(
    hessian: npt.NDArray[np.floating[Any]],
    positions: Float64,
    masses: Float64,
    k: int,
    *,
    periodic: bool = False,
    partial: bool = False,
    mass_weighted: bool = False,
) -> Float64:
    """Return the k lowest normal modes of a reference Hessian as probes, imaginary ones first.

    u are eigenvectors of the mass-weighted Hessian in the space without translations and rotations
    (Eckart conditions; none are taken out of a partial Hessian, whose surroundings are held fixed).

    Args:
        hessian: (n, n), eV/angstrom^2
        positions: (n / 3, 3), angstrom
        masses: (n / 3,), u
        k: number of modes; fewer come back where the geometry has fewer
        periodic: only translations are taken out
        partial: nothing is taken out
        mass_weighted: return M^-1/2 u as it is (u^-1/2) instead of normalised

    Returns:
        (min(k, number of modes), n): M^-1/2 u, of norm 1 unless `mass_weighted`.
    """
    _, modes = normal_modes(hessian, positions, masses, periodic=periodic, project=not partial)
    probes = modes[:, :k].T / np.sqrt(np.repeat(masses, 3))
    return probes if mass_weighted else probes / np.linalg.norm(probes, axis=1, keepdims=True)


def rigid_basis(positions: Float64, masses: Float64 | None, *, periodic: bool, partial: bool) -> Float64:
    """Orthonormal translations and rotations that `project` takes out.

    Args:
        positions: (N, 3), angstrom
        masses: (N,), u: in mass-weighted coordinates; None: in Cartesian ones
        periodic: translations only
        partial: none (the surroundings of a partial Hessian are held fixed)

    Returns:
        (3N, m), m up to 6, dimensionless columns.
    """
    if partial:
        return np.zeros((positions.size, 0))
    return rigid_motions(positions, np.ones(len(positions)) if masses is None else masses, periodic=periodic)


class ProbeCache:
    """Probes and products by geometry, up to a number of bytes; what comes later is computed each time.

    Each dataloader worker has its own: with workers, `persistent_workers: true` keeps it between epochs.

    Args:
        max_bytes: memory for arrays
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = int(max_bytes)
        self._held: dict[bytes, tuple[Float64, Float64]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes, make: Callable[[], tuple[Float64, Float64]]) -> tuple[Float64, Float64]:
        """Return what is held for `key`, or make it, and hold it where there is room."""
        found = self._held.get(key)
        if found is None:
            found = make()
            size = found[0].nbytes + found[1].nbytes
            if size <= self._left:
                self._left -= size
                self._held[key] = found
        return found
