"""ASE databases in LMDB files (.aselmdb) with a Hessian in the `data` of each row, as of nequix's phonon set.

Entries `1`, `2`, ... are zlib-compressed JSON in ASE's encoding; `data["hessian"]` is
the Cartesian Hessian in eV/angstrom^2. Same names as in `ase_db`. Streamed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nequip_hessian.formats._ase_row import record_of
from nequip_hessian.formats._lmdb import first_value, numbered, open_lmdb
from nequip_hessian.formats._source import Source, guarded
from nequip_hessian.record import LabelledGeometry

NAME = "ase-lmdb"
PATTERNS = ("*.aselmdb",)

_LARGEST: Final = 2**31
"""Bytes that one row may have uncompressed: 18 thousand atoms' Hessian in single precision as text."""


def recognises(path: Path) -> bool:
    """Say whether a file is an LMDB file of zlib streams."""
    return first_value(path)[:1] == b"\x78"


def _row(source: Source, raw: bytes, index: int) -> dict[str, Any]:
    from ase.io.jsonio import decode

    stream = zlib.decompressobj()
    try:
        text = stream.decompress(raw, _LARGEST)
        if stream.unconsumed_tail or not stream.eof:
            raise source.error(f"row {index}: expected one whole compressed row, found a cut or an endless one")
        row = decode(text.decode("utf-8"), always_array=False)
    except (zlib.error, MemoryError, AssertionError) as exc:
        raise source.error(f"row {index}: damaged ({exc})") from None
    if not isinstance(row, dict) or "numbers" not in row or "positions" not in row:
        raise source.error(f"row {index}: expected a row of an ASE database with numbers and positions")
    return row


@guarded("ASE LMDB")
def read_ase_lmdb(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the rows of an ASE database in an LMDB file.

    Args:
        path: the .aselmdb file

    Yields:
        One record a row, in the order of ids; rows without a Hessian give records without one. Forces of
        exact zeros beside a Hessian count as missing.

    Raises:
        FormatError: damaged, or arrays that do not fit.
    """
    with open_lmdb(path) as (source, tree):
        for index, raw in numbered(source, tree, None):
            yield record_of(source, NAME, _row(source, raw, index), index)
