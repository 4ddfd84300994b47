"""Statistics of a training set that a model is initialised with, straight from the store."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from nequip_hessian.curvature import order_of_packed
from nequip_hessian.errors import ConfigError
from nequip_hessian.store import HessianStore

Indices = npt.NDArray[np.int64]

DISPLACEMENT: Final = 0.05
"""Angstrom, a Cartesian component of a displacement as thermal motion brings it."""
_MOST: Final = 1000  # Hessians that are read for an average


class Statistics(dict[str, Any]):
    """Statistics by name; one that cannot be had is an error where it is asked for, and nowhere else.

    Attributes:
        reasons: name of a statistic that cannot be had -> why, and what to write instead
    """

    def __init__(self, known: dict[str, Any], reasons: dict[str, str]) -> None:
        super().__init__(known)
        self.reasons = reasons

    def get(self, key: str, default: Any = None) -> Any:  # NequIP's resolver asks with `get`
        """Return a statistic.

        Raises:
            ConfigError: it cannot be had from this training set.
        """
        if key not in self and key in self.reasons:
            raise ConfigError(f"training_data_stats:{key}: {self.reasons[key]}")
        return super().get(key, default)


_NO_ENERGIES: Final = (
    "no geometry of the training set has an energy; write numbers instead, such as per_type_energy_shifts: 0.0, and "
    "train without energies (nequip_hessian.train losses leave missing ones out)"
)
_NO_FORCES: Final = "no geometry of the training set has forces{}; write a number instead (per_type_energy_scales: 1.0)"


def atomic_energies(store: HessianStore, indices: Indices) -> dict[str, float]:
    """Energy per element, eV, from a least-squares fit of total energies to compositions.

    Total energies of quantum chemistry are dominated by the atoms' own; one number an element
    takes most of it away, so that the model only has to learn what is left. Where compositions do
    not determine them all, the solution closest to the mean energy per atom is taken.

    Args:
        store: the store
        indices: (G,) geometries of the training set

    Raises:
        ConfigError: no geometry has an energy.
    """
    energies = np.asarray(store.energy)[indices]
    known = indices[np.isfinite(energies)]
    if not len(known):
        raise ConfigError("atomic_energies: no geometry of the training set has an energy")
    energies = np.asarray(store.energy)[known]
    numbers = [_numbers(store, int(i)) for i in known]
    elements = np.unique(np.concatenate(numbers))
    counts = np.array([[np.count_nonzero(n == z) for z in elements] for n in numbers], dtype=np.float64)
    # start from the mean per atom, so that the minimum-norm solution of a deficient fit stays near it
    mean = float(np.sum(energies) / np.sum(counts))
    deviation = np.linalg.lstsq(counts, energies - mean * counts.sum(axis=1), rcond=None)[0]
    return {chemical_symbols[z]: mean + float(d) for z, d in zip(elements, deviation, strict=True)}


def forces_rms(store: HessianStore, indices: Indices) -> float | None:
    """Root mean square of a force component, eV/angstrom, over the forces that are there; None without any."""
    total, count = 0.0, 0
    for i in indices:
        force = np.asarray(store.force[store.atom_offset[i] : store.atom_offset[i + 1]], dtype=np.float64)
        force = force[np.isfinite(force)]
        total += float(np.sum(force**2))
        count += force.size
    return float(np.sqrt(total / count)) if count else None


def energy_scale(store: HessianStore, indices: Indices) -> float | None:
    """Scale of what a model has to learn, for `per_type_energy_scales`; None without forces and Hessians.

    The RMS force component of the geometries if each Cartesian component of an atom were displaced at random by
    DISPLACEMENT: sqrt(<F_i^2> + DISPLACEMENT^2 <sum_j H_ij^2>), the first mean over all force components, the second
    over the rows of at most 1000 Hessians, evenly spread. Far from stationary points that is of the size of
    `forces_rms`; at stationary points, where forces are zero, it is still the forces that the model is asked for.

    Args:
        store: the store
        indices: (G,) geometries of the training set

    Returns:
        eV/angstrom, read as eV.
    """
    rms = forces_rms(store, indices)
    labelled = indices[store.has_hessian[indices]]
    if len(labelled) > _MOST:
        labelled = labelled[np.linspace(0, len(labelled) - 1, _MOST).round().astype(int)]
    total, count = 0.0, 0
    for i in labelled:
        packed = np.asarray(store.packed(int(i)), dtype=np.float64)
        order = order_of_packed(packed.size)
        diagonal = np.cumsum(np.arange(1, order + 1)) - 1
        total += float(2 * np.sum(packed**2) - np.sum(packed[diagonal] ** 2))
        count += order
    if rms is None and not count:
        return None
    return float(np.sqrt((rms or 0.0) ** 2 + DISPLACEMENT**2 * total / max(count, 1)))


def statistics(store: HessianStore, indices: Indices, type_names: dict[str, str]) -> Statistics:
    """Return what a YAML can ask for as `${training_data_stats:NAME}`.

    Args:
        store: the store
        indices: (G,) geometries of the training set
        type_names: chemical symbol -> the model's type name; empty: the symbols themselves

    Returns:
        `atomic_energies`, eV: type name -> energy (0 for a type the training set lacks), `forces_rms`, eV/angstrom, and
        `energy_scale`, eV. Those for which there are no labels are errors where they are asked for.
    """
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if np.isfinite(np.asarray(store.energy)[indices]).any():
        fitted = atomic_energies(store, indices)
        named = {type_names.get(symbol, symbol): value for symbol, value in fitted.items()}
        found["atomic_energies"] = {name: named.get(name, 0.0) for name in type_names.values()} if type_names else named
    else:
        reasons["atomic_energies"] = _NO_ENERGIES
    for name, value, more in (
        ("forces_rms", forces_rms(store, indices), ""),
        ("energy_scale", energy_scale(store, indices), " or a Hessian"),
    ):
        if value is None:
            reasons[name] = _NO_FORCES.format(more)
        else:
            found[name] = value
    return Statistics(found, reasons)


def _numbers(store: HessianStore, index: int) -> npt.NDArray[np.uint8]:
    return np.asarray(store.number[store.atom_offset[index] : store.atom_offset[index + 1]])
