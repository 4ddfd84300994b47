"""One conversion under way: file by file into the store, checked, with an entry in the report for each geometry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from nequip_hessian.conversion.journal import Journal, stamp
from nequip_hessian.conversion.options import Options
from nequip_hessian.conversion.read import Outcome, reason_of
from nequip_hessian.conversion.report import Entry, EntryLog, entry_from_dict
from nequip_hessian.conversion.target import Target
from nequip_hessian.duplicates import Seen
from nequip_hessian.errors import HessianDataError, StoreError, StoreWriteError
from nequip_hessian.formats._source import stem
from nequip_hessian.gather import NOTHING_KNOWN, Input, common_folder, group_of, reaction_groups
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import StoreWriter

_COMMON_ENDINGS: Final = (".log", ".out", ".json", ".xyz", ".dat", ".xml", ".in", ".gz", ".xz", ".bz2",
                          ".lzma", ".zip", ".tar", ".tgz", ".tbz2", ".tbz", ".txz", ".tlz")  # fmt: skip
_OF_NO_FORMAT: Final = ("recognises its content", "bare numbers without a geometry", NOTHING_KNOWN)


@dataclass
class _New:
    """What one file adds to the state of a conversion; goes into the journal with it."""

    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    conversions: list[dict[str, Any]] = field(default_factory=list)
    companions: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)


class Run:
    """The state of one conversion: what was seen, what was taken, what is to be reported."""

    def __init__(self, options: Options, files: Sequence[Input], target: Target, journal: Journal) -> None:
        self.options = options
        self.common = common_folder([item.named for item in files])
        self.target = target
        self.entries = EntryLog()
        self._journal = journal
        self._done: set[str] = set()
        self._reactions = reaction_groups(files, self.common, options.group)
        self._seen = Seen()
        self._sources: dict[str, dict[str, Any]] = {}
        self._conversions: list[dict[str, Any]] = []  # one entry for each set of units met in a format
        self._atoms_of_group: dict[str, bytes] = {}
        self._taken = 0
        self._skip = 0  # geometries that are in the store already, of files that are read again
        self._new: _New = _New()  # what the present file adds

    def restore(self, lines: Iterable[Mapping[str, Any]], writer: StoreWriter) -> None:
        """Take up where the journal's lines end; their files are not read again."""
        stored = writer.appended(len(writer))
        for line in lines:
            if "entry" in line:
                entry = entry_from_dict(line["entry"])
                self.entries.append(entry)
                if entry.status == "taken":
                    belongs = tuple(line["belongs"]) if line["belongs"] else None
                    self._seen.remember(next(stored), _named(Path(entry.source), entry.index), belongs)
                continue
            self._done.add(line["file"])
            self._sources.update(line["sources"])
            self._conversions += [one for one in line["conversions"] if one not in self._conversions]
            self.entries.companions.update(line["companions"])
            self._atoms_of_group.update({group: bytes.fromhex(atoms) for group, atoms in line["groups"].items()})
            self._taken = line["taken"]
        self._skip = len(writer) - self._taken

    def waits_for(self, item: Input) -> bool:
        """Whether a file has not been taken yet."""
        return str(item.path) not in self._done

    def take_file(self, item: Input, outcomes: Iterable[Outcome]) -> None:
        """Append what was read of one file, and note in the journal that it is done.

        Args:
            item: the file
            outcomes: what reading it gives, see `read.Reading.outcomes`
        """
        self._new = _New()
        for outcome in outcomes:
            if outcome.record is None:
                self._refuse(item, outcome)
            else:
                self._take_record(item, outcome, outcome.record)
        self._journal.add({"file": str(item.path), "stamp": stamp(item.path), "taken": self._taken, **vars(self._new)})

    def _enter(self, entry: Entry, belongs: tuple[str | None, str] | None = None) -> None:
        self.entries.append(entry)
        self._journal.add_entry(entry.as_dict(), belongs)

    def _refuse(self, item: Input, outcome: Outcome) -> None:
        # A folder holds many files that no one meant: a .log or .json of something else is passed over.
        common = item.searched and item.path.suffix.lower() in _COMMON_ENDINGS
        reason = outcome.reason or ""
        other = outcome.index is None and common and any(words in reason for words in _OF_NO_FORMAT)
        found = {name: getattr(outcome, name) for name in ("format", "index", "label", "formula")}
        self._enter(Entry(str(item.named), "ignored" if other else "refused", **found, reason=item.said(reason)))

    def _take_record(self, item: Input, outcome: Outcome, record: LabelledGeometry) -> None:
        found = {name: getattr(outcome, name) for name in ("format", "index", "label", "formula")}
        base = Entry(str(item.named), "taken", **found)
        try:
            record = self._place(record, item.named)
            twin = self._seen.find(record, _named(item.named, outcome.index))
        except HessianDataError as exc:
            if isinstance(exc, StoreWriteError):
                raise
            self._enter(replace(base, status="refused", reason=reason_of(exc, item.path)))
            return
        self._remember(record, item)
        level = "/".join(part for part in (record.level.method, record.level.basis) if part)
        entry = replace(base, kind=record.kind, group=record.group, role=record.role, level=level,
                        checks=outcome.checks)  # fmt: skip
        if twin is not None:
            reason = f"same geometry and Hessian as {twin.name}"
            said = (f"{reason}, but {twin.contradiction}; left out",) if twin.contradiction else ()
            self._enter(replace(entry, status="duplicate", reason=reason, notes=said))
            return
        belongs = (record.group, record.role) if record.role is not None else None
        record, notes = self._role_checked(record)
        entry = replace(entry, role=record.role, notes=(*notes, *outcome.notes), geometry=self._taken)
        if self._skip:
            self._skip -= 1
        else:
            try:
                self.target.append(record, None if outcome.checks is None else outcome.checks.quality)
            except StoreError as exc:  # what the store refuses is the file's fault, once there is a store
                if isinstance(exc, StoreWriteError) or not self.target.opened:
                    raise
                self._enter(replace(base, status="refused", reason=reason_of(exc, item.path)))
                return
        self._taken += 1
        self._enter(entry, belongs)

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
        if record.group not in self._atoms_of_group:
            self._atoms_of_group[record.group] = atoms
            self._new.groups[record.group] = atoms.hex()
        if self._atoms_of_group[record.group] == atoms:
            return record, ()
        note = f"role {record.role} left out: other atoms, or in another order, than the rest of group {record.group}"
        return record.replace(role=None, path_coordinate=None), (note,)

    def _remember(self, record: LabelledGeometry, item: Input) -> None:
        facts, path = record.provenance, item.named
        inside = "" if item.archive is None else f"{path.parent.relative_to(item.archive.parent).as_posix()}/"
        if item.archive is not None:
            self._add_source(item.archive, {"name": item.archive.name, **item.archive_facts})
        self._add_source(path, {"name": inside + path.name, "size": facts.get("size"), "sha256": facts.get("sha256")})
        conversion = {"format": facts.get("format"), "fields": facts.get("conversions") or {}}
        if conversion not in self._conversions:
            self._conversions.append(conversion)
            self._new.conversions.append(conversion)
        for companion in facts.get("companions") or []:
            beside = path.parent / companion["source"]
            absolute = os.path.abspath(beside)
            if absolute not in self.entries.companions:
                self.entries.companions.add(absolute)
                self._new.companions.append(absolute)
            self._add_source(
                beside, {"name": inside + companion["source"], **{k: companion[k] for k in ("size", "sha256")}}
            )

    def _add_source(self, path: Path, facts: dict[str, Any]) -> None:
        if str(path) not in self._sources:
            self._new.sources[str(path)] = facts
        self._sources[str(path)] = facts

    def provenance(self) -> dict[str, Any]:
        """Describe this conversion for the store."""
        return {
            "routine": "nequip_hessian.convert",
            "options": self.options.meaning,
            "sources": list(self._sources.values()),
            "conversions": self._conversions,
        }


def _named(path: Path, index: int | None) -> str:
    return f"{path}" + (f" [{index}]" if index else "")
