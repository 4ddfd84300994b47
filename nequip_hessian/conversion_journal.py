"""What a conversion has done so far, in the unfinished store, so that one that was killed can go on.

One JSON line a finished file, after a first line that says what is being
converted. The unfinished store may be ahead of the journal or behind it,
whatever a kill left of both: what counts is the last line whose geometries are
all in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from nequip_hessian.errors import StoreError, StoreWriteError

NAME: Final = "conversion.jsonl"


def header(paths: Iterable[Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first line: a digest of the names of all inputs, in order, and the options."""
    names = "\0".join(os.path.abspath(path) for path in paths)
    return {"inputs": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(), "options": dict(options)}


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
        self._waiting: list[dict[str, Any]] = []
        self._file: IO[str] | None = None

    def add(self, line: dict[str, Any]) -> None:
        """Add a line for a finished file."""
        self._waiting.append(line)
        self._write()

    def open(self, folder: Path, kept: list[dict[str, Any]] | None = None) -> None:
        """Begin writing in an unfinished store, behind the lines that are kept of an earlier run."""
        temporary = folder / f"{NAME}.new"
        try:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in [self._first, *(kept or [])]))
            os.replace(temporary, folder / NAME)
            self._file = open(folder / NAME, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the conversion
        except OSError as exc:
            raise StoreWriteError(f"{folder / NAME}: cannot be written: {exc.strerror}") from exc
        self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        try:
            for line in self._waiting:
                self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as exc:
            raise StoreWriteError(f"{self._file.name}: cannot be written: {exc.strerror}") from exc
        self._waiting = []

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk, which was reported when the line was written
                self._file.close()

    def load(self, folder: Path, stored: int) -> list[dict[str, Any]]:
        """Return the lines of the files that need not be read again.

        Args:
            folder: the unfinished store
            stored: geometries that are in it

        Raises:
            StoreError: it belongs to another conversion, or an input has changed since.
        """
        lines = _lines(folder / NAME)
        again = "start again with --overwrite"
        if not lines:
            if stored:
                raise StoreError(f"{folder}: was not left by a conversion; {again}")
            return []
        if lines[0] != json.loads(json.dumps(self._first)):
            raise StoreError(f"{folder}: was begun with other inputs or options; repeat them, or {again}")
        kept = [line for line in lines[1:] if line["taken"] <= stored]
        for line in kept:
            if line["stamp"] != stamp(Path(line["file"])):
                raise StoreError(f"{line['file']}: has changed since the conversion was begun; {again}")
        return kept


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines there are; what a kill cut short is as good as not written."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.split("\n")[:-1]:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
