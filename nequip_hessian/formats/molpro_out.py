"""Molpro outputs of frequency jobs that print the Hessian (`print,hessian` or `print=1`).

`Force Constants (Second Derivatives of the Energy) in [a.u.]` is the lower
triangle in Eh/a0^2, in blocks of five columns with seven decimals; the last one
counts. Its atoms are those of the table `Atomic Coordinates` behind it (a0), which
may be in another order than the first table of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import Parsed, recognised_masses, record_of
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._blocks import Layout, read_blocks
from nequip_hessian.formats._dipoles import blocks_by_component, last
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "molpro-out"
PATTERNS = ("*.out", "*.log", "*.molpro")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r"^ *Force Constants \(Second Derivatives of the Energy\) in \[a\.u\.\] *\n", re.M)
_GEOMETRY: Final = re.compile(r"^ *Atomic Coordinates *\n\s*\n *Nr +Atom +Charge +X +Y +Z *\n\s*\n", re.M)
_SPINS: Final = {"singlet": 1, "doublet": 2, "triplet": 3, "quartet": 4, "quintet": 5, "sextet": 6, "septet": 7}


def sniff(text: str) -> bool:
    """Say whether a file looks like a Molpro output."""
    return "PROGRAM SYSTEM MOLPRO" in text[:HEAD] or "Force Constants (Second Derivatives of the Energy)" in text


@guarded("Molpro output")
def read_molpro_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Hessian of a Molpro output with the geometry printed behind it.

    Args:
        path: the output file

    Yields:
        One record; Molpro prints no gradient in such a job.

    Raises:
        NoHessianError: there is none in the file.
        FormatError: cut or damaged.
    """
    source = read_output(path)
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        raise _no_hessian(source)
    title = titles[-1]
    line = source.line_of(title.start())
    geometry = _GEOMETRY.search(source.text, title.end())
    if geometry is None:
        raise source.error(
            "expected 'Atomic Coordinates' behind the force constants, found none; the file is cut", line
        )
    atoms, positions = _atoms(source, geometry)
    matrix, _ = read_blocks(source, line, 3 * len(atoms), "Force Constants", _layout(atoms))
    energies = re.findall(r"^ *[A-Z]\S*/?\S* energy= +(-?\d+\.\d+) *$", source.text, re.M)
    spin = re.findall(r"SPIN SYMMETRY[:=] *(\w+)", source.text)
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            matrix,
            energy=float(energies[-1]) if energies else None,
            charge=_charge(source.text),
            multiplicity=_SPINS.get(spin[-1].lower()) if spin else None,
            masses=_masses(source, title, atoms),
            frequencies=_frequencies(source.text[geometry.end() :]),
            projected=True,
            dipole=_dipole(source, title, len(atoms)),
            dipole_unit="debye/angstrom",
            level=_level(source.text),
            line=line,
        ),
    )


def _no_hessian(source: Source) -> Exception:
    failed = re.search(r"^ *(?:\? *Error|ERROR EXIT|GLOBAL ERROR).*$", source.text, re.M)
    if failed:
        why = " ".join(failed.group(0).split())[:100]
        return source.error(f"the Molpro job failed, and there is no Hessian: {why}", source.line_of(failed.start()))
    return source.error(
        "no Hessian in this file: Molpro prints it only when asked to ({frequencies; print,hessian})",
        kind=NoHessianError,
    )


def _layout(atoms: npt.NDArray[np.int_]) -> Layout:
    """Rows and columns are named by element, axis and number of the atom: CX1, HZ12."""

    def named(index: int, text: str) -> bool:
        found = re.fullmatch(r"([A-Za-z]+?)([XYZ])(\d+)", text)
        if found is None or found.group(2) != "XYZ"[index % 3] or found.group(3) != str(index // 3 + 1):
            return False
        return index >= 3 * len(atoms) or atomic_number(found.group(1)) == atoms[index // 3]

    def row(index: int, column: int, text: str) -> bool:
        return named(index, text)

    def heading(column: int, words: list[str]) -> bool:
        return bool(words) and all(
            column + i < 3 * len(atoms) and named(column + i, word) for i, word in enumerate(words)
        )

    return Layout(5, "triangle", row, heading=heading)


def _atoms(source: Source, geometry: re.Match[str]) -> tuple[npt.NDArray[np.int_], FloatArray]:
    start = source.line_of(geometry.end())
    atoms: list[int] = []
    rows = []
    for at in range(start, len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if len(words) != 6 or words[0] != str(len(atoms) + 1):
            break
        atoms.append(round(float(words[2])))
        rows.append(numbers(" ".join(words[3:]), source, at, 3, "Atomic Coordinates"))
    if not atoms or min(atoms) < 1:
        raise source.error("Atomic Coordinates: expected number, name, charge, x, y, z (and no dummy atoms)", start)
    return np.array(atoms), np.array(rows)


def _dipole(source: Source, title: re.Match[str], n: int) -> FloatArray | None:
    """Return the dipole derivatives printed before the Hessian by the same program, (3N, 3), debye/angstrom."""
    begin = max(source.text.rfind("PROGRAM * ", 0, title.start()), 0)
    found = last(source, r"^ *Dipole Moment Derivatives \[debye/ang\] *\n", begin, title.start())
    return blocks_by_component(source, found, n, "Dipole Moment Derivatives")


def _masses(source: Source, title: re.Match[str], atoms: npt.NDArray[np.int_]) -> FloatArray:
    table = re.search(r"^ *Atomic Masses *\n((?: *\d+- *\d+ +[\d. ]+\n)+)", source.text[title.end() :], re.M)
    rows = table.group(1).strip().split("\n") if table else []
    words = [word for row in rows for word in re.sub(r"^ *\d+- *\d+", "", row).split()]
    if len(words) != len(atoms):
        raise source.error(
            f"expected Atomic Masses of {len(atoms)} atoms behind the force constants, found {len(words)}"
        )
    return recognised_masses(np.array(words, dtype=np.float64), atoms, 6)


def _frequencies(text: str) -> FloatArray | None:
    """Wavenumbers up to those of low or zero frequency; negative under the heading of imaginary modes."""
    values: list[float] = []
    sign = 1.0
    for line in text.split("\n"):
        if "low/zero frequencies" in line or "FREQUENCIES *" in line:
            break
        if "imag" in line.lower():
            sign = -1.0
        elif line.strip() == "Normal Modes":
            sign = 1.0
        elif line.lstrip().startswith("Wavenumbers [cm-1]"):
            values += [sign * abs(float(word)) for word in line.split()[2:]]
    return np.array(values) if values else None


def _charge(text: str) -> int | None:
    nuclear = re.findall(r"^ *NUCLEAR CHARGE: +(\d+)", text, re.M)
    electrons = re.findall(r"^ *NUMBER OF ELECTRONS: +(\d+)\+ +(\d+)-", text, re.M)
    frozen = re.search(r"pseudopotential|ECP\b", text, re.IGNORECASE)
    if not nuclear or not electrons or frozen:
        return None
    return int(nuclear[-1]) - int(electrons[-1][0]) - int(electrons[-1][1])


def _level(text: str) -> LevelOfTheory:
    named = re.findall(r"^ *(\S+?)/(\S+) energy= ", text, re.M)
    version = re.search(r"^ *Version (\d\S*)", text, re.M)
    numerical = re.search(r"Numerically approximating hessian|numerical hessian", text, re.IGNORECASE)
    return LevelOfTheory(
        method=named[-1][0] if named else "unknown",
        basis=named[-1][1] if named else None,
        program="Molpro",
        program_version=version.group(1) if version else None,
        hessian="finite_difference" if numerical else None,
    )
