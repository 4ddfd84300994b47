"""Displaced geometries labelled by a Taylor series: the free baseline to Hessian products."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nequip.data import AtomicDataDict

from nequip_hessian.curvature import packed_product
from nequip_hessian.errors import ConfigError

Float64 = npt.NDArray[np.float64]


def displace(data: AtomicDataDict.Type, packed: npt.NDArray[np.floating[Any]], displacement: Float64) -> None:
    """Move a geometry by d and label it with its Taylor series, in place.

    E(x + d) = E - F.d + d.H.d/2 and F(x + d) = F - H d: exact up to the third derivatives T. The
    error of the energy, T[d,d,d]/6, is odd in d and cancels over pairs d, -d; that of the forces,
    T[d,d]/2, is even and does not: it pulls the model towards a harmonic one.

    Args:
        data: one geometry with energy (eV) and forces (eV/angstrom), before its neighbour list
        packed: (n(n+1)/2,) Hessian of all its atoms, eV/angstrom^2
        displacement: (N, 3), angstrom

    Raises:
        ConfigError: labels or neighbours that would no longer fit the displaced geometry.
    """
    for key, advice in (
        (AtomicDataDict.EDGE_INDEX_KEY, "put HessianProbes before NeighborListTransform"),
        (AtomicDataDict.STRESS_KEY, "take another method where stress is learnt"),
    ):
        if key in data:
            raise ConfigError(f"hessian method `taylor`: {key} does not belong to the displaced geometry; {advice}")
    position, force = data[AtomicDataDict.POSITIONS_KEY], data[AtomicDataDict.FORCE_KEY]
    energy = data[AtomicDataDict.TOTAL_ENERGY_KEY]
    known = force.detach().numpy().astype(np.float64)
    vector = displacement.ravel()
    pull = packed_product(packed, vector.astype(packed.dtype)).astype(np.float64)
    change = -float(known.ravel() @ vector) + 0.5 * float(vector @ pull)
    data[AtomicDataDict.POSITIONS_KEY] = position + torch.from_numpy(displacement).to(position.dtype)
    data[AtomicDataDict.FORCE_KEY] = force - torch.from_numpy(pull.reshape(-1, 3)).to(force.dtype)
    data[AtomicDataDict.TOTAL_ENERGY_KEY] = energy + change
