"""`EnergyForceHessianMetrics`: what validation and test runs of `nequip-train` report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nequip.data import AtomicDataDict, PerAtomModifier
from nequip.train import MaximumAbsoluteError, MeanAbsoluteError, MetricsManager, RootMeanSquaredError
from torchmetrics import Metric

from nequip_hessian.errors import ConfigError
from nequip_hessian.train.products import HessianMeanAbsoluteError, HessianRootMeanSquaredError

_KINDS: Final[dict[str, type[Metric]]] = {
    "rmse": RootMeanSquaredError,
    "mae": MeanAbsoluteError,
    "maxabserr": MaximumAbsoluteError,
}
_DEFAULT: Final = {"per_atom_energy_rmse": 1.0, "forces_rmse": 1.0, "hessian_rmse": 1.0}
_ALWAYS: Final = ("total_energy_rmse", "total_energy_mae", "per_atom_energy_mae", "forces_mae")
NAMES: Final = (
    *(f"{field}_{kind}" for field in ("total_energy", "per_atom_energy", "forces") for kind in _KINDS),
    "hessian_rmse",
    "hessian_mae",
)


def EnergyForceHessianMetrics(
    coeffs: Mapping[str, float | None] = _DEFAULT,
    type_names: list[str] | None = None,
    extra_metrics: list[dict[str, Any]] | None = None,
) -> MetricsManager:
    """Errors of energy (eV), forces (eV/angstrom) and Hessian (eV/angstrom^2).

    Args:
        coeffs: metric name -> share in `weighted_sum` (what `ModelCheckpoint` monitors), or null to
            report it only. Names: total_energy, per_atom_energy or forces + _rmse, _mae, _maxabserr;
            hessian_rmse; hessian_mae (needs val_hessian of mode full or columns). The usual ones
            are reported whether named or not
        type_names: given by NequIP
        extra_metrics: further entries for the `MetricsManager`

    Raises:
        ConfigError: an unknown name.
    """
    unknown = [name for name in coeffs if name not in NAMES]
    if unknown:
        raise ConfigError(f"coeffs: unknown metric {', '.join(unknown)}; expected some of {', '.join(NAMES)}")
    wanted = {**dict.fromkeys(_ALWAYS), **coeffs}
    return MetricsManager(
        [*(_entry(name, coeff) for name, coeff in wanted.items()), *(extra_metrics or [])], type_names=type_names
    )


def _entry(name: str, coeff: float | None) -> dict[str, Any]:
    if name == "hessian_rmse":
        return {"name": name, "coeff": coeff, "metric": HessianRootMeanSquaredError()}
    if name == "hessian_mae":
        return {"name": name, "coeff": coeff, "metric": HessianMeanAbsoluteError()}
    field, kind = name.rsplit("_", 1)
    energy = AtomicDataDict.TOTAL_ENERGY_KEY
    source = {"total_energy": energy, "per_atom_energy": PerAtomModifier(energy), "forces": AtomicDataDict.FORCE_KEY}
    return {"name": name, "coeff": coeff, "field": source[field], "metric": _KINDS[kind](), "ignore_nan": True}
