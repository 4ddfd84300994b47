"""Outputs of quantum-chemistry programs in, one checked Hessian store out, with a report on every file.

One bad file never stops the others, nothing is written when nothing could be
taken, and an interrupted conversion leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from nequip_hessian.checks import check
from nequip_hessian.conversion_report import ConversionReport, Entry
from nequip_hessian.curvature import project_out
from nequip_hessian.duplicates import Seen
from nequip_hessian.errors import ConfigError, HessianDataError, NoHessianError, PhysicsError, StoreError
from nequip_hessian.formats import format_of, formats
from nequip_hessian.formats._source import stem
from nequip_hessian.gather import GROUP_RULES, Input, common_folder, gather, group_of
from nequip_hessian.identities import restore_identities
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import StoreWriter

_COMMON_ENDINGS: Final = (".log", ".out", ".json", ".xyz", ".gz", ".xz", ".bz2")
PROJECTIONS: Final = ("none", "asr", "asr+rot")


@dataclass(frozen=True)
class Options:
    """How to convert; see `convert`."""

    format: str | None = None
    dtype: str | None = None
    project: str = "none"
    group: str = "auto"
    without_hessian: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, (None, *formats())),
            ("dtype", self.dtype, (None, "float32", "float64")),
            ("project", self.project, PROJECTIONS),
            ("group", self.group, GROUP_RULES),
        ):
            if value not in allowed:
                names = ", ".join(str(entry) for entry in allowed if entry)
                raise ConfigError(f"{name}: expected one of {names}, found {value!r}")


def convert(
    inputs: Iterable[str | Path],
    output: str | Path,
    *,
    format: str | None = None,
    dtype: str | None = None,
    project: str = "none",
    group: str = "auto",
    without_hessian: bool = False,
    license: str | None = None,
    overwrite: bool = False,
    report: str | Path | None = None,
    progress: bool | None = None,
) -> ConversionReport:
    """Convert outputs to a Hessian store, each record held against physics first.

    Args:
        inputs: files, patterns, folders and `@list` files, see `gather`
        output: the store to write
        format: name of the format of all inputs; decided by content when not given
        dtype: `float32` or `float64` of the stored Hessians; default: that of the sources
        project: `none`: as the source has it; `asr`: the translational identity is restored;
            `asr+rot`: the rotational one too (away from stationary points with the forces)
        group: rule that names the groups, see `group_of`; a group in the file itself wins
        without_hessian: also take geometries that have energy or forces but no Hessian
        overwrite: replace a store at `output`
        license: SPDX identifier of the data's licence, e.g. `CC-BY-4.0`, written into the store
        report: where to write the report; default `<output>.report.json`, and nowhere when
            nothing was taken
        progress: show a progress bar; default: on a terminal

    Returns:
        The report: what was taken, what was refused and why.

    Raises:
        ConfigError: an option of another value, or no inputs.
        FormatError: a list or pattern that leads nowhere.
        StoreError: there is something at `output`.
    """
    options = Options(format, dtype, project, group, without_hessian)
    target = Path(output)
    if os.path.lexists(target) and not overwrite:
        raise StoreError(f"{target}: there is something already; choose another name or say --overwrite")
    if _unfinished(target).exists() and not overwrite:
        raise StoreError(f"{_unfinished(target)}: left by a conversion that was killed; say --overwrite to start again")
    if report is not None and not Path(report).parent.is_dir():
        Path(report).parent.mkdir(parents=True, exist_ok=True)
    if report is not None and not os.access(Path(report).parent, os.W_OK):
        raise StoreError(f"report {report}: the folder cannot be written to; name another place with --report")
    files = gather(inputs)
    run = _Run(options, common_folder([item.path for item in files]), _Target(target, dtype, overwrite, license))
    with run.target as store:
        for item in tqdm(files, unit="file", desc="convert", disable=None if progress is None else not progress):
            run.take_file(item)
        store.finish(run.provenance())
    result = ConversionReport(str(target) if run.target.opened else None, tuple(run.settled()), vars(options))
    if report is not None or run.target.opened:
        result.write(report if report is not None else target.with_name(target.name + ".report.json"))
    return result


def _unfinished(target: Path) -> Path:
    return target.with_name(target.name + ".unfinished")


class _Target:
    """The store, opened with the first record, so that nothing is written when there is none."""

    def __init__(self, path: Path, dtype: str | None, overwrite: bool, license: str | None) -> None:
        attributes = {"license": license} if license else None
        self._arguments: dict[str, Any] = {"dtype": dtype, "overwrite": overwrite, "attributes": attributes}
        self._path = path
        self._stack = contextlib.ExitStack()
        self._writer: StoreWriter | None = None

    @property
    def opened(self) -> bool:
        return self._writer is not None

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

    def append(self, record: LabelledGeometry) -> None:
        if self._writer is None:
            self._writer = self._open()
        self._writer.append(record)

    def _open(self) -> StoreWriter:
        unfinished = _unfinished(self._path)
        mine = not unfinished.exists()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._stack.enter_context(StoreWriter(self._path, **self._arguments))
        except OSError as exc:
            raise StoreError(f"{self._path}: cannot be written: {exc.strerror or exc}") from exc
        except BaseException:  # an interrupt before the writer can clean up after itself
            if mine:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def finish(self, provenance: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.add_provenance(provenance)


class _Run:
    """The state of one conversion: what was seen, what was taken, what is to be reported."""

    def __init__(self, options: Options, common: Path, target: _Target) -> None:
        self.options = options
        self.common = common
        self.target = target
        self.entries: list[Entry] = []
        self._seen = Seen()
        self._companions: set[str] = set()
        self._sources: dict[str, dict[str, Any]] = {}
        self._conversions: list[dict[str, Any]] = []  # one entry for each set of units met in a format
        self._atoms_of_group: dict[str, bytes] = {}
        self._taken = 0

    def take_file(self, item: Input) -> None:
        """Read, check and append the records of one file; whatever is wrong ends up in `entries`."""
        name = None
        try:
            name, records = self._open(item)
            for index, outcome in enumerate(_each(records)):
                if isinstance(outcome, HessianDataError):
                    self._refuse(item, outcome, name, "; what follows in the file was not read" if index else "")
                else:
                    self._take_record(item, outcome, index, name)
        except HessianDataError as exc:
            if isinstance(exc, StoreError) and not self.target.opened:
                raise  # the store cannot be begun: no fault of this file
            self._refuse(item, exc, name)

    def _open(self, item: Input) -> tuple[str, Iterator[LabelledGeometry]]:
        if self.options.format is not None:
            return self.options.format, formats()[self.options.format].read(item.path)
        found = format_of(item.path)
        return found.name, found.read(item.path)

    def _refuse(self, item: Input, error: HessianDataError, name: str | None, more: str = "") -> None:
        reason = _reason(error, item.path) + more
        # A folder holds many files that no one meant: a .log or .json of something else is passed over.
        other = item.searched and item.path.suffix.lower() in _COMMON_ENDINGS and "recognises its content" in reason
        status = "ignored" if other else "refused"
        self.entries.append(Entry(str(item.path), status, format=name, reason=reason))

    def _take_record(self, item: Input, record: LabelledGeometry, index: int, name: str) -> None:
        base = Entry(str(item.path), "taken", format=name, index=index, label=record.label, formula=record.formula)
        try:
            if record.hessian is None and not self.options.without_hessian:
                raise NoHessianError("no Hessian in this geometry; --without-hessian takes energies and forces alone")
            record, found = check(record)
            record, changed = projected(self._place(record, item.path), self.options.project)
            twin = self._seen.find(record, f"{item.path}" + (f" [{index}]" if index else ""))
        except HessianDataError as exc:
            self.entries.append(replace(base, status="refused", reason=_reason(exc, item.path)))
            return
        self._remember(record, item.path)
        level = "/".join(part for part in (record.level.method, record.level.basis) if part)
        entry = replace(base, kind=record.kind, group=record.group, role=record.role, level=level, checks=found)
        if twin is not None:
            self.entries.append(replace(entry, status="duplicate", reason=f"same geometry and Hessian as {twin}"))
            return
        record, notes = self._role_checked(record)
        entry = replace(entry, role=record.role, notes=(*notes, *changed), geometry=self._taken)
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
        return record.replace(group=group, role=record.role or role)

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
            "options": {key: value for key, value in vars(self.options).items() if value is not None},
            "sources": list(self._sources.values()),
            "conversions": self._conversions,
        }


def _each(records: Iterator[LabelledGeometry]) -> Iterator[LabelledGeometry | HessianDataError]:
    """Yield the records of a file and, in place of the one at which its reader gave up, the error."""
    try:
        yield from records
    except HessianDataError as exc:
        yield exc


def _reason(error: HessianDataError, path: Path) -> str:
    """Return the message in one line, without the name of the file, which stands before it in the report."""
    text = " ".join(str(error).split())
    return text.removeprefix(f"{path}: ").removeprefix(f"{path}, ")


def projected(record: LabelledGeometry, project: str) -> tuple[LabelledGeometry, tuple[str, ...]]:
    """Restore the exact identities of a record's Hessian.

    Args:
        record: any record; one without a Hessian or with a partial one comes back unchanged
        project: one of PROJECTIONS; periodic records have translations only

    Returns:
        The record, and a note on how much was changed, or none.

    Raises:
        PhysicsError: `asr+rot` for a geometry that is not stationary and has no forces.
    """
    if project == "none" or record.hessian is None or record.active is not None:
        return record, ()
    hessian = np.asarray(record.hessian, dtype=np.float64)
    if project == "asr" or np.any(record.pbc):
        mended = project_out(hessian, np.tile(np.eye(3), (len(record), 1)) / np.sqrt(len(record)))
    else:
        forces = record.forces
        known = forces is not None and bool(np.all(np.isfinite(forces)))
        if not known and record.kind == "other":
            raise PhysicsError(
                "--project asr+rot needs the forces of a geometry that is not stationary, and this file has none; "
                "use --project asr"
            )
        mended = restore_identities(hessian, record.positions, forces if known else None)
    change = float(np.max(np.abs(mended - hessian)))
    changed = record.replace(
        hessian=mended.astype(np.asarray(record.hessian).dtype),
        asymmetry=record.asymmetry,
        provenance={**record.provenance, "projected": project, "projection_change": change},
    )
    return changed, (f"projected ({project}), which changed the Hessian by up to {change:.2g} eV/A^2",)
