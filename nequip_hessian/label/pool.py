"""Run one engine over many geometries, here or in a pool of processes, each label journalled when it is done.

A failure is a message, never the end of the run: an engine that raises loses its
geometry; a worker that dies (out of memory, a crash in a library) loses its own
geometry, and those that died beside it are tried again, one at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from nequip_hessian.errors import EngineError, HessianDataError
from nequip_hessian.label.engine import Engine
from nequip_hessian.label.journal import Journal
from nequip_hessian.record import LabelledGeometry

Outcome = str | None
"""None where a label is in the journal now, else why not."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def label_one(engine: Engine, key: str, geometry: LabelledGeometry, hessian: bool, folder: str) -> Outcome:
    """Make one label and put it into the journal; a top-level function, so that it pickles."""
    try:
        labels = engine.calculate(geometry, hessian)
    except HessianDataError as exc:
        return str(exc)
    except Exception as exc:  # a bug in a foreign library must not cost the other labels
        return f"{geometry.formula}: {type(exc).__name__}: {exc}"
    Journal(folder).put(key, labels)
    return None


def run_here(
    engine: Engine, tasks: Mapping[str, LabelledGeometry], hessian: bool, folder: str
) -> Iterator[tuple[str, Outcome]]:
    """Label one geometry after the other in this process; yields (key, outcome) as they finish."""
    for key, geometry in tasks.items():
        yield key, label_one(engine, key, geometry, hessian, folder)


def run_in_pool(
    engine: Engine, tasks: Mapping[str, LabelledGeometry], hessian: bool, folder: str, *, workers: int, threads: int
) -> Iterator[tuple[str, Outcome]]:
    """Label in `workers` spawned processes of `threads` threads each; yields (key, outcome) as they finish.

    A script that calls this needs `if __name__ == "__main__":`, as with any spawned process.
    """
    waiting = iter(tasks.items())
    while True:
        suspects = yield from _until_broken(engine, waiting, hessian, folder, workers, threads)
        if not suspects:
            return
        for key in suspects:
            alone = iter([(key, tasks[key])])
            if (yield from _until_broken(engine, alone, hessian, folder, 1, threads)):
                yield key, f"{tasks[key].formula}: the worker process died (out of memory, or a crash in a library)"


def _until_broken(
    engine: Engine,
    waiting: Iterator[tuple[str, LabelledGeometry]],
    hessian: bool,
    folder: str,
    workers: int,
    threads: int,
) -> Generator[tuple[str, Outcome], None, list[str]]:
    """Work through `waiting` in one pool; the return value is the keys that were in a pool that broke."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(threads,)
    )
    running: dict[Future[Outcome], str] = {}
    finished = False
    try:
        while True:
            for key, geometry in islice(waiting, workers - len(running)):
                try:
                    running[pool.submit(label_one, engine, key, geometry, hessian, folder)] = key
                except BrokenProcessPool:  # it died since the last wait
                    return [*running.values(), key]
            if not running:
                finished = True
                return []
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                return list(running.values())
            for future in done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=finished, cancel_futures=True)
        if not finished:  # interrupted or broken: nobody waits for a calculation of hours
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)


def check_workers(workers: int, threads: int) -> None:
    """Raise EngineError unless both are at least 1."""
    if workers < 1 or threads < 1:
        raise EngineError(f"expected at least one worker and one thread, found {workers} and {threads}")
