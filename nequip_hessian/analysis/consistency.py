"""Is a model's Hessian the derivative of the forces that dynamics and path searches use?

`consistency_error` is |H - H_fd| / |H_fd|, Frobenius norms, with H_fd from fourth-order central
differences of the same model's forces. It is rounding for a conservative model with an analytic Hessian and
large for a separate Hessian head.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian import curvature
from nequip_hessian.analysis.prediction import check_hessian, evaluate_atoms
from nequip_hessian.curvature import FOURTH_ORDER, displaced, symmetrise

STEP: Final = 0.004
"""Displacement, angstrom."""


def difference_hessian(atoms: Atoms, calculator: Any, step: float = STEP) -> npt.NDArray[np.float64]:
    """Hessian (3N, 3N), eV/angstrom^2, by fourth-order central differences of a model's forces (12N evaluations)."""
    moved = []
    for positions in displaced(atoms.positions, step, FOURTH_ORDER):
        image = atoms.copy()
        image.calc = None
        image.positions = positions
        moved.append(image)
    forces = [answer[1] for answer in evaluate_atoms(calculator, moved)]
    return np.asarray(symmetrise(curvature.difference_hessian(forces, step, FOURTH_ORDER))[0], dtype=np.float64)


def consistency_error(atoms: Atoms, calculator: Any) -> float:
    """Relative difference, dimensionless, of a model's Hessian and the differences of its own forces.

    0 where both vanish, infinite where only the differences do.
    """
    truth = difference_hessian(atoms, calculator)
    hessian = check_hessian(calculator.get_hessian(atoms), len(atoms))
    difference, size = np.linalg.norm(hessian - truth), np.linalg.norm(truth)
    if not size:  # a model without forces
        return 0.0 if not difference else float("inf")
    return float(difference / size)
