"""One job on each of several geometries: kept when done, over a pool of processes where wanted, with a bar.

A job is a picklable `work(calculator, item, cache, name) -> dict`; what it returns is kept as JSON under its
name, which is made from the item, so that a repeated command does not do it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ase import Atoms
from tqdm import tqdm

from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.geometries import STATE
from nequip_hessian.errors import OptionError

Work = Callable[[Any, Any, Cache | None, str], dict[str, Any]]


class Source(Protocol):
    """What a worker makes its calculator from; it pickles."""

    def load(self) -> Any:
        """Make the calculator."""


@dataclass(frozen=True)
class Store:
    """Where jobs are kept.

    Attributes:
        folder: the folder; key: what its content belongs to, see `Cache`
    """

    folder: Path
    key: Mapping[str, Any]

    def open(self) -> Cache:
        """Return the cache; content of another key is removed."""
        return Cache(self.folder, self.key)


def job_name(prefix: str, atoms: Atoms, settings: Mapping[str, Any]) -> str:
    """Return a name that is the same for the same geometry, masses, electronic state and settings only."""
    state = {key: atoms.info.get(key) for key in STATE}
    text = json.dumps([atoms.numbers.tolist(), atoms.get_masses().tolist(), state, dict(settings)], sort_keys=True)
    digest = hashlib.sha256(text.encode() + atoms.positions.tobytes()).hexdigest()
    return f"{prefix}-{digest[:16]}"


def run_jobs(
    work: Work,
    items: Sequence[Any],
    names: Sequence[str],
    calculator: Any,
    source: Source,
    *,
    store: Store | None = None,
    workers: int = 1,
    title: str = "jobs",
) -> list[dict[str, Any] | str]:
    """Do all jobs that are not kept yet.

    Args:
        work: one job; what it raises ends all
        items: one a job; names: under which each is kept
        calculator: used in this process; source: makes it in a worker
        store: where results are kept; None: nowhere
        workers: processes of one thread each
        title: for the bar

    Returns:
        The results in order; a string says why a job killed its worker.
    """
    if workers < 1:
        raise OptionError(f"workers: expected 1 or more, found {workers}")
    cache = None if store is None else store.open()
    found: dict[int, dict[str, Any] | str] = {}
    for index, name in enumerate(names):
        kept = None if cache is None else cache.json(name)
        if kept is not None:
            found[index] = kept
    left = [index for index in range(len(items)) if index not in found]
    pieces = [(index, work, items[index], names[index]) for index in left]
    with tqdm(total=len(items), initial=len(found), desc=title, disable=None, leave=False) as bar:
        for index, result in _results(pieces, calculator, source, store, cache, min(workers, len(left))):
            found[index] = result
            bar.update()
    return [found[index] for index in range(len(items))]


_Piece = tuple[int, Work, Any, str]


def _results(
    pieces: Sequence[_Piece], calculator: Any, source: Source, store: Store | None, cache: Cache | None, workers: int
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    if workers <= 1:
        for piece in pieces:
            yield piece[0], _one(piece, calculator, cache)
        return
    from nequip_hessian.executors import Executor, Lost

    tasks = {str(piece[0]): piece for piece in pieces}
    for key, answer in Executor(workers).run(partial(_in_worker, source, store), tasks):
        yield int(key), answer.reason if isinstance(answer, Lost) else answer


def _one(piece: _Piece, calculator: Any, cache: Cache | None) -> dict[str, Any]:
    _, work, item, name = piece
    result = work(calculator, item, cache, name)
    if cache is not None:
        cache.put_json(name, result)
    return result


_HERE: list[tuple[Source, Any, Cache | None]] = []  # of a worker process


def _in_worker(source: Source, store: Store | None, piece: _Piece) -> dict[str, Any]:
    if not _HERE or _HERE[0][0] != source:
        _HERE[:] = [(source, source.load(), None if store is None else store.open())]
    return _one(piece, *_HERE[0][1:])
