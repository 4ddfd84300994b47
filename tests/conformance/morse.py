"""An analytic molecule: Morse potentials between all pairs of atoms. Energy, forces and Hessian in closed form."""

from __future__ import annotations

import itertools

import numpy as np

from nequip_hessian.record import LabelledGeometry, LevelOfTheory

MORSE = LevelOfTheory("Morse", program="analytic", hessian="analytic")
WATER = (np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]))
DEPTH, WIDTH = 4.0, 2.0  # eV, 1/angstrom


def morse(positions: np.ndarray, rest: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy (eV), forces (N, 3) and Hessian (3N, 3N) with the distances of `rest` as bond lengths."""
    n = len(positions)
    energy, forces, hessian = 0.0, np.zeros((n, 3)), np.zeros((n, 3, n, 3))
    for i, j in itertools.combinations(range(n), 2):
        vector = positions[i] - positions[j]
        r, r0 = np.linalg.norm(vector), np.linalg.norm(rest[i] - rest[j])
        u, decay = vector / r, np.exp(-WIDTH * (r - r0))
        energy += DEPTH * (1 - decay) ** 2
        first = 2 * DEPTH * WIDTH * decay * (1 - decay)
        second = 2 * DEPTH * WIDTH**2 * decay * (2 * decay - 1)
        block = second * np.outer(u, u) + first / r * (np.eye(3) - np.outer(u, u))
        forces[i] -= first * u
        forces[j] += first * u
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            hessian[a, :, b, :] += sign * block
    return energy, forces, hessian.reshape(3 * n, 3 * n)


def molecule(seed: int | None = None, *, shift: float = 0.1, **labels: object) -> LabelledGeometry:
    """Water-like molecule, at its minimum or (with a seed) displaced at random."""
    numbers, rest = WATER
    moved = 0.0 if seed is None else np.random.default_rng(seed).normal(scale=shift, size=rest.shape)
    energy, forces, hessian = morse(rest + moved, rest)
    options = {"charge": 0, "multiplicity": 1, "kind": "minimum" if seed is None else "displaced", **labels}
    return LabelledGeometry(
        numbers=numbers,
        positions=rest + moved,
        energy=energy - 2000.0,
        forces=forces,
        hessian=hessian,
        level=MORSE,
        **options,
    )
