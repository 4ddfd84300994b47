"""NWChem outputs of frequency jobs.

`MASS-WEIGHTED NUCLEAR HESSIAN (Hartree/Bohr/Bohr/Kamu)` is the lower triangle
divided by sqrt(m_i m_j) with masses in 1000 u, in blocks of ten columns with six
digits that may touch; the last one in the file counts, with the masses and
positions (a0) of the table `Atom information` before it. The file .hess of the
job has the same matrix with eleven digits. NWChem's projection of the rigid
motions shifts vibrations where the matrix does not have the translational
identity: then the frequencies printed before it are taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import Parsed, record_of
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._blocks import Layout, columns_numbered, numbered, read_blocks
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR

NAME = "nwchem-out"
PATTERNS = ("*.out", "*.log", "*.nwout", "*.nwo")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = "MASS-WEIGHTED NUCLEAR HESSIAN (Hartree/Bohr/Bohr/Kamu)"
_TABLE: Final = re.compile(r"^ *-+ Atom information -+ *\n.*atom +# +X +Y +Z +mass *\n *-+ *\n", re.M)
_JOB: Final = "NWChem Nuclear Hessian and Frequency Analysis"
_NUMBER: Final = r"-?\d\.\d{5}[DE][+-]\d\d"
_LAYOUT: Final = Layout(10, "triangle", numbered, first=5, pattern=_NUMBER, heading=columns_numbered)
_PROJECTION: Final = 0.1  # cm^-1, by which the projection may shift a vibration
_GRADIENTS: Final = {"scf": r"[RU]O?HF", "dft": "DFT", "mp2": "mp2"}
_ENERGIES: Final = {
    "scf": r"^ *Total SCF energy = +(\S+)",
    "dft": r"^ *Total DFT energy = +(\S+)",
    "mp2": r"^ *Total MP2 energy +(\S+)",
}


def sniff(text: str) -> bool:
    """Say whether a file looks like an NWChem output."""
    return "Northwest Computational Chemistry Package" in text[:HEAD] or _JOB in text or _TITLE in text


@dataclass(frozen=True)
class Job:
    """What a frequency job says beside its Hessian: atomic units, masses in u, frequencies in cm^-1, dipole in e."""

    atoms: npt.NDArray[np.int_]
    positions: FloatArray
    masses: FloatArray
    energy: float | None
    gradient: FloatArray | None
    charge: int | None
    multiplicity: int | None
    frequencies: FloatArray | None
    projected: bool
    dipole: FloatArray | None
    level: LevelOfTheory


@guarded("NWChem output")
def read_nwchem_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Hessian of an NWChem output, the mass weights taken out again.

    Args:
        path: the output file

    Yields:
        One record.

    Raises:
        NoHessianError: there is none in the file.
        FormatError: the job failed, or the file is cut or damaged.
    """
    source = read_output(path)
    job, matrix, line = job_of(source), weighted(source), source.line_of(source.text.rfind(_TITLE))
    if matrix is None:
        raise _no_hessian(source)
    if job is None:
        raise source.error("expected the table 'Atom information' before the Hessian, found none", line)
    root = np.sqrt(np.repeat(job.masses, 3) / 1000.0)
    yield record_of(source, NAME, parsed_of(job, matrix * np.outer(root, root), line))


def parsed_of(job: Job, hessian: FloatArray, line: int | None = None, companions: tuple[Source, ...] = ()) -> Parsed:
    """Put a Cartesian Hessian (Eh/a0^2) and what belongs to it together."""
    return Parsed(
        job.atoms,
        job.positions,
        hessian,
        energy=job.energy,
        gradient=job.gradient,
        charge=job.charge,
        multiplicity=job.multiplicity,
        masses=job.masses,
        frequencies=job.frequencies,
        projected=job.projected,
        dipole=job.dipole,
        level=job.level,
        line=line,
        companions=companions,
    )


def weighted(source: Source) -> FloatArray | None:
    """Return the last mass-weighted Hessian, Eh/(a0^2 ku), or None."""
    start = source.text.rfind(_TITLE)
    tables = [table for table in _TABLE.finditer(source.text) if table.start() < start]
    if start < 0 or not tables:
        return None
    order = 3 * len(_atoms(source, tables[-1])[0])
    return read_blocks(source, source.line_of(start), order, "mass-weighted Hessian", _LAYOUT)[0]


def job_of(source: Source) -> Job | None:
    """Read what belongs to the last frequency job of an output; None where there is no such job.

    Raises:
        FormatError: its table of atoms is damaged.
    """
    tables = list(_TABLE.finditer(source.text))
    if not tables:
        return None
    atoms, positions, masses = _atoms(source, tables[-1])
    before, behind = source.text[: tables[-1].start()], source.text[tables[-1].end() :]
    theory = _theory(before)
    begin = max(before.rfind(_JOB), 0)
    energies = (
        [re.findall(_ENERGIES[theory], part, re.M) for part in (before[begin:], before[:begin])] if theory else []
    )
    # Of a job of differences of gradients the first energy is that of the undisplaced geometry.
    energy = next((found[index] for found, index in zip(energies, (0, -1), strict=False) if found), None)
    frequencies, projected = _frequencies(behind)
    charge = re.findall(r"^ *(?:charge +=|Charge +:|charge) +(-?\d+)(?:\.0*)? *$", before, re.M)
    return Job(
        atoms,
        positions,
        masses,
        None if energy is None else float(energy),
        _gradient(source, before, positions, theory) if theory else None,
        int(charge[-1]) if charge else None,
        _multiplicity(before),
        frequencies,
        projected,
        _dipole(source, begin, tables[-1].start(), len(atoms)),
        _level(before, theory),
    )


def _atoms(source: Source, table: re.Match[str]) -> tuple[npt.NDArray[np.int_], FloatArray, FloatArray]:
    first = source.line_of(table.end())
    atoms, rows = [], []
    for at in range(first, len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if len(words) != 6:
            break
        tag = re.match(r"[A-Za-z]+", words[0])
        try:
            atoms.append(atomic_number(tag.group(0) if tag else words[0]))
        except ValueError as exc:
            raise source.error(f"Atom information: {exc}", at) from None
        if words[1] != str(len(atoms)):
            raise source.error(f"Atom information: expected atom {len(atoms)}, found {words[1]}", at)
        rows.append(numbers(" ".join(words[2:]), source, at, 4, "Atom information"))
    if not rows or not source.lines[first - 1 + len(rows)].strip().startswith("----"):
        raise source.error("Atom information: expected tag, number, x, y, z, mass up to a rule; the file is cut", first)
    return np.array(atoms), np.array(rows)[:, :3], np.array(rows)[:, 3]


def _gradient(source: Source, text: str, positions: FloatArray, theory: str) -> FloatArray | None:
    """Return the last printed gradient of the method whose table shows this very geometry."""
    result = None
    pattern = rf"{_GRADIENTS[theory]} ENERGY GRADIENTS *\n\s*\n *atom +coordinates +gradient *\n *x +y.*\n"
    for title in re.finditer(pattern, text):
        rows = [line.split() for line in text[title.end() :].split("\n", len(positions))[: len(positions)]]
        if len(rows) != len(positions) or any(len(row) != 8 for row in rows):
            continue
        values = numbers(" ".join(" ".join(row[2:]) for row in rows), source, source.line_of(title.end()))
        table = values.reshape(-1, 6)
        if np.max(np.abs(table[:, :3] - positions)) < 2e-6:
            result = table[:, 3:]
    return result


def _dipole(source: Source, begin: int, end: int, n: int) -> FloatArray | None:
    """Return the dipole derivatives printed last between two offsets, (3N, 3), e; None where they are not."""
    title = source.text.rfind("X vector of derivative dipole (au)", begin, end)
    if title < 0:
        return None
    found = re.findall(r"^ d_dipole_([xyz])/<atom= *(\d+),([xyz])> = +(-?\d+\.\d+)", source.text[title:end], re.M)
    if [(axis, int(atom), way) for axis, atom, way, _ in found] != [
        (axis, atom, way) for axis in "xyz" for atom in range(1, n + 1) for way in "xyz"
    ]:
        raise source.error(
            f"Derivative Dipole: expected three components for each of {n} atoms, found {len(found)} numbers; the file "
            "is cut",
            source.line_of(title),
        )
    return np.array([float(row[-1]) for row in found]).reshape(3, 3 * n).T


def _theory(text: str) -> str | None:
    tasks = re.findall(r"^ *task +(\w+) +(?:freq|hess)", text, re.M | re.I)
    if tasks:
        name = str(tasks[-1]).lower()
        return "mp2" if name == "direct_mp2" else name if name in _ENERGIES else None
    return next((name for name in ("mp2", "dft", "scf") if re.search(_ENERGIES[name], text, re.M)), None)


def _multiplicity(text: str) -> int | None:
    found = re.findall(r"^ *Spin multiplicity *: +(\d+)", text, re.M)
    shells = re.findall(r"^ *open shells += +(\d+)", text, re.M)
    return int(found[-1]) if found else int(shells[-1]) + 1 if shells else None


def _frequencies(text: str) -> tuple[FloatArray | None, bool]:
    """Return the frequencies, and whether they are those printed after the projection."""
    plain, after = (
        np.array([float(word) for row in re.findall(rf"^ *{name} +(.*)$", text, re.M) for word in row.split()])
        for name in ("Frequency", "P\\.Frequency")
    )
    vibrations = after[after != 0.0]
    if len(after) != len(plain) or not len(vibrations):
        return plain if len(plain) else None, False
    # What the projection took out is nearest to zero in the list before it.
    stiffest = np.sort(plain[np.argsort(np.abs(plain))[len(plain) - len(vibrations) :]])
    kept = bool(np.max(np.abs(np.sort(vibrations) - stiffest)) < _PROJECTION)
    return (after, True) if kept else (plain, False)


def _level(text: str, theory: str | None) -> LevelOfTheory:
    functional = re.findall(r"XC Information *\n *-+ *\n *(\S.*?) +Method XC", text)
    asked = re.findall(r"^ *xc +((?!Gaussian|Information)\S.*?) *$", text, re.M | re.I)
    basis = re.findall(r"^ *\* +library +\"?([^\"\n]+?)\"? *$", text, re.M | re.I)
    version = re.search(r"\(NWChem\) (?:Version )?(\d\S*)", text) or re.search(r"nwchem branch += +(\S+)", text)
    names = {"scf": "HF", "mp2": "MP2", "dft": (asked or functional or ["DFT"])[-1]}
    numerical = "NWChem Finite-difference Hessian" in text
    step = re.findall(r"finite difference hessian delta = +(\d\S*)", text)
    return LevelOfTheory(
        method=names.get(theory or "", "unknown"),
        basis=basis[-1] if basis else None,
        program="NWChem",
        program_version=version.group(1) if version else None,
        hessian="finite_difference" if numerical else "analytic" if "NWChem Analytic Hessian" in text else None,
        displacement=float(step[-1]) * BOHR if numerical and step else None,
    )


def _no_hessian(source: Source) -> Exception:
    marks = ("There is an error in the input", "failed to converge", "This type of error")
    at = next((source.text.find(mark) for mark in marks if mark in source.text), -1)
    if at >= 0:
        line = source.line_of(at)
        why = " ".join(source.lines[line - 1].split())[:100]
        return source.error(f"the NWChem job failed, and there is no Hessian: {why}", line)
    return source.error(
        "no Hessian in this file: NWChem prints it in frequency jobs only (task ... freq)", kind=NoHessianError
    )
