"""Hartree-Fock and density functionals with analytic Hessians, through PySCF (Apache-2.0).

Restricted for singlets, unrestricted for every other multiplicity. The Hessian
is analytic, of fixed quadrature weights: the grid level sets how well it obeys
the translational identity (B3LYP: about 0.03 eV/angstrom^2 at level 3, 0.01 at 4).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nequip_hessian.errors import EngineError, OptionError
from nequip_hessian.label.engine import (
    Labels,
    electronic_state,
    finite_labels,
    missing_extra,
    refuse_periodic,
)
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2


@dataclass(frozen=True)
class PyscfEngine:
    """Settings of a PySCF calculation.

    Attributes:
        method: `hf` or the name of a functional as PySCF knows it, e.g. `b3lyp`, `pbe0`
        basis: basis set as PySCF knows it; def2 sets bring their effective core potentials
        grid_level: quadrature grid, 0 to 9; density functionals only
        conv_tol: SCF convergence of the energy, Eh
        max_cycle: SCF iterations before the geometry counts as failed
    """

    molecular: ClassVar[bool] = True  # works on one electronic state: charge and spin belong to the label

    method: str = "b3lyp"
    basis: str = "def2-svp"
    grid_level: int = 4
    conv_tol: float = 1e-10
    max_cycle: int = 100

    def __post_init__(self) -> None:
        if importlib.util.find_spec("pyscf") is None:
            raise missing_extra("pyscf", "pyscf")
        if not 0 <= self.grid_level <= 9:
            raise OptionError(f"grid level: expected 0 to 9, found {self.grid_level}")
        if not self.is_hf:
            check_functional(self.method)

    @property
    def is_hf(self) -> bool:
        """Whether this is Hartree-Fock rather than a density functional."""
        return self.method.lower() in ("hf", "rhf", "uhf", "scf")

    def level(self, hessian: bool) -> LevelOfTheory:
        """Level of theory of the labels."""
        import pyscf

        return LevelOfTheory(
            method="HF" if self.is_hf else self.method.upper(),
            basis=self.basis,
            program="PySCF",
            program_version=pyscf.__version__,
            hessian="analytic" if hessian else None,
        )

    def check(self, geometry: LabelledGeometry) -> None:
        """Refuse periodic cells, impossible spins and elements the basis set does not have."""
        refuse_periodic(geometry, "pyscf")
        self.molecule(geometry)

    def molecule(self, geometry: LabelledGeometry) -> Any:
        """Build the `pyscf.gto.Mole` of a geometry."""
        from pyscf import gto

        charge, multiplicity = electronic_state(geometry)
        atoms = [(int(z), tuple(r / BOHR)) for z, r in zip(geometry.numbers, geometry.positions, strict=True)]
        heavy = {int(z): self.basis for z in geometry.numbers if z > 36 and self.basis.lower().startswith("def2")}
        try:
            return gto.M(
                atom=atoms, unit="Bohr", basis=self.basis, ecp=heavy, charge=charge, spin=multiplicity - 1, verbose=0
            )
        except (KeyError, RuntimeError, ValueError) as exc:
            raise EngineError(
                f"{geometry.formula}: PySCF cannot set up basis {self.basis!r} for these elements ({exc})"
            ) from exc

    def mean_field(self, geometry: LabelledGeometry) -> Any:
        """Build the mean-field object of a geometry, not yet run."""
        from pyscf import dft, scf

        molecule = self.molecule(geometry)
        if self.is_hf:
            field = scf.RHF(molecule) if molecule.spin == 0 else scf.UHF(molecule)
        else:
            field = dft.RKS(molecule) if molecule.spin == 0 else dft.UKS(molecule)
            field.xc = self.method
            field.grids.level = self.grid_level
        field.conv_tol = self.conv_tol
        field.max_cycle = self.max_cycle
        return field

    def calculate(self, geometry: LabelledGeometry, hessian: bool) -> Labels:
        """Run SCF, gradient and, where asked for, the analytic Hessian."""
        field = self.mean_field(geometry)
        run_scf(field, geometry)
        return labels_of(field, geometry, hessian)


def check_functional(name: str) -> None:
    """Raise EngineError where PySCF's libxc does not know a functional."""
    from pyscf.dft import libxc

    try:
        libxc.parse_xc(name)
    except (KeyError, ValueError) as exc:
        raise OptionError(f"method: PySCF knows neither a functional nor a method {name!r}") from exc


def run_scf(field: Any, geometry: LabelledGeometry, density: Any = None) -> None:
    """Converge a mean-field object in place, with the second-order solver where the first one fails.

    Args:
        field: from `PyscfEngine.mean_field`
        geometry: for the message
        density: density matrix to start from

    Raises:
        EngineError: no convergence
    """
    field.kernel(dm0=density)
    if field.converged:
        return
    second = field.newton()
    second.kernel(mo_coeff=field.mo_coeff, mo_occ=field.mo_occ)
    if not second.converged:
        raise EngineError(
            f"{geometry.formula}: SCF not converged to {field.conv_tol:g} Eh in {field.max_cycle} cycles, nor by the "
            "second-order solver; the geometry may need another spin state or a multireference method"
        )
    for name in ("mo_coeff", "mo_occ", "mo_energy", "e_tot", "converged"):
        setattr(field, name, getattr(second, name))


def labels_of(field: Any, geometry: LabelledGeometry, hessian: bool) -> Labels:
    """Gradient and analytic Hessian of a converged mean-field object, in the package's units."""
    gradient = np.asarray(field.nuc_grad_method().kernel())
    matrix = None
    if hessian:
        n = 3 * len(geometry)
        matrix = np.asarray(field.Hessian().kernel()).transpose(0, 2, 1, 3).reshape(n, n) * HARTREE_PER_BOHR2
    return finite_labels(field.e_tot * HARTREE, -gradient * HARTREE_PER_BOHR, matrix, geometry)
