"""The part of a conversion that needs no other file: one input read, each geometry checked and projected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nequip_hessian.checks import Checks, check
from nequip_hessian.errors import HessianDataError, NoHessianError
from nequip_hessian.formats import format_of, formats
from nequip_hessian.projection import projected
from nequip_hessian.record import LabelledGeometry


@dataclass(frozen=True)
class Outcome:
    """What reading gave: a checked record, one that is refused, or a file that is.

    Attributes:
        format: of the file, None where none was recognised
        index: place of the geometry in the file, None where the file (or what follows in it) is refused
        label, formula: of the geometry
        record: to be taken
        checks: findings of `checks.check`
        notes: what was changed in it
        reason: why it is refused; one line, without the name of the file
    """

    format: str | None
    index: int | None = None
    label: str | None = None
    formula: str | None = None
    record: LabelledGeometry | None = None
    checks: Checks | None = None
    notes: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Reading:
    """How to read; the same for all files of a conversion.

    Attributes:
        format: name of the format of all files; by content when None
        project: see `projection.projected`
        without_hessian: also take geometries without one
    """

    format: str | None = None
    project: str = "none"
    without_hessian: bool = False

    def outcomes(self, path: Path) -> Iterator[Outcome]:
        """Read one file, one geometry after the other; whatever is wrong with it is an outcome, not an exception."""
        name, index = self.format, -1
        try:
            entry = formats()[self.format] if self.format is not None else format_of(path)
            name = entry.name
            for index, record in enumerate(entry.read(path)):
                yield self._checked(record, index, name, path)
        except HessianDataError as exc:
            more = "; what follows in the file was not read" if index >= 0 else ""
            yield Outcome(name, reason=reason_of(exc, path) + more)

    def _checked(self, record: LabelledGeometry, index: int, name: str, path: Path) -> Outcome:
        label, formula = record.label, record.formula
        try:
            if record.hessian is None and not self.without_hessian:
                raise NoHessianError("no Hessian in this geometry; --without-hessian takes energies and forces alone")
            record, found = check(record)
            record, changed = projected(record, self.project)
        except HessianDataError as exc:
            return Outcome(name, index, label, formula, reason=reason_of(exc, path))
        return Outcome(name, index, label, formula, record, found, changed)


def reason_of(error: HessianDataError, path: Path) -> str:
    """Return the message in one line, without the name of the file, which stands before it in the report."""
    text = " ".join(str(error).split())
    return text.removeprefix(f"{path}: ").removeprefix(f"{path}, ")
