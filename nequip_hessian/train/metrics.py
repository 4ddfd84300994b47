"""`EnergyForceHessianMetrics`: what validation and test runs of `nequip-train` report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from nequip.data import AtomicDataDict, PerAtomModifier
from nequip.train import MaximumAbsoluteError, MeanAbsoluteError, MetricsManager, RootMeanSquaredError
from torchmetrics import Metric

from nequip_hessian.analysis.summary import METRICS
from nequip_hessian.errors import ConfigError
from nequip_hessian.train.figures import (
    HessianMeanAbsoluteError,
    HessianRootMeanSquaredError,
    MassWeightedHessianRootMeanSquaredError,
)
from nequip_hessian.train.products import GeometryMean
from nequip_hessian.train.spectra import FIGURES, HessianFigure

_KINDS: Final[dict[str, type[Metric]]] = {
    "rmse": RootMeanSquaredError,
    "mae": MeanAbsoluteError,
    "maxabserr": MaximumAbsoluteError,
}
_HESSIAN: Final[dict[str, Callable[[], GeometryMean]]] = {
    "hessian_rmse": HessianRootMeanSquaredError,
    "hessian_mae": HessianMeanAbsoluteError,
    "mass_weighted_hessian_rmse": MassWeightedHessianRootMeanSquaredError,
    **{name: partial(HessianFigure, name) for name in FIGURES},
}
_DEFAULT: Final = {"per_atom_energy_rmse": 1.0, "forces_rmse": 1.0, "hessian_rmse": 1.0}
_STRESS_DEFAULT: Final = {**_DEFAULT, "stress_rmse": 1.0}
_ALWAYS: Final = ("total_energy_rmse", "total_energy_mae", "per_atom_energy_mae", "forces_mae")
_PLAIN: Final = tuple(f"{field}_{kind}" for field in ("total_energy", "per_atom_energy", "forces") for kind in _KINDS)
NAMES: Final = (*_PLAIN, *_HESSIAN)
STRESS_NAMES: Final = (*_PLAIN, *(f"stress_{kind}" for kind in _KINDS), *_HESSIAN)


def EnergyForceHessianMetrics(
    coeffs: Mapping[str, float | None] = _DEFAULT,
    type_names: list[str] | None = None,
    extra_metrics: list[dict[str, Any]] | None = None,
) -> MetricsManager:
    """Errors of energy (eV), forces (eV/angstrom) and Hessian (eV/angstrom^2).

    Args:
        coeffs: metric name -> share in `weighted_sum` (what `ModelCheckpoint` monitors), or null to
            report it only. Names: total_energy, per_atom_energy or forces + _rmse, _mae, _maxabserr;
            hessian_rmse; hessian_mae (val_hessian of mode full or columns); with mode full every figure on
            Hessians and vibrations of docs/metrics.md, such as eigenvalue_mae (eV/angstrom^2), frequency_mae
            (cm^-1), zpe_mae (eV), imaginary_agreement (no coefficient: larger is better);
            mass_weighted_hessian_rmse with mass_weighted: true. The usual ones are reported whether named or not
        type_names: given by NequIP
        extra_metrics: further entries for the `MetricsManager`

    Raises:
        ConfigError: an unknown name, or a coefficient for a figure of which larger is better.
    """
    return _manager(coeffs, NAMES, type_names, extra_metrics)


def EnergyForceStressHessianMetrics(
    coeffs: Mapping[str, float | None] = _STRESS_DEFAULT,
    type_names: list[str] | None = None,
    extra_metrics: list[dict[str, Any]] | None = None,
) -> MetricsManager:
    """The same with stress_rmse, stress_mae, stress_maxabserr (eV/angstrom^3) for periodic cells.

    Args:
        coeffs, type_names, extra_metrics: as for `EnergyForceHessianMetrics`

    Raises:
        ConfigError: as for `EnergyForceHessianMetrics`.
    """
    return _manager(coeffs, STRESS_NAMES, type_names, extra_metrics)


def _manager(
    coeffs: Mapping[str, float | None],
    names: tuple[str, ...],
    type_names: list[str] | None,
    extra_metrics: list[dict[str, Any]] | None,
) -> MetricsManager:
    unknown = [name for name in coeffs if name not in names]
    if unknown:
        raise ConfigError(f"coeffs: unknown metric {', '.join(unknown)}; expected some of {', '.join(names)}")
    rising = [name for name in FIGURES if METRICS[name].better == "higher" and coeffs.get(name) is not None]
    if rising:
        raise ConfigError(
            f"coeffs: {', '.join(rising)}: better the larger it is, and has no place in weighted_sum; give it null"
        )
    wanted = {**dict.fromkeys(_ALWAYS), **coeffs}
    return MetricsManager(
        [*(_entry(name, coeff) for name, coeff in wanted.items()), *(extra_metrics or [])], type_names=type_names
    )


def _entry(name: str, coeff: float | None) -> dict[str, Any]:
    if name in _HESSIAN:
        metric = _HESSIAN[name]()
        metric.monitored = coeff is not None
        return {"name": name, "coeff": coeff, "metric": metric}
    field, kind = name.rsplit("_", 1)
    energy = AtomicDataDict.TOTAL_ENERGY_KEY
    source = {
        "total_energy": energy,
        "per_atom_energy": PerAtomModifier(energy),
        "forces": AtomicDataDict.FORCE_KEY,
        "stress": AtomicDataDict.STRESS_KEY,
    }
    return {"name": name, "coeff": coeff, "field": source[field], "metric": _KINDS[kind](), "ignore_nan": True}
