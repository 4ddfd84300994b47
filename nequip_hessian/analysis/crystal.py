"""Equilibrium of a crystal on a model's surface: positions, and the cell with them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from ase.stress import voigt_6_to_full_3x3_stress

from nequip_hessian.errors import ConfigError, HessianDataError, MissingExtraError, OptionError

Array = npt.NDArray[np.float64]

FORCE_TOLERANCE: Final = 1e-3
"""Largest force on any atom of a relaxed crystal, eV/angstrom; the same for stress times volume."""

STEPS: Final = 300
WHAT: Final = ("cell", "positions", "none")


@dataclass(frozen=True, eq=False)
class CrystalRelaxation:
    """A crystal and what the model says about it.

    Attributes:
        atoms: the geometry, without calculator and constraints; energy: eV; forces: (N, 3), eV/angstrom
        stress: (3, 3), eV/angstrom^3, tension positive; None where the model gives none
        steps: optimiser steps taken; failure: why it is no equilibrium, None where it is or was not asked for
    """

    atoms: Atoms
    energy: float
    forces: Array
    stress: Array | None
    steps: int
    failure: str | None

    @property
    def largest_force(self) -> float:
        """Largest norm of a force, eV/angstrom."""
        return float(np.max(np.linalg.norm(self.forces, axis=1)))


def relax_crystal(
    atoms: Atoms, calculator: Any, what: str = "cell", *, fmax: float = FORCE_TOLERANCE, steps: int = STEPS
) -> CrystalRelaxation:
    """Minimise the energy of a crystal at zero pressure; its space group is kept.

    Args:
        atoms: periodic in three directions, angstrom; left as it is
        calculator: ASE calculator, with stress for `cell`
        what: `cell` (cell and positions), `positions`, or `none` (energy, forces and stress only)
        fmax: where to stop: largest force, and stress times volume per atom of a filter, eV/angstrom
        steps: at most so many of BFGS, and again of FIRE where that does not converge

    Raises:
        ConfigError: another `what`, or a model without stress for `cell`. MissingExtraError: no spglib.
    """
    if what not in WHAT:
        raise OptionError(f"relax: expected one of {', '.join(WHAT)}, found {what!r}")
    if not fmax > 0 or steps < 1:
        raise OptionError(f"relax: expected fmax above 0 and steps of 1 or more, found {fmax} and {steps}")
    work = atoms.copy()
    work.calc = calculator
    taken = 0
    if what != "none":
        taken = _minimise(work, what, fmax, steps)
    work.set_constraint()
    energy, forces = float(work.get_potential_energy()), np.array(work.get_forces(), dtype=np.float64)
    stress = _stress(work)
    bare = work.copy()
    bare.calc = None
    failure = None
    if not np.isfinite(energy) or not np.all(np.isfinite(forces)):
        raise HessianDataError(f"{atoms.get_chemical_formula()}: the model's energy or forces are not finite")
    largest = float(np.max(np.linalg.norm(forces, axis=1)))
    if what != "none" and largest > 2 * fmax:
        failure = f"largest force {largest:.4f} eV/Å after {taken} steps, wanted below {fmax}"
    return CrystalRelaxation(bare, energy, forces, stress, taken, failure)


def _minimise(work: Atoms, what: str, fmax: float, steps: int) -> int:
    taken = 0
    try:
        work.set_constraint(FixSymmetry(work, symprec=1e-4, verbose=False))
    except (ImportError, ModuleNotFoundError) as exc:
        raise MissingExtraError(
            'relaxation keeps the space group by spglib: pip install "nequip-hessian[phonons]"'
        ) from exc
    for optimiser in (BFGS, FIRE):
        target: Any = FrechetCellFilter(work) if what == "cell" else work
        try:
            dynamics = optimiser(target, logfile=None)
            with np.errstate(all="ignore"), contextlib.suppress(np.linalg.LinAlgError, ArithmeticError):
                converged = dynamics.run(fmax=fmax, steps=steps)
                taken += int(dynamics.nsteps)
                if converged:
                    break
        except PropertyNotImplementedError as exc:
            raise ConfigError(
                f"this model gives no {'stress' if what == 'cell' else 'forces'}: relax the positions only "
                "(--relax positions), or give a cell relaxed elsewhere (--relax none)"
            ) from exc
    return taken


def _stress(atoms: Atoms) -> Array | None:
    try:
        return np.asarray(voigt_6_to_full_3x3_stress(atoms.get_stress()), dtype=np.float64)
    except (PropertyNotImplementedError, NotImplementedError):
        return None
