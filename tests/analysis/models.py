"""Real potentials with a Hessian: xTB through tblite, Hessian by central differences of its forces."""

import numpy as np
from ase import Atoms
from tblite.ase import TBLite

from nequip_hessian.record import LabelledGeometry

STEP = 0.005  # angstrom


class Xtb:
    """ASE-calculator-like: `calc.get_hessian(atoms)`, and a calculator attached to atoms through `Xtb.ase`."""

    def __new__(cls, method="GFN2-xTB"):
        calculator = TBLite(method=method, verbosity=0, accuracy=0.05)

        def get_hessian(atoms, indices=None):
            probe = atoms.copy()
            probe.calc = calculator
            moving = range(len(probe)) if indices is None else indices
            rows = []
            for atom in moving:
                for axis in range(3):
                    sides = []
                    for sign in (1, -1):
                        probe.positions[atom, axis] += sign * STEP
                        sides.append(probe.get_forces())
                        probe.positions[atom, axis] -= sign * STEP
                    rows.append(((sides[1] - sides[0]) / (2 * STEP))[list(moving)].ravel())
            return np.array(rows)

        calculator.get_hessian = get_hessian
        return calculator


def label(symbols, positions, method="GFN2-xTB", *, hessian=True, **fields):
    """Label a geometry with xTB."""
    atoms = Atoms(symbols, positions)
    calculator = Xtb(method)
    atoms.calc = calculator
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        charge=0,
        multiplicity=1,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        hessian=calculator.get_hessian(atoms) if hessian else None,
        **fields,
    )
