"""Extended tight binding (GFN2-xTB, GFN1-xTB, IPEA1-xTB) through tblite, Hessians by central differences."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from nequip_hessian.errors import EngineError, OptionError
from nequip_hessian.label.differences import central_differences, check_displacement
from nequip_hessian.label.engine import (
    DEFAULT_DISPLACEMENT,
    FloatArray,
    Labels,
    electronic_state,
    finite_labels,
    missing_extra,
    refuse_periodic,
)
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR

METHODS: Final = ("GFN2-xTB", "GFN1-xTB", "IPEA1-xTB")
LARGEST_NUMBER: Final = 86


@dataclass(frozen=True)
class TbliteEngine:
    """Settings of a tblite calculation.

    Attributes:
        method: one of METHODS
        accuracy: tblite's accuracy factor; 0.01 keeps the noise of the forces near 1e-6 eV/angstrom
        displacement: step of the central differences, angstrom
        max_iterations: SCC iterations before the geometry counts as failed
    """

    molecular: ClassVar[bool] = True  # works on one electronic state: charge and spin belong to the label

    method: str = "GFN2-xTB"
    accuracy: float = 0.01
    displacement: float = DEFAULT_DISPLACEMENT
    max_iterations: int = 250

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"method: tblite knows {', '.join(METHODS)}, found {self.method!r}")
        check_displacement(self.displacement)
        if importlib.util.find_spec("tblite") is None:
            raise missing_extra("tblite", "tblite")

    def level(self, hessian: bool) -> LevelOfTheory:
        """Level of theory of the labels."""
        from importlib.metadata import version

        return LevelOfTheory(
            method=self.method,
            program="tblite",
            program_version=version("tblite"),
            hessian="finite_difference" if hessian else None,
            displacement=self.displacement if hessian else None,
        )

    def check(self, geometry: LabelledGeometry) -> None:
        """Refuse periodic cells, impossible spins and elements beyond radon."""
        refuse_periodic(geometry, "tblite")
        electronic_state(geometry)
        heaviest = int(np.max(geometry.numbers))
        if heaviest > LARGEST_NUMBER:
            from ase.data import chemical_symbols

            raise EngineError(
                f"{geometry.formula}: {self.method} has no parameters for {chemical_symbols[heaviest]}; "
                f"it covers the elements up to {chemical_symbols[LARGEST_NUMBER]}"
            )

    def calculate(self, geometry: LabelledGeometry, hessian: bool) -> Labels:
        """Run the tight-binding calculation and, for the Hessian, two more for each coordinate."""
        charge, multiplicity = electronic_state(geometry)
        positions = np.array(geometry.positions, dtype=np.float64)
        calculator = self._calculator(geometry, positions, charge, multiplicity)
        result: Any = None

        def point(where: FloatArray) -> tuple[float, FloatArray]:
            nonlocal result
            calculator.update(positions=where / BOHR)
            try:
                # Starting from the last density saves two thirds of the iterations.
                result = calculator.singlepoint(result)
            except RuntimeError as exc:
                raise EngineError(f"{geometry.formula}: {self.method} failed: {exc}") from exc
            return result.get("energy") * HARTREE, -result.get("gradient") * HARTREE_PER_BOHR

        energy, forces = point(positions)
        matrix = central_differences(lambda r: point(r)[1], positions, self.displacement) if hessian else None
        return finite_labels(energy, forces, matrix, geometry)

    def _calculator(self, geometry: LabelledGeometry, positions: FloatArray, charge: int, multiplicity: int) -> Any:
        from tblite.interface import Calculator

        try:
            calculator = Calculator(
                self.method, geometry.numbers.astype(int), positions / BOHR, float(charge), multiplicity - 1
            )
            for name, value in (
                ("verbosity", 0),
                ("accuracy", self.accuracy),
                ("max-iter", self.max_iterations),
            ):
                calculator.set(name, value)
        except (RuntimeError, ValueError) as exc:
            raise EngineError(f"{geometry.formula}: {self.method} cannot be set up: {exc}") from exc
        return calculator
