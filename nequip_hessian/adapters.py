"""Hessians for other people's optimisers: geomeTRIC, and anything that asks in pysisyphus's way.

Sella takes `hessian_function=calculator.get_hessian` as it is. The others work in atomic units: energies Eh,
lengths a0, forces Eh/a0, Hessians Eh/a0^2, degree of freedom 3*atom + xyz.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.prediction import check_hessian, evaluate_atoms
from nequip_hessian.errors import ConfigError, MissingExtraError
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2

Array = npt.NDArray[np.float64]


def geometric_hessian(calculator: Any, atoms: Atoms) -> list[list[float]]:
    """Return the Hessian for geomeTRIC's `hess_data`, (3N, 3N), Eh/a0^2.

    A list of lists, because geomeTRIC asks `if hess_data`, which an array refuses. It is the first Hessian
    of `run_optimizer(customengine=..., transition=True, hess_data=...)`; geomeTRIC updates it from there.

    Args:
        calculator: ASE calculator with `get_hessian`
        atoms: the start of the optimisation, angstrom

    Raises:
        ValueError: the Hessian is not finite or of another shape.
    """
    hessian = check_hessian(calculator.get_hessian(atoms), len(atoms))
    rows: list[list[float]] = (np.asarray(hessian, dtype=np.float64) / HARTREE_PER_BOHR2).tolist()
    return rows


def geometric_engine(calculator: Any, atoms: Atoms) -> Any:
    """Return an engine for geomeTRIC's `customengine` that evaluates an ASE calculator.

    Raises:
        MissingExtraError: geomeTRIC is not installed.
    """
    try:
        from geometric.ase_engine import EngineASE
        from geometric.molecule import Molecule
    except ImportError as exc:
        raise MissingExtraError("the engine for geomeTRIC needs the package geometric: pip install geometric") from exc
    molecule = Molecule()
    molecule.elem = atoms.get_chemical_symbols()
    molecule.xyzs = [np.array(atoms.positions)]
    return EngineASE(molecule, calculator)


class PysisyphusCalculator:
    """An ASE calculator with the methods that pysisyphus calls; that package is not imported.

    `geometry.set_calculator(PysisyphusCalculator(calculator))` there. Symbols may come in lower case, coordinates
    as (3N,) or (N, 3), a0. Every answer has `energy`, Eh; forces are (3N,), Eh/a0; the Hessian (3N, 3N), Eh/a0^2.

    Args:
        calculator: ASE calculator with `get_hessian`
        info: goes into `atoms.info`, e.g. charge and multiplicity
    """

    def __init__(self, calculator: Any, info: dict[str, Any] | None = None) -> None:
        self.calculator, self.info = calculator, dict(info or {})

    def _atoms(self, atoms: Sequence[str], coords: Any) -> Atoms:
        positions = np.asarray(coords, dtype=np.float64)
        if positions.size != 3 * len(atoms):
            raise ConfigError(f"expected {3 * len(atoms)} coordinates for {len(atoms)} atoms, found {positions.size}")
        symbols = [symbol.capitalize() for symbol in atoms]
        return Atoms(symbols, positions.reshape(-1, 3) * BOHR, info=dict(self.info))

    def get_energy(self, atoms: Sequence[str], coords: Any, **_: Any) -> dict[str, Any]:
        """Return {"energy"}."""
        return {"energy": self.get_forces(atoms, coords)["energy"]}

    def get_forces(self, atoms: Sequence[str], coords: Any, **_: Any) -> dict[str, Any]:
        """Return {"energy", "forces"}."""
        energy, forces = evaluate_atoms(self.calculator, [self._atoms(atoms, coords)])[0]
        return {"energy": energy / HARTREE, "forces": np.asarray(forces).ravel() / HARTREE_PER_BOHR}

    def get_hessian(self, atoms: Sequence[str], coords: Any, **_: Any) -> dict[str, Any]:
        """Return {"energy", "hessian"}."""
        geometry = self._atoms(atoms, coords)
        hessian = check_hessian(self.calculator.get_hessian(geometry), len(geometry))
        energy = evaluate_atoms(self.calculator, [geometry])[0][0]
        return {"energy": energy / HARTREE, "hessian": np.asarray(hessian) / HARTREE_PER_BOHR2}
