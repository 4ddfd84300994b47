"""The GFN2-xTB surface: energies, forces, Hessians, bonds, and whether one closed-shell configuration describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import BFGS

from nequip_hessian.curvature import normal_modes
from nequip_hessian.errors import HessianDataError
from nequip_hessian.label.tblite import TbliteEngine
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR

Array = npt.NDArray[np.float64]

ENGINE = TbliteEngine()
BONDED = 0.5  # Wiberg bond order from which on two atoms count as bonded


class Failure(Exception):
    """Why an attempt ended: a short reason for the funnel table."""


class Xtb(Calculator):
    """ASE calculator over tblite that starts each SCF from the last density."""

    implemented_properties = ("energy", "forces")

    def __init__(self) -> None:
        super().__init__()
        self._tblite: Any = None
        self.state: Any = None

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = tuple(all_changes)
    ) -> None:
        """Energy and forces."""
        super().calculate(atoms, properties, system_changes)
        if self._tblite is None or "numbers" in system_changes:
            self._tblite, self.state = calculator(atoms, 0), None
        self._tblite.update(positions=atoms.positions / BOHR)
        try:
            self.state = self._tblite.singlepoint(self.state)
        except RuntimeError as exc:
            self.state = None
            raise Failure("SCF does not converge") from exc
        self.results = {
            "energy": self.state.get("energy") * HARTREE,
            "forces": -self.state.get("gradient") * HARTREE_PER_BOHR,
        }

    def bonds(self, atoms: Atoms) -> npt.NDArray[np.bool_]:
        """Which atoms are bonded, (N, N), by Wiberg bond orders."""
        atoms.get_potential_energy()
        return np.asarray(self.state.get("bond-orders")[..., 0] > BONDED)


def calculator(atoms: Atoms, unpaired: int) -> Any:
    """A tblite calculator for one geometry."""
    from tblite.interface import Calculator as Tblite

    made = Tblite("GFN2-xTB", atoms.numbers, atoms.positions / BOHR, 0.0, unpaired)
    made.set("verbosity", 0)
    made.set("accuracy", ENGINE.accuracy)
    return made


def relax(atoms: Atoms, fmax: float, steps: int) -> None:
    """Minimise in place; raises Failure where the tolerance, eV/angstrom, is not reached."""
    with np.errstate(all="ignore"):
        if not BFGS(atoms, logfile=None, maxstep=0.15).run(fmax=fmax, steps=steps):
            raise Failure("minimisation does not converge")


def hessian(atoms: Atoms) -> Array:
    """Central-difference Hessian, (3N, 3N) eV/angstrom^2, symmetrised."""
    geometry = LabelledGeometry(numbers=atoms.numbers, positions=atoms.positions, charge=0, multiplicity=1)
    try:
        matrix = np.asarray(ENGINE.calculate(geometry, hessian=True).hessian)
    except HessianDataError as exc:
        raise Failure("SCF does not converge") from exc
    return (matrix + matrix.T) / 2


def wavenumbers(atoms: Atoms, matrix: Array) -> Array:
    """Projected harmonic wavenumbers, cm^-1, imaginary negative, ascending."""
    return np.asarray(normal_modes(matrix, atoms.positions, atoms.get_masses())[0])


@dataclass(frozen=True)
class Configuration:
    """How far one closed-shell configuration describes a geometry.

    Attributes:
        fractional: largest distance of an orbital occupation from 0 or 2 (electronic temperature 300 K)
        gap: between the highest occupied and the lowest empty orbital, eV
        triplet: energy of the lowest triplet above the singlet, eV
    """

    fractional: float
    gap: float
    triplet: float

    @property
    def closed_shell(self) -> bool:
        """Whole occupations, and no triplet below."""
        return self.fractional < 0.01 and self.triplet > 0


def configuration(atoms: Atoms) -> Configuration:
    """Occupations, gap and singlet-triplet splitting, each from a converged SCF."""
    try:
        singlet = calculator(atoms, 0).singlepoint()
        triplet = calculator(atoms, 2).singlepoint().get("energy")
    except RuntimeError as exc:
        raise Failure("SCF does not converge") from exc
    occupations, levels = singlet.get("orbital-occupations"), singlet.get("orbital-energies")
    fractional = float(np.max(np.minimum(occupations, 2 - occupations)))
    filled = occupations > 1
    gap = float(levels[~filled].min() - levels[filled].max()) * HARTREE
    return Configuration(fractional, gap, float(triplet - singlet.get("energy")) * HARTREE)
