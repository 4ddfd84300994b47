"""UniMoVib data files (.umv), also written by BDF.

A title line, then keywords in the first column with numbers in free format behind:
NATM, AMASS (u), ZA, XYZ (a0; XYZANG angstrom), GRD (Eh/a0), FFX (full square, or
FFXLT the lower triangle, Eh/a0^2), APT (dipole derivatives, e).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, record_of
from nequip_hessian.formats._blocks import lower_triangle
from nequip_hessian.formats._source import guarded, numbers, read_source, require_line_end
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR

NAME = "unimovib"
PATTERNS = ("*.umv", "*.UMV", "*.umv.dat")

_KEYWORD: Final = re.compile(r"^([A-Z]+)[ \t]*$", re.M | re.I)
_NEEDED: Final = ("NATM", "ZA", "XYZ", "FFX")


def sniff(text: str) -> bool:
    """Say whether a file looks like a UniMoVib data file."""
    keys = {key.upper() for key in _KEYWORD.findall(text[:200000])}
    return {"NATM", "ZA"} <= keys and bool(keys & {"XYZ", "XYZANG"})


@guarded("UniMoVib data file")
def read_unimovib(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a UniMoVib data file.

    Args:
        path: the file

    Yields:
        One record.

    Raises:
        NoHessianError: there is no FFX or FFXLT in it.
        FormatError: cut or damaged.
    """
    source = read_source(path)
    require_line_end(source)
    marks = list(_KEYWORD.finditer(source.text))
    ends = [mark.start() for mark in marks[1:]] + [len(source.text)]
    found = {
        mark.group(1).upper(): (source.text[mark.end() : end], source.line_of(mark.start()) + 1)
        for mark, end in zip(marks, ends, strict=True)
    }
    if not any(key in found for key in ("FFX", "FFXLT")):
        raise source.error("no Hessian in this file: there is no FFX or FFXLT", kind=NoHessianError)
    for key in _NEEDED[:2]:
        if key not in found:
            raise source.error(f"expected the keyword {key}, found none; the file is damaged")
    length = "XYZ" if "XYZ" in found else "XYZANG"
    if length not in found:
        raise source.error("expected the keyword XYZ or XYZANG, found neither; the file is damaged")

    def block(key: str, count: int | None) -> np.ndarray:
        text, line = found[key]
        return numbers(text, source, line, count, key)

    n = int(block("NATM", 1)[0])
    atoms = np.rint(block("ZA", n)).astype(int)
    positions = block(length, 3 * n).reshape(n, 3) / (1.0 if length == "XYZ" else BOHR)
    if "FFX" in found:
        matrix = block("FFX", 9 * n * n).reshape(3 * n, 3 * n)
    else:
        unfolded = lower_triangle(block("FFXLT", 3 * n * (3 * n + 1) // 2))
        if unfolded is None:
            raise source.error("FFXLT: expected the lower triangle of a matrix of order 3N; the file is damaged")
        matrix = unfolded
    has_mass = "AMASS" in found and found["AMASS"][0].strip() != ""
    dipole = block("APT", 9 * n).reshape(3 * n, 3) if "APT" in found else None
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            matrix,
            gradient=block("GRD", 3 * n).reshape(n, 3) if "GRD" in found else None,
            masses=block("AMASS", n) if has_mass else None,
            masses_from="file" if has_mass else ISOTOPIC,
            dipole=dipole,
            level=LevelOfTheory("unknown"),
        ),
    )
