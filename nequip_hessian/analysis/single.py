"""One model, one geometry: energies, minima, vibrations, and her own calculation beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.prediction import check_hessian, evaluate_atoms, masses_of
from nequip_hessian.analysis.superpose import best_rotation, rmsd
from nequip_hessian.analysis.vibrations import Vibrations, vibrations
from nequip_hessian.errors import ConfigError

Array = npt.NDArray[np.floating[Any]]

_SAME_GEOMETRY: Final = 0.3  # angstrom, RMSD


@dataclass(frozen=True, eq=False)
class SingleVibrations:
    """Vibrations of one geometry with a model.

    Attributes:
        atoms: the geometry, angstrom; energy: eV; forces: (N, 3), eV/angstrom
        hessian: (3N, 3N), eV/angstrom^2
        result: the projected normal modes
        n_projected: rigid motions taken out: 6, 5 (linear), 3 (periodic, one atom), 0 (frozen atoms)
        active: atoms that move, None = all; hessian and modes cover these only
    """

    atoms: Atoms
    energy: float
    forces: Array
    hessian: Array
    result: Vibrations
    n_projected: int
    active: npt.NDArray[np.intp] | None = None

    @property
    def largest_force(self) -> float:
        """Largest force on an atom that moves, eV/angstrom."""
        moving = self.forces if self.active is None else self.forces[self.active]
        return float(np.max(np.linalg.norm(moving, axis=1)))

    def displacements(self) -> npt.NDArray[np.float64]:
        """Return Cartesian modes of all atoms, (m, N, 3), unit norm; frozen atoms are at rest."""
        moving = self.result.displacements()
        if self.active is None:
            return moving
        full = np.zeros((len(self.result), len(self.atoms), 3))
        full[:, self.active] = moving
        return full


def single_point(calculator: Any, atoms: Atoms) -> tuple[float, Array]:
    """Energy, eV, and forces (N, 3), eV/angstrom, of one geometry.

    Raises:
        ConfigError: the model's answer is not finite.
    """
    energy, forces = evaluate_atoms(calculator, [atoms])[0]
    if not (np.isfinite(energy) and np.all(np.isfinite(forces))):
        raise ConfigError(f"{atoms.get_chemical_formula()}: the model's energy or forces are not finite")
    return energy, forces


def model_vibrations(
    calculator: Any, atoms: Atoms, masses: str | Array = "standard", frozen: Sequence[int] = ()
) -> SingleVibrations:
    """Normal modes of a geometry with a model; the geometry is taken as it is.

    Args:
        calculator: ASE calculator with `get_hessian`
        atoms: angstrom
        masses: `standard` or `isotopic`, whatever masses are set on the atoms; or (N,), u
        frozen: indices of atoms that are held fixed; nothing is projected out then

    Raises:
        ConfigError: the model's answer is not finite, or no atom is left to move.
    """
    energy, forces = single_point(calculator, atoms)
    active = _active(atoms, frozen)
    try:
        if active is None:
            hessian = check_hessian(calculator.get_hessian(atoms), len(atoms))
        else:
            hessian = check_hessian(calculator.get_hessian(atoms, indices=active.tolist()), len(active))
    except ValueError as exc:
        raise ConfigError(f"{atoms.get_chemical_formula()}: {exc}") from exc
    weights = masses_of(atoms.numbers, masses) if isinstance(masses, str) else np.asarray(masses, dtype=np.float64)
    return vibrations_from(atoms, energy, forces, hessian, weights, frozen)


def _active(atoms: Atoms, frozen: Sequence[int]) -> npt.NDArray[np.intp] | None:
    active = np.setdiff1d(np.arange(len(atoms)), np.asarray(frozen, dtype=int)) if len(frozen) else None
    if active is not None and (not len(active) or min(frozen) < 0 or max(frozen) >= len(atoms)):
        raise ConfigError(f"frozen atoms: expected indices 0 to {len(atoms) - 1}, and one or more atoms left to move")
    return active


def vibrations_from(
    atoms: Atoms, energy: float, forces: Array, hessian: Array, masses: Array, frozen: Sequence[int] = ()
) -> SingleVibrations:
    """Normal modes of a geometry whose Hessian is known; arguments and results as in `SingleVibrations`.

    Args:
        masses: (N,), u; frozen: indices of atoms that are held fixed
    """
    active = _active(atoms, frozen)
    result = vibrations(hessian, atoms.positions, masses, periodic=bool(np.any(atoms.pbc)), active=active)
    return SingleVibrations(atoms, energy, forces, hessian, result, len(hessian) - len(result), active)


def file_dipole_derivatives(path: str | Path, atoms: Atoms) -> npt.NDArray[np.float64]:
    """Dipole derivatives of a calculation, turned into the orientation of a geometry.

    Args:
        path: an output with dipole derivatives of any format of `nequip_hessian.formats`
        atoms: the same molecule, atoms in the same order, angstrom

    Returns:
        (3N, 3), e.

    Raises:
        ConfigError: no dipole derivatives of these atoms in it, or a geometry more than 0.3 angstrom away.
    """
    from nequip_hessian.formats import read

    for record in read(path):
        if record.dipole_derivatives is None or record.numbers.tolist() != atoms.numbers.tolist():
            continue
        distance = rmsd(record.positions, atoms.positions, mirror=False)
        if distance > _SAME_GEOMETRY:
            raise ConfigError(f"{path}: its geometry is {distance:.2f} angstrom (RMSD) from the one to analyse")
        turn = best_rotation(record.positions, atoms.positions)
        table = np.asarray(record.dipole_derivatives, dtype=np.float64).reshape(-1, 3, 3)
        return np.einsum("ij,ajc,dc->aid", turn, table, turn).reshape(-1, 3)
    raise ConfigError(
        f"{path}: no dipole derivatives of {atoms.get_chemical_formula()} in it, atoms in the same order; "
        "formatted checkpoints and ORCA .hess files have them"
    )
