"""What modules of binary formats share: the first bytes of a file, its facts without reading it as text, extras."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Final

from tqdm import tqdm

from nequip_hessian.errors import FormatError, MissingExtraError
from nequip_hessian.formats._source import Source

HDF5: Final = b"\x89HDF\r\n\x1a\n"
NUMPY: Final = b"\x93NUMPY"
SQLITE: Final = b"SQLite format 3\0"
ZIP: Final = b"PK\x03\x04"
_NAMES: Final = {HDF5: "an HDF5 file", NUMPY: "a NumPy array", SQLITE: "an SQLite database", ZIP: "a zip archive"}
_BLOCK: Final = 2**22


def first_bytes(path: str | Path, count: int = 64) -> bytes:
    """Return the first bytes of a file, none where it is no file or cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError:
        return b""


def binary_source(path: str | Path, expected: str, *signatures: bytes) -> Source:
    """Take the facts of a binary file for messages and provenance; its bytes are streamed once, not kept.

    Args:
        path: the file
        expected: what it has to be, for the message
        signatures: the first bytes it may have; none: any

    Returns:
        A source without text.

    Raises:
        FormatError: a folder, no such file, empty, or another kind of file.
    """
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path}: expected a file, found a folder")
    try:
        size = path.stat().st_size
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            head = file.read(64)
            if not head.strip():
                raise FormatError(f"{path}: the file is empty")
            if signatures and not head.startswith(signatures):
                raise FormatError(f"{path}: cannot read this: looks like {_kind(head)}; expected {expected}")
            file.seek(0)
            with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=None, delay=3) as progress:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    progress.update(len(block))
    except OSError as exc:
        raise FormatError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    return Source(path, "", size, digest.hexdigest())


def _kind(head: bytes) -> str:
    for signature, name in _NAMES.items():
        if head.startswith(signature):
            return name
    return "a binary file" if b"\0" in head else "a text file"


def optional(package: str, extra: str, path: str | Path) -> ModuleType:
    """Import an optional package.

    Args:
        package: name to import
        extra: the extra of this package that installs it
        path: the file that needs it, for the message

    Raises:
        MissingExtraError: not installed; the message names the extra.
    """
    try:
        return importlib.import_module(package)
    except ImportError as exc:
        raise MissingExtraError(
            f'{path}: reading it needs {package.split(".")[0]}: pip install "nequip-hessian[{extra}]"'
        ) from exc
