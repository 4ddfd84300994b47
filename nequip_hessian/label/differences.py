"""Hessian by central differences of forces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import SECOND_ORDER, difference_hessian, displaced
from nequip_hessian.errors import OptionError

FloatArray = npt.NDArray[np.float64]


def central_differences(
    forces: Callable[[FloatArray], FloatArray], positions: FloatArray, displacement: float
) -> FloatArray:
    """Differentiate forces once more: two evaluations for each of the 3N coordinates.

    Args:
        forces: positions (N, 3), angstrom -> forces (N, 3), eV/angstrom
        positions: (N, 3), angstrom
        displacement: step to each side, angstrom; the error grows with its square and with the
            noise of the forces divided by it

    Returns:
        (3N, 3N), eV/angstrom^2; row 3*atom + xyz is what was displaced, not symmetrised, so that
        its asymmetry tells the noise.

    Raises:
        EngineError: a displacement that is not a small positive length
    """
    check_displacement(displacement)
    moved = displaced(positions, displacement, SECOND_ORDER)
    return difference_hessian(map(forces, moved), displacement, SECOND_ORDER)


def check_displacement(displacement: float) -> None:
    """Raise OptionError unless 1e-5 <= displacement <= 0.1 angstrom: forces have no more digits, or curve."""
    if not 1e-5 <= displacement <= 0.1:
        raise OptionError(f"displacement: expected a step from 0.00001 to 0.1 angstrom, found {displacement:g}")
