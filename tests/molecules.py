"""Real labels for tests: small molecules, GFN2-xTB energies, forces and central-difference Hessians."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import molecule
from tblite.ase import TBLite

from nequip_hessian.record import LabelledGeometry, LevelOfTheory

GFN2 = LevelOfTheory("GFN2-xTB", program="tblite", hessian="finite_difference", displacement=0.005)
STEP = 0.005


def xtb(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (N, 3) (eV/angstrom)."""
    atoms = atoms.copy()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)
    return atoms.get_potential_energy(), atoms.get_forces()


def difference_rows(forces: Callable[[Atoms], np.ndarray], atoms: Atoms, step: float) -> np.ndarray:
    """Raw (3N, 3N) Hessian, eV/angstrom^2, by central differences of forces (N, 3) at steps in angstrom."""
    rows = []
    for i in range(len(atoms)):
        for axis in range(3):
            pair = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[i, axis] += sign * step
                pair.append(forces(moved).ravel())
            rows.append((pair[1] - pair[0]) / (2 * step))
    return np.array(rows)


def xtb_hessian(atoms: Atoms) -> np.ndarray:
    """The same of GFN2-xTB."""
    return difference_rows(lambda moved: xtb(moved)[1], atoms, STEP)


def labelled(name: str, seed: int, *, hessian: bool = True, group: str | None = None, rattle: float = 0.05):
    """One labelled geometry of a molecule of ASE's G2 set, displaced at random."""
    atoms = molecule(name)
    atoms.rattle(rattle, seed=seed)
    energy, forces = xtb(atoms)
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        energy=energy,
        forces=forces,
        hessian=xtb_hessian(atoms) if hessian else None,
        charge=0,
        multiplicity=1,
        kind="displaced",
        group=group or name,
        label=f"{name}-{seed}",
        level=GFN2,
    )
