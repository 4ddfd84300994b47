"""One conversion under way: file by file into the store, checked, with an entry in the report for each geometry."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from nequip_hessian.checks import check
from nequip_hessian.conversion_journal import Journal, stamp
from nequip_hessian.conversion_report import Entry, entry_from_dict
from nequip_hessian.duplicates import Seen
from nequip_hessian.errors import (
    ConfigError,
    HessianDataError,
    NoHessianError,
    StoreError,
    StoreWriteError,
)
from nequip_hessian.formats import format_of, formats
from nequip_hessian.formats._source import stem
from nequip_hessian.gather import GROUP_RULES, Input, common_folder, group_of, reaction_groups
from nequip_hessian.projection import PROJECTIONS, projected
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import StoreWriter
from nequip_hessian.store.build import PROFILES

_COMMON_ENDINGS: Final = (".log", ".out", ".json", ".xyz", ".dat", ".xml", ".in", ".gz", ".xz", ".bz2")
_OF_NO_FORMAT: Final = ("recognises its content", "bare numbers without a geometry")
_MEANING: Final = ("format", "dtype", "project", "group", "without_hessian")
"""Options that change what is in the store, not how it lies on disk."""


@dataclass(frozen=True)
class Options:
    """How to convert; see `convert`."""

    format: str | None = None
    dtype: str | None = None
    project: str = "none"
    group: str = "auto"
    without_hessian: bool = False
    profile: str = "local"
    license: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, (None, *formats())),
            ("dtype", self.dtype, (None, "float32", "float64")),
            ("profile", self.profile, PROFILES),
            ("project", self.project, PROJECTIONS),
            ("group", self.group, GROUP_RULES),
        ):
            if value not in allowed:
                names = ", ".join(str(entry) for entry in allowed if entry)
                raise ConfigError(f"{name}: expected one of {names}, found {value!r}")


class Target:
    """The store of a conversion, opened with the first record, so that nothing is written when there is none.

    Args:
        path: the store
        resume: go on with an unfinished one, and keep it when interrupted
        options: further arguments of `StoreWriter`
        journal: of the conversion; it is opened with the store
    """

    def __init__(self, path: Path, journal: Journal, *, resume: bool, **options: Any) -> None:
        self._path, self._journal = path, journal
        self._arguments = {"resume": resume, **options}
        self._stack = contextlib.ExitStack()
        self._writer: StoreWriter | None = None

    @property
    def opened(self) -> bool:
        """Whether the store has been begun."""
        return self._writer is not None

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

    def begin(self) -> StoreWriter:
        """Open the store, new or unfinished."""
        unfinished = unfinished_folder(self._path)
        mine = not unfinished.exists()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stack.callback(self._journal.close)
            self._writer = self._stack.enter_context(StoreWriter(self._path, **self._arguments))
        except OSError as exc:
            raise StoreWriteError(f"{self._path}: cannot be written: {exc.strerror or exc}") from exc
        except BaseException:  # an interrupt before the writer can clean up after itself
            if mine:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return self._writer

    def append(self, record: LabelledGeometry) -> None:
        """Append a record."""
        if self._writer is None:
            self.begin()
            self._journal.open(unfinished_folder(self._path))
        if self._writer is not None:
            self._writer.append(record)

    def finish(self, provenance: dict[str, Any]) -> None:
        """Say where the records come from; the store is finished on a clean exit."""
        if self._writer is not None:
            self._writer.add_provenance(provenance)


def unfinished_folder(target: Path) -> Path:
    """Return where the store grows."""
    return target.with_name(target.name + ".unfinished")


class Run:
    """The state of one conversion: what was seen, what was taken, what is to be reported."""

    def __init__(self, options: Options, files: Sequence[Input], target: Target, journal: Journal) -> None:
        self.options = options
        self.common = common_folder([item.path for item in files])
        self.target = target
        self.entries: list[Entry] = []
        self._journal = journal
        self._done: set[str] = set()
        self._reactions = reaction_groups(files, self.common, options.group)
        self._seen = Seen()
        self._companions: set[str] = set()
        self._sources: dict[str, dict[str, Any]] = {}
        self._conversions: list[dict[str, Any]] = []  # one entry for each set of units met in a format
        self._atoms_of_group: dict[str, bytes] = {}
        self._taken = 0
        self._skip = 0  # geometries that are in the store already, of files that are read again
        self._belongs: list[tuple[str | None, str] | None] = []  # of the geometries taken of the present file

    def restore(self, lines: Sequence[Mapping[str, Any]], writer: StoreWriter) -> None:
        """Take up where the journal's lines end; their files are not read again."""
        names: dict[int, tuple[str, tuple[str | None, str] | None]] = {}
        for line in lines:
            found = [entry_from_dict(entry) for entry in line["entries"]]
            taken = [entry for entry in found if entry.status == "taken"]
            for entry, belongs in zip(taken, line["belongs"], strict=True):
                names[len(names)] = (_named(Path(entry.source), entry.index), tuple(belongs) if belongs else None)
            self.entries += found
            self._done.add(line["file"])
            self._sources.update(line["sources"])
            self._conversions += [one for one in line["conversions"] if one not in self._conversions]
            self._companions.update(line["companions"])
            self._atoms_of_group.update({group: bytes.fromhex(atoms) for group, atoms in line["groups"].items()})
            self._taken = line["taken"]
        self._skip = len(writer) - self._taken
        for index, record in enumerate(writer.appended(self._taken)):
            self._seen.remember(record, *names[index])

    def take_file(self, item: Input) -> None:
        """Read, check and append the records of one file, and note in the journal that it is done."""
        if str(item.path) in self._done:
            return
        before = len(self.entries)
        known = (set(self._sources), len(self._conversions), set(self._companions), set(self._atoms_of_group))
        self._belongs = []
        self._take_file(item)
        self._journal.add(
            {
                "file": str(item.path),
                "stamp": stamp(item.path),
                "taken": self._taken,
                "entries": [entry.as_dict() for entry in self.entries[before:]],
                "belongs": self._belongs,
                "sources": {key: value for key, value in self._sources.items() if key not in known[0]},
                "conversions": self._conversions[known[1] :],
                "companions": sorted(self._companions - known[2]),
                "groups": {g: atoms.hex() for g, atoms in self._atoms_of_group.items() if g not in known[3]},
            }
        )

    def _take_file(self, item: Input) -> None:
        """Whatever is wrong with the file ends up in `entries`."""
        name = None
        try:
            name, records = self._open(item)
            for index, outcome in enumerate(_each(records)):
                if isinstance(outcome, HessianDataError):
                    self._refuse(item, outcome, name, "; what follows in the file was not read" if index else "")
                else:
                    self._take_record(item, outcome, index, name)
        except HessianDataError as exc:
            if isinstance(exc, StoreWriteError) or (isinstance(exc, StoreError) and not self.target.opened):
                raise  # the store cannot be written: no fault of this file
            self._refuse(item, exc, name)

    def _open(self, item: Input) -> tuple[str, Iterator[LabelledGeometry]]:
        if self.options.format is not None:
            return self.options.format, formats()[self.options.format].read(item.path)
        found = format_of(item.path)
        return found.name, found.read(item.path)

    def _refuse(self, item: Input, error: HessianDataError, name: str | None, more: str = "") -> None:
        reason = _reason(error, item.path) + more
        # A folder holds many files that no one meant: a .log or .json of something else is passed over.
        common = item.searched and item.path.suffix.lower() in _COMMON_ENDINGS
        other = common and any(words in reason for words in _OF_NO_FORMAT)
        status = "ignored" if other else "refused"
        self.entries.append(Entry(str(item.path), status, format=name, reason=reason))

    def _take_record(self, item: Input, record: LabelledGeometry, index: int, name: str) -> None:
        base = Entry(str(item.path), "taken", format=name, index=index, label=record.label, formula=record.formula)
        try:
            if record.hessian is None and not self.options.without_hessian:
                raise NoHessianError("no Hessian in this geometry; --without-hessian takes energies and forces alone")
            record, found = check(record)
            record, changed = projected(self._place(record, item.path), self.options.project)
            twin = self._seen.find(record, _named(item.path, index))
        except HessianDataError as exc:
            self.entries.append(replace(base, status="refused", reason=_reason(exc, item.path)))
            return
        self._remember(record, item.path)
        level = "/".join(part for part in (record.level.method, record.level.basis) if part)
        entry = replace(base, kind=record.kind, group=record.group, role=record.role, level=level, checks=found)
        if twin is not None:
            self.entries.append(replace(entry, status="duplicate", reason=f"same geometry and Hessian as {twin}"))
            return
        self._belongs.append((record.group, record.role) if record.role is not None else None)
        record, notes = self._role_checked(record)
        entry = replace(entry, role=record.role, notes=(*notes, *changed), geometry=self._taken)
        if self._skip:
            self._skip -= 1
        else:
            self.target.append(record)
        self._taken += 1
        self.entries.append(entry)

    def _place(self, record: LabelledGeometry, path: Path) -> LabelledGeometry:
        """Fill in group and role where the file itself does not say them."""
        if record.group is not None:
            return record
        group, role = group_of(path, stem(path), self.common, self.options.group, record.formula)
        if record.provenance.get("format") == "xtb-hessian" and self.options.group == "auto" and path.name == "hessian":
            group, role = group_of(path, record.label or stem(path), self.common, self.options.group, record.formula)
        return record.replace(group=group, role=record.role or (role if group in self._reactions else None))

    def _role_checked(self, record: LabelledGeometry) -> tuple[LabelledGeometry, tuple[str, ...]]:
        """Drop a role read from a file name where the atoms are not those of the rest of the reaction."""
        if record.group is None or record.role is None:
            return record, ()
        atoms = np.asarray(record.numbers).tobytes()
        if self._atoms_of_group.setdefault(record.group, atoms) == atoms:
            return record, ()
        note = f"role {record.role} left out: other atoms, or in another order, than the rest of group {record.group}"
        return record.replace(role=None, path_coordinate=None), (note,)

    def _remember(self, record: LabelledGeometry, path: Path) -> None:
        facts = record.provenance
        self._sources[str(path)] = {"name": path.name, "size": facts.get("size"), "sha256": facts.get("sha256")}
        conversion = {"format": facts.get("format"), "fields": facts.get("conversions") or {}}
        if conversion not in self._conversions:
            self._conversions.append(conversion)
        for companion in facts.get("companions") or []:
            beside = path.parent / companion["source"]
            self._companions.add(os.path.abspath(beside))
            self._sources[str(beside)] = {
                "name": companion["source"],
                "size": companion["size"],
                "sha256": companion["sha256"],
            }

    def settled(self) -> Iterator[Entry]:
        """Yield the entries; a refused file that was read as the companion of another one was of use after all."""
        for entry in self.entries:
            if entry.status in ("refused", "ignored") and os.path.abspath(entry.source) in self._companions:
                yield replace(entry, status="companion", reason="read together with the file that holds the Hessian")
            else:
                yield entry

    def provenance(self) -> dict[str, Any]:
        """Describe this conversion for the store."""
        return {
            "routine": "nequip_hessian.convert",
            "options": {key: vars(self.options)[key] for key in _MEANING if vars(self.options)[key] is not None},
            "sources": list(self._sources.values()),
            "conversions": self._conversions,
        }


def _each(records: Iterator[LabelledGeometry]) -> Iterator[LabelledGeometry | HessianDataError]:
    """Yield the records of a file and, in place of the one at which its reader gave up, the error."""
    try:
        yield from records
    except HessianDataError as exc:
        yield exc


def _named(path: Path, index: int | None) -> str:
    return f"{path}" + (f" [{index}]" if index else "")


def _reason(error: HessianDataError, path: Path) -> str:
    """Return the message in one line, without the name of the file, which stands before it in the report."""
    text = " ".join(str(error).split())
    return text.removeprefix(f"{path}: ").removeprefix(f"{path}, ")
