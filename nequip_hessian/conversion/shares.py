"""Reading the inputs of a conversion: here, ahead in workers, or as one of several independent shares."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tqdm import tqdm

from nequip_hessian.archives import is_archive
from nequip_hessian.conversion.journal import stamp
from nequip_hessian.conversion.parts import Parts, ReadPart, lost_part
from nequip_hessian.conversion.read import Outcome
from nequip_hessian.errors import StoreError
from nequip_hessian.executors import Executor, Lost, share_of
from nequip_hessian.gather import Input
from nequip_hessian.places import beside


@dataclass(frozen=True)
class ShareReport:
    """What one share of a conversion did.

    Attributes:
        files: inputs of the share
        read: of those, read now
        already: of those, read by an earlier run
        folder: where what was read waits for `convert --finalize`
    """

    files: int
    read: int
    already: int
    folder: str


_SQUEEZED: Final = 5  # times an output is smaller in an archive


def unpacked_folder(target: Path) -> Path:
    """Return where archives among the inputs are unpacked."""
    return beside(target, ".unpacked")


def parts_folder(target: Path) -> Path:
    """Return where what workers have read waits to be taken into the store."""
    return beside(target, ".parts")


def total_size(files: Iterable[Input]) -> int:
    """Return the bytes of all inputs, about what archives unpack to; one that cannot be asked counts nothing."""
    return sum((stamp(item.path) or [0])[0] * (_SQUEEZED if is_archive(item.path) else 1) for item in files)


def read_inputs(
    files: Sequence[Input], parts: Parts, executor: Executor, *, keep: bool
) -> Generator[tuple[Input, Iterator[Outcome]], None, None]:
    """Yield each input with what reading it gives, in order; workers read ahead.

    Args:
        files: inputs to read
        parts: what was read already is taken from there, what workers read goes there
        executor: who reads
        keep: leave the parts where they are; else each goes once it has been taken

    Raises:
        StoreError: an input changed while it was waiting.
    """
    to_read = [item.path for item in files if item.reason is None and not parts.has(item.path)]
    tasks = {} if executor.here else {str(path): str(path) for path in to_read}
    waiting = set(tasks)
    with closing(_answers(tasks, parts, executor)) as answers:
        for item in files:
            while str(item.path) in waiting:
                waiting.discard(next(answers))
            if item.reason is not None:
                yield item, iter([Outcome(None, reason=item.reason)])
            elif not executor.here or parts.has(item.path):
                yield item, parts.outcomes(item.path)
                if not keep:
                    parts.drop(item.path)
            else:
                yield item, parts.reading.outcomes(item.path)


def _answers(tasks: dict[str, str], parts: Parts, executor: Executor) -> Generator[str, None, None]:
    """Yield the inputs as workers finish with them; one whose worker died becomes a refusal."""
    function = ReadPart(str(parts.folder), parts.reading)
    for source, answer in executor.run(function, tasks):
        if isinstance(answer, Lost):
            lost_part(parts, Path(source), answer.reason)
        yield source


def read_share(
    files: Sequence[Input], parts: Parts, executor: Executor, rank: int, world: int, progress: bool | None = None
) -> ShareReport:
    """Read every `world`-th input from `rank` on; what is read waits in the parts.

    Runs of different ranks need not know of each other: they may work at the same time on several machines
    that share a disk, be killed and be repeated.

    Raises:
        ConfigError: no such rank. StoreWriteError: the disk refuses.
    """
    names = share_of([str(item.path) for item in files if item.reason is None], rank, world)
    tasks = {name: name for name in names if not parts.has(Path(name))}
    disable = None if progress is None else not progress
    with closing(_answers(tasks, parts, executor)) as answers:
        for _ in tqdm(answers, total=len(tasks), unit="file", desc=f"share {rank} of {world}", disable=disable):
            pass
    return ShareReport(len(names), len(tasks), len(names) - len(tasks), str(parts.folder))


def require_all(files: Iterable[Input], parts: Parts) -> None:
    """Refuse to finish a conversion of which a share is missing.

    Raises:
        StoreError: inputs that no share has read; the message names the first.
    """
    every = list(files)
    missing = [item.named for item in every if item.reason is None and not parts.has(item.path)]
    if missing:
        raise StoreError(
            f"{parts.folder}: {len(missing)} of {len(every)} inputs have not been read with these options, or have "
            f"changed since, the first: {missing[0]}; repeat the ranks that did not end, or leave --finalize out to "
            "read the rest here"
        )
