"""Labels from any ASE calculator: its energy and forces, and central differences or its own Hessian."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from ase import Atoms

from nequip_hessian.curvature import as_square
from nequip_hessian.errors import EngineError
from nequip_hessian.label.differences import central_differences, check_displacement
from nequip_hessian.label.engine import DEFAULT_DISPLACEMENT, FloatArray, Labels, finite_labels
from nequip_hessian.record import LabelledGeometry, LevelOfTheory


@dataclass(frozen=True)
class AseEngine:
    """Settings of an ASE calculator.

    Attributes:
        calculator: where it is, `package.module:Name` or `package.module:Class.constructor`, or the
            name ASE knows it by, e.g. `emt`
        options: keyword arguments for it
        displacement: step of the central differences, angstrom; None takes the Hessian from the
            calculator's own `get_hessian(atoms)`, any customary shape, eV/angstrom^2
        method: name of the level of theory in the store; default: that of the calculator
        reads_charge: the calculator takes charge and multiplicity from `atoms.info` (keys `charge`,
            `multiplicity` and `spin`, both 2S + 1); without it a charged geometry is refused
            unless `options` has the same `charge`
    """

    calculator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    displacement: float | None = DEFAULT_DISPLACEMENT
    method: str | None = None
    reads_charge: bool = False

    def __post_init__(self) -> None:
        if self.displacement is not None:
            check_displacement(self.displacement)
        find_calculator(self.calculator)

    def level(self, hessian: bool) -> LevelOfTheory:
        """Level of theory of the labels; program and version are those of the calculator's package."""
        package = find_calculator(self.calculator).__module__.partition(".")[0]
        numerical = hessian and self.displacement is not None
        return LevelOfTheory(
            method=self.method or self.calculator.rpartition(":")[2],
            program=package,
            program_version=getattr(importlib.import_module(package), "__version__", None),
            hessian=None if not hessian else "finite_difference" if numerical else "analytic",
            displacement=self.displacement if numerical else None,
        )

    def check(self, geometry: LabelledGeometry) -> None:
        """Refuse a charge that the calculator would not hear of."""
        charge = geometry.charge or 0
        if charge != self.options.get("charge", 0) and not self.reads_charge:
            raise EngineError(
                f"{geometry.formula}: the geometry has charge {charge}, but calculator {self.calculator!r} would not "
                'know: give it among the calculator\'s options ("charge": ...), or say that it reads charge and '
                "multiplicity from atoms.info (--reads-charge)"
            )

    def calculate(self, geometry: LabelledGeometry, hessian: bool) -> Labels:
        """Ask the calculator; a new one for each geometry, so that none inherits another's state."""
        atoms = self._atoms(geometry)
        try:
            energy = atoms.get_potential_energy()
            forces = atoms.get_forces(apply_constraint=False)
            matrix = self._hessian(atoms) if hessian else None
        except EngineError:
            raise
        except Exception as exc:  # any exception may come out of any calculator
            raise EngineError(f"{geometry.formula}: {self.calculator}: {type(exc).__name__}: {exc}") from exc
        return finite_labels(energy, forces, matrix, geometry)

    def _atoms(self, geometry: LabelledGeometry) -> Atoms:
        atoms = Atoms(geometry.numbers, geometry.positions, cell=geometry.cell, pbc=geometry.pbc)
        if self.reads_charge:
            charge, multiplicity = geometry.charge or 0, geometry.multiplicity
            odd = (int(np.sum(geometry.numbers, dtype=int)) - charge) % 2
            spin = multiplicity or odd + 1
            atoms.info.update(charge=charge, multiplicity=spin, spin=spin)
        try:
            atoms.calc = find_calculator(self.calculator)(**self.options)
        except Exception as exc:
            raise EngineError(f"calculator {self.calculator!r} cannot be made: {type(exc).__name__}: {exc}") from exc
        return atoms

    def _hessian(self, atoms: Atoms) -> FloatArray:
        if self.displacement is None:
            own = getattr(atoms.calc, "get_hessian", None)
            if own is None:
                raise EngineError(
                    f"calculator {self.calculator!r} has no get_hessian; give a displacement for central differences"
                )
            return np.asarray(as_square(np.asarray(own(atoms)), len(atoms)), dtype=np.float64)

        def forces(positions: FloatArray) -> FloatArray:
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.set_positions(positions, apply_constraint=False)
            return np.asarray(moved.get_forces(apply_constraint=False), dtype=np.float64)

        return central_differences(forces, atoms.get_positions(), self.displacement)


def find_calculator(path: str) -> Any:
    """Find a calculator class or a function that makes a calculator.

    Args:
        path: `package.module:Name`, `package.module:Class.constructor`, or a name of ASE's such as `emt`

    Raises:
        EngineError: there is none, or its package is not installed
    """
    try:
        if ":" not in path:
            from ase.calculators.calculator import get_calculator_class

            return get_calculator_class(path)
        module, _, name = path.partition(":")
        return reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError, KeyError, ValueError) as exc:
        raise EngineError(
            f"calculator {path!r} not found ({exc}); give package.module:Name, e.g. ase.calculators.emt:EMT, or a name "
            "ASE knows, e.g. emt"
        ) from exc
