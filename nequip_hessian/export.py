"""Geometries of a store out to the files of other programs: chosen, written whole or not at all, each place named."""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from nequip_hessian.errors import ConfigError, FormatError, HessianDataError, OptionError, StoreError
from nequip_hessian.formats._sink import new_file, new_folder, require_molecule, whole_hessian
from nequip_hessian.places import refuse_same, require_name
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore

MANIFEST: Final = "export.json"
"""Lists what is in a folder that `export` made; only a folder that has it is ever replaced."""

LABELS: Final = ("energy", "forces", "charge", "multiplicity", "masses", "dipole_derivatives", "frequencies",
                 "born_charges", "supercell_matrix", "dielectric", "products")  # fmt: skip
"""Labels besides geometry and Hessian that a format may have a place for."""

_INDICES: Final = re.compile(r"-?\d+(?:-\d+)?(?:,-?\d+(?:-\d+)?)*")


@dataclass(frozen=True)
class Target:
    """One format to write.

    Attributes:
        name: as on the command line
        function: module below `nequip_hessian.formats` and name of the function that writes it
        layout: `many` geometries in one file, `many-folder`: in one folder, `file`: one each, `folder`: one each
        suffix: of its files
        molecule: takes molecules only
        hessian: takes geometries with a whole Hessian only
        keeps: of LABELS, what has a place in it
    """

    name: str
    function: tuple[str, str]
    layout: str
    suffix: str = ""
    molecule: bool = True
    hessian: bool = True
    keeps: tuple[str, ...] = ()

    def writer(self) -> Callable[..., Any]:
        """Return the function that writes it."""
        module, name = self.function
        return getattr(importlib.import_module(f"nequip_hessian.formats.{module}"), name)

    def refuse(self, record: LabelledGeometry) -> None:
        """Raise where a geometry does not fit this format, before anything is written."""
        if self.molecule:
            require_molecule(record, self.name)
        if self.hessian or (record.active is not None and self.name != "extxyz"):
            whole_hessian(record, self.name)
        if self.name == "deepmd-npy" and record.forces is not None and not np.all(np.isfinite(record.forces)):
            raise FormatError("deepmd-npy: unknown forces of some atoms, for which this format has no place")

    def lost(self, record: LabelledGeometry) -> list[str]:
        """Return the labels of a geometry that have no place in this format."""
        names = [name for name in LABELS if getattr(record, name) is not None and name not in self.keeps]
        partial = record.forces is not None and not np.all(np.isfinite(record.forces)) and self.name != "extxyz"
        apart = record.forces is not None and record.energy is None and self.name == "turbomole"
        return [*names, "forces"] if (partial or apart) and "forces" not in names else names


_SPIN: Final = ("charge", "multiplicity")
TARGETS: Final = {
    target.name: target
    for target in (
        Target("orca-hess", ("orca_hess", "write_orca_hess"), "file", ".hess", keeps=("masses", "dipole_derivatives")),
        Target(
            "fchk",
            ("fchk", "write_fchk"),
            "file",
            ".fchk",
            keeps=("energy", "forces", *_SPIN, "masses", "dipole_derivatives"),
        ),
        Target("xtb", ("xtb_hessian", "write_xtb_hessian"), "folder", keeps=("energy", *_SPIN)),
        Target("turbomole", ("_turbomole_out", "write_turbomole"), "folder", keeps=("energy", "forces")),
        Target("geometric", ("geometric_txt", "write_geometric_txt"), "folder"),
        Target(
            "phonopy",
            ("phonopy_files", "write_phonopy_files"),
            "folder",
            molecule=False,
            keeps=("masses", "born_charges", "supercell_matrix", "dielectric"),
        ),
        Target(
            "deepmd-npy",
            ("deepmd_npy", "write_deepmd_npy"),
            "many-folder",
            molecule=False,
            hessian=False,
            keeps=("energy", "forces"),
        ),
        Target(
            "extxyz",
            ("extxyz", "write_extxyz"),
            "many",
            ".xyz",
            molecule=False,
            hessian=False,
            keeps=("energy", "forces", *_SPIN, "masses", "dipole_derivatives", "frequencies"),
        ),
        Target(
            "qcschema",
            ("qcschema", "write_qcschema"),
            "many",
            ".json",
            hessian=False,
            keeps=("energy", "forces", *_SPIN, "masses", "dipole_derivatives", "frequencies"),
        ),
    )
}


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        output: file or folder
        places: (geometry, path below or at `output`) of each geometry written
        refused: (geometry, reason) of each that the format has no place for
        lost: how many of the written geometries have a label that the format has no place for, by label
    """

    output: Path
    places: tuple[tuple[int, str], ...]
    refused: tuple[tuple[int, str], ...]
    lost: Mapping[str, int]


def export(
    store: str | Path,
    output: str | Path,
    format: str,
    *,
    select: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool | None = None,
) -> Export:
    """Write geometries of a store in the format of another program.

    Args:
        store: the store
        output: a file for `extxyz` and `qcschema`, and for one geometry in a format of one file
            (`ts.hess`, `ts.fchk`); else a folder, with one file or folder a geometry, or, for one
            geometry in a format of several files, these themselves
        format: one of TARGETS
        select: entries as of `chosen`; a geometry has to fit all of them. Default: all
        overwrite: replace a file that is there, or a folder that an export made
        progress: show a progress bar; default: on a terminal

    Returns:
        Where each geometry went, and which ones the format has no place for.

    Raises:
        ConfigError: an unknown format, a selection that names nothing, several geometries for one file.
        StoreError: no store, or something at `output` that is not to be replaced.
        FormatError: no geometry fits the format, or one cannot be written; nothing is left then.
    """
    if format not in TARGETS:
        raise OptionError(f"format: expected one of {', '.join(sorted(TARGETS))}, found {format!r}")
    target, path = TARGETS[format], require_name(output)
    opened = HessianStore(store)
    indices = chosen(opened, select)
    refuse_same(path, store)
    _check_output(path, overwrite)
    run = _Run(opened, target, indices, progress)
    single = len(indices) == 1 and (target.layout == "folder" or (target.layout == "file" and _is_file(path, target)))
    if target.layout == "file" and _is_file(path, target) and len(indices) != 1:
        raise ConfigError(
            f"{path}: a file of one geometry, but {len(indices)} are chosen; choose one with --select or name a folder"
        )
    if target.layout == "many":
        run.many(path, overwrite)
    elif target.layout == "many-folder":
        run.many_folder(path, overwrite)
    elif single:
        run.single(path, overwrite)
    else:
        run.each(path, overwrite)
    return Export(path, tuple(run.places), tuple(run.refused), dict(run.lost))


def _is_file(path: Path, target: Target) -> bool:
    return path.suffix.lower() == target.suffix


def _check_output(path: Path, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise StoreError(f"{path}: there is something already; choose another name or say --overwrite")
    if path.is_dir() and not (path / MANIFEST).is_file():
        raise StoreError(f"{path}: a folder that no export made ({MANIFEST} is missing) is not replaced; move it away")


class _Run:
    """One export: what is to be written, and what became of it."""

    def __init__(self, store: HessianStore, target: Target, indices: list[int], progress: bool | None) -> None:
        self.store, self.target, self.indices = store, target, indices
        self.places: list[tuple[int, str]] = []
        self.refused: list[tuple[int, str]] = []
        self.lost: Counter[str] = Counter()
        self._written: list[int] = []
        self._hidden = None if progress is None else not progress

    def _records(self) -> Iterator[LabelledGeometry]:
        """Yield what fits, and note the rest."""
        for index in tqdm(self.indices, desc=self.target.name, unit="geometry", disable=self._hidden, delay=2):
            record = self.store[index]
            try:
                self.target.refuse(record)
            except HessianDataError as exc:
                self.refused.append((index, str(exc).removeprefix(f"{self.target.name}: ")))
                continue
            self._written.append(index)
            self.lost.update(self.target.lost(record))
            yield record

    def _some(self, records: Iterable[LabelledGeometry]) -> Iterator[LabelledGeometry]:
        yield from records
        if not self._written:
            index, reason = self.refused[0]
            raise StoreError(f"{self.store.path}: nothing to write as {self.target.name}: geometry {index}: {reason}")

    def many(self, path: Path, overwrite: bool) -> None:
        with new_file(path, overwrite=overwrite) as temporary:
            self.target.writer()(temporary, self._some(self._records()))
        self.places = [(index, f"{path.name}#{frame}") for frame, index in enumerate(self._written)]

    def many_folder(self, path: Path, overwrite: bool) -> None:
        with new_folder(path, overwrite=overwrite) as folder:
            found = self.target.writer()(folder / "data", self._some(self._records()))
            for inner in (folder / "data").iterdir():
                inner.rename(folder / inner.name)
            (folder / "data").rmdir()
            self.places = list(zip(self._written, found, strict=True))
            self._manifest(folder)

    def single(self, path: Path, overwrite: bool) -> None:
        (record,) = self._some(self._records())
        index = self._written[0]
        if self.target.layout == "file":
            self.target.writer()(path, record, overwrite=overwrite)
            self.places = [(index, path.name)]
            return
        with new_folder(path, overwrite=overwrite) as folder:
            self.target.writer()(folder, record, overwrite=True)
            self.places = [(index, ".")]
            self._manifest(folder)

    def each(self, path: Path, overwrite: bool) -> None:
        width = len(str(max(self.indices)))
        with new_folder(path, overwrite=overwrite) as folder:
            for record in self._some(self._records()):
                index = self._written[-1]
                name = f"{index:0{width}d}{_safe(record.label)}{self.target.suffix}"
                self.target.writer()(folder / name, record)
                self.places.append((index, name))
            self._manifest(folder)

    def _manifest(self, folder: Path) -> None:
        content = {
            "store": self.store.path.name,
            "format": self.target.name,
            "geometries": [{"geometry": i, "label": self.store.label(i), "path": place} for i, place in self.places],
        }
        (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _safe(label: str | None) -> str:
    """Turn a label into the end of a file name: letters, digits, `+`, `-`, `.` and `_`, at most 60 of them."""
    kept = re.sub(r"[^A-Za-z0-9+\-.]+", "_", label or "").strip("._")[:60]
    return f"_{kept}" if kept else ""


# -- selection ------------------------------------------------------------------------------


def chosen(store: HessianStore, select: Sequence[str] = ()) -> list[int]:
    """Choose geometries of a store.

    Args:
        store: the store
        select: entries that a geometry has to fit, all of them: `3`, `0,4,10-19` (indices and ranges, both ends
            in; `-1` is the last), `kind=minimum`, `role=transition_state`, `group=NAME`, `label=PATTERN` (`*`
            and `?` stand for anything), `scheme:part` of a split, `hessian` (has one)

    Returns:
        Indices, ascending.

    Raises:
        ConfigError: an entry of another form, a name that the store does not have, or nothing is left.
    """
    kept = np.ones(len(store), dtype=bool)
    for entry in select:
        kept &= _fits(store, entry.strip())
    indices = np.flatnonzero(kept).tolist()
    if not indices:
        raise ConfigError(f"{store.path}: the selection {' and '.join(select) or 'of all geometries'} is empty")
    return [int(index) for index in indices]


def _fits(store: HessianStore, entry: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if _INDICES.fullmatch(entry):
        return _numbered(store, entry)
    if entry == "hessian":
        return store.has_hessian
    name, equals, value = entry.partition("=")
    if equals and name in _BY_NAME:
        return np.array([_BY_NAME[name](store, i, value) for i in range(len(store))], dtype=bool)
    scheme, colon, part = entry.partition(":")
    if not equals and colon:
        codes, parts = store.split(scheme)
        if part not in parts:
            raise ConfigError(f"{store.path}: split {scheme!r} has no part {part!r}; it has {', '.join(parts)}")
        return codes == parts.index(part)
    raise OptionError(
        f"select: expected indices (0,4,10-19), kind=, role=, group=, label=, scheme:part or hessian, found {entry!r}"
    )


def _numbered(store: HessianStore, entry: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    kept = np.zeros(len(store), dtype=bool)
    for part in entry.split(","):
        found = re.fullmatch(r"(-?\d+)(?:-(\d+))?", part)
        first, last = (int(found.group(1)), int(found.group(2) or found.group(1))) if found else (0, -1)
        if not -len(store) <= first < len(store) or not first <= last < len(store):
            raise ConfigError(f"select: {part!r}: expected geometries 0 to {len(store) - 1} of {store.path}")
        kept[np.arange(first, last + 1)] = True
    return kept


def _code(store: HessianStore, codes: Any, names: Sequence[str], index: int, value: str) -> bool:
    if value not in names:
        raise OptionError(f"select: expected one of {', '.join(names)}, found {value!r}")
    return bool(codes[index] == names.index(value))


def _kind(store: HessianStore, index: int, value: str) -> bool:
    from nequip_hessian.record import KINDS

    return _code(store, store.kind, KINDS, index, value)


def _role(store: HessianStore, index: int, value: str) -> bool:
    from nequip_hessian.record import ROLES

    return _code(store, store.role, ROLES, index, value)


def _group(store: HessianStore, index: int, value: str) -> bool:
    group = int(store.group[index])
    return group >= 0 and fnmatch.fnmatchcase(store.group_label(group) or str(group), value)


def _label(store: HessianStore, index: int, value: str) -> bool:
    return fnmatch.fnmatchcase(store.label(index) or "", value)


_BY_NAME: Final[dict[str, Callable[[HessianStore, int, str], bool]]] = {
    "kind": _kind,
    "role": _role,
    "group": _group,
    "label": _label,
}
