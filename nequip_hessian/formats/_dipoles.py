"""Tables of dipole derivatives, as several programs print them: (3N, 3), row 3*atom + xyz, column dipole component."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._source import Source, numbers

FloatArray = npt.NDArray[np.float64]

_ROW: Final = re.compile(r" *([A-Za-z]\S*(?: #?\d+)?) +(?:d/d)?([xyz]) +(-?\d+\.\d+ +-?\d+\.\d+ +-?\d+\.\d+) *")


def rows_by_axis(
    source: Source, title: re.Match[str] | None, atoms: npt.NDArray[np.int_], what: str, heading: Sequence[str]
) -> FloatArray | None:
    """Read rows of an atom, an axis and three dipole components, with blank lines between the atoms.

    Args:
        source: the file
        title: of the table, up to the line before its heading; None: there is no table
        atoms: (N,), atomic numbers
        what: name of the table, for messages
        heading: words over the columns; with others (a table by symmetry) it is not read

    Returns:
        (3N, 3) as printed, or None.

    Raises:
        FormatError: the table is cut or damaged, or of other atoms.
    """
    if title is None:
        return None
    at = source.line_of(title.end())
    filled = [line for line in range(at, len(source.lines) + 1) if source.lines[line - 1].strip()]
    if not filled or source.lines[filled[0] - 1].split() != list(heading):
        return None
    rows = []
    for index in range(3 * len(atoms)):
        line = filled[index + 1] if index + 1 < len(filled) else len(source.lines)
        found = _ROW.fullmatch(source.lines[line - 1])
        name = "" if found is None else re.sub(r"[\d #_].*$", "", found.group(1))
        if found is None or found.group(2) != "xyz"[index % 3] or atomic_number(name) != atoms[index // 3]:
            raise source.error(
                f"{what}: expected row {'xyz'[index % 3]} of atom {index // 3 + 1}; the file is cut or damaged", line
            )
        rows.append(numbers(found.group(3), source, line, 3, what))
    return np.array(rows)


def blocks_by_component(source: Source, title: re.Match[str] | None, n: int, what: str) -> FloatArray | None:
    """Read three rows, one a dipole component, in blocks of columns, one a coordinate, each led by its number.

    Args:
        source: the file
        title: of the table; None: there is no table
        n: number of atoms
        what: name of the table, for messages

    Returns:
        (3N, 3) as printed, or None where there is no table or all of it is zero: it was not computed.

    Raises:
        FormatError: the table is cut or damaged.
    """
    if title is None:
        return None
    table = np.empty((3 * n, 3))
    at, column = source.line_of(title.end()), 0
    while column < 3 * n:
        words = source.lines[at - 1].split() if at <= len(source.lines) else []
        if not words or words != [str(column + 1 + i) for i in range(len(words))] or column + len(words) > 3 * n:
            raise source.error(f"{what}: expected the number of column {column + 1}; the file is cut or damaged", at)
        for row in range(3):
            at += 1
            number, _, values = (source.lines[at - 1] if at <= len(source.lines) else "").strip().partition(" ")
            if number != str(row + 1):
                raise source.error(f"{what}: expected row {row + 1}; the file is cut or damaged", at)
            table[column : column + len(words), row] = numbers(values, source, at, len(words), what)
        at += 1
        column += len(words)
    return table if np.any(table) else None


def last(source: Source, pattern: str, begin: int = 0, end: int | None = None) -> re.Match[str] | None:
    """Return the last match of a title between two offsets."""
    matches = re.compile(pattern, re.M).finditer(source.text, begin, len(source.text) if end is None else end)
    return next(iter(list(matches)[-1:]), None)
