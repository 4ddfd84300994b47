"""Matrices printed in blocks of columns, as most programs print them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._source import Source, numbers

FloatArray = npt.NDArray[np.float64]
_HEADINGS: Final = 14  # lines, blank ones included, that may stand before the rows of a block


@dataclass(frozen=True)
class Layout:
    """How a program prints a square matrix.

    Attributes:
        width: columns of a block
        shape: `square`: all rows in each block; `triangle`: from the block's first column on, up to the
            diagonal; `trapezoid`: the same rows, each over the full width of the block
        label: (row, block's first column, text before the numbers) -> whether this is that row (all 0-based)
        lead: words before the numbers of a row, where blanks separate everything
        first: column of the first number, where numbers may touch
        field: width of a number there; 0: what `pattern` says one looks like
        pattern: regular expression of a number, where the width differs between versions of a program
        heading: whether the text of a heading belongs to a block: (first column, words); every
            block must have one line like that before its rows; `None` where there is none
    """

    width: int
    shape: str
    label: Callable[[int, int, str], bool]
    lead: int = 1
    first: int | None = None
    field: int = 0
    pattern: str = ""
    heading: Callable[[int, list[str]], bool] | None = None


def numbered(row: int, column: int, text: str) -> bool:
    """Row label: its number, from 1."""
    return text.strip() == str(row + 1)


def columns_numbered(column: int, words: list[str]) -> bool:
    """Block heading: the numbers of its columns, from 1."""
    return bool(words) and words == [str(column + 1 + i) for i in range(len(words))]


def read_blocks(source: Source, start: int, order: int, what: str, layout: Layout) -> tuple[FloatArray, int]:
    """Read a square matrix printed in blocks of columns.

    Args:
        source: the file
        start: 0-based index of the first line after the title
        order: rows and columns
        what: name of the matrix, for messages
        layout: how it is printed

    Returns:
        The (order, order) matrix in the unit of the source, elements that are not printed taken from the
        other triangle, and the 0-based index of the line behind it.

    Raises:
        FormatError: a row is missing, is another one than expected, or has too few or too many numbers.
    """
    matrix = np.full((order, order), np.nan)
    at = start
    for column in range(0, order, layout.width):
        width = min(layout.width, order - column)
        at = _first_row(source, at, column, order, what, layout)
        for row in range(0 if layout.shape == "square" else column, order):
            while at < len(source.lines) and not source.lines[at].strip() and at > start:
                at += 1
            text, values = _split(source.lines[at] if at < len(source.lines) else "", layout)
            if not values or not layout.label(row, column, text):
                raise _missing_row(source, what, row, order, at)
            count = min(width, row - column + 1) if layout.shape == "triangle" else width
            matrix[row, column : column + count] = numbers(values, source, at + 1, count, f"{what}, row {row + 1}")
            at += 1
        _no_more_rows(source, at, column, order, what, layout)
    holes = np.isnan(matrix)
    matrix[holes] = matrix.T[holes]
    if np.any(np.isnan(matrix)):
        raise source.error(f"{what}: NaN in the matrix; the job or the file is damaged", start + 1)
    return matrix, at


def _no_more_rows(source: Source, at: int, column: int, order: int, what: str, layout: Layout) -> None:
    """Refuse a block with more rows than there are atoms for: an atom was lost from the geometry."""
    while at < len(source.lines) and not source.lines[at].strip():
        at += 1
    text, values = _split(source.lines[at] if at < len(source.lines) else "", layout)
    if values and layout.label(order, column, text):
        raise source.error(
            f"{what}: expected {order} rows for {order // 3} atoms, found more; the file is damaged, or an atom is "
            "missing from its geometry",
            at + 1,
        )


def _missing_row(source: Source, what: str, row: int, order: int, at: int) -> FormatError:
    found = source.lines[at].strip()[:40] if at < len(source.lines) else "the end of the file"
    return source.error(
        f"{what}: expected row {row + 1} of {order}, found {found!r}; the file is cut or damaged", at + 1
    )


def _first_row(source: Source, at: int, column: int, order: int, what: str, layout: Layout) -> int:
    """Skip the heading of a block; return the 0-based line of its first row."""
    begin, headed = at, layout.heading is None
    row = 0 if layout.shape == "square" else column
    while at < min(len(source.lines), begin + _HEADINGS):
        text, values = _split(source.lines[at], layout)
        if headed and values and layout.label(row, column, text):
            return at
        headed = headed or (layout.heading is not None and layout.heading(column, source.lines[at].split()))
        at += 1
    missing = "" if headed else f"the heading of column {column + 1} and "
    raise source.error(
        f"{what}: expected {missing}row {row + 1} of {order} here, found neither; the file is cut or damaged", begin + 1
    )


def _split(line: str, layout: Layout) -> tuple[str, str]:
    """Return label and numbers of a row; numbers are empty where the line is no row."""
    if layout.first is None:
        words = line.split()
        return " ".join(words[: layout.lead]), " ".join(words[layout.lead :])
    fields = line[layout.first :].rstrip()
    if not layout.field:
        found = re.findall(layout.pattern, fields)
        whole = "".join(found) == "".join(fields.split())
        return line[: layout.first], " ".join(found) if whole else "?"
    cut = [fields[i : i + layout.field] for i in range(0, len(fields), layout.field)]
    return line[: layout.first], " ".join(part.strip().replace(" ", "") or "?" for part in cut)


def lower_triangle(values: FloatArray) -> FloatArray | None:
    """Unfold the row-major lower triangle of a symmetric matrix; None where the length is that of no triangle."""
    order = round((np.sqrt(8 * len(values) + 1) - 1) / 2)
    if order * (order + 1) // 2 != len(values) or order % 3 or not order:
        return None
    matrix = np.zeros((order, order))
    matrix[np.tril_indices(order)] = values
    return matrix + np.tril(matrix, -1).T
