"""Outputs of quantum-chemistry programs in, one checked Hessian store out, with a report on every file.

One bad file never stops the others, nothing is written when nothing could be
taken, and a conversion that was killed can go on where it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from nequip_hessian.conversion.journal import Journal, header
from nequip_hessian.conversion.options import Options
from nequip_hessian.conversion.parts import Parts
from nequip_hessian.conversion.report import ConversionReport
from nequip_hessian.conversion.run import Run
from nequip_hessian.conversion.shares import (
    ShareReport,
    parts_folder,
    read_inputs,
    read_share,
    require_all,
    unpacked_folder,
)
from nequip_hessian.conversion.target import Target, unfinished_folder
from nequip_hessian.errors import OptionError, StoreError, StoreWriteError
from nequip_hessian.executors import Executor
from nequip_hessian.gather import Input, gather, unpacked
from nequip_hessian.places import beside
from nequip_hessian.projection import PROJECTIONS, projected
from nequip_hessian.store.spool import alone

__all__ = ["PROJECTIONS", "convert", "convert_share", "projected"]


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
    profile: str = "local",
    overwrite: bool = False,
    resume: bool = False,
    report: str | Path | None = None,
    executor: Executor | None = None,
    finalize: bool = False,
    progress: bool | None = None,
) -> ConversionReport:
    """Convert outputs to a Hessian store, the same whoever reads: this process, workers, or earlier `convert_share`s.

    Args:
        inputs: files, patterns, folders and `@list` files, see `gather`
        output: the store to write
        format: name of the format of all inputs; default: by content
        dtype: `float32` or `float64` of the stored Hessians; default: that of the sources
        project: `none`: as the source has it; `asr`: the translational identity is restored;
            `asr+rot`: the rotational one too (away from stationary points with the forces)
        group: rule that names the groups, see `group_of`; a group in the file itself wins
        without_hessian: also take geometries that have energy or forces but no Hessian
        license: SPDX identifier of the data's licence, e.g. `CC-BY-4.0`
        profile: how the store lies on disk: `local`, `remote` or `publish` (a zip file)
        overwrite: replace a store at `output`, and drop an unfinished one
        resume: go on with a killed conversion of the same inputs; keep what is done when interrupted
        report: where to write the report; default `<output>.report.json` if anything was taken
        executor: who reads; several workers need `if __name__ == "__main__":` in a script
        finalize: read nothing here, all inputs must have been read by `convert_share`
        progress: show a progress bar; default: on a terminal

    Returns:
        The report: what was taken, what was refused and why.

    Raises:
        ConfigError: an option of another value, no inputs, or an output or report without a place of its own.
        FormatError: a list or pattern that leads nowhere.
        StoreError: there is something at `output`, the disk refuses, or a share is missing.
    """
    options = Options(format, dtype, project, group, without_hessian, profile, license)
    target = Path(output)
    with alone(target):
        _check_target(target, report, overwrite, resume)
        run, written = _fill(inputs, target, options, executor or Executor(), overwrite, resume, finalize, progress)
        result = ConversionReport(str(target) if written else None, run.entries, vars(options))
        if report is not None or written:
            _write_report(result, Path(report) if report is not None else beside(target, ".report.json"))
    return result


def _fill(
    inputs: Iterable[str | Path],
    target: Path,
    options: Options,
    executor: Executor,
    overwrite: bool,
    resume: bool,
    finalize: bool,
    progress: bool | None,
) -> tuple[Run, bool]:
    """Take all inputs into the store; returns the run and whether anything was written."""
    parts = Parts(parts_folder(target), options.reading)
    attributes = {"license": options.license} if options.license else None
    writing = {"dtype": options.dtype, "profile": options.profile, "attributes": attributes}
    store, keep = None, finalize
    try:
        files = unpacked(gather(inputs), unpacked_folder(target), progress)
        if finalize:
            require_all(files, parts)
        journal = Journal(header([item.named for item in files], vars(options)))
        store = Target(target, journal, resume=resume, overwrite=overwrite, **writing)
        run = Run(options, files, store, journal)
        with store:
            if resume and unfinished_folder(target).exists():
                _go_on(store, run, journal, unfinished_folder(target))
            _take_all(run, files, parts, executor, keep, progress)
            store.finish(run.provenance())
        keep = False
    finally:
        if not (keep or (resume and not (store and store.finished))):
            parts.remove()
            shutil.rmtree(unpacked_folder(target), ignore_errors=True)
    return run, store.opened


def _go_on(store: Target, run: Run, journal: Journal, folder: Path) -> None:
    writer = store.begin()
    run.restore(journal.load(folder, len(writer)), writer)
    journal.open(folder)


def _take_all(
    run: Run, files: list[Input], parts: Parts, executor: Executor, keep: bool, progress: bool | None
) -> None:
    rest = [item for item in files if run.waits_for(item)]
    disable = None if progress is None else not progress
    with (
        closing(read_inputs(rest, parts, executor, keep=keep)) as reading,
        tqdm(total=len(files), initial=len(files) - len(rest), unit="file", desc="convert", disable=disable) as bar,
    ):
        for item, outcomes in reading:
            run.take_file(item, outcomes)
            bar.update()


def convert_share(
    inputs: Iterable[str | Path],
    output: str | Path,
    rank: int,
    world: int,
    *,
    format: str | None = None,
    project: str = "none",
    without_hessian: bool = False,
    executor: Executor | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> ShareReport:
    """Read and check one of `world` shares of the inputs, for a later `convert(..., finalize=True)`.

    Shares may be read at the same time on several machines that see the same files, and repeated after a
    kill; what was read waits in `<output>.parts`.

    Args:
        inputs, format, project, without_hessian: as those of the `convert` that will finish
        output: the store that it will write
        rank: of this share, from 0
        world: number of shares
        executor: who reads; default: this process
        overwrite: that `convert` will replace what is at `output`
        progress: show a progress bar; default: on a terminal

    Raises:
        ConfigError: an option of another value, no inputs, or no such rank.
        FormatError: a list or pattern that leads nowhere.
        StoreError: there is something at `output`, or the disk refuses.
    """
    options = Options(format, None, project, without_hessian=without_hessian)
    target = Path(output)
    _refuse_existing(target, overwrite)
    parts = Parts(parts_folder(target), options.reading)
    files = unpacked(gather(inputs), unpacked_folder(target), progress)
    return read_share(files, parts, executor or Executor(), rank, world, progress)


def _write_report(result: ConversionReport, path: Path) -> None:
    try:
        result.write(path)
    except OSError as exc:
        what = f"the store is complete: {result.output}" if result.output else "nothing was taken"
        raise StoreWriteError(f"report {path}: cannot be written: {exc.strerror or exc}; {what}") from exc


def _check_target(target: Path, report: str | Path | None, overwrite: bool, resume: bool) -> None:
    """Refuse, before anything is read, what could not be written at the end."""
    _refuse_existing(target, overwrite)
    if overwrite and resume:
        raise OptionError("--overwrite starts again and --resume goes on: say one of them")
    unfinished = unfinished_folder(target)
    if unfinished.exists() and not (overwrite or resume):
        raise StoreError(
            f"{unfinished}: left by a conversion that was killed; say --resume to go on, --overwrite to start again"
        )
    _check_report(beside(target, ".report.json") if report is None else Path(report), target)
    if report is not None and not Path(report).parent.is_dir():
        Path(report).parent.mkdir(parents=True, exist_ok=True)
    if report is not None and not os.access(Path(report).parent, os.W_OK):
        raise StoreError(f"report {report}: the folder cannot be written to; name another place with --report")


def _check_report(report: Path, target: Path) -> None:
    place = os.path.realpath(report)
    for folder in (target, unfinished_folder(target), parts_folder(target), unpacked_folder(target)):
        if Path(place).is_relative_to(os.path.realpath(folder)):
            raise OptionError(f"report {report}: lies in {folder}, which is the store's; name a place beside it")
    if report.is_dir():
        raise StoreError(f"report {report}: expected the name of a file, found a folder")
    if report.is_file() and not report.read_bytes().startswith(b'{\n "creator": "nequip-hessian"'):
        raise StoreError(f"report {report}: is there already, and is no report of a conversion; name another file")


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir() and not (target / "zarr.json").is_file():
        inside = target / "store.zarr"
        raise StoreError(f"{target}: a folder that is no Hessian store is not replaced; name a place, e.g. {inside}")
    if os.path.lexists(target) and not overwrite:
        raise StoreError(f"{target}: there is something already; choose another name or say --overwrite")
