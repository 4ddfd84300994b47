"""Vibrations at a model's own minima: relax from the reference geometry, then compare the normal modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import record_vibrations
from nequip_hessian.analysis.connectivity import other_species
from nequip_hessian.analysis.optimisation import relax
from nequip_hessian.analysis.prediction import atoms_of, check_hessian
from nequip_hessian.analysis.summary import Figure, Metric
from nequip_hessian.analysis.superpose import best_rotation, rmsd
from nequip_hessian.analysis.vibrations import VibrationErrors, compare_vibrations, turn_modes, vibrations
from nequip_hessian.errors import reason_of
from nequip_hessian.record import LabelledGeometry

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class RelaxedMinimum:
    """A model's minimum next to a reference one: positions (N, 3), angstrom; hessian (3N, 3N), eV/angstrom^2."""

    positions: Array
    hessian: Array
    steps: int
    failure: str | None = None


@dataclass(frozen=True)
class RelaxedErrors:
    """Errors at the model's own minimum; `rmsd` in angstrom from the reference geometry."""

    rmsd: float | None = None
    steps: int = 0
    n_imaginary: int | None = None
    vibrations: VibrationErrors | None = None
    failure: str | None = None


RELAXED_METRICS: Final[dict[str, Metric]] = {
    "relaxed_frequency_mae": Metric("cm⁻¹", "Frequency MAE at the model's own minimum"),
    "relaxed_frequency_low_mae": Metric("cm⁻¹", "the same, 0 to 400 cm⁻¹"),
    "relaxed_frequency_high_mae": Metric("cm⁻¹", "the same, 400 cm⁻¹ and above"),
    "relaxed_zpe_mae": Metric("eV", "Zero-point energy MAE at the model's own minimum"),
    "relaxed_rmsd": Metric("Å", "RMSD of the relaxed from the reference geometry"),
    "relaxed_failure_rate": Metric("1", "Minimisations that failed or left the species"),
}


def can_relax(record: LabelledGeometry) -> bool:
    """Whether a record is a free molecule of two or more atoms at a minimum, with a full Hessian."""
    free = not np.any(record.pbc) and record.active is None
    return free and record.kind == "minimum" and record.hessian is not None and len(record) > 1


def relaxed_minimum(record: LabelledGeometry, calculator: Any) -> RelaxedMinimum:
    """Relax a reference minimum with a model and take the model's Hessian there; failures are returned."""
    outcome = relax(atoms_of(record), calculator)
    positions = np.asarray(outcome.atoms.positions)
    none = np.full((3 * len(record), 3 * len(record)), np.nan)
    if outcome.failure is not None:
        return RelaxedMinimum(positions, none, outcome.steps, outcome.failure)
    try:
        hessian = check_hessian(calculator.get_hessian(outcome.atoms), len(record))
    except Exception as exc:  # whatever a model raises is that model's failure
        return RelaxedMinimum(positions, none, outcome.steps, reason_of(exc))
    return RelaxedMinimum(positions, hessian, outcome.steps)


def relaxed_errors(record: LabelledGeometry, minimum: RelaxedMinimum, masses: Array) -> RelaxedErrors:
    """Compare the modes at a model's minimum with those of the reference Hessian; masses (N,), u.

    The modes are turned into the frame of the reference geometry before they are matched. Where a minimisation ends in
    another species, or with more imaginary modes than the reference has, it is a failure with that reason.
    """
    if minimum.failure is not None or record.hessian is None:
        return RelaxedErrors(steps=minimum.steps, failure=minimum.failure or "no reference Hessian")
    moved = other_species(record.numbers, np.asarray(record.positions), minimum.positions)
    if moved is not None:
        return RelaxedErrors(steps=minimum.steps, failure=moved)
    reference = record_vibrations(record, record.hessian, masses)
    own = vibrations(minimum.hessian, minimum.positions, masses)
    turned = turn_modes(own, best_rotation(minimum.positions, np.asarray(record.positions)))
    if own.n_imaginary > reference.n_imaginary:
        found = f"{own.n_imaginary} imaginary mode{'s'[: own.n_imaginary - 1]} where the minimisation ends: no minimum"
        return RelaxedErrors(steps=minimum.steps, n_imaginary=own.n_imaginary, failure=found)
    return RelaxedErrors(
        rmsd(minimum.positions, np.asarray(record.positions)),
        minimum.steps,
        own.n_imaginary,
        compare_vibrations(reference, turned),
    )


def summarise_relaxed(errors: Sequence[RelaxedErrors]) -> dict[str, Figure]:
    """Join the errors of several minima into one figure for each name in `RELAXED_METRICS`."""
    spectra = [e.vibrations for e in errors if e.vibrations is not None]

    def figure(name: str, pairs: list[tuple[float | None, int]]) -> Figure:
        known = [(value, weight) for value, weight in pairs if value is not None and weight]
        total = sum(weight for _, weight in known)
        value = sum(value * weight for value, weight in known) / total if total else None
        return Figure(value, total, RELAXED_METRICS[name].unit)

    columns: dict[str, list[tuple[float | None, int]]] = {
        "relaxed_frequency_mae": [(v.frequency_mae, v.n) for v in spectra],
        "relaxed_frequency_low_mae": [(v.frequency_low_mae, v.n_low) for v in spectra],
        "relaxed_frequency_high_mae": [(v.frequency_high_mae, v.n_high) for v in spectra],
        "relaxed_zpe_mae": [(abs(v.zpe_error), 1) for v in spectra],
        "relaxed_rmsd": [(e.rmsd, 1) for e in errors],
        "relaxed_failure_rate": [(float(e.failure is not None), 1) for e in errors],
    }
    return {name: figure(name, columns[name]) for name in RELAXED_METRICS}
