"""GAMESS-UK outputs of Hessian jobs.

`total cartesian 2nd derivative matrix` is the full square in Eh/a0^2, three atoms
(nine columns) a block with only five decimals; the last one counts. Atoms and
positions (a0) are those of the table of the basis set before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, recognised_masses, record_of
from nequip_hessian.formats._blocks import Layout, read_blocks
from nequip_hessian.formats._dipoles import last, rows_by_axis
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "gamess-uk-out"
PATTERNS = ("*.out", "*.log")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r"^ *\* total cartesian 2nd derivative matrix \* *\n *\*+ *\n", re.M)
_ATOM: Final = re.compile(r"^ *\* +[A-Za-z]\S* +(\d+\.\d) +(-?\d+\.\d+) +(-?\d+\.\d+) +(-?\d+\.\d+) +\d+ +\* *$", re.M)
_BASIS: Final = re.compile(r"^ *\* +atom +atomic +coordinates +number of +\* *$", re.M)


def sniff(text: str) -> bool:
    """Say whether a file looks like a GAMESS-UK output."""
    head = text[:HEAD]
    return "g a m e s s - u k" in head.lower() or "GAMESS-UK" in head or "total cartesian 2nd derivative matrix" in text


def _row(row: int, column: int, text: str) -> bool:
    words = text.split()
    axis = bool(words) and words[-1] == "xyz"[row % 3]
    return axis and (row % 3 > 0 or words[0] == str(row // 3 + 1))


def _heading(column: int, words: list[str]) -> bool:
    return bool(words) and words == ["x", "y", "z"] * (len(words) // 3)


_LAYOUT: Final = Layout(9, "square", _row, first=19, field=9, heading=_heading)


@guarded("GAMESS-UK output")
def read_gamess_uk_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Hessian of a GAMESS-UK output with its geometry.

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
            "no Hessian in this file: GAMESS-UK prints it in jobs with runtype hessian or force", kind=NoHessianError
        )
    title = titles[-1]
    before, behind = source.text[: title.start()], source.text[title.end() :]
    line = source.line_of(title.start())
    tables = list(_BASIS.finditer(before))
    if not tables:
        raise source.error("expected the table of atoms and coordinates before the Hessian, found none", line)
    found = list(_ATOM.finditer(before, tables[-1].end()))
    atoms = np.array([round(float(atom.group(1))) for atom in found], dtype=int)
    rows = [numbers(" ".join(atom.groups()[1:]), source, source.line_of(atom.start()), 3) for atom in found]
    if not found or min(atoms) < 1:
        raise source.error("expected name, charge, x, y, z of each atom (and no dummy atoms)", line)
    matrix, _ = read_blocks(source, source.line_of(title.end()) - 1, 3 * len(atoms), "2nd derivatives", _LAYOUT)
    energies = re.findall(r"^ *total energy +(-?\d+\.\d+) *$", before, re.M)
    charges = re.findall(r"^ *charge of molecule +(-?\d+) *$", before, re.M)
    spins = re.findall(r"^ *state multiplicity +(\d+) *$", before, re.M)
    masses = _masses(behind, atoms)
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            np.array(rows),
            matrix,
            energy=float(energies[-1]) if energies else None,
            charge=int(charges[-1]) if charges else None,
            multiplicity=int(spins[-1]) if spins else None,
            masses=masses,
            masses_from="file" if masses is not None else ISOTOPIC,
            frequencies=_frequencies(behind),
            projected=True,
            dipole=_dipole(source, atoms),
            dipole_unit="debye/angstrom",
            level=_level(source),
            line=line,
        ),
    )


def _dipole(source: Source, atoms: npt.NDArray[np.int_]) -> FloatArray | None:
    """Return the dipole derivatives, (3N, 3), debye/angstrom; None where they are not printed."""
    title = last(source, r"^ *\* +scf dipole derivatives +\* *\n *\* +\(debye/angstrom\) +\* *\n *\*+ *\n")
    return rows_by_axis(source, title, atoms, "scf dipole derivatives", ("x", "y", "z"))


def _masses(text: str, atoms: npt.NDArray[np.int_]) -> FloatArray | None:
    table = re.search(r"^ *Nuclear masses: *\n((?: +\d+ +\S+ +\S+ +\d+\.\d+ *\n)+)", text, re.M)
    rows = table.group(1).strip().split("\n") if table else []
    if len(rows) != len(atoms):
        return None
    return recognised_masses(np.array([row.split()[-1] for row in rows], dtype=np.float64), atoms, 6)


def _frequencies(text: str) -> FloatArray | None:
    begin = text.find("harmonic frequencies (cm**-1) and normalised normal coordinates")
    rows = re.findall(r"^ *frequencies ---- +(.*)$", text[begin:] if begin >= 0 else "", re.M)
    return np.array([float(word) for row in rows for word in row.split()]) if rows else None


def _level(source: Source) -> LevelOfTheory:
    text = source.text
    functional = re.search(r"^ *(\S+) exchange-correlation functional selected", text, re.M | re.IGNORECASE)
    basis = re.search(r"basis selected is (\S+ +\S+)", text)
    version = re.search(r"version +(\d\S*)", text)
    method = functional.group(1) if functional else ("unknown" if "CCP1 DFT" in text else "HF")
    return LevelOfTheory(
        method=method,
        basis=" ".join(basis.group(1).split()) if basis else None,
        program="GAMESS-UK",
        program_version=version.group(1) if version else None,
        hessian="analytic",
    )
