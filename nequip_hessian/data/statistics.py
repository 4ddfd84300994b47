"""Statistics of a training set that a model is initialised with, straight from the store."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from nequip_hessian.errors import ConfigError
from nequip_hessian.store import HessianStore

Indices = npt.NDArray[np.int64]


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


def statistics(store: HessianStore, indices: Indices, type_names: dict[str, str]) -> dict[str, Any]:
    """Return what a YAML can ask for as `${training_data_stats:NAME}`.

    Args:
        store: the store
        indices: (G,) geometries of the training set
        type_names: chemical symbol -> the model's type name; empty: the symbols themselves

    Returns:
        `atomic_energies`, eV: type name -> energy (0 for a type the training set lacks), and
        `forces_rms`, eV/angstrom.
    """
    fitted = atomic_energies(store, indices)
    named = {type_names.get(symbol, symbol): value for symbol, value in fitted.items()}
    shifts = {name: named.get(name, 0.0) for name in type_names.values()} if type_names else named
    found: dict[str, Any] = {"atomic_energies": shifts}
    rms = forces_rms(store, indices)
    if rms is not None:
        found["forces_rms"] = rms
    return found


def _numbers(store: HessianStore, index: int) -> npt.NDArray[np.uint8]:
    return np.asarray(store.number[store.atom_offset[index] : store.atom_offset[index + 1]])
