"""`EnergyForceHessianLoss`: the one entry in a YAML that turns Hessian training on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nequip.data import AtomicDataDict, PerAtomModifier
from nequip.train import MeanSquaredError, MetricsManager

from nequip_hessian.errors import ConfigError
from nequip_hessian.train.products import HessianMeanSquaredError
from nequip_hessian.train.sparse import SparseMeanSquaredError

_COEFFS: Final = {AtomicDataDict.TOTAL_ENERGY_KEY: 1.0, AtomicDataDict.FORCE_KEY: 1.0, "hessian": 1.0}


def check_coeffs(coeffs: Mapping[str, float], known: Mapping[str, float]) -> None:
    """Refuse coefficients that would be ignored.

    Raises:
        ConfigError: an unknown or missing name, or a coefficient that is not above 0.
    """
    if set(coeffs) != set(known):
        raise ConfigError(f"coeffs: expected {', '.join(known)}, found {', '.join(map(str, coeffs)) or 'none'}")
    for name, value in coeffs.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise ConfigError(
                f"coeffs: {name} must be above 0, found {value!r}; to train without it use NequIP's own loss "
                "(nequip.train.EnergyForceLoss, EnergyOnlyLoss)"
            )


def EnergyForceHessianLoss(
    coeffs: Mapping[str, float] = _COEFFS,
    per_atom_energy: bool = True,
    per_type_forces_coeffs: Mapping[str, float] | None = None,
    normalise: str = "share",
    type_names: list[str] | None = None,
    extra_metrics: list[dict[str, Any]] | None = None,
) -> MetricsManager:
    """Mean squared errors of energy, forces and Hessian.

    The terms are `per_atom_energy_mse` (or `total_energy_mse`), `forces_mse` and `hessian_mse`
    (the names for NequIP's loss-coefficient schedulers). The Hessian term is L_H, the mean squared
    error of a Hessian element in eV^2/angstrom^4, averaged over geometries, whichever probes
    estimate it. Missing energies, forces and Hessians (NaN) are left out.

    Args:
        coeffs: shares of `total_energy`, `forces` and `hessian`; NequIP divides them by their sum
        per_atom_energy: divide the energy error by the number of atoms
        per_type_forces_coeffs: as in nequip.train.EnergyForceLoss
        normalise: how the Hessian term treats sparse labels, see `HessianMeanSquaredError`
        type_names: given by NequIP
        extra_metrics: further entries for the `MetricsManager`

    Raises:
        ConfigError: a coefficient that is unknown, missing or not above 0.

    Example:
        .. code-block:: yaml

            loss:
              _target_: nequip_hessian.train.EnergyForceHessianLoss
              coeffs: {total_energy: 1.0, forces: 1.0, hessian: 0.01}
    """
    check_coeffs(coeffs, _COEFFS)
    forces: dict[str, Any] = {
        "name": "forces_mse",
        "field": AtomicDataDict.FORCE_KEY,
        "metric": SparseMeanSquaredError(),
    }
    if per_type_forces_coeffs is not None:
        # an atom type that a batch lacks must drop out of the mean over types: NequIP's metric says NaN for it
        forces |= {"metric": MeanSquaredError(), "ignore_nan": True, "per_type": True}
        forces["per_type_coeffs"] = per_type_forces_coeffs
    energy = AtomicDataDict.TOTAL_ENERGY_KEY
    metrics: list[dict[str, Any]] = [
        {
            "name": "per_atom_energy_mse" if per_atom_energy else "total_energy_mse",
            "field": PerAtomModifier(energy) if per_atom_energy else energy,
            "coeff": coeffs[energy],
            "metric": SparseMeanSquaredError(),
        },
        {**forces, "coeff": coeffs[AtomicDataDict.FORCE_KEY]},
        {"name": "hessian_mse", "coeff": coeffs["hessian"], "metric": HessianMeanSquaredError(normalise)},
    ]
    return MetricsManager([*metrics, *(extra_metrics or [])], type_names=type_names)
