"""Reading a text line by line, for formats of many geometries whose files are larger than the memory."""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._source import (
    DAMAGED,
    HEAD,
    LARGEST_TEXT,
    OPENERS,
    Source,
    damaged_compression,
    refuse_binary,
)

_CHUNK: Final = 2**20


def head_of(path: Path) -> str:
    """The first HEAD characters of a text file, decompressed; empty where it cannot be read."""
    try:
        with _opened(path) as file:
            text = file.read(HEAD).decode("latin-1").removeprefix("\xef\xbb\xbf")
    except FormatError:
        return ""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def scan_source(path: str | Path) -> tuple[Source, str]:
    """Read a file once without keeping it.

    Returns:
        Its facts, with an empty text, and its encoding for `lines_of`.

    Raises:
        FormatError: as `read_source`, or the last line has no end.
    """
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path}: expected a file, found a folder")
    try:
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256")
            size = raw.tell()
    except OSError as exc:
        raise FormatError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    encoding, last, empty = "utf-8-sig", b"", True
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _opened(path) as file:
        first = True
        while chunk := file.read(_CHUNK):
            if first:
                refuse_binary(path, chunk)
                first = False
            empty, last = empty and not chunk.strip(), chunk[-1:]
            if encoding != "latin-1":
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    encoding = "latin-1"
    if empty:
        raise FormatError(f"{path}: the file is empty")
    source = Source(path, "", size, digest.hexdigest())
    if last not in (b"\n", b"\r"):
        raise source.error("the last line has no line end: is the file cut? Add an empty line if it is whole")
    return source, encoding


def lines_of(source: Source, encoding: str) -> Iterator[str]:
    """Yield the lines of a scanned file without their ends.

    Raises:
        FormatError: a line of more than LARGEST_TEXT characters.
    """
    with _opened(source.path) as file, io.TextIOWrapper(file, encoding) as text:
        while line := text.readline(LARGEST_TEXT):
            if len(line) == LARGEST_TEXT:
                raise source.error(f"a line of more than {LARGEST_TEXT} characters")
            yield line.removesuffix("\n")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    opener = OPENERS.get(path.suffix.lower())
    try:
        with path.open("rb") as raw:
            if opener is None:
                yield raw
                return
            try:
                with opener(raw) as file:
                    yield file
            except FormatError:
                raise
            except DAMAGED as exc:
                raise damaged_compression(path, exc) from exc
    except OSError as exc:
        raise FormatError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
