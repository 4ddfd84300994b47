"""Intrinsic reaction coordinate by the local quadratic approximation, with an updated Hessian.

The step and the update are those of `nequip_hessian.analysis.irc`. The Hessian
is exact at the transition state and updated by Bofill's formula from then on,
so that a step costs one gradient. It has no corrector: with steps of
0.2 u^1/2 angstrom its points lie near the path, not on it, which is all that
labelled off-equilibrium points need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.steepest_descent import bofill_update, steepest_descent_step
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
        move = steepest_descent_step(gradient - basis @ (basis.T @ gradient), weighted, step)
    return points, hessian
