"""What an engine is: something that turns one geometry into energy, forces and Hessian.

An engine is a small frozen dataclass of plain settings, so that it pickles, can
be hashed into the journal of a labelling run, and is rebuilt in each worker
process; whatever is heavy or unpicklable is made inside `calculate`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import EngineError, MissingExtraError
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

DEFAULT_DISPLACEMENT: Final = 0.005
"""Step of central differences, angstrom: truncation (h^2) and rounding (1/h) errors of tight xTB meet near here."""


@dataclass(frozen=True)
class Labels:
    """What one calculation gave, as the engine gave it.

    Attributes:
        energy: eV
        forces: (N, 3), eV/angstrom
        hessian: (3N, 3N), eV/angstrom^2, not symmetrised; None where none was asked for
    """

    energy: float
    forces: FloatArray
    hessian: FloatArray | None


class Engine(Protocol):
    """Makes labels. Settings are dataclass fields; `level` says what is written into the store."""

    def level(self, hessian: bool) -> LevelOfTheory:
        """Level of theory of the labels, with how the Hessian is made where one is (`hessian`)."""
        ...

    def check(self, geometry: LabelledGeometry) -> None:
        """Raise EngineError where this engine cannot do this geometry; cheap, runs before any calculation."""
        ...

    def calculate(self, geometry: LabelledGeometry, hessian: bool) -> Labels:
        """Do the calculation; EngineError where it fails or does not converge."""
        ...


def missing_extra(package: str, engine: str) -> MissingExtraError:
    """The error for an engine whose package is not installed."""
    return MissingExtraError(
        f'engine {engine!r} needs the package {package!r}, which is not installed: pip install "nequip-hessian[label]"'
    )


def electronic_state(geometry: LabelledGeometry) -> tuple[int, int]:
    """Charge and multiplicity for a molecular engine; unknown ones mean neutral and the lowest spin.

    Args:
        geometry: `charge` None counts as 0, `multiplicity` None as 1 or 2 by the number of electrons

    Returns:
        (charge in e, multiplicity 2S + 1)

    Raises:
        EngineError: the multiplicity does not fit the number of electrons
    """
    charge = geometry.charge or 0
    electrons = int(np.sum(geometry.numbers, dtype=int)) - charge
    multiplicity = geometry.multiplicity or electrons % 2 + 1
    if electrons < 1 or (electrons + multiplicity) % 2 == 0 or multiplicity > electrons + 1:
        raise EngineError(
            f"{geometry.formula}: charge {charge} leaves {electrons} electrons, which cannot have multiplicity "
            f"{multiplicity}; give charge and multiplicity in the file's info or with --charge and --multiplicity"
        )
    return charge, multiplicity


def refuse_periodic(geometry: LabelledGeometry, engine: str) -> None:
    """Raise EngineError for a periodic cell given to a molecular engine."""
    if np.any(geometry.pbc):
        raise EngineError(
            f"{geometry.formula}: the cell is periodic, and engine {engine!r} does free molecules only; "
            "use --engine ase with a calculator for periodic cells"
        )


def finite_labels(energy: Any, forces: Any, hessian: Any, geometry: LabelledGeometry) -> Labels:
    """Check shapes and finiteness of what a program returned.

    Args:
        energy: eV
        forces: anything of shape (N, 3), eV/angstrom
        hessian: None or (3N, 3N), eV/angstrom^2
        geometry: the geometry they belong to

    Raises:
        EngineError: a wrong shape, NaN or infinity
    """
    n = len(geometry)
    labels = Labels(
        float(energy),
        np.asarray(forces, dtype=np.float64),
        None if hessian is None else np.asarray(hessian, dtype=np.float64),
    )
    shapes = [(labels.forces, (n, 3)), (labels.hessian, (3 * n, 3 * n))]
    for array, shape in shapes:
        if array is not None and array.shape != shape:
            raise EngineError(f"{geometry.formula}: expected an array {shape} from the engine, found {array.shape}")
    if not all(np.all(np.isfinite(a)) for a in (labels.energy, labels.forces, labels.hessian) if a is not None):
        raise EngineError(f"{geometry.formula}: the engine returned NaN or infinity")
    return labels
