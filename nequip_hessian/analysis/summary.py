"""From errors of single geometries to the figures of a subset; every figure carries its number of cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import GeometryErrors, composition_shift
from nequip_hessian.units import HARTREE_PER_BOHR2


@dataclass(frozen=True)
class Metric:
    """One figure: its unit, how it reads in a table, and which way is better (`lower` or `higher`)."""

    unit: str
    title: str
    better: str = "lower"


@dataclass(frozen=True)
class Figure:
    """A value with its unit and the number of cases behind it; the value is None without a case."""

    value: float | None
    n: int
    unit: str


_PROJECTED: Final = "eV/(Å² u)"

METRICS: Final[dict[str, Metric]] = {
    "energy_mae": Metric("eV", "Energy MAE"),
    "energy_rmse": Metric("eV", "Energy RMSE"),
    "energy_per_atom_mae": Metric("eV/atom", "Energy per atom MAE"),
    "energy_per_atom_rmse": Metric("eV/atom", "Energy per atom RMSE"),
    "shifted_energy_mae": Metric("eV", "Energy MAE, composition shift removed"),
    "shifted_energy_rmse": Metric("eV", "Energy RMSE, composition shift removed"),
    "shifted_energy_per_atom_mae": Metric("eV/atom", "Energy per atom MAE, composition shift removed"),
    "shifted_energy_per_atom_rmse": Metric("eV/atom", "Energy per atom RMSE, composition shift removed"),
    "force_mae": Metric("eV/Å", "Force MAE"),
    "force_rmse": Metric("eV/Å", "Force RMSE"),
    "hessian_mae": Metric("eV/Å²", "Hessian MAE"),
    "hessian_rmse": Metric("eV/Å²", "Hessian RMSE"),
    "hessian_relative": Metric("1", "Relative Hessian error"),
    "eigenvalue_mae": Metric("eV/Å²", "Eigenvalue MAE"),
    "eigenvalue_mae_atomic": Metric("Eh/a0²", "Eigenvalue MAE (atomic units)"),
    "eigenvalue_1_mae": Metric("eV/Å²", "Lowest eigenvalue MAE"),
    "eigenvalue_2_mae": Metric("eV/Å²", "Second eigenvalue MAE"),
    "cosine_1": Metric("1", "|cos| of the lowest eigenvector", "higher"),
    "cosine_2": Metric("1", "|cos| of the second eigenvector", "higher"),
    "projected_hessian_mae": Metric(_PROJECTED, "Hessian MAE, mass-weighted and projected"),
    "projected_hessian_rmse": Metric(_PROJECTED, "Hessian RMSE, mass-weighted and projected"),
    "projected_hessian_relative": Metric("1", "Relative Hessian error, mass-weighted and projected"),
    "projected_eigenvalue_mae": Metric(_PROJECTED, "Eigenvalue MAE, mass-weighted and projected"),
    "projected_eigenvalue_1_mae": Metric(_PROJECTED, "Lowest eigenvalue MAE, mass-weighted and projected"),
    "projected_eigenvalue_2_mae": Metric(_PROJECTED, "Second eigenvalue MAE, mass-weighted and projected"),
    "projected_cosine_1": Metric("1", "|cos| of the lowest normal mode", "higher"),
    "projected_cosine_2": Metric("1", "|cos| of the second normal mode", "higher"),
    "imaginary_agreement": Metric("1", "Same number of imaginary modes (below -20 cm⁻¹)", "higher"),
    "negative_agreement": Metric("1", "Same number of negative eigenvalues (below -1e-6)", "higher"),
    "frequency_mae": Metric("cm⁻¹", "Frequency MAE"),
    "frequency_low_mae": Metric("cm⁻¹", "Frequency MAE, 0 to 400 cm⁻¹"),
    "frequency_high_mae": Metric("cm⁻¹", "Frequency MAE, 400 cm⁻¹ and above"),
    "imaginary_mae": Metric("cm⁻¹", "Imaginary frequency MAE"),
    "zpe_mae": Metric("eV", "Zero-point energy MAE"),
    "wasserstein": Metric("cm⁻¹", "Wasserstein distance of the spectra"),
    "failure_rate": Metric("1", "Failed predictions"),
}


def apply_shift(errors: Sequence[GeometryErrors], compositions: Sequence[npt.NDArray[Any]]) -> list[GeometryErrors]:
    """Return the errors of one model with `shifted_energy` filled in; (N_i,) atomic numbers per geometry."""
    shift = composition_shift(compositions, [error.energy for error in errors])
    if shift is None:
        return list(errors)
    return [
        error
        if error.energy is None
        else replace(error, shifted_energy=error.energy - float(shift[np.asarray(z)].sum()))
        for error, z in zip(errors, compositions, strict=True)
    ]


def _mean(values: list[float | None], name: str) -> Figure:
    known = [value for value in values if value is not None]
    return Figure(float(np.mean(known)) if known else None, len(known), METRICS[name].unit)


def _pooled(pairs: list[tuple[float | None, int]], name: str, *, square: bool = False) -> Figure:
    # means of different numbers of elements, joined as if all elements had been averaged at once
    known = [(value, count) for value, count in pairs if value is not None and count]
    total = sum(count for _, count in known)
    if not total:
        return Figure(None, 0, METRICS[name].unit)
    values, weights = np.array(known, dtype=np.float64).T
    mean = float(np.average(values**2 if square else values, weights=weights))
    return Figure(math.sqrt(mean) if square else mean, total, METRICS[name].unit)


def _energy_figures(errors: Sequence[GeometryErrors]) -> dict[str, Figure]:
    figures = {}
    for prefix, attribute in (("energy", "energy"), ("shifted_energy", "shifted_energy")):
        total = [getattr(error, attribute) for error in errors]
        per_atom = [None if v is None else v / e.n_atoms for v, e in zip(total, errors, strict=True)]
        for name, values in ((prefix, total), (f"{prefix}_per_atom", per_atom)):
            pairs = [(None if v is None else abs(v), 1) for v in values]
            figures[f"{name}_mae"] = _pooled(pairs, f"{name}_mae")
            figures[f"{name}_rmse"] = _pooled(pairs, f"{name}_rmse", square=True)
    return figures


def _hessian_figures(errors: Sequence[GeometryErrors]) -> dict[str, Figure]:
    known = [error.hessian for error in errors if error.hessian is not None]
    projected = [h.projected for h in known if h.projected is not None]
    figures = {
        "hessian_mae": _mean([h.mae for h in known], "hessian_mae"),
        "hessian_rmse": _pooled([(h.rmse, h.elements) for h in known], "hessian_rmse", square=True),
        "hessian_relative": _mean([h.relative for h in known], "hessian_relative"),
        "projected_hessian_mae": _mean([h.projected_mae for h in known], "projected_hessian_mae"),
        "projected_hessian_rmse": _pooled(
            [(h.projected_rmse, h.elements) for h in known], "projected_hessian_rmse", square=True
        ),
        "projected_hessian_relative": _mean([h.projected_relative for h in known], "projected_hessian_relative"),
    }
    for prefix, spectra in (("", [h.spectrum for h in known]), ("projected_", projected)):
        parts: dict[str, Sequence[float | None]] = {
            "eigenvalue_mae": [s.mae for s in spectra],
            "eigenvalue_1_mae": [s.first for s in spectra],
            "eigenvalue_2_mae": [s.second for s in spectra],
            "cosine_1": [s.cosine_1 for s in spectra],
            "cosine_2": [s.cosine_2 for s in spectra],
        }
        figures |= {prefix + name: _mean(list(values), prefix + name) for name, values in parts.items()}
    raw = figures["eigenvalue_mae"]
    atomic = None if raw.value is None else raw.value / HARTREE_PER_BOHR2
    figures["eigenvalue_mae_atomic"] = Figure(atomic, raw.n, METRICS["eigenvalue_mae_atomic"].unit)
    # a failure is a disagreement: no model gains by not answering
    asked = [error for error in errors if error.has_hessian]
    for name in ("imaginary", "negative"):
        agree = [0.0 if e.hessian is None else float(len(set(getattr(e.hessian, name))) == 1) for e in asked]
        figures[f"{name}_agreement"] = _mean(list(agree), f"{name}_agreement")
    return figures


def _vibration_figures(errors: Sequence[GeometryErrors]) -> dict[str, Figure]:
    known = [error.hessian.vibrations for error in errors if error.hessian is not None]
    return {
        "frequency_mae": _pooled([(v.frequency_mae, v.n) for v in known], "frequency_mae"),
        "frequency_low_mae": _pooled([(v.frequency_low_mae, v.n_low) for v in known], "frequency_low_mae"),
        "frequency_high_mae": _pooled([(v.frequency_high_mae, v.n_high) for v in known], "frequency_high_mae"),
        "imaginary_mae": _pooled([(v.imaginary_mae, v.n_imaginary) for v in known], "imaginary_mae"),
        "zpe_mae": _mean([abs(v.zpe_error) for v in known], "zpe_mae"),
        "wasserstein": _mean([v.wasserstein for v in known], "wasserstein"),
    }


def summarise(errors: Sequence[GeometryErrors], stationary: Sequence[bool] | None = None) -> dict[str, Figure]:
    """Join the errors of a subset into one figure a metric.

    Args:
        errors: one entry a geometry, failures included
        stationary: which of them are stationary points; only these enter the frequency figures
            (elsewhere a harmonic frequency has no meaning). Default: all

    Returns:
        A figure for every name in `METRICS`, in that order.
    """
    mask = [True] * len(errors) if stationary is None else list(stationary)
    failed: list[float | None] = [float(error.failure is not None) for error in errors]
    figures = _energy_figures(errors)
    figures["force_mae"] = _pooled([(e.force_mae, e.force_count) for e in errors], "force_mae")
    figures["force_rmse"] = _pooled([(e.force_rmse, e.force_count) for e in errors], "force_rmse", square=True)
    figures |= _hessian_figures(errors)
    figures |= _vibration_figures([e for e, use in zip(errors, mask, strict=True) if use])
    figures["failure_rate"] = _mean(failed, "failure_rate")
    return {name: figures[name] for name in METRICS}


def by_label(labels: Sequence[str | None], build: Callable[[list[int]], Any]) -> dict[str, Any]:
    """Apply `build` to the indices of each label, labels in order of first appearance, None left out."""
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        if label is not None:
            groups.setdefault(label, []).append(i)
    return {label: build(indices) for label, indices in groups.items()}


def confusion(errors: Sequence[GeometryErrors], largest: int = 2) -> list[list[int]]:
    """Count reference (rows) against predicted (columns) numbers of imaginary modes.

    Rows 0, 1, ... `largest` (that many or more); columns the same and one more for failed predictions.
    """
    table = np.zeros((largest + 1, largest + 2), dtype=int)
    for error in errors:
        if error.hessian is not None:
            reference, predicted = (min(count, largest) for count in error.hessian.imaginary)
            table[reference, predicted] += 1
        elif error.reference_imaginary is not None:
            table[min(error.reference_imaginary, largest), largest + 1] += 1
    return [[int(v) for v in row] for row in table]
