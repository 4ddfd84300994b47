"""Validation level 3: values. Arrays are streamed in blocks; only offsets and one number a geometry are kept whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.errors import StoreError
from nequip_hessian.record import KINDS, ROLES
from nequip_hessian.store.arrays import RowReader, open_rows
from nequip_hessian.store.check_metadata import Metadata
from nequip_hessian.store.columns import Columns
from nequip_hessian.store.files import Files
from nequip_hessian.store.layout import BY_PATH, RAGGED, SPLIT_PREFIX
from nequip_hessian.store.report import ValidationReport

AnyArray = npt.NDArray[Any]
Test = tuple[str, str, Callable[[AnyArray], AnyArray]]
BLOCK_BYTES: Final = 8 * 2**20
NO_VOLUME: Final = 1e-8  # angstrom^3 of a cell, determinant of a primitive matrix
PROBE_NORM: Final = 1e-5  # distance of a probe's norm from 1 that rounding to float32 explains


def _infinite(block: AnyArray) -> AnyArray:
    return np.isinf(block)


def _not_finite(block: AnyArray) -> AnyArray:
    return ~np.isfinite(block)


def _outside(low: int, high: int) -> Callable[[AnyArray], AnyArray]:
    return lambda block: (block < low) | (block > high)


_MISSING_IS_NAN = "a finite number, or NaN where it is missing"
ELEMENT_TESTS: Final[dict[str, Test]] = {
    "geometry/energy": ("HZ-3.9", _MISSING_IS_NAN, _infinite),
    "geometry/path_coordinate": ("HZ-3.9", _MISSING_IS_NAN, _infinite),
    "geometry/cell": ("HZ-3.4", "a finite number", _not_finite),
    "geometry/group": ("HZ-3.7", "-1 or more", lambda block: block < -1),
    "geometry/kind": ("HZ-3.7", f"-1 to {len(KINDS) - 1}", _outside(-1, len(KINDS) - 1)),
    "geometry/role": ("HZ-3.7", f"-1 to {len(ROLES) - 1}", _outside(-1, len(ROLES) - 1)),
    "geometry/multiplicity": ("HZ-3.17", "1 or more, 0 where unknown", lambda block: block < 0),
    "atom/number": ("HZ-3.3", "1 to 118", _outside(1, 118)),
    "atom/position": ("HZ-3.4", "a finite number", _not_finite),
    "atom/force": ("HZ-3.9", _MISSING_IS_NAN, _infinite),
    "atom/mass": ("HZ-3.17", "a positive number, NaN where unknown", lambda block: (block <= 0) | np.isinf(block)),
    "atom/born_charge": ("HZ-3.9", _MISSING_IS_NAN, _infinite),
    "phonon/primitive_matrix": ("HZ-3.9", _MISSING_IS_NAN, _infinite),
    "phonon/dielectric": ("HZ-3.9", _MISSING_IS_NAN, _infinite),
    "hessian/data": ("HZ-3.6", "a finite number", _not_finite),
    "hessian/asymmetry": ("HZ-3.9", "0 or more, NaN where unknown", lambda block: (block < 0) | np.isinf(block)),
    "product/probe": ("HZ-3.13", "a finite number", _not_finite),
    "product/value": ("HZ-3.13", "a finite number", _not_finite),
    "dipole/derivative": ("HZ-3.4", "a finite number", _not_finite),
    "frequency/value": ("HZ-3.4", "a finite number", _not_finite),
}


class ValueChecker:
    """Checks one store's values into a report."""

    def __init__(self, files: Files, own: dict[str, Any], arrays: Metadata, report: ValidationReport) -> None:
        self._files, self._own, self._arrays, self._report = files, own, arrays, report
        self._columns = Columns(files)
        self._owner_offsets = {path: offset for offset, paths in RAGGED.items() for path in paths}

    def run(self) -> None:
        """Check everything; what rests on sound offsets only where they are."""
        before = len(self._report.errors)
        offsets = [path for path in self._arrays if path in RAGGED]
        for path in offsets:
            self._guard(path, self._check_offset)
        sound = len(self._report.errors) == before
        sizes = {path: int(np.prod(self._arrays[path]["shape"])) for path in self._arrays}
        with tqdm(total=sum(sizes.values()), desc="values", unit_scale=True, disable=None, delay=3) as progress:
            for path in self._arrays:
                self._guard(path, lambda path: self._stream(path, sound))
                progress.update(sizes[path])
        if sound and len(self._report.errors) == before:
            for check in (self._hessian_lengths, self._geometries, self._groups, self._labels, self._splits_and_levels):
                check()
            for check in (self._active, self._products, self._dipoles, self._phonons, self._counts):
                check()

    def _guard(self, path: str, check: Callable[[str], None]) -> None:
        try:
            check(path)
        except StoreError as exc:
            self._report.add("HZ-3.1", path, "readable chunks", str(exc))

    def _rows(self, path: str) -> RowReader:
        rows = self._columns.rows(path)
        if rows is None:
            raise StoreError(f"{self._files.path}: {path} vanished while it was read")
        return rows

    def _check_offset(self, path: str) -> None:
        values = self._columns.required(path)
        end = self._rows(RAGGED[path][0]).shape[0]
        if values[0] != 0:
            self._report.add("HZ-3.2", path, "0 at the beginning", str(values[0]))
        least = 1 if path == "geometry/atom_offset" else 0
        for index in np.flatnonzero(np.diff(values) < least)[:20].tolist():
            step = f"{values[index]} -> {values[index + 1]}"
            self._report.add("HZ-3.2", path, "rising numbers" if least else "no fall", step, index)
        if values[-1] != end:
            self._report.add("HZ-3.2", path, f"{end} at the end, the length of {RAGGED[path][0]}", str(values[-1]))

    def _stream(self, path: str, sound: bool) -> None:
        digest = hashlib.sha256()
        for start, block in blocks_of(self._files, path):
            digest.update(block.tobytes())
            if path in ELEMENT_TESTS:
                self._test_block(path, block, start, sound)
        expected, found = self._own["checksums"][path], f"sha256:{digest.hexdigest()}"
        if found != expected:
            self._report.add("HZ-3.12", path, expected, found)

    def _test_block(self, path: str, block: AnyArray, start: int, sound: bool) -> None:
        rule, expected, test = ELEMENT_TESTS[path]
        bad = test(block)
        if not bad.any():
            return
        for position in np.argwhere(bad)[:20]:
            row = int(start + position[0])
            geometry = self._geometry_of(path, row) if sound else None
            self._report.add(rule, f"{path}[{row}]", expected, str(block[tuple(position)]), geometry)

    def _geometry_of(self, path: str, row: int) -> int | None:
        if str(BY_PATH[path].shape[0]) == "G":
            return row
        offset = self._columns.required(self._owner_offsets[path])
        return int(np.searchsorted(offset, row, side="right")) - 1

    # -- what ties arrays together -----------------------------------------------------------

    def _atoms(self) -> AnyArray:
        return np.diff(self._columns.required("geometry/atom_offset"))

    def _hessian_lengths(self) -> None:
        atoms = self._atoms().copy()
        active = self._columns.whole("hessian/active_offset")
        if active is not None:
            chosen = np.diff(active)
            atoms = np.where(chosen > 0, chosen, atoms)
        found = np.diff(self._columns.required("hessian/offset"))
        wanted = 3 * atoms * (3 * atoms + 1) // 2
        for index in np.flatnonzero((found != 0) & (found != wanted)).tolist():
            text = f"0 or {wanted[index]} elements for {atoms[index]} atoms"
            self._report.add("HZ-3.5", "hessian/offset", text, str(found[index]), index)

    def _geometries(self) -> None:
        offset = self._columns.required("geometry/atom_offset")
        rows = self._rows("atom/position")
        for index in range(len(offset) - 1):
            position = np.round(rows.rows(int(offset[index]), int(offset[index + 1])), 6)
            if len(np.unique(position, axis=0)) < len(position):
                self._report.add("HZ-3.14", "atom/position", "atoms apart from each other", "two at one place", index)
        pbc, cell = self._columns.required("geometry/pbc"), self._columns.required("geometry/cell")
        flat = pbc.any(axis=1) & (np.abs(np.linalg.det(cell)) < NO_VOLUME)
        for index in np.flatnonzero(flat).tolist():
            self._report.add("HZ-3.15", "geometry/cell", "a volume, as pbc is set", "none", index)

    def _groups(self) -> None:
        group = self._columns.required("geometry/group")
        used = np.unique(group[group >= 0])
        if len(used) and used[-1] != len(used) - 1:
            gap = int(np.flatnonzero(used != np.arange(len(used)))[0])
            self._report.add("HZ-3.8", "geometry/group", f"numbers 0 to {len(used) - 1}", f"no geometry in group {gap}")
        names = self._columns.whole("geometry/group_label_offset")
        if names is not None and len(names) - 1 != len(used):
            self._report.add("HZ-3.8", "geometry/group_label_offset", f"{len(used)} names", str(len(names) - 1))

    def _labels(self) -> None:
        for stem in ("geometry/label", "geometry/group_label"):
            offset = self._columns.whole(f"{stem}_offset")
            for index in range(0 if offset is None else len(offset) - 1):
                geometry = index if stem == "geometry/label" else None
                try:
                    text = self._columns.text(stem, index) or ""
                except StoreError as exc:
                    self._report.add("HZ-3.11", f"{stem}_data", "UTF-8", str(exc), geometry)
                    continue
                if any(ord(character) < 32 or ord(character) == 127 for character in text):
                    self._report.add("HZ-3.11", f"{stem}_data", "no control characters", repr(text), geometry)

    def _splits_and_levels(self) -> None:
        ranges = {path: len(self._arrays[path]["attributes"]["parts"]) for path in self._arrays if _is_split(path)}
        ranges["geometry/level"] = len(self._own["levels_of_theory"])
        for path, count in ranges.items():
            values = self._columns.required(path)
            low = -1 if _is_split(path) else 0
            for index in np.flatnonzero((values < low) | (values >= count)).tolist():
                self._report.add("HZ-3.7", path, f"{low} to {count - 1}", str(values[index]), index)

    def _active(self) -> None:
        offset, atom = self._columns.whole("hessian/active_offset"), self._columns.whole("hessian/active_atom")
        if offset is None or atom is None:
            return
        atoms, lengths = self._atoms(), np.diff(self._columns.required("hessian/offset"))
        for index in np.flatnonzero(np.diff(offset)).tolist():
            chosen = atom[offset[index] : offset[index + 1]]
            if np.any(np.diff(chosen) <= 0) or chosen[0] < 0 or chosen[-1] >= atoms[index]:
                text = f"strictly increasing indices 0 to {atoms[index] - 1}"
                self._report.add("HZ-3.10", "hessian/active_atom", text, str(chosen.tolist()[:8]), index)
            elif lengths[index] == 0:
                self._report.add("HZ-3.10", "hessian/active_atom", "a Hessian", "none", index)

    def _products(self) -> None:
        offset = self._columns.whole("product/row_offset")
        if offset is None:
            return
        atoms, rows = self._atoms(), self._rows("product/probe")
        for index in np.flatnonzero(np.diff(offset)).tolist():
            count = int(offset[index + 1] - offset[index])
            if count % atoms[index]:
                text = f"a multiple of {atoms[index]} rows"
                self._report.add("HZ-3.13", "product/row_offset", text, str(count), index)
                continue
            probes = rows.rows(int(offset[index]), int(offset[index + 1])).reshape(-1, 3 * int(atoms[index]))
            norms = np.linalg.norm(probes, axis=1)
            if np.any(np.abs(norms - 1) > PROBE_NORM):
                found = f"{norms.min():.6g} to {norms.max():.6g}"
                self._report.add("HZ-3.13", "product/probe", "norm 1", found, index)

    def _dipoles(self) -> None:
        offset = self._columns.whole("dipole/offset")
        if offset is None:
            return
        atoms, lengths = self._atoms(), np.diff(offset)
        for index in np.flatnonzero((lengths != 0) & (lengths != 3 * atoms)).tolist():
            self._report.add("HZ-3.18", "dipole/offset", f"0 or {3 * atoms[index]}", str(lengths[index]), index)

    def _phonons(self) -> None:
        matrices = self._columns.whole("phonon/supercell_matrix")
        if matrices is None:
            return
        primitive, path = self._columns.required("phonon/primitive_matrix"), "phonon/supercell_matrix"
        atoms, pbc = self._atoms(), self._columns.required("geometry/pbc")
        for index in np.flatnonzero(matrices.any(axis=(1, 2))).tolist():
            cells = abs(round(float(np.linalg.det(matrices[index].astype(np.float64)))))
            if not pbc[index].all():
                found = str(pbc[index].tolist())
                self._report.add("HZ-3.19", "geometry/pbc", "true along all vectors of a supercell", found, index)
            elif cells == 0 or atoms[index] % cells:
                text = f"a determinant that divides {atoms[index]} atoms"
                self._report.add("HZ-3.19", path, text, str(cells), index)
            elif np.isfinite(primitive[index]).all() and abs(np.linalg.det(primitive[index])) < NO_VOLUME:
                self._report.add("HZ-3.19", "phonon/primitive_matrix", "a determinant other than 0", "0", index)

    def _counts(self) -> None:
        group = self._columns.required("geometry/group")
        found = {
            "hessians": int(np.count_nonzero(np.diff(self._columns.required("hessian/offset")))),
            "groups": len(np.unique(group[group >= 0])),
        }
        for name, value in found.items():
            if self._own["counts"][name] != value:
                self._report.add("HZ-3.16", f"counts/{name}", str(value), str(self._own["counts"][name]))


def _is_split(path: str) -> bool:
    return path.startswith(SPLIT_PREFIX)


def blocks_of(files: Files, path: str) -> Iterator[tuple[int, AnyArray]]:
    """Yield (first row, rows) of an array from its beginning to its end, a few megabytes at a time."""
    rows = open_rows(files, path)  # a handle of its own: nothing is kept
    if rows is None:
        raise StoreError(f"{files.path}: {path} vanished while it was read")
    step = max(1, BLOCK_BYTES // max(1, rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=int))))
    for start in range(0, rows.shape[0], step):
        yield start, np.ascontiguousarray(rows.rows(start, min(start + step, rows.shape[0])))


def refuse_damaged(files: Files, attributes: Mapping[str, Any]) -> None:
    """Hold every array against its checksum, before its values get a new one.

    Raises:
        StoreError: one has other values than its checksum was made of.
    """
    for path, expected in sorted(attributes["checksums"].items()):
        digest = hashlib.sha256()
        for _, block in blocks_of(files, path):
            digest.update(block.tobytes())
        if f"sha256:{digest.hexdigest()}" != expected:
            raise StoreError(
                f"{files.path}: {path} has other values than its checksum was made of (HZ-3.12): the store is damaged; "
                "nequip-hessian validate says more"
            )
