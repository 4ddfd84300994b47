"""Labels that cost nothing: diatomic molecules with ASE's effective medium theory."""

from __future__ import annotations

from ase import Atoms
from ase.calculators.emt import EMT

from nequip_hessian.potentials import ForeignPotential
from nequip_hessian.record import LabelledGeometry, LevelOfTheory


def labelled_pair(symbols: str, distance: float, **fields) -> LabelledGeometry:
    """Label two atoms at a distance in angstrom; Hessian by central differences of EMT forces."""
    atoms = Atoms(symbols, [[0, 0, 0], [0, 0, distance]])
    potential = ForeignPotential(EMT(), "EMT")
    atoms.calc = potential
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        charge=0,
        multiplicity=1,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        hessian=potential.get_hessian(atoms),
        level=LevelOfTheory("EMT", program="ase"),
        **fields,
    )
