"""Validation level 4: physics. One geometry at a time against the exact identities, then the store as a whole."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.curvature import mass_weight, normal_modes, signed_wavenumbers
from nequip_hessian.errors import StoreError
from nequip_hessian.identities import (
    BORN_MEAN,
    DIPOLE_SUM,
    born_mean,
    diagnose,
    dielectric_warnings,
    dipole_sum,
    translation_residual,
)
from nequip_hessian.limits import (
    IMAGINARY,
    STATIONARY_FORCE,
    TRANSLATION_WARNING,
    largest_translation,
    stiffness_range,
)
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store.near import clusters_of, near_pairs
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.report import ValidationReport

if TYPE_CHECKING:
    from nequip_hessian.store.files import Place

Array = npt.NDArray[np.floating[Any]]

PRODUCT_TOLERANCE: Final = 0.02  # of the largest element; as for the rotational identity of a whole Hessian
CLEARLY_IMAGINARY: Final = 50.0  # cm^-1; noise of a floppy mode reaches some 10
FREQUENCY_TOLERANCE: Final = 2.0  # cm^-1; the worst sound published output has 1.53
MOST_COMPARED: Final = 1_000_000  # pairs of geometries of one composition, about a minute
STATIONARY: Final = ("minimum", "transition_state", "higher_saddle")
PRODUCT_BAD: Final = "products of another matrix; make them anew from the same calculation"


def check_physics(path: Place, report: ValidationReport) -> None:
    """Level 4, on a store that passed the levels before."""
    store = HessianStore(path)
    seen: dict[bytes, list[int]] = {}
    for index in tqdm(range(len(store)), desc="physics", disable=None, delay=3):
        try:
            record = store[index]
        except StoreError as exc:
            report.add("HZ-4.2", "", "a geometry that makes a record", str(exc), index)
            continue
        seen.setdefault(_fingerprint(record), []).append(index)
        if record.hessian is not None:
            _check_identities(record, index, report)
            _check_modes(record, index, report)
        if record.products is not None:
            _check_products(record, index, report)
        _check_forces(record, index, report)
        _check_fields(record, index, report)
    _check_reactions(store, report)
    _check_splits(store, seen, report)


def _fingerprint(record: LabelledGeometry) -> bytes:
    parts = (record.numbers, record.positions, record.cell, record.pbc)
    return hashlib.blake2b(b"".join(np.asarray(part).tobytes() for part in parts), digest_size=16).digest()


def _check_identities(record: LabelledGeometry, index: int, report: ValidationReport) -> None:
    if record.active is not None or record.hessian is None:
        return  # a block of a Hessian owes nothing but symmetry, which the packing gives it
    hessian = np.asarray(record.hessian, dtype=np.float64)
    residual = translation_residual(hessian)
    if residual > TRANSLATION_WARNING:
        found = f"{residual:.3g} eV/angstrom^2 (an integration grid, or too loose an SCF)"
        report.add("HZ-4.1", "hessian/data", f"block columns that sum to 0 within {TRANSLATION_WARNING}", found, index)
    if record.pbc.any() if isinstance(record.pbc, np.ndarray) else record.pbc:
        if residual > largest_translation(hessian):
            found = f"block columns that sum to {residual:.3g} eV/angstrom^2"
            report.add("HZ-4.2", "hessian/data", "the translational identity", found, index)
        return
    diagnosis = diagnose(hessian, record.positions, record.forces, asymmetry=record.asymmetry or 0.0)
    if diagnosis.verdict not in ("ok", "undetermined"):
        report.add("HZ-4.2", "hessian/data", "the exact identities", diagnosis.message, index)
    elif diagnosis.verdict == "undetermined" and len(record) > 1:
        stiffest = float(np.linalg.eigvalsh(hessian)[-1])
        least, most = stiffness_range(record.numbers, record.positions)
        if not least <= stiffest <= most:
            found = f"{stiffest:.4g} (is the Hessian in eV/angstrom^2, and not mass-weighted?)"
            report.add("HZ-4.10", "hessian/data", f"{least} to {most} eV/angstrom^2", found, index)


def _wavenumbers(record: LabelledGeometry, project: bool) -> Array:
    from ase.data import atomic_masses

    masses = record.masses
    if masses is None or not np.all(np.isfinite(masses)):
        masses = atomic_masses[np.asarray(record.numbers, dtype=int)]
    hessian = np.asarray(record.hessian, dtype=np.float64)
    if record.active is not None:
        return signed_wavenumbers(np.linalg.eigvalsh(mass_weight(hessian, masses[record.active])))
    periodic = bool(np.any(record.pbc))
    return normal_modes(hessian, record.positions, masses, periodic=periodic, project=project)[0]


def _check_modes(record: LabelledGeometry, index: int, report: ValidationReport) -> None:
    if record.kind in STATIONARY:
        values = _wavenumbers(record, project=True)
        clear, any_ = int(np.sum(values < -CLEARLY_IMAGINARY)), int(np.sum(values < -IMAGINARY))
        good = {"minimum": clear == 0, "transition_state": clear <= 1 <= any_, "higher_saddle": any_ >= 2}
        if not good[record.kind]:
            wanted = {"minimum": "no", "transition_state": "one", "higher_saddle": "two or more"}[record.kind]
            found = f"{clear} beyond {CLEARLY_IMAGINARY:.0f}i cm^-1, lowest {np.array2string(values[:3], precision=1)}"
            report.add("HZ-4.3", "geometry/kind", f"{wanted} imaginary modes of a {record.kind}", found, index)
    if record.frequencies is None or record.masses is None or record.frequencies_projected is None:
        return
    values, printed = _wavenumbers(record, record.frequencies_projected), np.sort(record.frequencies)
    if len(values) == len(printed):
        worst = float(np.max(np.abs(np.sort(values) - printed), initial=0.0))
        if worst > FREQUENCY_TOLERANCE:
            found = f"{worst:.2f} cm^-1 apart"
            report.add("HZ-4.8", "frequency/value", f"the Hessian's within {FREQUENCY_TOLERANCE} cm^-1", found, index)


def _check_products(record: LabelledGeometry, index: int, report: ValidationReport) -> None:
    probes = np.asarray(record.probes, dtype=np.float64)
    values = np.asarray(record.products, dtype=np.float64)
    size = float(np.max(np.abs(values))) or 1.0
    sums = float(np.max(np.abs(values.sum(axis=1))))
    if sums > PRODUCT_TOLERANCE * size:
        report.add("HZ-4.7", "product/value", "products that sum to 0 over atoms", f"{sums:.3g} eV/angstrom^2", index)
    v, w = probes.reshape(len(probes), -1), values.reshape(len(values), -1)
    cross = v @ w.T
    if float(np.max(np.abs(cross - cross.T))) > PRODUCT_TOLERANCE * float(np.max(np.linalg.norm(w, axis=1))):
        report.add("HZ-4.7", "product/value", "v.(Hw) = w.(Hv)", PRODUCT_BAD, index)
    if record.hessian is not None and record.active is None:
        worst = float(np.max(np.abs(v @ np.asarray(record.hessian, dtype=np.float64) - w)))
        if worst > PRODUCT_TOLERANCE * size:
            report.add("HZ-4.7", "product/value", "the product with the stored Hessian", PRODUCT_BAD, index)


def _check_forces(record: LabelledGeometry, index: int, report: ValidationReport) -> None:
    if record.kind not in STATIONARY or record.forces is None:
        return
    forces = record.forces if record.active is None else record.forces[record.active]
    largest = float(np.max(np.nan_to_num(np.abs(forces))))
    if largest > STATIONARY_FORCE:
        report.add("HZ-4.9", "atom/force", f"at most {STATIONARY_FORCE} eV/angstrom", f"{largest:.3g}", index)


def _check_fields(record: LabelledGeometry, index: int, report: ValidationReport) -> None:
    """Hold dipole derivatives and Born charges against their sum rules, and look at the dielectric tensor."""
    periodic = bool(np.any(record.pbc))
    if record.dipole_derivatives is not None and not periodic:
        worst, charge = dipole_sum(record.dipole_derivatives, record.charge)
        if worst > DIPOLE_SUM:
            multiple = "a multiple of" if record.charge is None else f"{charge:g} e times"
            expected = f"a sum over the atoms of {multiple} the identity within {DIPOLE_SUM}"
            report.add("HZ-4.12", "dipole/derivative", expected, f"{worst:.3g} e from it", index)
    if record.born_charges is not None and periodic:
        worst = born_mean(record.born_charges)
        if worst > BORN_MEAN:
            report.add("HZ-4.13", "atom/born_charge", f"a mean of 0 within {BORN_MEAN} e", f"{worst:.3g} e", index)
    for text in () if record.dielectric is None else dielectric_warnings(record.dielectric):
        report.add("HZ-4.14", "phonon/dielectric", "a symmetric, positive definite tensor", text, index)


def _check_reactions(store: HessianStore, report: ValidationReport) -> None:
    offset, number, role = store.atom_offset, store.number, store.role
    on_path = np.zeros(len(store), dtype=bool)
    if store.path_coordinate is not None:
        on_path = ~np.isnan(store.path_coordinate)
    first: dict[int, int] = {}
    for index in np.flatnonzero((store.group >= 0) & ((role >= 0) | on_path)).tolist():
        other = first.setdefault(int(store.group[index]), index)
        mine, theirs = (number[offset[i] : offset[i + 1]] for i in (index, other))
        if not np.array_equal(mine, theirs):
            expected = f"the atoms of geometry {other}, {theirs.tolist()[:12]}"
            report.add("HZ-4.4", "atom/number", expected, str(mine.tolist()[:12]), index)


def _check_splits(store: HessianStore, seen: dict[bytes, list[int]], report: ValidationReport) -> None:
    near = clusters_of(near_pairs(store, most=MOST_COMPARED)) if store.split_schemes else []
    repeated = [indices for indices in seen.values() if len(indices) > 1]
    for scheme in store.split_schemes:
        codes, parts = store.split(scheme)
        path = f"split/{scheme}"
        for indices in repeated:
            used = [i for i in indices if codes[i] >= 0]
            if len({int(codes[i]) for i in used}) > 1:
                names = ", ".join(f"geometry {i} in {parts[codes[i]]}" for i in used[:4])
                report.add("HZ-4.5", path, "a geometry in one part", names, used[-1])
        for cluster in near:
            parted = {int(codes[i]): i for i in reversed(cluster) if codes[i] >= 0}
            if len(parted) > 1:
                names = ", ".join(f"geometry {i} in {parts[code]}" for code, i in sorted(parted.items()))
                found = f"{names}: the same but for rounding, moved, turned or mirrored"
                report.add("HZ-4.11", path, "geometries of two parts that differ", found, max(parted.values()))
        grouped = store.group >= 0
        in_train = np.unique(store.group[grouped & (codes == 0)])
        elsewhere = grouped & (codes > 0) & np.isin(store.group, in_train)
        for group, code in np.unique(np.stack([store.group, codes], axis=1)[elsewhere], axis=0).tolist():
            found = f"it in train and in {parts[code]}"
            report.add("HZ-4.6", path, f"group {group} in one part, or out of train", found)
