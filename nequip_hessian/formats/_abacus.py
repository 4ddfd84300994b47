"""The Hessian as the derivative code shared by DALTON, CFOUR and ACES II prints it.

Lower triangle in Eh/a0^2, in blocks of six columns with six decimals; rows and
columns are named by atom and axis in seven characters, numbers are of twelve.
"""

from __future__ import annotations

from nequip_hessian.formats._blocks import Layout


def _row(row: int, column: int, text: str) -> bool:
    return len(text.split()) >= 2 and text[-1:] == "xyz"[row % 3]


def _heading(column: int, words: list[str]) -> bool:
    axes = [word for word in words if word in ("x", "y", "z")]
    return 0 < len(axes) <= 6 and axes == ["xyz"[(column + i) % 3] for i in range(len(axes))]


LAYOUT = Layout(6, "triangle", _row, first=7, field=12, heading=_heading)


def atoms_of_rows(lines: list[str], start: int) -> list[str]:
    """Names of the atoms of the rows of the first block: the text before the axis, one a row ending in x.

    Args:
        lines: lines of the file
        start: 0-based index of the line after the heading of the first block
    """
    names: list[str] = []
    for line in lines[start:]:
        if not line.strip():
            continue
        axis, number = line[6:7], line[7:19].strip()
        if axis not in ("x", "y", "z") or not number.replace(".", "").replace("-", "").isdigit():
            break
        if axis == "x":
            names.append(line[:6].strip())
    return names
