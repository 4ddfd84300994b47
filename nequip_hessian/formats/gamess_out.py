"""GAMESS and Firefly (PC GAMESS) outputs of Hessian jobs.

`CARTESIAN FORCE CONSTANT MATRIX` is printed in Eh/a0^2 with six decimals, two
atoms (six columns) a block, in fields of nine characters that touch; the last one
counts. The gradient printed right before it belongs to the same geometry. The
punch file (.dat) has the same matrix with nine digits: convert that if it is there.
`DIPOLE DERIVATIVE TENSOR` behind it is in debye/angstrom.
GAMESS does not project rigid motions out of the frequencies unless asked to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import Parsed, record_of
from nequip_hessian.formats._atoms import unrounded_masses
from nequip_hessian.formats._blocks import Layout, read_blocks
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR

NAME = "gamess-out"
PATTERNS = ("*.out", "*.log", "*.gamout", "*.gms")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r"^ *CARTESIAN FORCE CONSTANT MATRIX *\n[ -]+\n", re.M)
_GEOMETRY: Final = re.compile(
    r"^ *ATOM +ATOMIC +COORDINATES \(BOHR\) *\n *CHARGE +X +Y +Z *\n"
    r"|^ *COORDINATES OF ALL ATOMS ARE \(ANGS\) *\n *ATOM +CHARGE +X +Y +Z *\n *-+ *\n",
    re.M,
)


_DIPOLE: Final = re.compile(r"^ *DIPOLE DERIVATIVE TENSOR +\(DEBYE/ANGSTROM\) *\n[ -]+\n\s*\n *ATOM +MU-X.*\n", re.M)
_MARKS: Final = (
    "GAMESS VERSION",
    "Firefly version",
    "PC GAMESS version",
    "EXECUTION OF GAMESS",
    "EXECUTION OF FIREFLY",
)
_GRADIENT: Final = re.compile(
    r"^ *(?:UNITS ARE HARTREE/BOHR|ATOM) +E'X +E'Y +E'Z *\n((?: *\d+ +\S+ .*\n)+)[\s-]*\Z", re.MULTILINE
)


def sniff(text: str) -> bool:
    """Say whether a file looks like an output of GAMESS (US) or Firefly."""
    return any(mark in text[:HEAD] for mark in _MARKS)


def _row(row: int, column: int, text: str) -> bool:
    words = text.split()
    axis = bool(words) and words[-1] == "XYZ"[row % 3]
    return axis and (row % 3 > 0 or words[0] == str(row // 3 + 1))


def _heading(column: int, words: list[str]) -> bool:
    return words in (["X", "Y", "Z"], ["X", "Y", "Z"] * 2)


_LAYOUT: Final = Layout(6, "trapezoid", _row, first=20, field=9, heading=_heading)


@guarded("GAMESS output")
def read_gamess_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last force constant matrix of a GAMESS or Firefly output with its geometry.

    Args:
        path: the output file

    Yields:
        One record.

    Raises:
        NoHessianError: there is none in the file.
        FormatError: the job failed, or the file is cut or damaged.
    """
    source = read_output(path)
    parsed = parse(source)
    if parsed is None:
        raise _no_hessian(source)
    yield record_of(source, NAME, parsed)


def parse(source: Source) -> Parsed | None:
    """Read an output; None where it prints no force constant matrix.

    Raises:
        FormatError: cut or damaged.
    """
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        return None
    title = titles[-1]
    before, behind = source.text[: title.start()], source.text[title.end() :]
    atoms, positions = _geometry(source, before)
    matrix, _ = read_blocks(source, source.line_of(title.end()) - 1, 3 * len(atoms), "force constants", _LAYOUT)
    charge = re.findall(r"^ *CHARGE OF MOLECULE +=  *(-?\d+)", before, re.M)
    multiplicity = re.findall(r"^ *(?:SPIN|STATE) MULTIPLICITY +=  *(\d+)", before, re.M)
    return Parsed(
        atoms,
        positions,
        matrix,
        energy=_energy(before),
        gradient=_gradient(before, len(atoms)),
        charge=int(charge[-1]) if charge else None,
        multiplicity=int(multiplicity[-1]) if multiplicity else None,
        masses=_masses(source, behind, title.end(), atoms),
        frequencies=frequencies(behind),
        dipole=_dipole(source, behind, title.end(), len(atoms)),
        dipole_unit="debye/angstrom",
        projected="TRANSLATIONS AND ROTATIONS PROJECTED" in behind.upper() or None,
        level=level(source.text),
        line=source.line_of(title.start()),
    )


def _no_hessian(source: Source) -> Exception:
    failed = re.search(r"^.*EXECUTION OF (?:GAMESS|FIREFLY) TERMINATED -?ABNORMALLY.*$", source.text, re.M | re.I)
    if failed:
        return source.error("the GAMESS job failed, and there is no Hessian", source.line_of(failed.start()))
    return source.error(
        "no Hessian in this file: GAMESS prints the CARTESIAN FORCE CONSTANT MATRIX in jobs with RUNTYP=HESSIAN (or "
        "HSSEND) only; the punch file (.dat) has it too",
        kind=NoHessianError,
    )


def _geometry(source: Source, before: str) -> tuple[npt.NDArray[np.int_], FloatArray]:
    """Return atomic numbers and positions (a0) of the table printed last."""
    tables = list(_GEOMETRY.finditer(before))
    if not tables:
        raise source.error("expected a table of coordinates before the force constants, found none; the file is cut")
    factor = 1.0 if "BOHR" in tables[-1].group(0) else 1 / BOHR
    start = source.line_of(tables[-1].end())
    atoms, rows = [], []
    for at in range(start, len(source.lines) + 1):
        found = re.fullmatch(r" *\S+.*? +(\d+\.\d+) +(-?\d+\.\d+) +(-?\d+\.\d+) +(-?\d+\.\d+) *", source.lines[at - 1])
        if found is None:
            break
        atoms.append(round(float(found.group(1))))
        rows.append(numbers(" ".join(found.groups()[1:]), source, at, 3, "coordinates"))
    if not atoms or min(atoms) < 1:
        raise source.error("coordinates: expected name, nuclear charge, x, y, z (and no dummy atoms)", start)
    return np.array(atoms), np.array(rows) * factor


def _gradient(before: str, n: int) -> FloatArray | None:
    """Gradient printed right before the matrix: that of the undisplaced geometry in a numerical job, too."""
    found = _GRADIENT.search(before[-1000 - 100 * n :])
    rows = [line.split()[-3:] for line in found.group(1).strip().split("\n")] if found else []
    return np.array(rows, dtype=np.float64) if len(rows) == n else None


def _dipole(source: Source, behind: str, offset: int, n: int) -> FloatArray | None:
    """Return the dipole derivatives printed behind the matrix, (3N, 3), debye/angstrom; None where there are none."""
    title = _DIPOLE.search(behind)
    if title is None:
        return None
    at = source.line_of(offset + title.end())
    rows: list[FloatArray] = []
    for line in source.lines[at - 1 : at - 1 + 3 * n]:
        found = re.fullmatch(rf" *(?:\S+ +)?D/D{'XYZ'[len(rows) % 3]} *((?:-?\d+\.\d+ *){{3}})", line)
        if found is None:
            raise source.error(f"DIPOLE DERIVATIVE TENSOR: expected row {len(rows) + 1} of {3 * n}", at + len(rows))
        rows.append(numbers(found.group(1).replace("-", " -"), source, at + len(rows), 3, "dipole derivatives"))
    return np.array(rows)


def _energy(before: str) -> float | None:
    pattern = re.compile(r"^ *FINAL (?:\S+ )*?ENERGY IS +(-?\d+\.\d+)", re.M)
    if re.search(r"\b(?:MPLEVL|CITYP|CCTYP) *= *(?!0\b|NONE\b)\w", before):
        return None  # the FINAL energy is the reference's, and the surface another one
    located = before.rfind("EQUILIBRIUM GEOMETRY LOCATED")
    numerical = "NUMERICAL HESSIAN" in before
    values = pattern.findall(before[:located] if located > 0 and numerical else before)
    # Differences of gradients: the first energy is that of the undisplaced geometry.
    return float(values[0 if numerical and located < 0 else -1]) if values else None


def _masses(source: Source, behind: str, offset: int, atoms: npt.NDArray[np.int_]) -> FloatArray:
    table = re.search(r"^ *ATOMIC WEIGHTS \(AMU\) *\n\s*\n((?: *\d+ +\S+ +\d+\.\d+ *\n)+)", behind, re.M)
    rows = [line.split()[-1] for line in table.group(1).strip().split("\n")] if table else []
    if len(rows) != len(atoms):
        raise source.error(
            f"expected ATOMIC WEIGHTS of {len(atoms)} atoms behind the force constants, found {len(rows)}; "
            "the file is cut",
            source.line_of(offset),
        )
    return unrounded_masses(np.array(rows, dtype=np.float64), atoms)


def frequencies(text: str) -> FloatArray | None:
    """Return the vibrations of the first analysis in a text, cm^-1, imaginary negative.

    The modes that GAMESS takes as rotations and translations are left out: it prints their magnitude only.
    """
    end = text.find("THERMOCHEMISTRY")
    rows = re.findall(r"^ *FREQUENCY: +(.*)$", text[: end if end > 0 else None], re.M)
    found = re.findall(r"(\d+\.\d+)( +I\b)?", "  ".join(rows))
    values = [-float(value) if imaginary else float(value) for value, imaginary in found]
    rigid = re.search(r"^ *MODES +(\d+) +TO +(\d+) ARE TAKEN AS ROTATIONS AND TRANSLATIONS", text, re.M)
    if rigid is not None:
        del values[int(rigid.group(1)) - 1 : int(rigid.group(2))]
    return np.array(values) if values else None


def level(text: str) -> LevelOfTheory:
    """Read functional, basis and version from an output; what the input asks for is not always what is done."""
    text = re.sub(r"^ *INPUT CARD>.*$", "", text, flags=re.M)
    functional = [name for name in re.findall(r"\bDFTTYP *= *(\w+)", text)[-1:] if name.upper() != "NONE"]
    semi = re.search(r"\bGBASIS *= *(AM1|PM3|MNDO|RM1|DFTB)\b", text)
    correlated = re.search(r"\bMPLEVL *= *([2-4])", text)
    basis = re.search(r"\bGBASIS *= *(\w+)", text)
    gaussians = re.search(r"\b(?:IGAUSS|NGAUSS) *= *(\d+)", text)
    version = re.search(r"(?:GAMESS|Firefly|PC GAMESS) VERSION *=? *(\d.*?)(?: *\*|,| *$)", text, re.M | re.I)
    reference = re.search(r"\bSCFTYP *= *(\w+)", text)
    method = functional[-1] if functional else f"MP{correlated.group(1)}" if correlated else None
    name = None if basis is None else basis.group(1)
    if name == "STO" and gaussians:
        name = f"STO-{gaussians.group(1)}G"
    elif name in ("N21", "N31", "N311") and gaussians:
        name = f"{gaussians.group(1)}-{name[1:]}G"
    return LevelOfTheory(
        method=semi.group(1) if semi else method or ("HF" if reference else "unknown"),
        basis=None if semi else name,
        program="Firefly" if re.search(r"Firefly (?:version|Project)|PC GAMESS", text) else "GAMESS",
        program_version=version.group(1).strip() if version else None,
        hessian="finite_difference" if "NUMERICAL HESSIAN" in text else "analytic",
    )
