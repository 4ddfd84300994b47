"""A molecule of springs: E = sum k/2 (|r_i - r_j| - d)^2, with its Hessian in closed form."""

from __future__ import annotations

import numpy as np


def spring_network(n_atoms: int, seed: int, *, stretched: float = 0.1):
    """Positions (N, 3), forces (N, 3) and Hessian (3N, 3N) of a random network, away from its minimum."""
    rng = np.random.default_rng(seed)
    positions = rng.normal(scale=1.5, size=(n_atoms, 3))
    pairs = [(i, j) for i in range(n_atoms) for j in range(i)]
    k = rng.uniform(5, 40, size=len(pairs))
    d = np.array([np.linalg.norm(positions[i] - positions[j]) for i, j in pairs])
    d = d * (1 + stretched * rng.uniform(-1, 1, size=len(pairs)))
    forces, hessian = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3, n_atoms, 3))
    for (i, j), kk, dd in zip(pairs, k, d, strict=True):
        r = positions[i] - positions[j]
        length = np.linalg.norm(r)
        u = r / length
        forces[i] -= kk * (length - dd) * u
        forces[j] += kk * (length - dd) * u
        block = kk * (np.outer(u, u) + (length - dd) / length * (np.eye(3) - np.outer(u, u)))
        hessian[i, :, i] += block
        hessian[j, :, j] += block
        hessian[i, :, j] -= block
        hessian[j, :, i] -= block
    return positions, forces, hessian.reshape(3 * n_atoms, 3 * n_atoms)
