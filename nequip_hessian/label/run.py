"""`label`: geometries in, a Hessian store out, resumable and checked against the exact identities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nequip_hessian.checks import Checks, check
from nequip_hessian.errors import EngineError, PhysicsError, StoreError
from nequip_hessian.executors import Executor, Lost, share_of
from nequip_hessian.label.engine import Engine, Labels, electronic_state
from nequip_hessian.label.journal import Journal, fingerprint
from nequip_hessian.label.pool import LabelOne
from nequip_hessian.places import beside
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store import StoreWriter
from nequip_hessian.store.spool import alone
from nequip_hessian.store.target import Target


@dataclass(frozen=True)
class Failure:
    """A geometry without a label: its index in the input (from 0), its label, and why."""

    index: int
    label: str | None
    reason: str


@dataclass
class LabelReport:
    """What a labelling run did.

    Attributes:
        total: geometries given
        labelled: geometries in the store
        reused: of those, taken from the journal of an earlier run
        failures: the others
        warnings: labels that are in the store, but that one should look at
        worst_translation: largest residual of the translational identity, eV/angstrom^2
        worst_asymmetry: largest max|H - H^T| before symmetrising, eV/angstrom^2
        journal: folder of the finished labels where it was kept (there were failures), else None
    """

    total: int
    labelled: int = 0
    reused: int = 0
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    worst_translation: float = 0.0
    worst_asymmetry: float = 0.0
    journal: str | None = None

    @property
    def status(self) -> int:
        """Exit status: 0 all labelled, 3 some failed, 1 none."""
        return 1 if self.labelled == 0 else 3 if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return {**asdict(self), "status": self.status}


def label(
    geometries: Sequence[LabelledGeometry],
    output: str | Path,
    engine: Engine,
    *,
    hessian: bool = True,
    workers: int = 1,
    threads: int = 1,
    dask: str | None = None,
    finalize: bool = False,
    dtype: str | None = None,
    attributes: dict[str, Any] | None = None,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
    progress: bool | None = None,
) -> LabelReport:
    """Label geometries and write them to a store, in the order given.

    Finished labels are kept in `<output>.journal` until the store is written: after Ctrl-C, a kill
    or a power cut, the same call goes on where it was. A geometry that fails is left out of the
    store and reported; the journal then stays, and a further call with `overwrite=True` tries only
    what failed.

    Args:
        geometries: what to label; kind, role, group, label, path_coordinate, charge and multiplicity
            are kept, labels they have are replaced; an unknown kind is filled in as `checks.kind_of` says
        output: path of the store
        engine: e.g. `PyscfEngine()`, `TbliteEngine()`, `AseEngine("ase.calculators.emt:EMT")`
        hessian: False makes energies and forces only
        workers: processes; 1 works in this one
        threads: threads of each process where there are several
        dask: scheduler of a Dask cluster that works instead, its workers of one thread each, see `executors`
        finalize: calculate nothing, write what runs of `label_share` have left in the journal
        dtype: of the stored Hessians, `float32` or `float64`; None keeps float64
        attributes: author attributes of the store (license, title ...)
        overwrite: replace a store that is there
        provenance: further facts for the store's provenance entry, e.g. `sources`
        progress: progress bar; None shows one on a terminal

    Returns:
        The report; without a single label no store is written.

    Raises:
        StoreError: something is at `output` already, it cannot be written, or a share is missing
        ConfigError: impossible numbers of workers, or a scheduler that does not answer
        EngineError: no geometry at all
    """
    executor = Executor(workers, threads, dask, one_thread=True)
    if not geometries:
        raise EngineError("no geometry to label")
    output = Path(output)
    with alone(output):
        journal = journal_of(output)
        # A store that a killed run left half written beside its journal is ours, and made again from the journal.
        left = journal.folder.is_dir() and not output.exists()

        def writer() -> StoreWriter:
            return StoreWriter(output, dtype=dtype, attributes=attributes, overwrite=overwrite or left)

        writer().abandon()  # refuse before the first calculation what would be refused after the last
        report = LabelReport(total=len(geometries))
        keys, tasks = _plan(geometries, engine, hessian, journal, report)
        failed = _failures_of_shares(tasks, journal) if finalize else {}
        if not finalize:
            failed.update(_calculate(tasks, engine, hessian, journal, executor, progress))
        for index, key in enumerate(keys):
            if key in failed:
                report.failures.append(Failure(index, geometries[index].label, failed[key]))
                keys[index] = None
        records = _records(geometries, keys, engine, hessian, journal, report)
        first = next(records, None)
        if first is not None:
            with writer() as store:
                for record, found in chain([first], records):
                    store.append(record, found.quality)
                store.add_provenance({"routine": "label", **_facts(engine, hessian), **(provenance or {})})
        report.failures.sort(key=lambda failure: failure.index)
        if not report.failures or journal.empty:
            journal.remove()
        elif journal.folder.is_dir():
            report.journal = str(journal.folder)
    return report


def label_share(
    geometries: Sequence[LabelledGeometry],
    output: str | Path,
    engine: Engine,
    rank: int,
    world: int,
    *,
    hessian: bool = True,
    workers: int = 1,
    threads: int = 1,
    dask: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> LabelReport:
    """Label one of `world` shares of the geometries, for a later `label(..., finalize=True)`; writes no store.

    Shares may be labelled at the same time on several machines that see the same files, and repeated after
    a kill: finished labels and failures are kept in `<output>.journal`; what failed is tried again.

    Args:
        geometries, engine, hessian: as those of the `label` that will finish
        output: the store that it will write
        rank: of this share, from 0
        world: number of shares
        workers, threads, dask, progress: see `label`
        overwrite: that `label` will replace what is at `output`

    Returns:
        The report: `total` counts the geometries of this share, `labelled` those with a label now.

    Raises:
        StoreError: something is at `output` already
        ConfigError: no such rank
    """
    executor = Executor(workers, threads, dask, one_thread=True)
    output = Path(output)
    Target(output, overwrite=overwrite)  # refuses what the last run would refuse
    journal = journal_of(output)
    report = LabelReport(total=0)
    keys, _ = _plan(geometries, engine, hessian, journal, LabelReport(total=0))
    places: dict[str, int] = {}
    for index, key in enumerate(keys):
        if key is not None:
            places.setdefault(key, index)
    mine = share_of(list(places), rank, world)
    tasks = {key: geometries[places[key]] for key in mine if journal.get(key) is None}
    report.total, report.reused = len(mine), len(mine) - len(tasks)
    for key, reason in _calculate(tasks, engine, hessian, journal, executor, progress):
        journal.fail(key, reason)
        report.failures.append(Failure(places[key], geometries[places[key]].label, reason))
    report.labelled = report.total - len(report.failures)
    report.journal = str(journal.folder)
    return report


def journal_of(output: Path) -> Journal:
    """Return the journal of the labelling run that writes a store."""
    return Journal(beside(output, ".journal"))


def _plan(
    geometries: Sequence[LabelledGeometry], engine: Engine, hessian: bool, journal: Journal, report: LabelReport
) -> tuple[list[str | None], dict[str, LabelledGeometry]]:
    """Return the key of each geometry, None where the engine refuses it, and what is not in the journal yet."""
    keys: list[str | None] = []
    tasks: dict[str, LabelledGeometry] = {}
    for index, geometry in enumerate(geometries):
        try:
            engine.check(geometry)
        except EngineError as exc:
            report.failures.append(Failure(index, geometry.label, str(exc)))
            keys.append(None)
            continue
        key = fingerprint(geometry, engine, hessian)
        keys.append(key)
        if key in tasks:
            continue
        if journal.get(key) is None:
            tasks[key] = geometry
        else:
            report.reused += 1
    return keys, tasks


def _calculate(
    tasks: dict[str, LabelledGeometry],
    engine: Engine,
    hessian: bool,
    journal: Journal,
    executor: Executor,
    progress: bool | None,
) -> Iterator[tuple[str, str]]:
    """Fill the journal; yields (key, reason) of what failed."""
    pairs = {key: (key, geometry) for key, geometry in tasks.items()}
    outcomes = executor.run(LabelOne(engine, hessian, str(journal.folder)), pairs)
    disable = None if progress is None else not progress
    for key, outcome in tqdm(outcomes, total=len(tasks), desc="label", unit="geometry", disable=disable):
        if isinstance(outcome, Lost):
            yield key, f"{tasks[key].formula}: {outcome.reason}"
        elif outcome is not None:
            yield key, outcome


def _failures_of_shares(tasks: dict[str, LabelledGeometry], journal: Journal) -> dict[str, str]:
    """Return why geometries without a label have none; refuse where one has not been tried."""
    reasons = {key: journal.failure(key) for key in tasks}
    missing = [key for key, reason in reasons.items() if reason is None]
    if missing:
        first = tasks[missing[0]]
        raise StoreError(
            f"{journal.folder}: {len(missing)} geometries have not been labelled with these options, the first: "
            f"{first.label or first.formula}; repeat the ranks that did not end, or leave --finalize out to label the "
            "rest here"
        )
    return {key: reason for key, reason in reasons.items() if reason is not None}


def _records(
    geometries: Sequence[LabelledGeometry],
    keys: Sequence[str | None],
    engine: Engine,
    hessian: bool,
    journal: Journal,
    report: LabelReport,
) -> Iterator[tuple[LabelledGeometry, Checks]]:
    """Yield finished records with what was found of them, one at a time: all Hessians may not fit into memory."""
    level = engine.level(hessian)
    for index, (geometry, key) in enumerate(zip(geometries, keys, strict=True)):
        if key is None:
            continue
        labels = journal.get(key)
        if labels is None:
            report.failures.append(Failure(index, geometry.label, f"the journal {journal.folder} lost its label"))
            continue
        try:
            record, found = check(labelled(with_state(geometry, engine), labels, level))
        except PhysicsError as exc:
            report.failures.append(Failure(index, geometry.label, f"the label contradicts physics: {exc}"))
            continue
        name = f"geometry {index} ({record.label or record.formula})"
        report.warnings += [f"{name}: {warning}" for warning in found.warnings]
        report.worst_translation = max(report.worst_translation, found.translation or 0.0)
        report.worst_asymmetry = max(report.worst_asymmetry, found.asymmetry or 0.0)
        report.labelled += 1
        yield record, found


def with_state(geometry: LabelledGeometry, engine: Engine) -> LabelledGeometry:
    """Write down the charge and multiplicity that a molecular engine took where the geometry said none."""
    if not getattr(engine, "molecular", False):
        return geometry
    charge, multiplicity = electronic_state(geometry)
    return geometry.replace(charge=charge, multiplicity=multiplicity)


def labelled(geometry: LabelledGeometry, labels: Labels, level: LevelOfTheory) -> LabelledGeometry:
    """Put labels onto a geometry; what labels it had before is dropped."""
    return LabelledGeometry(
        numbers=geometry.numbers,
        positions=geometry.positions,
        cell=geometry.cell,
        pbc=geometry.pbc,
        charge=geometry.charge,
        multiplicity=geometry.multiplicity,
        energy=labels.energy,
        forces=labels.forces,
        hessian=labels.hessian,
        kind=geometry.kind,
        role=geometry.role,
        group=geometry.group,
        path_coordinate=geometry.path_coordinate,
        label=geometry.label,
        level=level,
        provenance=geometry.provenance,
    )


def _facts(engine: Engine, hessian: bool) -> dict[str, Any]:
    settings = asdict(engine)  # type: ignore[call-overload]
    return {"options": {"engine": type(engine).__name__, **settings, "hessian": hessian}}
