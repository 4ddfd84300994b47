"""Element names and the two mass conventions of quantum-chemistry programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses, atomic_masses_common, atomic_numbers

FloatArray = npt.NDArray[np.float64]


def atomic_number(name: str) -> int:
    """Return the atomic number of an element symbol in any case, or of a number in text.

    Raises:
        ValueError: no such element (dummy and ghost atoms included).
    """
    token = name.strip()
    number = int(token) if token.isdigit() else atomic_numbers.get(token.capitalize(), 0)
    if not 1 <= number <= 118:
        raise ValueError(f"{name!r} is no chemical element; dummy and ghost atoms have no place in a Hessian")
    return number


def isotopic_masses(numbers: npt.ArrayLike) -> FloatArray:
    """Masses of the most abundant isotopes, u, (N,): what Gaussian, Q-Chem and Psi4 use."""
    return np.asarray(atomic_masses_common[np.asarray(numbers, dtype=int)], dtype=np.float64)


def average_masses(numbers: npt.ArrayLike) -> FloatArray:
    """Standard atomic weights, u, (N,): what ORCA, xtb and Turbomole use."""
    return np.asarray(atomic_masses[np.asarray(numbers, dtype=int)], dtype=np.float64)


def unrounded_masses(printed: npt.NDArray[np.floating[Any]], numbers: npt.ArrayLike) -> FloatArray:
    """Replace masses printed to five decimals by the isotopic masses that they are the rounding of.

    Args:
        printed: (N,), u, as the program printed them
        numbers: (N,), atomic numbers

    Returns:
        (N,), u; where the printed mass is another isotope's, it stays as printed. The rounding
        alone costs 2.4e-6 of a wavenumber, 0.01 cm^-1 at an O-H stretch.
    """
    exact = isotopic_masses(numbers)
    return np.where(np.abs(exact - printed) < 1.1e-5, exact, printed).astype(np.float64)
