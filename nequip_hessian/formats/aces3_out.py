"""ACES III outputs: `Final Hessian data`, a block of 3 x 3 numbers for each pair of atoms, in Eh/a0^2.

The last one counts. Positions (angstrom) are those of the table printed last
before it; frequencies those marked VIBRATION. The Hessian of ACES II and of CFOUR
with symmetry is another matter, see `cfour_out`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, record_of
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "aces3-out"
PATTERNS = ("*.out", "*.log")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r"^ *Final Hessian data *\n", re.M)
_TABLE: Final = re.compile(
    r"coordinate input \(Angstroms\) *\n *-+ *\n *Z-matrix +Atomic +C o o r d.*\n *Symbol +Number +X +Y +Z *\n *-+ *\n"
)


def sniff(text: str) -> bool:
    """Say whether a file looks like an ACES III output."""
    return "ACESIII version" in text[:HEAD] or "ACES III" in text[:5000] or "Final Hessian data" in text


@guarded("ACES III output")
def read_aces3_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Hessian of an ACES III output with its geometry.

    Args:
        path: the output file

    Yields:
        One record.

    Raises:
        NoHessianError: there is none in the file.
        FormatError: cut or damaged.
    """
    source = read_output(path)
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        raise source.error(
            "no Hessian in this file: ACES III prints it in jobs with VIB=EXACT only", kind=NoHessianError
        )
    title = titles[-1]
    atoms, positions = _atoms(source, title)
    matrix = _matrix(source, title, len(atoms))
    energies = re.findall(r"^ *Total energy: +(-?\d+\.\d+) *$", source.text[: title.start()], re.M)
    behind = source.text[title.end() :]
    rows = re.findall(r"^ +\S+ +(\d+\.\d+)(i?) +\d+\.\d+ +VIBRATION *$", behind, re.M)
    method = re.findall(r"Using Default jobflow = (\w+?)_[A-Z]+_HESSIAN", source.text)
    version = re.search(r"ACESIII version, *(\d[\d.]*)", source.text)
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            matrix,
            length="angstrom",
            energy=float(energies[-1]) if energies else None,
            masses_from=ISOTOPIC,
            frequencies=np.array([-float(v) if i else float(v) for v, i in rows]) if rows else None,
            projected=True,
            level=LevelOfTheory(
                method[0] if method else "unknown",
                program="ACES III",
                program_version=version.group(1) if version else None,
                hessian="analytic",
            ),
            line=source.line_of(title.start()),
        ),
    )


def _atoms(source: Source, title: re.Match[str]) -> tuple[npt.NDArray[np.int_], FloatArray]:
    tables = [table for table in _TABLE.finditer(source.text) if table.start() < title.start()]
    if not tables:
        raise source.error(
            "expected a table of coordinates (Angstroms) before the Hessian, found none; the file is cut"
        )
    start = source.line_of(tables[-1].end())
    atoms, rows = [], []
    for at in range(start, len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if len(words) != 5:
            break
        if words[1] != "0":  # dummy atoms of the Z-matrix
            atoms.append(int(words[1]))
            rows.append(numbers(" ".join(words[2:]), source, at, 3, "coordinates"))
    return np.array(atoms), np.array(rows)


def _matrix(source: Source, title: re.Match[str], n: int) -> FloatArray:
    matrix = np.empty((3 * n, 3 * n))
    at = source.line_of(title.end()) - 1
    for a in range(n):
        for b in range(n):
            words = source.lines[at].split() if at < len(source.lines) else []
            if words != ["ATOM", "A", str(a + 1), "ATOM", "B", str(b + 1)]:
                raise source.error(
                    f"Final Hessian: expected the block of atoms {a + 1} and {b + 1}; the file is cut", at + 1
                )
            at += 2
            for row in range(3):
                text = source.lines[at] if at < len(source.lines) else ""
                matrix[3 * a + row, 3 * b : 3 * b + 3] = numbers(text, source, at + 1, 3, "Final Hessian")
                at += 1
    return matrix
