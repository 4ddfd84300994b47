"""Readers of foreign formats: one module a format, found by walking the package.

A format module holds `NAME`, `PATTERNS` (file name patterns), `sniff(text)` (does the
text look like it?) or, for binary files, `recognises(path)`, and one `read_*`
function that yields `LabelledGeometry`; it may hold a `write_*` function. Nothing
is registered: a new module is a new format.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats._endings import ended
from nequip_hessian.formats._foreign import foreign_program
from nequip_hessian.formats._source import Reader, plain_name, read_source
from nequip_hessian.record import LabelledGeometry

__all__ = ["Format", "format_of", "formats", "matches_any", "read"]


@dataclass(frozen=True)
class Format:
    """One format: its name, its file name patterns, its reader, and whether a text or a binary file looks like it."""

    name: str
    patterns: tuple[str, ...]
    sniff: Callable[[str], bool]
    read: Reader
    recognises: Callable[[Path], bool]

    def matches(self, path: Path) -> bool:
        """Say whether a file name fits one of the patterns, a compressed one without the ending of the compression."""
        names = (path.name, plain_name(path))
        return any(fnmatch.fnmatch(name, pattern) for pattern in self.patterns for name in names)


@functools.cache
def formats() -> dict[str, Format]:
    """Return all formats by name, found by walking the modules of this package."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{info.name}")
        reader = next((getattr(module, name) for name in sorted(vars(module)) if name == f"read_{info.name}"), None)
        if reader is not None:
            sniff, recognises = (getattr(module, name, _never) for name in ("sniff", "recognises"))
            found[module.NAME] = Format(
                module.NAME, tuple(module.PATTERNS), sniff, _explained(module.NAME, reader), recognises
            )
    return found


def _explained(name: str, reader: Reader) -> Reader:
    """Say of an output without a Hessian that it is cut, where it is: that there is none is then no wonder."""

    @functools.wraps(reader)
    def read(path: str | Path) -> Iterator[LabelledGeometry]:
        try:
            yield from reader(path)
        except NoHessianError as exc:
            if ended(name, read_source(path).text):
                raise
            reason = str(exc).removeprefix(f"{path}: ")
            raise FormatError(f"{path}: the job did not end, or the file is cut: {reason}") from exc

    return read


def _never(content: object) -> bool:
    return False


def matches_any(path: Path) -> bool:
    """Say whether a file name fits a pattern of any format (used when a folder is searched)."""
    return any(entry.matches(path) for entry in formats().values())


def format_of(path: str | Path) -> Format:
    """Decide the format of a file by its content, and by its name where contents look alike.

    Args:
        path: the file

    Returns:
        The format.

    Raises:
        NoHessianError: the output of a program that does not print its Hessian there; the message
            names the file that has it.
        FormatError: unreadable, or of a program or format that is not supported; the message names it.
    """
    for entry in formats().values():
        if entry.recognises(Path(path)):
            return entry
    source = read_source(path)
    fitting = [entry for entry in formats().values() if entry.sniff(source.text)]
    named = [entry for entry in fitting if entry.matches(source.path)] or fitting
    if named:
        return named[0]
    program = foreign_program(source.text)
    if program is not None:
        kind = NoHessianError if program.elsewhere else FormatError
        raise source.error(program.message, kind=kind)
    raise source.error(
        f"cannot read this: none of the formats {', '.join(sorted(formats()))} recognises its content; "
        "say which it is with --format if you know better"
    )


def read(path: str | Path, format_name: str | None = None) -> Iterator[LabelledGeometry]:
    """Read the labelled geometries of a file of any supported format.

    Args:
        path: the file
        format_name: one of the names of `formats()`; decided by content when not given

    Yields:
        Records, in the order of the file.

    Raises:
        FormatError: unknown format name, or whatever `format_of` and the reader raise.
    """
    if format_name is None:
        yield from format_of(path).read(path)
        return
    if format_name not in formats():
        raise FormatError(f"format: expected one of {', '.join(sorted(formats()))}, found {format_name!r}")
    yield from formats()[format_name].read(path)
