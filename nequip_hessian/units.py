"""Conversion factors, CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 2021, 93, 025010).

Inside the package: energy eV, length angstrom, force eV/angstrom, Hessian
eV/angstrom^2, mass u (unified atomic mass), charge e, wavenumber cm^-1. The
numbers are written out, not taken from a library, because libraries change
their CODATA year with their version, and stored data must not.
"""

from __future__ import annotations

import math
from typing import Final

CODATA_YEAR: Final = 2018

HARTREE: Final = 27.211386245988  # eV
BOHR: Final = 0.529177210903  # angstrom
KCAL_PER_MOL: Final = 4184.0 / (6.02214076e23 * 1.602176634e-19)  # eV

HARTREE_PER_BOHR: Final = HARTREE / BOHR  # eV/angstrom
HARTREE_PER_BOHR2: Final = HARTREE / BOHR**2  # eV/angstrom^2
MDYN_PER_ANGSTROM: Final = 1e-8 / 1e-10 * 1e-20 / 1.602176634e-19  # eV/angstrom^2 (1 mdyn/angstrom = 100 N/m)
DEBYE: Final = 1e-21 / 299792458.0 / 1.602176634e-19 * 1e10  # e angstrom

_ATOMIC_MASS: Final = 1.66053906660e-27  # kg
_LIGHT_SPEED_CM: Final = 2.99792458e10  # cm/s
_ELEMENTARY_CHARGE: Final = 1.602176634e-19  # J per eV

# sqrt(eV/angstrom^2/u) -> cm^-1 (wavenumber of a harmonic oscillator: omega / (2 pi c))
WAVENUMBER: Final = math.sqrt(_ELEMENTARY_CHARGE * 1e20 / _ATOMIC_MASS) / (2 * math.pi * _LIGHT_SPEED_CM)
CM_TO_EV: Final = 6.62607015e-34 * _LIGHT_SPEED_CM / _ELEMENTARY_CHARGE  # eV per cm^-1
