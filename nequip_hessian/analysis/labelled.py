"""Hessians that are there already, in an output or a store: their vibrations alone, and beside a model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.accuracy import record_vibrations
from nequip_hessian.analysis.prediction import atoms_of, check_hessian, masses_of, with_isotopes
from nequip_hessian.analysis.single import SingleVibrations
from nequip_hessian.analysis.vibrations import Vibrations, match_modes
from nequip_hessian.checks import check
from nequip_hessian.errors import ConfigError, NoHessianError, PhysicsError
from nequip_hessian.record import LabelledGeometry

MOST: Final = 20
"""So many Hessians of one file or store are taken without being chosen."""


def labelled_hessians(
    path: str | Path, chosen: Sequence[int] | None = None
) -> list[tuple[LabelledGeometry, list[str]]]:
    """Geometries with Hessians of an output or a store, and what a reader should know of each.

    Args:
        path: an output of any format of `nequip_hessian.formats`, checked as `convert` does, or a store
        chosen: which geometries, counted from 0; default: all that have a Hessian, `MOST` of them

    Returns:
        Each geometry with the warnings of its checks.

    Raises:
        FormatError, StoreError: it cannot be read.
        PhysicsError: a Hessian of an output contradicts its geometry, forces or printed frequencies.
        NoHessianError: there is none, or a chosen geometry has none.
        ConfigError: no such geometry, or more than `MOST` and none chosen.
    """
    found = _of_store(path, chosen) if _is_store(path) else _of_output(path, chosen)
    if not found:
        raise NoHessianError(f"{path}: no Hessian in it")
    return found


def _is_store(path: str | Path) -> bool:
    place = Path(path)
    return place.is_dir() or "://" in str(path) or place.name.endswith((".zarr", ".zarr.zip"))


def _pick(path: str | Path, indices: Sequence[int], total: int, chosen: Sequence[int] | None) -> list[int]:
    if chosen is None:
        if len(indices) > MOST:
            raise ConfigError(f"{path}: {len(indices)} geometries with a Hessian; choose some, e.g. --record 0,3-5")
        return list(indices)
    if wrong := [k for k in chosen if not 0 <= k < total]:
        raise ConfigError(f"{path}: expected geometries 0 to {total - 1}, found {wrong[0]}")
    if without := [k for k in chosen if k not in set(indices)]:
        raise NoHessianError(f"{path}: geometry {without[0]} has no Hessian")
    return list(chosen)


def _of_store(path: str | Path, chosen: Sequence[int] | None) -> list[tuple[LabelledGeometry, list[str]]]:
    from nequip_hessian.store import HessianStore

    store = HessianStore(path)
    indices = np.flatnonzero(store.has_hessian).tolist()
    return [(store[k], []) for k in _pick(path, indices, len(store), chosen)]


def _of_output(path: str | Path, chosen: Sequence[int] | None) -> list[tuple[LabelledGeometry, list[str]]]:
    from nequip_hessian.formats import read

    records = list(read(path))
    indices = [k for k, record in enumerate(records) if record.hessian is not None]
    found = []
    for k in _pick(path, indices, len(records), chosen):
        try:
            record, checks = check(records[k])
        except PhysicsError as exc:
            raise PhysicsError(f"{path}: {exc}") from exc
        found.append((record, list(checks.warnings)))
    return found


def labelled_vibrations(
    record: LabelledGeometry, masses: str = "source", isotopes: Sequence[str] = ()
) -> SingleVibrations:
    """Normal modes of a labelled Hessian, at its own geometry.

    Args:
        record: with a Hessian; energy and forces are NaN in the result where the record has none
        masses: as `masses_of`
        isotopes: as `with_isotopes`
    """
    weights = with_isotopes(record.numbers, masses_of(record.numbers, masses, record.masses), isotopes)
    hessian = np.asarray(record.hessian, dtype=np.float64)
    result = record_vibrations(record, hessian, weights)
    atoms = atoms_of(record)
    atoms.set_masses(weights)
    energy = float("nan") if record.energy is None else float(record.energy)
    forces = np.full((len(record), 3), np.nan) if record.forces is None else np.asarray(record.forces)
    active = None if record.active is None else np.asarray(record.active, dtype=np.intp)
    return SingleVibrations(atoms, energy, forces, hessian, result, len(hessian) - len(result), active)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A model's modes beside those of a calculation at the same geometry.

    Attributes:
        source: the file; label: of the geometry in it
        reference, model: normal modes of the file's Hessian and of the model's, with the same masses
        printed: (m,) what the program printed, cm^-1, NaN where it printed none
        partner, overlap: (m,), model mode of each reference mode and its |overlap|
    """

    source: str
    label: str
    reference: Vibrations
    model: Vibrations
    printed: npt.NDArray[np.float64]
    partner: npt.NDArray[np.intp]
    overlap: npt.NDArray[np.float64]


def _printed(record: LabelledGeometry, count: int) -> npt.NDArray[np.float64]:
    if record.frequencies is None:
        return np.full(count, np.nan)
    values = np.sort(np.asarray(record.frequencies, dtype=np.float64))
    if len(values) > count:  # translations and rotations are among them: those nearest to zero
        values = np.sort(values[np.argsort(np.abs(values), kind="stable")[len(values) - count :]])
    return values if len(values) == count else np.full(count, np.nan)


def compare_with_file(calculator: Any, path: str | Path, chosen: Sequence[int] | None = None) -> list[Comparison]:
    """Hold a model against the Hessians of an output or a store, at their geometries and masses.

    Args:
        calculator: ASE calculator with `get_hessian`
        path, chosen: as `labelled_hessians`

    Returns:
        One comparison for each geometry with a Hessian.

    Raises:
        HessianDataError: as `labelled_hessians`.
        ConfigError: the model has not seen an element, or its answer is not finite.
    """
    found = []
    for record, _ in labelled_hessians(path, chosen):
        masses = masses_of(record.numbers, "source", record.masses)
        reference = record_vibrations(record, np.asarray(record.hessian), masses)
        active = record.active
        indices = {} if active is None else {"indices": active.tolist()}
        try:
            size = len(record) if active is None else len(active)
            hessian = check_hessian(calculator.get_hessian(atoms_of(record), **indices), size)
        except ValueError as exc:
            raise ConfigError(f"{path}: {exc}") from exc
        model = record_vibrations(record, hessian, masses)
        label = record.label or record.formula
        found.append(
            Comparison(
                str(path),
                label,
                reference,
                model,
                _printed(record, len(reference)),
                *match_modes(reference, model),
            )
        )
    return found
