"""DALTON outputs of vibrational analyses with the Hessian printed.

`Molecular Hessian (au)` is the lower triangle in Eh/a0^2 with six decimals; the
last one counts. Its atoms are those of `Molecular geometry (au)` before it, sorted
by symmetry. Without `.PRINT` DALTON prints the Hessian of jobs with symmetry in
symmetry coordinates, which is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._abacus import LAYOUT
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, recognised_masses, record_of
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._blocks import read_blocks
from nequip_hessian.formats._dipoles import last, rows_by_axis
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "dalton-out"
PATTERNS = ("*.out", "*.log", "*.dalton")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r"^ *Molecular Hessian \(au\) *\n *-+ *\n", re.M)
_MARK: Final = "Dalton - An Electronic Structure Program"


def sniff(text: str) -> bool:
    """Say whether a file looks like a DALTON output."""
    return _MARK in text[:HEAD] or "Molecular Hessian (au)" in text


@guarded("DALTON output")
def read_dalton_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Hessian of a DALTON output with its geometry.

    Args:
        path: the output file

    Yields:
        One record.

    Raises:
        NoHessianError: there is none in the file.
        FormatError: cut, damaged, or printed in symmetry coordinates.
    """
    source = read_output(path)
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        raise _no_hessian(source)
    title = titles[-1]
    before, behind = source.text[: title.start()], source.text[title.end() :]
    line = source.line_of(title.start())
    if re.match(r"\s*(?:Symmetry|Sym\w*) ", behind, re.IGNORECASE):
        raise source.error("the Hessian is printed in symmetry coordinates; run without symmetry (Nosymmetry)", line)
    atoms, positions = _table(source, before, "Molecular geometry (au)", line)
    matrix, _ = read_blocks(source, source.line_of(title.end()) - 1, 3 * len(atoms), "Molecular Hessian", LAYOUT)
    has_gradient = before.rfind("Molecular gradient (au)") > before.rfind("Molecular geometry (au)")
    energies = re.findall(r"^@? *Final (?:\S+ )+energy: +(-?\d+\.\d+)", before, re.M)
    charges = re.findall(r"^@? *Total charge(?: of (?:the )?molecule:?)? +(-?\d+) *$", before, re.M)
    spins = re.findall(r"^@? *Spin multiplicity:? +(\d+) *$", before, re.M)
    masses = _masses(behind, atoms)
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            matrix,
            energy=float(energies[-1]) if energies else None,
            gradient=_table(source, before, "Molecular gradient (au)", line)[1] if has_gradient else None,
            charge=int(charges[-1]) if charges else None,
            multiplicity=int(spins[-1]) if spins else None,
            masses=masses,
            masses_from="file" if masses is not None else ISOTOPIC,
            frequencies=_frequencies(behind),
            projected=True,
            dipole=_dipole(source, atoms),
            level=_level(source.text),
            line=line,
        ),
    )


def _no_hessian(source: Source) -> Exception:
    if "Total wall time used in DALTON" not in source.text:
        return source.error("the DALTON job did not end, and there is no Hessian in the file")
    return source.error(
        "no Hessian in this file: DALTON prints it only when asked to (**PROPERTIES, *VIBANA with .PRINT)",
        kind=NoHessianError,
    )


def _table(source: Source, text: str, title: str, line: int) -> tuple[npt.NDArray[np.int_], FloatArray]:
    """Read the last table of names and three numbers under a title."""
    head = list(re.finditer(rf"^ *{re.escape(title)} *\n *-+ *\n\s*\n", text, re.M))
    if not head:
        raise source.error(f"expected '{title}' before the Hessian, found none; the file is cut", line)
    start = source.line_of(head[-1].end())
    atoms, rows = [], []
    for at in range(start, len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if len(words) not in (4, 5):
            break
        atoms.append(atomic_number(re.sub(r"[\d_].*$", "", words[0])))
        rows.append(numbers(" ".join(words[-3:]), source, at, 3, title))
    if not atoms:
        raise source.error(f"{title}: expected name, x, y, z; the file is cut", start)
    return np.array(atoms), np.array(rows)


def _dipole(source: Source, atoms: npt.NDArray[np.int_]) -> FloatArray | None:
    """Return the dipole derivatives, (3N, 3), e; None where they are not printed, or by symmetry."""
    title = last(source, r"^ *Dipole moment gradient \(au\) *\n *-+ *\n")
    return rows_by_axis(source, title, atoms, "Dipole moment gradient", ("Ex", "Ey", "Ez"))


def _masses(text: str, atoms: npt.NDArray[np.int_]) -> FloatArray | None:
    table = re.search(r"^ *Isotopic Masses *\n *-+ *\n\s*\n((?: +\S+ .*\d+\.\d+ *\n)+)", text, re.M)
    rows = table.group(1).strip().split("\n") if table else []
    if len(rows) != len(atoms):
        return None
    return recognised_masses(np.array([row.split()[-1] for row in rows], dtype=np.float64), atoms, 6)


def _frequencies(text: str) -> FloatArray | None:
    begin = text.find("Vibrational Frequencies and IR Intensities")
    table = re.compile(r"(?:^ *\d+ +\S+ +-?\d+\.\d+.*\n|^ *\n)+", re.M).search(
        text, text.find("-----\n   1 ", begin) + 6
    )
    rows = re.findall(r"^ *\d+ +\S+ +(-?\d+\.\d+)( *i)? ", table.group(0) if begin >= 0 and table else "", re.M)
    return np.array([-float(value) if imaginary else float(value) for value, imaginary in rows]) if rows else None


def _level(text: str) -> LevelOfTheory:
    functional = re.search(r"This is a DFT calculation of type: *(\S+)", text)
    method = re.findall(r"^@? *Final (\S+(?: \S+)*?) energy:", text, re.M)
    basis = re.search(r'Basis set used is "(.+?)"', text)
    version = re.search(r"^ *(?:Release|This is output from DALTON \(Release) *Dalton(\S+)", text, re.M)
    return LevelOfTheory(
        method=functional.group(1) if functional else (method[-1] if method else "unknown"),
        basis=basis.group(1) if basis else None,
        program="DALTON",
        program_version=version.group(1) if version else None,
        hessian="analytic",
    )
