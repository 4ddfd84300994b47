"""Thermochemistry from predicted Hessians against that from labelled ones, at the same stationary points.

298.15 K, 1 atm, rigid rotor, low modes after Grimme (`thermochemistry`). Geometry, symmetry number and
multiplicity are the same on both sides, so what differs is the vibrations. A point at which the model has
another number of imaginary modes than the reference counts other degrees of freedom: a failure, in no mean.
A Gibbs barrier is the electronic one at the reference geometries and the difference of the corrections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import record_vibrations
from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.symmetry import symmetry_number
from nequip_hessian.analysis.thermochemistry import Thermochemistry, thermochemistry
from nequip_hessian.record import LabelledGeometry

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class GasErrors:
    """Model minus reference at one stationary point.

    Attributes:
        enthalpy_correction: eV; entropy: eV/K; gibbs_correction: eV
        reference_gibbs_correction: eV
        failure: why there is no comparison
    """

    enthalpy_correction: float | None = None
    entropy: float | None = None
    gibbs_correction: float | None = None
    reference_gibbs_correction: float | None = None
    failure: str | None = None


def has_gas(record: LabelledGeometry) -> bool:
    """Whether a record is a free molecule at a minimum or transition state with a full Hessian."""
    free = not np.any(record.pbc) and record.active is None
    return free and record.hessian is not None and record.kind in ("minimum", "transition_state")


def _gas(record: LabelledGeometry, hessian: Array, masses: Array, sigma: int) -> Thermochemistry:
    waves = record_vibrations(record, hessian, masses).wavenumbers
    # a mode of exactly no frequency, as an untrained model has them, is lifted to what no entropy can tell from it
    waves = np.where(np.abs(waves) < 1e-3, 1e-3, waves)
    return thermochemistry(
        waves,
        np.asarray(record.positions),
        masses,
        energy=record.energy or 0.0,
        symmetry_number=sigma,
        multiplicity=int(record.multiplicity or 1),
    )


def gas_errors(record: LabelledGeometry, prediction: Prediction, masses: Array) -> GasErrors:
    """Compare the thermochemistry of one prediction with that of the label; masses (N,), u."""
    if prediction.failure is not None or prediction.hessian is None or record.hessian is None:
        return GasErrors(failure=prediction.failure or "no Hessian")
    sigma = symmetry_number(np.asarray(record.numbers), np.asarray(record.positions), masses)
    truth = _gas(record, np.asarray(record.hessian, dtype=np.float64), masses, sigma)
    model = _gas(record, prediction.hessian, masses, sigma)
    if model.n_left_out != truth.n_left_out:
        reason = f"{model.n_left_out} imaginary modes instead of {truth.n_left_out}"
        return GasErrors(reference_gibbs_correction=truth.gibbs_correction, failure=reason)
    return GasErrors(
        model.enthalpy_correction - truth.enthalpy_correction,
        model.entropy - truth.entropy,
        model.gibbs_correction - truth.gibbs_correction,
        truth.gibbs_correction,
    )


def gibbs_barrier_errors(
    single: tuple[float | None, float | None], gases: Mapping[str, GasErrors]
) -> list[float | None]:
    """Errors of the forward and the reverse Gibbs barrier, eV.

    Args:
        single: errors of the electronic barriers at the reference geometries, forward and reverse, eV
        gases: errors by role; a role that is not there or failed gives None
    """
    state = gases.get("transition_state")
    found: list[float | None] = []
    for error, role in zip(single, ("reactant", "product"), strict=True):
        end = gases.get(role)
        parts = (error, state.gibbs_correction if state else None, end.gibbs_correction if end else None)
        found.append(None if None in parts else float(parts[0] + parts[1] - parts[2]))  # type: ignore[operator]
    return found
