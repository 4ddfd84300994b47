"""MOPAC outputs of FORCE jobs with the keyword DFORCE.

`FULL FORCE MATRIX, INVOKED BY "DFORCE"` is the lower triangle in mdyn/angstrom, in
blocks of six columns with six decimals, in the frame of `ORIENTATION OF MOLECULE IN
FORCE CALCULATION` (four decimals; the input geometry, which has eight, is taken
where it is in that frame). The matrix of atoms against atoms that MOPAC prints
without DFORCE is no Hessian. Frequencies are read of stationary points only: elsewhere
MOPAC does not take the rotations out that the mass-weighted Hessian has. Versions up
to 7.0 print twice the value, and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses_legacy

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import AVERAGE
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._blocks import Layout, columns_numbered, numbered, read_blocks
from nequip_hessian.formats._source import Source, guarded, numbers, provenance, read_output, stem
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import KCAL_PER_MOL, MDYN_PER_ANGSTROM

NAME = "mopac-out"
PATTERNS = ("*.out", "*.log")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r'^ *FULL FORCE MATRIX, INVOKED BY "DFORCE" *\n', re.M)
_STATIONARY: Final = 1.0  # kcal/mol/angstrom, norm of the gradient
_BANNER: Final = re.compile(r"^ *\*\*.*\bMOPAC(?:20\d\d| v?\d)|^ +\S+ CALCULATION RESULTS *$", re.M)
_GRADIENT: Final = re.compile(r"^ *CARTESIAN COORDINATE DERIVATIVES *\n\s*\n *NUMBER +ATOM +X +Y +Z *\n\s*\n", re.M)
_LAYOUT: Final = Layout(6, "triangle", numbered, heading=columns_numbered)


def sniff(text: str) -> bool:
    """Say whether a file looks like a MOPAC output."""
    return _BANNER.search(text[:5000]) is not None or 'INVOKED BY "DFORCE"' in text


@guarded("MOPAC output")
def read_mopac_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the Hessian of a MOPAC output with its geometry.

    Args:
        path: the output file

    Yields:
        One record; without energy, since MOPAC prints a heat of formation. Forces only where the frame of
        the gradient is that of the Hessian (keyword NOREOR).

    Raises:
        NoHessianError: the matrix of Cartesian second derivatives was not printed.
        FormatError: cut or damaged.
    """
    source = read_output(path)
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        raise source.error(
            "no Cartesian Hessian in this file: MOPAC prints it with the keywords FORCE DFORCE only (the FORCE MATRIX "
            "of atoms against atoms is none)",
            kind=NoHessianError,
        )
    title = titles[-1]
    if re.search(r"MOPAC *(?:VERSION)? *[67]\.0", source.text[:5000]):
        raise source.error("MOPAC up to 7.0 prints force constants in another unit, not supported")
    before, behind = source.text[: title.start()], source.text[title.end() :]
    atoms, positions = _table(source, before, "ORIENTATION OF MOLECULE IN FORCE CALCULATION")
    fine = _fine(source, before, atoms, positions)
    matrix, _ = read_blocks(source, source.line_of(title.end()) - 1, 3 * len(atoms), "FULL FORCE MATRIX", _LAYOUT)
    forces = None if fine is None else _forces(source, before, len(atoms))
    charge = re.search(r"^ *\*? *CHARGE(?: ON SYSTEM)? *= *(-?\d+)", source.text, re.M)
    norm = re.findall(r"^ *GRADIENT NORM *= +(\d+\.\d+)", before, re.M)
    stationary = bool(norm) and float(norm[-1]) < _STATIONARY
    frequencies = _frequencies(behind) if stationary else None
    conversions = {"positions": ("angstrom", 1.0), "hessian": ("mdyn/angstrom", MDYN_PER_ANGSTROM)}
    if forces is not None:
        conversions["forces"] = ("-kcal/mol/angstrom", -KCAL_PER_MOL)
    yield LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions if fine is None else fine,
        hessian=matrix * MDYN_PER_ANGSTROM,
        forces=forces,
        charge=int(charge.group(1)) if charge else None,
        masses=np.asarray(atomic_masses_legacy[atoms], dtype=np.float64),
        frequencies=frequencies,
        frequencies_projected=None if frequencies is None else True,
        label=stem(source.path),
        level=_level(source.text),
        provenance=provenance(
            source, NAME, conversions, line=source.line_of(title.start()), masses_from=f"{AVERAGE} of 1999"
        ),
    )


def _table(source: Source, text: str, title: str) -> tuple[npt.NDArray[np.int_], FloatArray]:
    head = list(re.finditer(rf"^ *{title} *\n\s*\n *NO\. +ATOM +X +Y +Z *\n\s*\n", text, re.M))
    if not head:
        raise source.error(f"expected the table '{title}' before the Hessian, found none; the file is cut")
    start = source.line_of(head[-1].end())
    atoms: list[int] = []
    rows = []
    for at in range(start, len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if len(words) != 5 or words[0] != str(len(atoms) + 1):
            break
        atoms.append(atomic_number(re.sub(r"[\d(].*$", "", words[1]) if words[1][0].isalpha() else words[1]))
        rows.append(numbers(" ".join(words[2:]), source, at, 3, title))
    if not atoms:
        raise source.error(f"{title}: expected number, element, x, y, z; the file is cut", start)
    return np.array(atoms), np.array(rows)


def _fine(source: Source, text: str, atoms: npt.NDArray[np.int_], positions: FloatArray) -> FloatArray | None:
    """The Cartesian input geometry, where it is that of the Hessian in its frame."""
    pattern = r"^ *\d+ +([A-Z][A-Za-z]?)\S* +(-?\d+\.\d{8}) *\*? +(-?\d+\.\d{8}) *\*? +(-?\d+\.\d{8}) *\*? *$"
    rows = re.findall(pattern, text, re.M)[: len(atoms)]
    if len(rows) != len(atoms) or [atomic_number(row[0]) for row in rows] != atoms.tolist():
        return None
    table = np.array([row[1:] for row in rows], dtype=np.float64)
    return table if np.max(np.abs(table - positions)) < 6e-5 else None


def _forces(source: Source, text: str, n: int) -> FloatArray | None:
    head = list(
        re.finditer(r"^ *CARTESIAN COORDINATE DERIVATIVES *\n\s*\n *NUMBER +ATOM +X +Y +Z *\n\s*\n", text, re.M)
    )
    if not head:
        return None
    start = source.line_of(head[-1].end())
    rows = [line.split() for line in source.lines[start - 1 : start - 1 + n]]
    if len(rows) != n or any(len(row) != 5 for row in rows):
        return None
    return -KCAL_PER_MOL * np.array([numbers(" ".join(row[2:]), source, start, 3, "derivatives") for row in rows])


def _frequencies(text: str) -> FloatArray | None:
    begin = text.find("DESCRIPTION OF VIBRATIONS")
    rows = re.findall(r"^ *FREQUENCY +(-?\d+\.\d+)", text[begin:] if begin >= 0 else "", re.M)
    return np.sort(np.array(rows, dtype=np.float64)) if rows else None


def _level(text: str) -> LevelOfTheory:
    method = re.search(r"^ *([A-Z][A-Z0-9-]*\d[A-Z0-9-]*|MNDO|RM1|INDO) CALCULATION RESULTS", text, re.M)
    version = re.search(r"\bMOPAC v?(\d[\d.]*\d)|Version[: ]+(\d\S*)", text[:5000])
    solvent = re.search(r"^ *\* *EPS *= *(\S+)", text, re.M)
    named = re.search(r"^ *\* *(PM\d\S*|AM1|MNDO\S*|RM1) +- The \S+ Hamiltonian", text, re.M)
    return LevelOfTheory(
        method=named.group(1) if named else (method.group(1) if method else "unknown"),
        solvation=f"COSMO, EPS={solvent.group(1)}" if solvent else None,
        program="MOPAC",
        program_version=(version.group(1) or version.group(2)) if version else None,
        hessian="finite_difference",
    )
