"""Laying one geometry over another (Kabsch, Acta Cryst. A 1976, 32, 922), atoms in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]


def best_rotation(moving: Array, fixed: Array, *, mirror: bool = False) -> npt.NDArray[np.float64]:
    """Return Q (3, 3) that minimises |(moving - c) Q^T - (fixed - c')| for centred (N, 3) positions, angstrom.

    With `mirror` an improper rotation is allowed too: mirror images have the same energy.
    """
    a = moving - moving.mean(axis=0)
    b = fixed - fixed.mean(axis=0)
    left, _, right = np.linalg.svd(b.T @ a)
    sign = 1.0 if mirror else float(np.sign(np.linalg.det(left @ right))) or 1.0
    return np.asarray(left @ np.diag([1.0, 1.0, sign]) @ right, dtype=np.float64)


def superpose(moving: Array, fixed: Array, *, mirror: bool = False) -> npt.NDArray[np.float64]:
    """Return `moving` (N, 3) turned and shifted onto `fixed` (N, 3), angstrom."""
    rotation = best_rotation(moving, fixed, mirror=mirror)
    return np.asarray((moving - moving.mean(axis=0)) @ rotation.T + fixed.mean(axis=0))


def rmsd(moving: Array, fixed: Array, *, mirror: bool = True) -> float:
    """Root mean square distance of the atoms after superposition, angstrom; mirror images count as equal."""
    return float(np.sqrt(np.mean(np.sum((superpose(moving, fixed, mirror=mirror) - fixed) ** 2, axis=1))))
