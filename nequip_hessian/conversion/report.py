"""The report of a conversion: one entry a geometry or refused file, as a table and as JSON."""

from __future__ import annotations

import json
import os
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final, overload

from nequip_hessian import __version__
from nequip_hessian.checks import Checks
from nequip_hessian.errors import StoreWriteError

_IN_MEMORY: Final = 8 * 2**20
STATUSES: Final = ("taken", "duplicate", "refused", "companion", "ignored")


@dataclass(frozen=True)
class Entry:
    """What became of one geometry, or of one file none could be read from.

    Attributes:
        source: the file as it was named
        status: `taken`, `duplicate` (taken already from another file), `refused`, `companion` (read
            together with the file that holds the Hessian) or `ignored` (found in a folder, of no format)
        format, index, label, formula, kind, group, role, level: of the record; index is its place in the file
        geometry: its index in the store
        reason: why it was not taken
        notes: what was changed or left out
        checks: findings of `checks.check`
    """

    source: str
    status: str
    format: str | None = None
    index: int | None = None
    label: str | None = None
    formula: str | None = None
    kind: str | None = None
    group: str | None = None
    role: str | None = None
    level: str | None = None
    geometry: int | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    checks: Checks | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is known as a JSON-able dictionary."""
        items = {**vars(self), "notes": list(self.notes), "checks": self.checks.as_dict() if self.checks else None}
        return {key: value for key, value in items.items() if value not in (None, [])}


def entry_from_dict(items: dict[str, Any]) -> Entry:
    """Return the entry that `Entry.as_dict` gave."""
    checks = items.get("checks")
    if checks is not None:
        checks = Checks(**{**checks, "warnings": tuple(checks.get("warnings", ()))})
    return Entry(**{**items, "notes": tuple(items.get("notes", ())), "checks": checks})


class EntryLog(Sequence[Entry]):
    """Entries in the order they came, kept in a temporary file once there are many: memory stays flat.

    Attributes:
        companions: absolute paths of files that were read together with another one; an entry that refused
            such a file comes out as `companion`, as it was of use after all
    """

    def __init__(self) -> None:
        self.companions: set[str] = set()
        self._ends = array("Q", [0])
        # Deleted by the system when it is closed; the report lives as long as its caller wants it.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, mode="w+b")  # noqa: SIM115

    def append(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            StoreWriteError: the temporary folder is full.
        """
        raw = json.dumps(entry.as_dict()).encode()
        try:
            self._file.seek(self._ends[-1])
            self._file.write(raw)
        except OSError as exc:
            raise StoreWriteError(f"{tempfile.gettempdir()}: cannot be written: {exc.strerror or exc}") from exc
        self._ends.append(self._ends[-1] + len(raw))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        begin, end = self._ends[index % len(self)], self._ends[index % len(self) + 1]
        try:
            self._file.seek(begin)
            raw = self._file.read(end - begin)
        except OSError as exc:
            raise StoreWriteError(f"{tempfile.gettempdir()}: cannot be read: {exc.strerror or exc}") from exc
        entry = entry_from_dict(json.loads(raw))
        if entry.status in ("refused", "ignored") and os.path.abspath(entry.source) in self.companions:
            return replace(entry, status="companion", reason="read together with the file that holds the Hessian")
        return entry


@dataclass(frozen=True)
class ConversionReport:
    """Everything a conversion has to say.

    Attributes:
        output: the store, None where nothing was taken and nothing written
        entries: in the order of the inputs
        options: the options of the conversion
    """

    output: str | None
    entries: Sequence[Entry]
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of entries of each status (all statuses present)."""
        found = Counter(entry.status for entry in self.entries)
        return {status: found[status] for status in STATUSES}

    @property
    def exit_status(self) -> int:
        """Return 0 when everything was taken, 3 when some input was refused, 1 when nothing was taken."""
        counts = self.counts
        if not counts["taken"]:
            return 1
        return 3 if counts["refused"] else 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-able dictionary."""
        return {**self._head(), "entries": [entry.as_dict() for entry in self.entries]}

    def _head(self) -> dict[str, Any]:
        return {
            "creator": "nequip-hessian",
            "version": __version__,
            "output": self.output,
            "options": self.options,
            "counts": self.counts,
            "units": {
                "asymmetry": "eV/angstrom^2",
                "largest": "eV/angstrom^2",
                "translation": "eV/angstrom^2",
                "rotation": "eV/angstrom",
                "stiffest": "eV/angstrom^2",
                "lowest": "cm^-1",
                "max_force": "eV/angstrom",
                "frequency_deviation": "cm^-1",
            },
        }

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, in one step, one entry at a time."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.writelines(self._text())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _text(self) -> Iterator[str]:
        """Yield what `json.dumps(self.as_dict(), indent=1)` returns, in pieces."""
        yield json.dumps(self._head(), indent=1, allow_nan=False)[:-2] + ',\n "entries": ['
        for number, entry in enumerate(self.entries):
            text = json.dumps(entry.as_dict(), indent=1, allow_nan=False).replace("\n", "\n  ")
            yield ("," if number else "") + "\n  " + text
        yield ("\n ]" if len(self.entries) else "]") + "\n}\n"

    def table(self, most: int = 60) -> str:
        """Return what was taken as text: at most `most` geometries and warnings, duplicates, and the totals."""
        found = _Survey(most)
        for entry in self.entries:
            found.add(entry)
        base = found.base if found.taken > 1 else ""
        rows = [_HEADER, *(_row(entry, base) for entry in found.first)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
        lines: list[str] = []
        if found.taken:
            lines = ["  ".join(_cells(row, widths)).rstrip() for row in rows]
            if found.taken > most:
                lines.append(f"... and {found.taken - most} more, all in the JSON report")
            lines.append("max|H|, asym, transl: eV/A^2; rot: eV/A; freq: recomputed against printed, cm^-1")
        lines += found.warning_lines(base)[:most]
        lines += found.duplicates
        if len(found.levels) > 1:
            named = ", ".join(f"{level} ({number})" for level, number in found.levels.most_common(8))
            lines.append(
                f"warning: {len(found.levels)} methods with basis sets in one store, a model is trained on one: {named}"
            )
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items() if number)
        return "\n".join([*lines, f"{counts or 'no input'} -> {self.output or 'nothing written'}"])

    def refusals(self) -> Iterator[str]:
        """Yield one line for each refused file or geometry: which and why; the same reason in one file once."""
        refused = (entry for entry in self.entries if entry.status == "refused")
        for source, entries in groupby(refused, key=lambda entry: entry.source):  # those of a file stand together
            alike: dict[str | None, tuple[int | None, int]] = {}
            for entry in entries:
                first, count = alike.get(entry.reason, (entry.index, 0))
                alike[entry.reason] = (first, count + 1)
            for reason, (first, count) in alike.items():
                place = f" [{first}]" if first else ""
                more = f" (and {count - 1} more geometries of this file)" if count > 1 else ""
                yield f"{source}{place}: {reason}{more}"


class _Survey:
    """What the printed table needs, gathered in one pass over entries of any number."""

    def __init__(self, most: int) -> None:
        self.taken = 0
        self.first: list[Entry] = []
        self.base = ""
        self.levels: Counter[str | None] = Counter()
        self.duplicates: list[str] = []
        self._most = most
        self._alike: dict[str, tuple[int, list[tuple[Entry, str]]]] = {}

    def add(self, entry: Entry) -> None:
        """Take one entry into account."""
        if entry.status == "duplicate" and len(self.duplicates) < self._most:
            place = f" [{entry.index}]" if entry.index else ""
            self.duplicates.append(_plain_name(f"duplicate: {entry.source}{place}: {entry.reason}"))
        if entry.status == "taken":
            self._add_taken(entry)
        checks = entry.checks.warnings if entry.checks and entry.status == "taken" else ()
        for text in (*checks, *entry.notes):
            count, few = self._alike.setdefault(re.sub(r"[\d.]+(?:e[-+]?\d+)?", "#", text), (0, []))
            if len(few) < 3:
                few.append((entry, text))
            self._alike[re.sub(r"[\d.]+(?:e[-+]?\d+)?", "#", text)] = (count + 1, few)

    def _add_taken(self, entry: Entry) -> None:
        folder = os.path.dirname(entry.source)
        apart = os.path.isabs(folder) != os.path.isabs(self.base)
        self.base = folder if not self.taken else "" if apart else os.path.commonpath([self.base, folder])
        self.taken += 1
        self.levels[entry.level] += 1
        if len(self.first) < self._most:
            self.first.append(entry)

    def warning_lines(self, base: str) -> list[str]:
        """One line a warning; the same one at more than three geometries, whatever its numbers, is one line."""
        lines = []
        for count, few in self._alike.values():
            if count > 3:
                entry, text = few[0]
                lines.append(f"warning: {count} geometries, {_short(entry, base)} the first: {text}")
            else:
                lines += [f"warning: {_short(entry, base)}: {text}" for entry, text in few]
        return lines


def _plain_name(text: str) -> str:
    """Return a name that stays in its line."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)


_HEADER: Final = ("source", "formula", "kind", "identities", "max|H|", "asym", "transl", "rot", "freq")


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [v.ljust(w) if i < 4 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True))]


def _short(entry: Entry, base: str) -> str:
    name = os.path.relpath(entry.source, base) if base else entry.source
    name = _plain_name(name if not entry.index else f"{name} [{entry.index}]")
    return name if len(name) <= 48 else "..." + name[-45:]


def _row(entry: Entry, base: str) -> tuple[str, ...]:
    checks = entry.checks or Checks()
    residuals = (
        checks.largest,
        checks.asymmetry,
        checks.translation,
        checks.rotation,
        checks.frequency_deviation,
    )
    numbers = ["-" if value is None else f"{value:.1e}" for value in residuals]
    return (_short(entry, base), entry.formula or "-", entry.kind or "-", checks.verdict, *numbers)
