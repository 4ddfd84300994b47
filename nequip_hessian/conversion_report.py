"""The report of a conversion: one entry a geometry or refused file, as a table and as JSON."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nequip_hessian import __version__
from nequip_hessian.checks import Checks

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


@dataclass(frozen=True)
class ConversionReport:
    """Everything a conversion has to say.

    Attributes:
        output: the store, None where nothing was taken and nothing written
        entries: in the order of the inputs
        options: the options of the conversion
    """

    output: str | None
    entries: tuple[Entry, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
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
        return {
            "creator": "nequip-hessian",
            "version": __version__,
            "output": self.output,
            "options": self.options,
            "counts": self.counts,
            "units": {
                "asymmetry": "eV/angstrom^2",
                "translation": "eV/angstrom^2",
                "rotation": "eV/angstrom",
                "stiffest": "eV/angstrom^2",
                "lowest": "cm^-1",
                "max_force": "eV/angstrom",
                "frequency_deviation": "cm^-1",
            },
            "entries": [entry.as_dict() for entry in self.entries],
        }

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self.as_dict(), file, indent=1, allow_nan=False)
                file.write("\n")
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def table(self, most: int = 60) -> str:
        """Return what was taken as text: at most `most` geometries and warnings, duplicates, and the totals."""
        taken = [entry for entry in self.entries if entry.status == "taken"]
        base = os.path.commonpath([os.path.dirname(e.source) for e in taken]) if len(taken) > 1 else ""
        rows = [_HEADER, *(_row(entry, base) for entry in taken[:most])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
        lines: list[str] = []
        if taken:
            lines = ["  ".join(_cells(row, widths)).rstrip() for row in rows]
            if len(taken) > most:
                lines.append(f"... and {len(taken) - most} more, all in the JSON report")
            lines.append("asym, transl: eV/A^2; rot: eV/A; freq: recomputed against printed, cm^-1")
        lines += self._warnings(taken, base)[:most]
        lines += [f"duplicate: {e.source}: {e.reason}" for e in self.entries if e.status == "duplicate"][:most]
        levels = Counter(entry.level for entry in taken)
        if len(levels) > 1:
            named = ", ".join(f"{level} ({number})" for level, number in levels.most_common(8))
            lines.append(f"warning: {len(levels)} levels of theory in one store, a model is trained on one: {named}")
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items() if number)
        return "\n".join([*lines, f"{counts or 'no input'} -> {self.output or 'nothing written'}"])

    def refusals(self) -> list[str]:
        """Return one line for each refused file or geometry: which and why; the same reason in one file once."""
        alike: dict[tuple[str, str | None], list[Entry]] = {}
        for entry in self.entries:
            if entry.status == "refused":
                alike.setdefault((entry.source, entry.reason), []).append(entry)
        lines = []
        for (source, reason), entries in alike.items():
            first = f" [{entries[0].index}]" if entries[0].index else ""
            more = f" (and {len(entries) - 1} more geometries of this file)" if len(entries) > 1 else ""
            lines.append(f"{source}{first}: {reason}{more}")
        return lines

    @staticmethod
    def _warnings(taken: list[Entry], base: str) -> list[str]:
        """One line a warning; the same one at more than three geometries, whatever its numbers, is one line."""
        alike: dict[str, list[tuple[Entry, str]]] = {}
        for entry in taken:
            for text in (*(entry.checks.warnings if entry.checks else ()), *entry.notes):
                alike.setdefault(re.sub(r"[\d.]+(?:e[-+]?\d+)?", "#", text), []).append((entry, text))
        lines = []
        for same in alike.values():
            if len(same) > 3:
                entry, text = same[0]
                lines.append(f"warning: {len(same)} geometries, {_short(entry, base)} the first: {text}")
            else:
                lines += [f"warning: {_short(entry, base)}: {text}" for entry, text in same]
        return lines


_HEADER: Final = ("source", "formula", "kind", "identities", "asym", "transl", "rot", "freq")


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [v.ljust(w) if i < 4 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True))]


def _short(entry: Entry, base: str) -> str:
    name = os.path.relpath(entry.source, base) if base else entry.source
    name = name if not entry.index else f"{name} [{entry.index}]"
    return name if len(name) <= 48 else "..." + name[-45:]


def _row(entry: Entry, base: str) -> tuple[str, ...]:
    checks = entry.checks or Checks()
    residuals = (checks.asymmetry, checks.translation, checks.rotation, checks.frequency_deviation)
    numbers = ["-" if value is None else f"{value:.1e}" for value in residuals]
    return (_short(entry, base), entry.formula or "-", entry.kind or "-", checks.verdict, *numbers)
