"""The one entry in a YAML that turns Hessian training on: energies, forces, Hessians, and stress with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nequip.data import AtomicDataDict, PerAtomModifier
from nequip.train import MeanSquaredError, MetricsManager

from nequip_hessian.errors import ConfigError
from nequip_hessian.train.sparse import SparseMeanSquaredError, SparseStressMeanSquaredError
from nequip_hessian.train.terms import (
    HessianHuber,
    HessianMeanAbsoluteErrorTerm,
    HessianMeanSquaredError,
    HessianTerm,
    MassWeightedHessianMeanSquaredError,
)

_ENERGY: Final[str] = AtomicDataDict.TOTAL_ENERGY_KEY
_FORCES: Final[str] = AtomicDataDict.FORCE_KEY
_STRESS: Final[str] = AtomicDataDict.STRESS_KEY
_COEFFS: Final = {_ENERGY: 1.0, _FORCES: 1.0, "hessian": 1.0}
_STRESS_COEFFS: Final = {_ENERGY: 1.0, _FORCES: 1.0, _STRESS: 1.0, "hessian": 1.0}
_MASS_WEIGHTED_COEFFS: Final = {_ENERGY: 1.0, _FORCES: 1.0, "mass_weighted_hessian": 1.0}
ERRORS: Final = ("mse", "mae", "huber")


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
    per_type_hessian_coeffs: Mapping[str, float] | None = None,
    hessian_error: str = "mse",
    huber_delta: float | None = None,
    normalise: str = "share",
    type_names: list[str] | None = None,
    extra_metrics: list[dict[str, Any]] | None = None,
) -> MetricsManager:
    """Mean squared errors of energy, forces and Hessian.

    The terms are `per_atom_energy_mse` (or `total_energy_mse`), `forces_mse` and `hessian_mse`, or
    `hessian_mae`, `hessian_huber` (the names for NequIP's loss-coefficient schedulers). The Hessian
    term is L_H, the mean squared error of a Hessian element in eV^2/angstrom^4, averaged over
    geometries, whichever probes estimate it. Missing energies, forces and Hessians (NaN) are left out.

    Args:
        coeffs: shares of `total_energy`, `forces` and `hessian`; NequIP divides them by their sum
        per_atom_energy: divide the energy error by the number of atoms
        per_type_forces_coeffs: as in nequip.train.EnergyForceLoss
        per_type_hessian_coeffs: weight of the rows of the Hessian of each atom type, above 0, for every
            type; within a geometry the weights are divided by their mean over its rows
        hessian_error: `mse`; `mae` and `huber` with modes full and columns only, because the absolute
            error of a random product is not that of an element
        huber_delta: where Huber's error turns from square to absolute, eV/angstrom^2; with `huber` only
        normalise: how the Hessian term treats sparse labels, see `HessianTerm`
        type_names: given by NequIP
        extra_metrics: further entries for the `MetricsManager`

    Raises:
        ConfigError: a coefficient that is unknown, missing or not above 0; a wrong option.

    Example:
        .. code-block:: yaml

            loss:
              _target_: nequip_hessian.train.EnergyForceHessianLoss
              coeffs: {total_energy: 1.0, forces: 1.0, hessian: 0.01}
    """
    check_coeffs(coeffs, _COEFFS)
    term = _hessian_term(hessian_error, huber_delta, normalise, per_type_hessian_coeffs, type_names)
    metrics = [
        *_energy_and_forces(coeffs, per_atom_energy, per_type_forces_coeffs),
        {"name": str(term), "coeff": coeffs["hessian"], "metric": term},
    ]
    return MetricsManager([*metrics, *(extra_metrics or [])], type_names=type_names)


def EnergyForceStressHessianLoss(
    coeffs: Mapping[str, float] = _STRESS_COEFFS,
    per_atom_energy: bool = True,
    per_type_forces_coeffs: Mapping[str, float] | None = None,
    per_type_hessian_coeffs: Mapping[str, float] | None = None,
    hessian_error: str = "mse",
    huber_delta: float | None = None,
    normalise: str = "share",
    type_names: list[str] | None = None,
    extra_metrics: list[dict[str, Any]] | None = None,
) -> MetricsManager:
    """The same with `stress_mse`, (eV/angstrom^3)^2, for periodic cells.

    Hessian stores hold no stress; NequIP's own datasets with the transform
    `nequip_hessian.data.HessianProbes` do. A missing stress (NaN, or a molecule's) is left out.

    Args:
        coeffs: shares of `total_energy`, `forces`, `stress` and `hessian`
        per_atom_energy, per_type_forces_coeffs, per_type_hessian_coeffs: as for `EnergyForceHessianLoss`
        hessian_error, huber_delta, normalise, type_names, extra_metrics: as for `EnergyForceHessianLoss`

    Raises:
        ConfigError: as for `EnergyForceHessianLoss`; with the first batch, where the data hold no stress.
    """
    check_coeffs(coeffs, _STRESS_COEFFS)
    term = _hessian_term(hessian_error, huber_delta, normalise, per_type_hessian_coeffs, type_names)
    metrics = [
        *_energy_and_forces(coeffs, per_atom_energy, per_type_forces_coeffs),
        {"name": "stress_mse", "coeff": coeffs[_STRESS], "metric": SparseStressMeanSquaredError()},
        {"name": str(term), "coeff": coeffs["hessian"], "metric": term},
    ]
    return MetricsManager([*metrics, *(extra_metrics or [])], type_names=type_names)


def EnergyForceMassWeightedHessianLoss(
    coeffs: Mapping[str, float] = _MASS_WEIGHTED_COEFFS,
    per_atom_energy: bool = True,
    per_type_forces_coeffs: Mapping[str, float] | None = None,
    normalise: str = "share",
    type_names: list[str] | None = None,
    extra_metrics: list[dict[str, Any]] | None = None,
) -> MetricsManager:
    """Energy, forces and the mass-weighted Hessian M^-1/2 H M^-1/2, whose eigenvalues are the frequencies.

    Its term `mass_weighted_hessian_mse` is the mean squared error of an element, eV^2/(angstrom^4 u^2),
    averaged over geometries; hydrogens weigh as they do in frequencies. The data need
    `hessian: {..., mass_weighted: true}`, so that probes are M^-1/2 u for u of norm 1.

    Args:
        coeffs: shares of `total_energy`, `forces` and `mass_weighted_hessian`. The last one has another
            unit than `hessian` elsewhere, and needs another value
        per_atom_energy, per_type_forces_coeffs, normalise, type_names, extra_metrics: as for `EnergyForceHessianLoss`

    Raises:
        ConfigError: as for `EnergyForceHessianLoss`; probes that are not mass-weighted.
    """
    check_coeffs(coeffs, _MASS_WEIGHTED_COEFFS)
    term = MassWeightedHessianMeanSquaredError(normalise, type_names=type_names)
    metrics = [
        *_energy_and_forces(coeffs, per_atom_energy, per_type_forces_coeffs),
        {"name": str(term), "coeff": coeffs["mass_weighted_hessian"], "metric": term},
    ]
    return MetricsManager([*metrics, *(extra_metrics or [])], type_names=type_names)


def _hessian_term(
    kind: str,
    delta: float | None,
    normalise: str,
    per_type: Mapping[str, float] | None,
    type_names: list[str] | None,
) -> HessianTerm:
    if kind not in ERRORS:
        raise ConfigError(f"hessian_error: expected one of {', '.join(ERRORS)}, found {kind!r}")
    if kind != "huber" and delta is not None:
        raise ConfigError(f"huber_delta: has no meaning with hessian_error: {kind}; leave it out")
    if kind == "huber":
        if delta is None:
            raise ConfigError("hessian_error `huber`: give huber_delta, eV/angstrom^2 (about the error you hope for)")
        return HessianHuber(delta, normalise=normalise, per_type_coeffs=per_type, type_names=type_names)
    term = HessianMeanSquaredError if kind == "mse" else HessianMeanAbsoluteErrorTerm
    return term(normalise, per_type, type_names)


def _energy_and_forces(
    coeffs: Mapping[str, float], per_atom_energy: bool, per_type_forces_coeffs: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    forces: dict[str, Any] = {"name": "forces_mse", "field": _FORCES, "metric": SparseMeanSquaredError()}
    if per_type_forces_coeffs is not None:
        # an atom type that a batch lacks must drop out of the mean over types: NequIP's metric says NaN for it
        forces |= {"metric": MeanSquaredError(), "ignore_nan": True, "per_type": True}
        forces["per_type_coeffs"] = per_type_forces_coeffs
    return [
        {
            "name": "per_atom_energy_mse" if per_atom_energy else "total_energy_mse",
            "field": PerAtomModifier(_ENERGY) if per_atom_energy else _ENERGY,
            "coeff": coeffs[_ENERGY],
            "metric": SparseMeanSquaredError(),
        },
        {**forces, "coeff": coeffs[_FORCES]},
    ]
