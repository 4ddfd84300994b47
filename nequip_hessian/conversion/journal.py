"""What a conversion has done so far, in the unfinished store, so that one that was killed can go on.

One JSON line for each entry of the report, and one for each finished file,
after a first line that says what is being converted. The unfinished store may
be ahead of the journal or behind it, whatever a kill left of both: what counts
is the last finished file whose geometries are all in the store. Neither
writing nor reading it needs memory for more than one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from nequip_hessian.errors import StoreError, StoreWriteError

NAME: Final = "conversion.jsonl"
_AGAIN: Final = "start again with --overwrite"


def header(paths: Iterable[Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first line: a digest of the names of all inputs, in order, and the options."""
    digest = hashlib.sha256()
    for number, path in enumerate(paths):
        digest.update((b"\0" if number else b"") + os.path.abspath(path).encode("utf-8", "surrogateescape"))
    return {"inputs": digest.hexdigest(), "options": dict(options)}


def stamp(path: Path) -> list[int] | None:
    """Return size and time of a file, `None` where it is not there."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


class Journal:
    """The journal of one conversion; it is written once the unfinished store exists.

    Args:
        first: what is being converted, see `header`
    """

    def __init__(self, first: Mapping[str, Any]) -> None:
        self._first = dict(first)
        self._waiting: list[str] = []
        self._file: IO[str] | None = None
        self._kept = 0  # bytes of an earlier run's journal that hold

    def add_entry(self, entry: Mapping[str, Any], belongs: tuple[str | None, str] | None) -> None:
        """Add an entry of the report; it counts once its file is finished.

        Args:
            entry: see `report.Entry.as_dict`
            belongs: group and role of a geometry that was taken, `None` where it has no role
        """
        self._add({"entry": entry, "belongs": belongs})

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line for a finished file, with `file`, `stamp` and `taken`: geometries in the store by then."""
        self._add(line)
        self._flush()

    def _add(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line) + "\n"
        if self._file is None:
            self._waiting.append(text)
            return
        with self._disk(Path(self._file.name)):
            self._file.write(text)

    def open(self, folder: Path) -> None:
        """Begin writing in an unfinished store, behind what holds of an earlier run, see `load`."""
        path = folder / NAME
        with self._disk(path):
            if self._kept:
                os.truncate(path, self._kept)
            else:
                temporary = folder / f"{NAME}.new"
                temporary.write_text(json.dumps(self._first) + "\n")
                os.replace(temporary, path)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the conversion
            self._file.writelines(self._waiting)
        self._waiting = []
        self._flush()

    def _flush(self) -> None:
        if self._file is not None:
            with self._disk(Path(self._file.name)):
                self._file.flush()

    @contextlib.contextmanager
    def _disk(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise StoreWriteError(f"{path}: cannot be written: {exc.strerror}") from exc

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk, which was reported when the line was written
                self._file.close()

    def load(self, folder: Path, stored: int) -> Iterator[dict[str, Any]]:
        """Yield the lines of the files that need not be read again, entries before the file they are of.

        Args:
            folder: the unfinished store
            stored: geometries that are in it

        Raises:
            StoreError: it belongs to another conversion, or an input has changed since.
        """
        lines = _lines(folder / NAME)
        first = next(lines, None)
        if first is None:
            if stored:
                raise StoreError(f"{folder}: was not left by a conversion; {_AGAIN}")
            return
        if first[0] != json.loads(json.dumps(self._first)):
            raise StoreError(f"{folder}: was begun with other inputs or options; repeat them, or {_AGAIN}")
        kept = self._kept = first[1]
        for line, end in lines:  # twice: entries are of use only where their file was finished
            if "file" in line and line["taken"] > stored:
                break
            if "file" in line:
                kept = end
                if line["stamp"] != stamp(Path(line["file"])):
                    raise StoreError(f"{line['file']}: has changed since the conversion was begun; {_AGAIN}")
        self._kept = kept
        for line, end in _lines(folder / NAME):
            if end > kept:
                return
            if "entry" in line or "file" in line:
                yield line


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the whole lines there are and where they end; what a kill cut short is as good as not written."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError:
        return
    with file:
        end = 0
        for raw in file:
            end += len(raw)
            try:
                line = json.loads(raw)
            except ValueError:
                return
            if not raw.endswith(b"\n") or not isinstance(line, dict):
                return
            yield line, end
