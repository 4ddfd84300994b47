"""Intrinsic reaction coordinate by the local quadratic approximation, with an updated Hessian.

Page and McIver, J. Chem. Phys. 1988, 88, 922: on a local quadratic surface the
steepest-descent line in mass-weighted coordinates has a closed form. The
Hessian is exact at the transition state and updated by Bofill's formula from
then on, so that a step costs one gradient. It has no corrector: with steps of
0.2 u^1/2 angstrom its points lie near the path, not on it, which is all that
labelled off-equilibrium points need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import mass_weight, normal_modes, project_out, rigid_motions

Array = npt.NDArray[np.float64]
Surface = Callable[[Array], tuple[float, Array]]


@dataclass(frozen=True)
class PathPoint:
    """One point: arc length u^1/2 angstrom (signed), positions angstrom, energy eV, forces eV/angstrom."""

    arc: float
    positions: Array
    energy: float
    forces: Array


def bofill_update(hessian: Array, step: Array, change: Array) -> Array:
    """Update a Hessian (3N, 3N), eV/angstrom^2, from a step (3N,) angstrom and its change of gradient (3N,)."""
    error = change - hessian @ step
    if np.linalg.norm(error) < 1e-10:
        return hessian
    overlap, square = float(error @ step), float(step @ step)
    weight = overlap**2 / float(error @ error) / square
    rank_one = np.outer(error, error) / overlap if abs(overlap) > 1e-12 else np.zeros_like(hessian)
    powell = (np.outer(error, step) + np.outer(step, error)) / square - overlap * np.outer(step, step) / square**2
    return hessian + weight * rank_one + (1 - weight) * powell


def quadratic_step(gradient: Array, hessian: Array, length: float) -> Array:
    """Walk `length` down the quadratic surface; all in mass-weighted coordinates (n,), (n, n); returns (n,)."""
    values, vectors = np.linalg.eigh(hessian)
    slope = vectors.T @ gradient
    fastest = max(float(np.max(np.abs(values))), 1e-6)
    dt = min(0.02 / fastest, 0.01 * length / np.linalg.norm(gradient))
    time = walked = 0.0
    while walked < length and time < 1e4 * dt:
        walked += float(np.linalg.norm(slope * np.exp(-values * (time + dt / 2)))) * dt
        time += dt
    flat = np.abs(values) < 1e-8
    safe = np.where(flat, 1.0, values)
    travelled = np.where(flat, time, -np.expm1(-safe * time) / safe)
    return vectors @ (-slope * travelled)


def follow(
    surface: Surface, start: PathPoint, hessian: Array, masses: Array, sign: int, step: float = 0.2, limit: int = 7
) -> tuple[list[PathPoint], Array]:
    """Follow the path from a transition state down one side.

    Args:
        surface: positions (N, 3) angstrom -> (energy eV, forces (N, 3) eV/angstrom)
        start: the transition state
        hessian: (3N, 3N), eV/angstrom^2, at the transition state
        masses: (N,), u
        sign: +1 or -1, the side of the imaginary mode; also the sign of the arc length
        step: u^1/2 angstrom
        limit: largest number of points

    Returns:
        points in order of distance from the transition state, and the updated Hessian at the last.
        The walk ends where the energy rises or the forces fall below 0.1 eV/angstrom.
    """
    root = np.sqrt(np.repeat(masses, 3))
    mode = normal_modes(hessian, start.positions, masses)[1][:, 0]
    move = sign * step * mode
    points, last = [], start
    for _ in range(limit):
        positions = last.positions + (move / root).reshape(-1, 3)
        energy, forces = surface(positions)
        if energy > last.energy:
            break
        arc = last.arc + sign * float(np.linalg.norm(move))
        point = PathPoint(arc, positions, energy, forces)
        delta = (positions - last.positions).ravel()
        hessian = bofill_update(hessian, delta, (last.forces - forces).ravel())
        points.append(point)
        last = point
        if np.max(np.abs(forces)) < 0.1:
            break
        basis = rigid_motions(positions, masses)
        weighted = project_out(mass_weight(hessian, masses), basis)
        gradient = -forces.ravel() / root
        move = quadratic_step(gradient - basis @ (basis.T @ gradient), weighted, step)
    return points, hessian
