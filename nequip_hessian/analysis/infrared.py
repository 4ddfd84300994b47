"""Infrared intensities from dipole derivatives and normal modes, and the broadened spectrum.

The intensity of a mode is N_A pi |dmu/dQ|^2 / (3 c^2) (4 pi eps0)^-1 with Q the mass-weighted normal coordinate,
in km/mol (napierian), as quantum-chemistry programs print it: 42.2561 km/mol for 1 (D/angstrom)^2/u.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.vibrations import Vibrations
from nequip_hessian.errors import ConfigError, OptionError

Array = npt.NDArray[np.floating[Any]]

_CHARGE: Final = 1.602176634e-19  # C
_MASS: Final = 1.66053906660e-27  # kg
_LIGHT: Final = 2.99792458e8  # m/s
_EPSILON: Final = 8.8541878128e-12  # F/m

KM_PER_MOL: Final = 6.02214076e23 * _CHARGE**2 / (12 * _EPSILON * _LIGHT**2 * _MASS) / 1000
"""Intensity, km/mol, of |dmu/dQ|^2 = 1 e^2/u."""

FWHM: Final = 15.0
"""Full width at half maximum of a band, cm^-1."""


def infrared_intensities(modes: Vibrations, dipole_derivatives: Array) -> npt.NDArray[np.float64]:
    """Intensity of each mode, (m,), km/mol, imaginary ones included.

    Args:
        modes: m normal modes of n / 3 atoms
        dipole_derivatives: (n, 3), e; row 3*atom + xyz is the displacement, column the dipole component, in the
            orientation of the modes

    Raises:
        ConfigError: another shape, or numbers that are not finite.
    """
    table = np.asarray(dipole_derivatives, dtype=np.float64)
    rows = 3 * len(modes.masses)
    if table.shape != (rows, 3) or not np.all(np.isfinite(table)):
        raise ConfigError(f"dipole derivatives: expected finite numbers of shape ({rows}, 3), found {table.shape}")
    weighted = table / np.sqrt(np.repeat(modes.masses, 3))[:, None]
    return np.asarray(KM_PER_MOL * np.sum((modes.modes.T @ weighted) ** 2, axis=1), dtype=np.float64)


def spectrum(
    wavenumbers: Array, intensities: Array, *, fwhm: float = FWHM, highest: float = 4000.0, step: float = 1.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Broaden sticks with Lorentzians; the area under a band is its intensity.

    Args:
        wavenumbers: (m,), cm^-1; intensities: (m,), km/mol; imaginary modes are left out
        fwhm: cm^-1; highest: end of the grid, cm^-1, moved up where a band lies higher; step: cm^-1

    Returns:
        grid (g,), cm^-1, from 0; absorption (g,), km/mol per cm^-1.

    Raises:
        ConfigError: a width or step that is not positive.
    """
    if not (fwhm > 0 and step > 0 and highest > 0):
        raise OptionError(f"spectrum: expected width, step and range above 0, found {fwhm}, {step} and {highest}")
    real = np.asarray(wavenumbers) > 0
    centres, strengths = np.asarray(wavenumbers)[real], np.asarray(intensities)[real]
    end = max(highest, 100.0 * math.ceil((float(np.max(centres, initial=0.0)) + 5 * fwhm) / 100.0))
    grid = np.arange(0.0, end + step, step)
    half = 0.5 * fwhm
    shapes = half / np.pi / ((grid[:, None] - centres[None]) ** 2 + half**2)
    return grid, np.asarray(shapes @ strengths, dtype=np.float64)
