"""CFOUR outputs of jobs without symmetry (SYMMETRY=NONE, or a C1 run).

`Molecular hessian` is the lower triangle in Eh/a0^2 with six decimals; the last one
counts. With symmetry the same block is over symmetry coordinates whose names are
not unique, and is refused; so are those of ACES II. Positions (a0) come from the
file GRD of the job, which has more digits, else from the last table in the output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats._abacus import LAYOUT, atoms_of_rows
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, recognised_masses, record_of
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._blocks import read_blocks
from nequip_hessian.formats._dipoles import last, rows_by_axis
from nequip_hessian.formats._source import Source, guarded, numbers, read_output, read_source
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR

NAME = "cfour-out"
PATTERNS = ("*.out", "*.log", "*.c4")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r"^ *Molecular hessian *\n *-+ *\n", re.M)
_TABLE: Final = re.compile(
    r"^ *Z-matrix +Atomic +(?:Coordinates \(in bohr\)|C o o r d i n a t e s) *\n *Symbol +Number +X +Y +Z *\n *-+ *\n",
    re.M,
)
_MARKS: Final = ("Coupled-Cluster techniques for Computational Chemistry", "CFOUR Program System", "@ACES2: Executing")


def sniff(text: str) -> bool:
    """Say whether a file looks like an output of CFOUR or ACES II."""
    return any(mark in text for mark in _MARKS)


@guarded("CFOUR output")
def read_cfour_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Hessian of a CFOUR output with its geometry.

    Args:
        path: the output file; the file GRD is looked for beside it

    Yields:
        One record.

    Raises:
        NoHessianError: there is none in the file.
        FormatError: cut or damaged, or printed in symmetry coordinates.
    """
    source = read_output(path)
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        raise source.error("no Hessian in this file: CFOUR prints it in jobs with VIB=EXACT only", kind=NoHessianError)
    title = titles[-1]
    line = source.line_of(title.start())
    heading = next((i for i in range(line + 1, len(source.lines)) if source.lines[i].strip()), len(source.lines) - 1)
    if source.lines[heading].split()[:1] == ["Symmetry"] or "Symmetry" in source.lines[heading]:
        raise _symmetry(source, line)
    names = atoms_of_rows(source.lines, heading + 1)
    atoms = np.array([atomic_number(re.sub(r"\s*#.*$", "", name)) for name in names], dtype=int)
    grd, positions, gradient = _geometry(source, atoms, title)
    if len(names) != len(positions):
        raise _symmetry(source, line)
    matrix, _ = read_blocks(source, heading, 3 * len(atoms), "Molecular hessian", LAYOUT)
    behind = source.text[title.end() :]
    masses = _masses(behind, atoms)
    charge = re.search(r"^ *CHARGE +ICHRGE +(-?\d+) ", source.text, re.M)
    multiplicity = re.search(r"^ *MULTIPLICI?TY +IMULTP +(\d+) ", source.text, re.M)
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            matrix,
            gradient=gradient,
            charge=int(charge.group(1)) if charge else None,
            multiplicity=int(multiplicity.group(1)) if multiplicity else None,
            masses=masses,
            masses_from="file" if masses is not None else ISOTOPIC,
            frequencies=_frequencies(behind),
            projected=True,
            dipole=_dipole(source, atoms),
            level=_level(source.text),
            line=line,
            companions=() if grd is None else (grd,),
        ),
    )


def _dipole(source: Source, atoms: npt.NDArray[np.int_]) -> FloatArray | None:
    """Return the dipole derivatives, (3N, 3), e; an earlier table of the same title lacks a part of them."""
    title = last(source, r"^ *Total dipole moment derivatives *\n *-+ *\n")
    return rows_by_axis(source, title, atoms, "Total dipole moment derivatives", ("Ex", "Ey", "Ez"))


def _symmetry(source: Source, line: int) -> Exception:
    return source.error(
        "cannot read this: the Hessian is printed in symmetry coordinates, not in Cartesian ones; "
        "not supported, run without symmetry (SYMMETRY=NONE)",
        line,
    )


def _geometry(
    source: Source, atoms: npt.NDArray[np.int_], title: re.Match[str]
) -> tuple[Source | None, FloatArray, FloatArray | None]:
    """Positions and, from GRD, the gradient; atoms in the order of the Hessian."""
    beside = source.path.parent / "GRD"
    if beside.is_file():
        try:
            grd = read_source(beside)
            rows = [line.split() for line in grd.lines if line.strip()]
            table = np.array([[float(word) for word in row] for row in rows[1 : 1 + 2 * len(atoms)]])
            if int(rows[0][0]) == len(atoms) and table[: len(atoms), 0].astype(int).tolist() == atoms.tolist():
                return grd, table[: len(atoms), 1:], table[len(atoms) :, 1:]
        except (FormatError, ValueError, IndexError):
            pass  # a damaged GRD is treated as absent: the output has the positions, too
    tables = [table for table in _TABLE.finditer(source.text) if table.start() < title.start()]
    if not tables:
        raise source.error("expected a table of coordinates before the Hessian, found none; add the file GRD")
    start = source.line_of(tables[-1].end())
    rows = []
    for at in range(start, len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if len(words) != 5:
            break
        if words[1] != "0":  # dummy atoms of the Z-matrix
            rows.append([words[1], *words[2:]])
    if len(rows) != len(atoms):
        raise _symmetry(source, source.line_of(title.start()))
    if [int(row[0]) for row in rows] != atoms.tolist():
        raise source.error(
            "the table of coordinates and the Hessian do not have the same atoms in the same order; add the file GRD",
            start,
        )
    factor = 1.0 if "bohr" in tables[-1].group(0) else 1 / BOHR
    return None, factor * np.array([numbers(" ".join(row[1:]), source, start, 3, "coordinates") for row in rows]), None


def _masses(text: str, atoms: npt.NDArray[np.int_]) -> FloatArray | None:
    found = re.search(r"masses used \(in AMU\) in vibrational analysis: *\n((?:(?: +\d+\.\d+)+ *\n)+)", text)
    words = found.group(1).split() if found else []
    return recognised_masses(np.array(words, dtype=np.float64), atoms, 6) if len(words) == len(atoms) else None


def _frequencies(text: str) -> FloatArray | None:
    """The list after the rotational projection, without as many small ones as were rigid motions before it."""
    pattern = r"frequencies after rotational projection.*\n.*force constants: *\n((?: +\d+ +\d+\.\d+i? *\n)+)"
    found = re.search(pattern, text)
    rows = [line.split()[1] for line in found.group(1).strip().split("\n")] if found else []
    values = np.array([-float(row[:-1]) if row.endswith("i") else float(row) for row in rows])
    rigid = len(re.findall(r"^ +\S+ +\d+\.\d+i? +\d+\.\d+ +(?:ROTATION|TRANSLATION) *$", text, re.M))
    return values[np.argsort(np.abs(values))[rigid:]] if len(values) > rigid else None


def _level(text: str) -> LevelOfTheory:
    method = re.search(r"^ *CALCLEVEL +ICLLVL +(\S+) ", text, re.M)
    basis = re.search(r"^ *BASIS +IBASIS +(\S+) ", text, re.M)
    version = re.search(r"CFOUR Program System \(Release (.+?)\)", text) or re.search(r"Version (\d\S*)", text[:3000])
    return LevelOfTheory(
        method=method.group(1) if method else "unknown",
        basis=basis.group(1) if basis and basis.group(1) != "SPECIAL" else None,
        program="CFOUR" if "CFOUR" in text else "ACES II",
        program_version=version.group(1) if version else None,
        hessian="analytic",
    )
