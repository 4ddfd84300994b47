"""Where tasks run: in this process, in a pool of processes, or on a Dask cluster; the seam of `convert` and `label`.

A function is given one task after the other and answers with something small;
what is large it leaves on a disk that caller and workers share. A task is
lost, not the run, when the process that works on it dies (out of memory, a
crash in a library): those that died beside it are tried again, one at a time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import RLock, Thread
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from tqdm import tqdm

from nequip_hessian.errors import ConfigError, EngineError, MissingExtraError, OptionError

T = TypeVar("T")
R = TypeVar("R")

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SECONDS_TO_CONNECT: Final = 30
SECONDS_TO_REACH: Final = 3


@dataclass(frozen=True)
class Lost:
    """What comes back for a task whose process died."""

    reason: str = "the worker process died (out of memory, or a crash in a library)"


@dataclass(frozen=True)
class Executor:
    """How many processes, and where.

    Attributes:
        workers: processes on this machine; 1 works in this one
        threads: threads of each process where there are several
        dask: address of a Dask scheduler (`tcp://host:8786`) or its scheduler file (`.json`), instead of `workers`
        one_thread: refuse Dask workers of several threads, for functions that need a process of their own

    Raises:
        ConfigError: a number below 1, or both kinds at once.
    """

    workers: int = 1
    threads: int = 1
    dask: str | None = None
    one_thread: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1 or self.threads < 1:
            raise OptionError(f"expected at least one worker and one thread, found {self.workers} and {self.threads}")
        if self.dask is not None and self.workers > 1:
            raise OptionError("--dask works on the cluster's workers, --workers on this machine: say one of them")

    @property
    def here(self) -> bool:
        """Whether all is done in this process."""
        return self.dask is None and self.workers == 1

    def run(self, function: Callable[[T], R], tasks: Mapping[str, T]) -> Iterator[tuple[str, R | Lost]]:
        """Run the function on each task; yields (key, answer) as they finish, in any order.

        Args:
            function: pickles (a top-level function or a `functools.partial` of one), and so do its answers
            tasks: key -> its argument

        A script that uses several workers needs `if __name__ == "__main__":`, as with any spawned process.
        """
        if self.dask is not None:
            return run_on_dask(function, tasks, scheduler=self.dask, one_thread=self.one_thread)
        if self.workers == 1:
            return ((key, function(task)) for key, task in tasks.items())
        return run_in_pool(function, tasks, workers=self.workers, threads=self.threads)


def share_of(keys: list[str], rank: int, world: int) -> list[str]:
    """Return the keys that are the share of one of several independent runs: every `world`-th from `rank`.

    Raises:
        ConfigError: no such rank.
    """
    if world < 1 or not 0 <= rank < world:
        raise OptionError(f"expected --rank 0 to {max(world - 1, 0)} for --world {world}, found {rank}")
    return keys[rank::world]


def default_workers(work_bytes: int, least_bytes: int = 64 * 2**20, most: int = 8) -> int:
    """Return how many processes an input of this size is worth: one where starting them would take longer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if work_bytes < least_bytes else min(cores, most)


# -- a pool of processes --------------------------------------------------------------------


def run_in_pool(
    function: Callable[[T], R], tasks: Mapping[str, T], *, workers: int, threads: int
) -> Iterator[tuple[str, R | Lost]]:
    """Run in `workers` spawned processes of `threads` threads each; yields (key, answer) as they finish."""
    waiting = iter(tasks.items())
    while True:
        suspects = yield from _until_broken(function, waiting, workers, threads)
        if not suspects:
            return
        for key in suspects:
            alone = iter([(key, tasks[key])])
            if (yield from _until_broken(function, alone, 1, threads)):
                yield key, Lost()


def _until_broken(
    function: Callable[[T], R], waiting: Iterator[tuple[str, T]], workers: int, threads: int
) -> Generator[tuple[str, R | Lost], None, list[str]]:
    """Work through `waiting` in one pool; the return value is the keys that were in a pool that broke."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(threads,)
    )
    running: dict[Future[R], str] = {}
    finished = False
    try:
        while True:
            for key, task in islice(waiting, 3 * workers - len(running)):  # some are ready when one is done
                try:
                    running[pool.submit(function, task)] = key
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


class Crew:
    """Processes that stay, for short tasks that come a few at a time; they end with this one.

    Args:
        workers: processes; threads: of each
    """

    def __init__(self, workers: int, threads: int = 1) -> None:
        self._make = partial(
            ProcessPoolExecutor,
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(threads,),
        )
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
        """Return the answers in the order of the tasks; what the function raises comes through.

        Raises:
            EngineError: a process died (out of memory, or a crash in a library).
        """
        self._pool = self._pool or self._make()
        try:
            return list(self._pool.map(function, tasks))
        except BrokenProcessPool as exc:
            self._pool = None
            raise EngineError(f"{Lost().reason}; try fewer workers") from exc


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback
    tqdm.set_lock(RLock())  # its own is a semaphore between processes, which nobody gives back
    Thread(target=_end_with_parent, daemon=True).start()
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)


def _end_with_parent() -> None:
    """End this worker once its parent is gone: killed, it ends no worker, and they would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# -- a Dask cluster -------------------------------------------------------------------------


def run_on_dask(
    function: Callable[[T], R], tasks: Mapping[str, T], *, scheduler: str, one_thread: bool = False
) -> Iterator[tuple[str, R | Lost]]:
    """Run on the workers of a Dask cluster; yields (key, answer) as they finish.

    The workers need this package and see the files under the same paths. Workers may come and go; a task
    whose workers died again and again is lost.

    Raises:
        MissingExtraError: `distributed` is not installed.
        ConfigError: the address is none, the scheduler does not answer, the workers lack the package, or have
            several threads each where `one_thread` forbids it.
    """
    client = _connect(scheduler)
    from distributed import KilledWorker, as_completed

    running: dict[Any, str] = {}
    finished = as_completed(loop=client.loop)
    waiting = iter(tasks.items())

    def submit() -> None:
        threads = client.nthreads().values()
        if one_thread and any(count > 1 for count in threads):
            raise ConfigError(
                f"dask scheduler {scheduler}: expected workers of one thread, found some of {max(threads)}; start "
                "them with: dask worker --nthreads 1"
            )
        for key, task in islice(waiting, 2 * (sum(threads) + 1) - len(running)):
            future = client.submit(function, task, pure=False)
            running[future] = key
            finished.add(future)

    try:
        submit()
        for future in finished:
            key, error = running.pop(future), future.exception()
            if isinstance(error, ImportError) and not isinstance(error, MissingExtraError):
                raise ConfigError(f"dask worker: {error}; install the same nequip-hessian there as here") from error
            yield key, Lost() if isinstance(error, KilledWorker) else future.result()
            submit()
    finally:
        client.cancel(list(running))
        client.close()


def _connect(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as exc:
        raise MissingExtraError(f'--dask needs the extra "dask": pip install "nequip-hessian[dask]" ({exc})') from exc
    file = scheduler.endswith(".json")
    _reach(_address_in(Path(scheduler)) if file else scheduler, scheduler)
    where = {"scheduler_file": scheduler} if file else {"address": scheduler}
    try:
        return Client(**where, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise ConfigError(f"dask scheduler {scheduler}: does not answer: {exc}") from exc


def _address_in(file: Path) -> str:
    """Return the address that a scheduler file names."""
    try:
        return str(json.loads(file.read_text())["address"])
    except FileNotFoundError:
        raise ConfigError(f"dask: no scheduler file {file}") from None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise ConfigError(
            f"dask: {file}: expected the file that dask scheduler --scheduler-file writes, found another ({exc!r})"
        ) from exc


def _reach(address: str, scheduler: str) -> None:
    """Refuse an address behind which no scheduler listens: a client made with it goes on trying after its own error."""
    protocol, _, place = address.rpartition("://")
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if protocol not in ("", "tcp", "tls"):
        return  # what else a scheduler may speak, it alone can say
    if not host or not port:
        raise OptionError(f"dask: expected an address such as tcp://host:8786 or a .json file, found {scheduler!r}")
    end = time.monotonic() + SECONDS_TO_REACH
    while True:
        try:
            with socket.create_connection((host, port), timeout=SECONDS_TO_REACH) as link:
                greeted = protocol == "tls" or _greets(link)
        except OSError as exc:
            if time.monotonic() > end:
                raise ConfigError(f"dask scheduler {scheduler}: nothing answers there: {exc}") from exc
            time.sleep(0.2)  # it may be starting
            continue
        if not greeted:
            raise ConfigError(f"dask scheduler {scheduler}: what listens there is no Dask scheduler")
        return


def _greets(link: socket.socket) -> bool:
    """Say whether the other side speaks first, as a Dask scheduler does: the lengths of its handshake, in binary."""
    try:
        first = link.recv(8)
    except TimeoutError:
        return False
    return not first.isascii() or b"\0" in first
