"""Gaussian output files (.log, .out): the archive block at the end of a frequency job.

The block starts with ` 1\\1\\`, is wrapped at 70 characters with a leading blank and
ends with `\\\\@`; on Windows its separator is a vertical bar. Behind `NImag=n` come
the lower triangle of the Hessian (Eh/a0^2, rows, 8 decimals) and then the gradient
(Eh/a0, +dE/dx). Both are in the frame of the geometry in the SAME block (the input
orientation), not in the standard orientation printed all over the file. The last
block with a Hessian counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import packed_size, unpack
from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._atoms import atomic_number, isotopic_masses, unrounded_masses
from nequip_hessian.formats._gaussian import level_of_theory
from nequip_hessian.formats._source import (
    ATOMIC_UNITS,
    Source,
    atomic_conversions,
    guarded,
    numbers,
    provenance,
    read_source,
    stem,
)
from nequip_hessian.record import LabelledGeometry

NAME = "gaussian-log"
PATTERNS = ("*.log", "*.out", "*.LOG", "*.OUT")

_START = re.compile(r"^ 1([\\|])1\1", re.MULTILINE)
# The value of the highest method there is: each later one is only a step on the way to it.
_ENERGY_KEYS: Final = ("CCSD(T)", "CCSD", "QCISD(T)", "QCISD", "MP4SDTQ", "MP4SDQ", "MP4DQ", "MP3", "MP2", "HF")


def sniff(text: str) -> bool:
    """Say whether a file looks like a Gaussian output."""
    head = text[:20000]
    return (
        "Entering Gaussian System" in head
        or "Gaussian, Inc." in head
        or re.search(r"^ \*+\n Gaussian \S+", head, re.MULTILINE) is not None
        or (_START.search(text) is not None and "GINC-" in text)
    )


@dataclass(frozen=True)
class _Block:
    """One archive block: unwrapped text, its separator and where it lies in the file."""

    text: str
    separator: str
    begin: int
    line: int
    complete: bool


def _blocks(source: Source) -> list[_Block]:
    blocks = []
    for match in _START.finditer(source.text):
        separator, begin = match.group(1), match.start()
        pieces: list[str] = []
        for row in source.text[begin:].split("\n"):
            if not row.startswith(" ") or not row.strip():
                break
            pieces.append(row[1:])
            if "".join(pieces[-2:]).rstrip().endswith(separator + "@"):
                break
        text = "".join(pieces).rstrip()
        blocks.append(_Block(text, separator, begin, source.line_of(begin), text.endswith(separator + "@")))
    return blocks


@guarded("Gaussian output")
def read_gaussian_log(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read geometry, Hessian and gradient of the last archive block that holds them.

    Args:
        path: the .log or .out file

    Yields:
        One record in the frame of the archive block, with the energy of the highest method in
        it, charge, multiplicity, masses and frequencies printed for that job.

    Raises:
        NoHessianError: the job ended well, but no archive block holds a Hessian.
        FormatError: the job failed, or the file is cut or damaged.
    """
    source = read_source(path)
    blocks = _blocks(source)
    with_hessian = [block for block in blocks if re.search(r"NImag=\s*\d+", block.text)]
    if not with_hessian:
        raise _no_hessian(source, blocks)
    block = with_hessian[-1]
    before = [other.begin for other in blocks if other.begin < block.begin]
    yield _record(source, block, source.text[max(before, default=0) : block.begin])


def _no_hessian(source: Source, blocks: list[_Block]) -> Exception:
    for index in range(len(source.lines) - 1, -1, -1):
        if "Error termination" in source.lines[index]:
            return source.error(f"the Gaussian job failed: {source.lines[index].strip()[:80]}", index + 1)
    if any(not block.complete for block in blocks):
        return source.error("the archive block at the end is cut; fetch the whole file", blocks[-1].line)
    if "Normal termination" not in source.text:
        return source.error("the Gaussian job did not end: no 'Normal termination' and no archive block with a Hessian")
    return source.error(
        "no Hessian in this file; expected the archive block of a frequency job (NImag=...)", kind=NoHessianError
    )


def _record(source: Source, block: _Block, job: str) -> LabelledGeometry:
    sections = block.text.split(2 * block.separator)
    place = next(i for i, section in enumerate(sections) if re.search(r"NImag=\s*\d+", section))
    if not block.complete or place + 2 >= len(sections):
        raise source.error("the archive block is cut behind NImag; fetch the whole file", block.line)
    header = sections[0].split(block.separator)
    geometry = next((s for s in sections[1:place] if re.match(r"^-?\d+,\d+" + re.escape(block.separator), s)), None)
    if geometry is None:
        raise source.error("the archive block holds no geometry; convert the .fchk of this job", block.line)
    charge, multiplicity, atoms, positions = _geometry(source, block, geometry, job)
    n = len(atoms)
    packed = numbers(sections[place + 1], source, block.line, packed_size(3 * n), "Hessian in the archive block")
    gradient = numbers(sections[place + 2], source, block.line, 3 * n, "gradient in the archive block")
    energy = _energy(block, sections)
    masses = _masses(job, atoms)
    method, basis = (header[4], header[5]) if len(header) > 5 else ("unknown", "")
    route = sections[1].strip() if len(sections) > 1 else ""
    version = re.search(r"^ Gaussian (\S+?),? +Revision (\S+?),", source.text, re.MULTILINE)
    return LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions,
        charge=charge,
        multiplicity=multiplicity,
        hessian=unpack(packed * ATOMIC_UNITS["hessian"][1]),
        forces=gradient.reshape(n, 3) * ATOMIC_UNITS["forces"][1],
        energy=None if energy is None else energy * ATOMIC_UNITS["energy"][1],
        masses=isotopic_masses(atoms) if masses is None else masses,
        frequencies=_frequencies(source, job),
        frequencies_projected=True,
        label=stem(source.path),
        level=level_of_theory(method, basis, route, "Gaussian", " ".join(version.groups()) if version else None),
        provenance=provenance(
            source,
            NAME,
            {**atomic_conversions(energy=energy is not None), "positions": ("angstrom", 1.0)},
            line=block.line,
            route=route[:500] or None,
            masses_from="file" if masses is not None else "convention: most abundant isotopes",
        ),
    )


def _geometry(
    source: Source, block: _Block, section: str, job: str
) -> tuple[int, int, npt.NDArray[np.int_], npt.NDArray[np.float64]]:
    first, *rows = section.strip(block.separator).split(block.separator)
    charge, multiplicity = (int(v) for v in first.split(",")[:2])
    atoms, positions = [], []
    for row in rows:
        name, *fields = row.split(",")
        try:
            atoms.append(atomic_number(re.split(r"[(\-]", name)[0]))
        except ValueError as exc:
            raise source.error(f"archive geometry: {exc}", block.line) from None
        values = [field for field in fields if "." in field]
        if len(values) != 3:  # a Z-matrix row: names of lengths and angles, which follow in the next section
            return charge, multiplicity, *_input_orientation(source, block, job, len(rows))
        positions.append(numbers(" ".join(values), source, block.line, 3, "archive geometry"))
    if not atoms:
        raise source.error("archive geometry: no atoms", block.line)
    return charge, multiplicity, np.array(atoms), np.array(positions)


def _input_orientation(
    source: Source, block: _Block, job: str, n_atoms: int
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.float64]]:
    """Cartesian coordinates of a job whose archive holds a Z-matrix: the frame is that of the input orientation."""
    tables = list(re.finditer(r"^ *(?:Input|Z-Matrix) orientation: *\n(?:.*\n){4}", job, re.MULTILINE))
    if not tables:
        raise source.error(
            "the archive block holds a Z-matrix and the file no input orientation; convert the .fchk of this job",
            block.line,
        )
    rows = [line.split() for line in job[tables[-1].end() :].split("\n", n_atoms)[:n_atoms]]
    if any(len(row) != 6 for row in rows) or len(rows) != n_atoms:
        raise source.error(
            f"Input orientation: expected {n_atoms} atoms as in the archive block (a Z-matrix with dummy atoms?); "
            "convert the .fchk of this job",
            block.line,
        )
    atoms = np.array([atomic_number(row[1]) for row in rows])
    return atoms, np.array([[float(value) for value in row[3:]] for row in rows])


def _energy(block: _Block, sections: list[str]) -> float | None:
    found: dict[str, str] = {}
    for section in sections:
        for entry in section.split(block.separator):
            key, mark, value = entry.partition("=")
            if mark and key in _ENERGY_KEYS:
                found[key] = value.split(",")[0]
    for key in _ENERGY_KEYS:
        if key in found:
            return float(found[key])
    return None


def _masses(job: str, atoms: npt.NDArray[np.int_]) -> npt.NDArray[np.float64] | None:
    rows = re.findall(r"^ Atom\s+(\d+) has atomic number\s+\d+ and mass\s+(\S+)", job, re.MULTILINE)[-len(atoms) :]
    if [int(index) for index, _ in rows] != list(range(1, len(atoms) + 1)):
        return None
    return unrounded_masses(np.array([float(mass) for _, mass in rows]), atoms)


def _frequencies(source: Source, job: str) -> npt.NDArray[np.float64] | None:
    # freq=HPmodes prints everything twice, first with three dashes and more digits of the modes.
    part = job[job.rfind("Harmonic frequencies (cm**-1)") :] if "Harmonic frequencies" in job else ""
    rows = re.findall(r"^ Frequencies --(?!-)(.*)$", part, re.MULTILINE)
    rows = rows or re.findall(r"^ *Frequencies ---(?!-)(.*)$", part, re.MULTILINE)
    if not rows:
        return None
    return np.sort(numbers(" ".join(rows), source, 1, None, "printed frequencies"))
