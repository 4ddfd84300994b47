"""ASE databases (SQLite, .db) with a Hessian in the `data` of each row.

`data["hessian"]` (or `Hessian`, `force_constants`) holds the Cartesian Hessian in
eV/angstrom^2: flat, (3N, 3N), (N, 3, N, 3) or (N, N, 3, 3). Energy and forces are those
of the row's calculator. Key-value pairs or `data` may hold `kind`, `role`, `group`,
`label`, `charge`, `multiplicity`, `path_coordinate`, `active`, `method`, `basis`,
`dispersion`, `solvation` and `program`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from nequip_hessian.formats._ase_row import record_of
from nequip_hessian.formats._binary import SQLITE, binary_source, first_bytes
from nequip_hessian.formats._source import Source, guarded
from nequip_hessian.record import LabelledGeometry

NAME = "ase-db"
PATTERNS = ("*.db",)


def recognises(path: Path) -> bool:
    """Say whether a file is an SQLite database."""
    return first_bytes(path).startswith(SQLITE)


def _ids(source: Source) -> list[int]:
    """Return the ids of the rows; the file is opened for reading alone, as ASE would add tables to a foreign one."""
    try:
        with contextlib.closing(sqlite3.connect(f"{source.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if not {"systems", "information"} <= tables:
                raise source.error(
                    f"an SQLite database, but not of ASE: expected the table systems, found {', '.join(sorted(tables))}"
                )
            return [int(number) for (number,) in connection.execute("SELECT id FROM systems ORDER BY id")]
    except sqlite3.Error as exc:
        raise source.error(f"damaged SQLite database ({exc}); fetch it again") from None


@guarded("ASE database")
def read_ase_db(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the rows of an ASE database.

    Args:
        path: the .db file

    Yields:
        One record a row, in the order of ids; rows without a Hessian give records without one. Forces of
        exact zeros beside a Hessian count as missing.

    Raises:
        FormatError: no ASE database, damaged, or arrays that do not fit.
    """
    from ase.db import connect

    source = binary_source(path, "an ASE database", SQLITE)
    ids = _ids(source)
    if not ids:
        raise source.error("an ASE database without rows")
    try:
        with connect(str(source.path), type="db") as database:
            for number in ids:
                row = database.get(id=number)
                fields = {key: row.get(key) for key in ("numbers", "positions", "cell", "pbc", "energy", "forces")}
                fields |= {"masses": row.get("masses"), "key_value_pairs": row.key_value_pairs, "data": row.data}
                yield record_of(source, NAME, {k: v for k, v in fields.items() if v is not None}, number)
    except (sqlite3.Error, AssertionError, MemoryError) as exc:
        raise source.error(f"damaged ASE database ({exc}); fetch it again") from exc
