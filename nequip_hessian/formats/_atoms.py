"""Element names and the two mass conventions of quantum-chemistry programs."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses, atomic_masses_common, atomic_numbers

FloatArray = npt.NDArray[np.float64]

# Atomic number -> lowest and highest mass number that is stable or used as a label.
_MASS_NUMBERS: Final = {
    1: (1, 3), 2: (3, 4), 3: (6, 7), 4: (9, 10), 5: (10, 11), 6: (11, 14), 7: (13, 15), 8: (15, 18), 9: (18, 19),
    10: (20, 22), 11: (22, 24), 12: (24, 26), 13: (26, 27), 14: (28, 32), 15: (31, 33), 16: (32, 36), 17: (35, 37),
    18: (36, 40),
}  # fmt: skip


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


def is_mass_of(number: int, mass: float) -> bool:
    """Say whether a mass can be that of an element: an isotope that is stable or in use, or an average.

    Args:
        number: atomic number
        mass: u
    """
    span = _MASS_NUMBERS.get(number)
    if span is None:  # heavier than argon: isotopes lie within a few units of the average
        return abs(mass - float(atomic_masses[number])) < max(8.0, 0.06 * float(atomic_masses[number]))
    return span[0] - 0.5 < mass < span[1] + 0.5


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
