"""Minima of a model's own surface."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.optimize import BFGS, FIRE
from tqdm import tqdm

from nequip_hessian.analysis.prediction import evaluate_atoms
from nequip_hessian.errors import MissingExtraError, OptionError, reason_of

FORCE_TOLERANCE: Final = 0.005
"""Largest force on any atom at a minimum, eV/angstrom."""

STEPS: Final = 500


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Outcome of a minimisation.

    Attributes:
        atoms: the last geometry, without a calculator; energy: eV; forces: (N, 3), eV/angstrom
        converged: largest force below the tolerance
        steps: optimiser steps taken
        failure: why it is no minimum (not converged, model raised), None where it is
    """

    atoms: Atoms
    energy: float
    forces: npt.NDArray[np.float64]
    converged: bool
    steps: int
    failure: str | None


def relax(atoms: Atoms, calculator: Any, *, fmax: float = FORCE_TOLERANCE, steps: int = STEPS) -> Relaxation:
    """Minimise the energy at fixed cell, BFGS first and FIRE where that does not converge.

    Args:
        atoms: start, angstrom; left as it is. Constraints on it are kept
        calculator: ASE calculator
        fmax: largest force of any atom to stop at, eV/angstrom
        steps: at most so many steps of each optimiser

    Returns:
        The relaxation; a model that raises or answers with NaN gives one with `failure`.
    """
    work = atoms.copy()
    work.calc = calculator
    taken = 0
    try:
        for optimiser in (BFGS, FIRE):
            energy, forces, largest = _state(work)
            if not np.isfinite(energy + largest):
                return _failed(atoms, taken, "energy or forces became NaN")
            if largest < fmax or len(work) == 1:
                break
            dynamics = optimiser(work, logfile=None)
            # BFGS divides by the change of the forces; where they do not change FIRE takes over
            with np.errstate(all="ignore"), contextlib.suppress(np.linalg.LinAlgError, ArithmeticError):
                dynamics.run(fmax=fmax, steps=steps)
            taken += int(dynamics.nsteps)
        energy, forces, largest = _state(work)
    except MissingExtraError:
        raise
    except Exception as exc:  # whatever a model raises is that model's failure
        return _failed(atoms, taken, reason_of(exc))
    if not np.isfinite(energy + largest):
        return _failed(atoms, taken, "energy or forces became NaN")
    if largest < fmax or len(work) == 1:
        return Relaxation(_bare(work), energy, forces, True, taken, None)
    reason = f"largest force {largest:.4f} eV/Å after {taken} steps, wanted below {fmax}"
    return Relaxation(_bare(work), energy, forces, False, taken, reason)


def _state(atoms: Atoms) -> tuple[float, npt.NDArray[np.float64], float]:
    forces = np.array(atoms.get_forces(), dtype=np.float64)
    return float(atoms.get_potential_energy()), forces, float(np.max(np.linalg.norm(forces, axis=1), initial=0.0))


def relax_all(
    frames: Sequence[Atoms], calculator: Any, *, fmax: float = FORCE_TOLERANCE, steps: int = STEPS
) -> tuple[list[float], list[Relaxation]]:
    """Minimise several geometries; returns the energies before, eV, and the outcomes. A bar on a terminal.

    Raises:
        ConfigError: `fmax` or `steps` is not positive.
    """
    if not fmax > 0 or steps < 1:
        raise OptionError(f"optimise: expected fmax above 0 and steps of 1 or more, found {fmax} and {steps}")
    before = [float(energy) for energy, _ in evaluate_atoms(calculator, frames)]
    bar = tqdm(frames, desc="optimise", disable=None, leave=False)
    return before, [relax(atoms, calculator, fmax=fmax, steps=steps) for atoms in bar]


def _bare(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = None
    return copy


def _failed(atoms: Atoms, steps: int, reason: str) -> Relaxation:
    return Relaxation(_bare(atoms), float("nan"), np.full((len(atoms), 3), np.nan), False, steps, reason)
