"""What a model says about labelled geometries: energies, forces, Hessians, or why it says nothing.

A model is any ASE calculator with `get_hessian(atoms, indices=None)` -> (n, n), eV/angstrom^2. Where
it also has `evaluate_many(list_of_atoms)` -> list of (energy, forces) and `get_hessians(list_of_atoms)`
-> list of (3N, 3N), these are used, so that a batch is one call. A prediction that is not finite, of
another shape, or that raises is a failure: it is kept with its reason and counted in a rate later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import atomic_masses_common, atomic_masses_iupac2016, chemical_symbols

from nequip_hessian.curvature import as_square, symmetrise
from nequip_hessian.errors import ConfigError, MissingExtraError, OptionError, reason_of
from nequip_hessian.record import LabelledGeometry

Array = npt.NDArray[np.floating[Any]]

MASS_CHOICES: Final = ("standard", "isotopic", "source")


@dataclass(frozen=True, eq=False)
class Prediction:
    """One model's answer for one geometry.

    Attributes:
        energy: eV; forces: (N, 3), eV/angstrom; None where the model failed
        hessian: (n, n) symmetric, eV/angstrom^2; None where none was asked for or the model failed
        failure: why the prediction cannot be used, None where it can
    """

    energy: float | None = None
    forces: Array | None = None
    hessian: Array | None = None
    failure: str | None = None


def atoms_of(record: LabelledGeometry) -> Atoms:
    """Return the geometry as ASE atoms (angstrom) with `charge` and `multiplicity` in `info` where known."""
    info = {name: getattr(record, name) for name in ("charge", "multiplicity") if getattr(record, name) is not None}
    return Atoms(
        np.asarray(record.numbers, dtype=int), np.array(record.positions), cell=record.cell, pbc=record.pbc, info=info
    )


def masses_of(
    numbers: npt.NDArray[Any], choice: str = "standard", source: Array | None = None
) -> npt.NDArray[np.float64]:
    """Masses for the normal modes.

    Args:
        numbers: (N,) atomic numbers
        choice: `standard` (IUPAC 2016 standard atomic weights, as ASE), `isotopic` (most common
            isotope) or `source` (those of the program that made the labels, standard where unknown)
        source: (N,) masses of the source, u, or None

    Returns:
        (N,), u.

    Raises:
        ConfigError: another choice.
    """
    if choice not in MASS_CHOICES:
        raise OptionError(f"masses: expected one of {', '.join(MASS_CHOICES)}, found {choice!r}")
    if choice == "source" and source is not None:
        return np.asarray(source, dtype=np.float64)
    table = atomic_masses_common if choice == "isotopic" else atomic_masses_iupac2016
    return np.asarray(table, dtype=np.float64)[np.asarray(numbers, dtype=int)]


def with_isotopes(
    numbers: npt.NDArray[Any], masses: npt.NDArray[np.float64], isotopes: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Replace the masses of some atoms.

    Args:
        numbers: (N,) atomic numbers; masses: (N,), u
        isotopes: `ATOM=MASS` each, ATOM an index from 0 or a symbol (all atoms of the element), MASS in u

    Returns:
        (N,), u.

    Raises:
        ConfigError: not of this form, no such atom, or a mass that is not positive.
    """
    result = np.array(masses, dtype=np.float64)
    for text in isotopes:
        atom, _, value = text.partition("=")
        try:
            mass = float(value)
            chosen = [int(atom)] if atom.isdigit() else np.flatnonzero(numbers == chemical_symbols.index(atom)).tolist()
        except ValueError:
            mass, chosen = 0.0, []
        if not (np.isfinite(mass) and mass > 0) or not chosen or max(chosen) >= len(result):
            raise ConfigError(
                f"isotope {text!r}: expected ATOM=MASS with an atom 0 to {len(result) - 1} or an element of this "
                "geometry, and a mass in u, e.g. 3=2.014 or H=2.014"
            )
        result[chosen] = mass
    return result


def unknown_elements(calculator: Any, numbers: Iterable[int]) -> str | None:
    """Say which of some atomic numbers a model has not seen.

    Args:
        calculator: a calculator; asked only if it has an attribute `species` (symbols)
        numbers: atomic numbers

    Returns:
        A sentence with the symbols; None where all are known, or the model does not say which it knows.
    """
    known = getattr(calculator, "species", None)
    if known is None:
        return None
    missing = sorted({chemical_symbols[int(z)] for z in set(numbers)} - {str(symbol) for symbol in known})
    if not missing:
        return None
    return f"the model has not seen {', '.join(missing)}; it was trained on {', '.join(map(str, known))}"


def refuse_unknown_elements(calculator: Any, geometries: Sequence[Sequence[int]], model: str) -> None:
    """Raise where a model can answer for none of some geometries; where it can for some, the rest are failures.

    Args:
        calculator: a calculator
        geometries: atomic numbers of each
        model: name for the message

    Raises:
        ConfigError: names the symbols the model has not seen.
    """
    if all(unknown_elements(calculator, numbers) for numbers in geometries):
        every = {number for numbers in geometries for number in numbers}
        raise ConfigError(
            f"{model}: {unknown_elements(calculator, every)}, and every geometry has one of those. Take a model for "
            "these elements, or other geometries"
        )


def check_hessian(hessian: Any, atoms: int) -> Array:
    """Bring a predicted Hessian to a finite symmetric (3N, 3N), eV/angstrom^2.

    Raises:
        ValueError: not finite, or of another shape.
    """
    square = as_square(np.asarray(hessian, dtype=np.float64), atoms)
    if not np.all(np.isfinite(square)):
        raise ValueError("the predicted Hessian is not finite")
    return symmetrise(square)[0]


def _check_forces(energy: Any, forces: Any, n_atoms: int) -> tuple[float, Array]:
    array = np.asarray(forces, dtype=np.float64)
    if array.shape != (n_atoms, 3):
        raise ValueError(f"expected forces of shape ({n_atoms}, 3), found {array.shape}")
    if not (np.isfinite(energy) and np.all(np.isfinite(array))):
        raise ValueError("predicted energy or forces are not finite")
    return float(energy), array


def evaluate_atoms(calculator: Any, images: Sequence[Atoms]) -> list[tuple[float, Array]]:
    """Energies, eV, and forces (N, 3), eV/angstrom, of several geometries, in one batch where the model can."""
    if hasattr(calculator, "evaluate_many"):
        return [(float(energy), np.asarray(forces)) for energy, forces in calculator.evaluate_many(list(images))]
    answers = []
    for atoms in images:
        probe = atoms.copy()
        probe.calc = calculator
        answers.append((float(probe.get_potential_energy()), np.asarray(probe.get_forces())))
    return answers


def evaluate_hessians(calculator: Any, images: Sequence[Atoms]) -> list[Array]:
    """Hessians (3N, 3N), eV/angstrom^2, symmetric, of several geometries, in one batch where the model can.

    Raises:
        ConfigError: one that is not finite or of another shape.
    """
    raw = calculator.get_hessians(list(images)) if hasattr(calculator, "get_hessians") else None
    found = []
    for index, atoms in enumerate(images):
        try:
            found.append(check_hessian(calculator.get_hessian(atoms) if raw is None else raw[index], len(atoms)))
        except ValueError as exc:
            raise ConfigError(f"geometry {index}, {atoms.get_chemical_formula()}: {exc}") from exc
    return found


def _hessians(calculator: Any, records: Sequence[LabelledGeometry]) -> list[Any]:
    images = [atoms_of(record) for record in records]
    if hasattr(calculator, "get_hessians") and all(record.active is None for record in records):
        return list(calculator.get_hessians(images))
    answers = []
    for record, atoms in zip(records, images, strict=True):
        if record.active is None:
            answers.append(calculator.get_hessian(atoms))
        else:
            answers.append(calculator.get_hessian(atoms, indices=record.active))
    return answers


def predict(calculator: Any, records: Sequence[LabelledGeometry]) -> list[Prediction]:
    """Ask a model for energy and forces of every record, and for the Hessian where the record has one.

    Args:
        calculator: ASE calculator with `get_hessian`, see the module
        records: any number of labelled geometries; one call is one batch

    Returns:
        One prediction a record, failures included; never raises on what the model does.

    Raises:
        MissingExtraError: the model needs a package that is not installed.
    """
    try:
        return _predict_batch(calculator, records)
    except MissingExtraError:
        raise
    except Exception as exc:  # whatever a model raises is a failure of that model, not of the run
        if len(records) > 1:  # find out which one it was (or the batch was too large for the memory)
            return [predict(calculator, [record])[0] for record in records]
        return [Prediction(failure=reason_of(exc))]


def _predict_batch(calculator: Any, records: Sequence[LabelledGeometry]) -> list[Prediction]:
    answers = evaluate_atoms(calculator, [atoms_of(record) for record in records])
    with_hessian = [i for i, record in enumerate(records) if record.hessian is not None]
    raw = _hessians(calculator, [records[i] for i in with_hessian]) if with_hessian else []
    hessians = dict(zip(with_hessian, raw, strict=True))
    predictions = []
    for i, record in enumerate(records):
        try:
            energy, forces = _check_forces(*answers[i], len(record))
            atoms = len(record) if record.active is None else len(record.active)
            hessian = check_hessian(hessians[i], atoms) if i in hessians else None
            predictions.append(Prediction(energy, forces, hessian))
        except ValueError as exc:
            predictions.append(Prediction(failure=str(exc)))
    return predictions
