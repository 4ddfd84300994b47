"""What modules of LMDB formats share (extra `lmdb`): opening a file to read, its numbered entries in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._binary import binary_source, first_bytes, optional
from nequip_hessian.formats._source import Source

_MAGIC: Final = b"\xde\xc0\xef\xbe"  # 0xBEEFC0DE at byte 16, after the header of the first page


def is_lmdb(path: Path) -> bool:
    """Say whether a file is an LMDB environment."""
    return first_bytes(path)[16:20] == _MAGIC


@contextlib.contextmanager
def open_lmdb(path: str | Path) -> Iterator[tuple[Source, Any]]:
    """Open an LMDB file for reading; nothing is written, no lock file either.

    Yields:
        Its facts, and a read transaction.

    Raises:
        FormatError: no LMDB file, or damaged. MissingExtraError: lmdb is not installed.
    """
    path = Path(path)
    source = binary_source(path, "an LMDB file")
    if not is_lmdb(path):
        kind = "a text file" if b"\0" not in first_bytes(path) else "a binary file"
        if first_bytes(path).startswith(b"\x93NUMPY"):
            kind = "a NumPy array"
        raise source.error(f"cannot read this: looks like {kind}; expected an LMDB file")
    lmdb = optional("lmdb", "lmdb", path)
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=0)
    except lmdb.Error as exc:
        raise source.error(f"damaged LMDB file ({exc}); fetch it again") from None
    try:
        with environment.begin() as transaction:
            yield source, transaction
    except lmdb.Error as exc:
        raise source.error(f"damaged LMDB file ({exc}); fetch it again") from exc
    finally:
        environment.close()


def first_value(path: Path) -> bytes:
    """Return the value of the first numbered entry, none where the file is no LMDB file or has none."""
    if not is_lmdb(path):
        return b""
    lmdb = optional("lmdb", "lmdb", path)
    try:
        with (
            contextlib.closing(lmdb.open(str(path), subdir=False, readonly=True, lock=False)) as environment,
            environment.begin() as transaction,
        ):
            return next((bytes(value) for key, value in transaction.cursor() if key.isdigit()), b"")
    except lmdb.Error:
        return b""


def numbered(source: Source, transaction: Any, count: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the entries whose keys are numbers, in the order of the numbers.

    Args:
        source: for messages
        transaction: as of `open_lmdb`
        count: how many there are, where the file says so; else they are counted

    Raises:
        FormatError: an entry that the file counts is missing.
    """
    if count is None:
        keys = sorted(int(key) for key in transaction.cursor().iternext(values=False) if key.isdigit())
    else:
        keys = list(range(count))
    if not keys:
        raise source.error("no numbered entries; expected one a geometry")
    for key in keys:
        value = transaction.get(str(key).encode())
        if value is None:
            raise FormatError(f"{source.path}: entry {key} of {len(keys)} is missing; the file is cut or damaged")
        yield key, bytes(value)
