"""Real potentials that differ: xTB Hamiltonians through tblite, Hessians by central differences of forces.

GFN2-xTB plays the reference, GFN1-xTB and IPEA1-xTB play models: their errors are real and of useful size.
"""

from __future__ import annotations

import functools

import numpy as np
from ase import Atoms
from tblite.ase import TBLite

from nequip_hessian.record import LabelledGeometry, LevelOfTheory

STEP = 0.005  # angstrom
GFN2 = LevelOfTheory("GFN2-xTB", program="tblite", hessian="finite_difference", displacement=STEP)

# stationary points of H-C-N on the GFN2-xTB surface, largest force below 1e-4 eV/angstrom
HCN_TO_HNC_TS = [[-0.3039057, 0.0, -0.6585053], [0.6544677, 0.0, -0.0011765], [-0.350562, 0.0, 0.6596817]]


def xtb(method: str = "GFN1-xTB") -> TBLite:
    """ASE calculator with `get_hessian(atoms, indices=None)`."""
    calculator = TBLite(method=method, verbosity=0, accuracy=0.05)

    def get_hessian(atoms, indices=None):
        probe = atoms.copy()
        probe.calc = calculator
        moving = list(range(len(probe)) if indices is None else indices)
        rows = []
        for atom in moving:
            for axis in range(3):
                sides = []
                for sign in (1, -1):
                    probe.positions[atom, axis] += sign * STEP
                    sides.append(probe.get_forces())
                    probe.positions[atom, axis] -= sign * STEP
                rows.append(((sides[1] - sides[0]) / (2 * STEP))[moving].ravel())
        return np.array(rows)

    calculator.get_hessian = get_hessian
    return calculator


def label(symbols, positions, *, hessian: bool = True, **fields) -> LabelledGeometry:
    """Label a geometry with GFN2-xTB."""
    atoms = Atoms(symbols, positions)
    calculator = xtb("GFN2-xTB")
    atoms.calc = calculator
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        charge=0,
        multiplicity=1,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        hessian=calculator.get_hessian(atoms) if hessian else None,
        level=GFN2,
        **fields,
    )


@functools.cache
def hydrogen_cyanide() -> dict[str, LabelledGeometry]:
    """Return reactant, transition state and product of HCN -> HNC, optimised and labelled with GFN2-xTB."""
    from nequip_hessian.analysis.optimisation import relax

    ends = {
        "reactant": [[0, 0, -1.07], [0, 0, 0], [0, 0, 1.15]],
        "product": [[0, 0, 2.17], [0, 0, 0], [0, 0, 1.17]],
    }
    found = {}
    for role, positions in ends.items():
        relaxed = relax(Atoms("HCN", positions), xtb("GFN2-xTB"), fmax=1e-3)
        found[role] = label("HCN", relaxed.atoms.positions, kind="minimum", role=role, group="HCN to HNC", label=role)
    found["transition_state"] = label(
        "HCN", HCN_TO_HNC_TS, kind="transition_state", role="transition_state", group="HCN to HNC", label="saddle"
    )
    return found
