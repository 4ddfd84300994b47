"""The table that all pages use."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(rows: Sequence[Sequence[str]], text_columns: Sequence[int] = ()) -> str:
    """A table; the first row is the head, the first column and `text_columns` are set flush left."""

    def row(cells: Sequence[str], tag: str) -> str:
        marks = [' class="text"' if i in text_columns else "" for i in range(len(cells))]
        return "".join(f"<{tag}{m}>{escape(c)}</{tag}>" for m, c in zip(marks, cells, strict=True))

    head, *body = rows
    lines = [f"<tr>{row(head, 'th')}</tr>", *(f"<tr>{row(cells, 'td')}</tr>" for cells in body)]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'
