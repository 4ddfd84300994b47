"""Jaguar restart files (.01.in) with a `&hess` section.

Lower triangle in Eh/a0^2, in blocks of five columns, seven digits; a line with the
number of the first column stands before each block. `&zmat` holds the positions in
angstrom, in the frame of the Hessian. Jaguar writes a guess of the Hessian to the
restart files of optimisations, too: only one of a job with `ifreq` is taken.
Frequencies come from the output beside the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, record_of, sources_beside
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._blocks import Layout, numbered, read_blocks
from nequip_hessian.formats._dipoles import last
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "jaguar-in"
PATTERNS = ("*.[0-9][0-9].in", "*.jin")

FloatArray = npt.NDArray[np.float64]


def sniff(text: str) -> bool:
    """Say whether a file looks like an input or restart file of Jaguar."""
    return re.search(r"^&(?:gen|zmat)\b", text[:HEAD], re.M) is not None


def _heading(column: int, words: list[str]) -> bool:
    return words == [str(column + 1)]


_LAYOUT: Final = Layout(5, "triangle", numbered, heading=_heading)


@guarded("Jaguar restart file")
def read_jaguar_in(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the Hessian of a Jaguar restart file with its geometry.

    Args:
        path: the file; the output of the job is looked for in its folder

    Yields:
        One record.

    Raises:
        NoHessianError: there is no `&hess` section, or that of an optimisation.
        FormatError: cut or damaged.
    """
    source = read_output(path)
    sections = {match.group(1).lower(): match for match in re.finditer(r"^&(\w+)", source.text, re.M)}
    if "hess" not in sections:
        raise source.error("no Hessian in this file: there is no &hess section", kind=NoHessianError)
    settings = dict(re.findall(r"^(\w+) *= *(\S+)", source.text, re.M))
    if settings.get("ifreq", "0") == "0":
        raise source.error(
            "no true Hessian in this file: without ifreq=1 the &hess section is that of an optimisation, a guess",
            kind=NoHessianError,
        )
    if "zmat" not in sections:
        raise source.error("expected the geometry in a &zmat section, found none")
    atoms, positions = _atoms(source, sections["zmat"])
    start = source.line_of(sections["hess"].end())
    matrix, end = read_blocks(source, start, 3 * len(atoms), "&hess", _LAYOUT)
    if end >= len(source.lines) or source.lines[end].strip() != "&":
        raise source.error(f"&hess: expected its end after {3 * len(atoms)} rows; the file is cut or damaged", end + 1)
    output = _output(source, atoms)
    energy = None if output is None else _energy(output.text)
    frequencies = None
    if output is not None:
        rows = re.findall(r"^ *frequencies +(-?\d.*)$", output.text, re.M)
        frequencies = np.array([float(word) for row in rows for word in row.split()])
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            matrix,
            length="angstrom",
            energy=energy,
            charge=int(settings["molchg"]) if "molchg" in settings else None,
            multiplicity=int(settings["multip"]) if "multip" in settings else None,
            masses_from=ISOTOPIC,
            frequencies=frequencies if frequencies is not None and len(frequencies) else None,
            projected=True,
            dipole=None if output is None else _dipole(output, len(atoms)),
            level=_level(settings, output),
            line=start,
            companions=() if output is None else (output,),
        ),
    )


def _atoms(source: Source, section: re.Match[str]) -> tuple[npt.NDArray[np.int_], FloatArray]:
    start = source.line_of(section.end()) + 1
    atoms, rows = [], []
    for at in range(start, len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if words == ["&"] or not words:
            break
        if len(words) != 4:
            raise source.error("&zmat: expected name, x, y, z: only Cartesian geometries are read", at)
        atoms.append(atomic_number(re.sub(r"[\d_@*#].*$", "", words[0])))
        rows.append(numbers(" ".join(word.rstrip("#*") for word in words[1:]), source, at, 3, "&zmat"))
    if not atoms:
        raise source.error("&zmat: expected name, x, y, z; the section is empty", start)
    return np.array(atoms), np.array(rows)


def _output(source: Source, atoms: npt.NDArray[np.int_]) -> Source | None:
    """Find the Jaguar output of the job: one of the same name up to `.01`, with as many atoms in its modes."""
    stem = re.sub(r"\.\d\d$", "", source.path.stem)
    for output in sources_beside(source.path, (".out", ".log")):
        names = set(re.findall(r"^ *([A-Z][a-z]?\d+) +X +-?\d", output.text, re.M))
        if output.path.stem == stem and "Jaguar version" in output.text and len(names) in (0, len(atoms)):
            return output
    return None


def _dipole(output: Source, n: int) -> FloatArray | None:
    """Return the atomic polar tensors printed last, (3N, 3), e, four decimals; None where there are none."""
    title = last(output, r"^ *Atomic Polar Tensors \(au\): Total *\n *=+ *\n")
    if title is None:
        return None
    number = r" +(-?\d+\.\d+)"
    tensor = rf"^ *APT for atom +\S+ *\n *-+ *\n((?:(?:{number}){{3}} *\n){{3}}) *-+ *\n"
    found = re.findall(tensor, output.text[title.end() :], re.M)
    if len(found) != n:
        raise output.error(
            f"Atomic Polar Tensors: expected those of {n} atoms, found {len(found)}; the file is cut or damaged",
            output.line_of(title.start()),
        )
    values = numbers(" ".join(one[0] for one in found), output, output.line_of(title.start()), 9 * n, "APT")
    return values.reshape(3 * n, 3)


def _energy(text: str) -> float | None:
    found = re.findall(r"^ *SCFE: SCF energy: .*?(-?\d+\.\d+) +hartrees", text, re.M)
    return float(found[-1]) if found else None


def _level(settings: dict[str, str], output: Source | None) -> LevelOfTheory:
    version = re.search(r"Jaguar version (\d[\d.]*)", output.text) if output else None
    return LevelOfTheory(
        method=settings.get("dftname", "HF"),
        basis=settings.get("basis"),
        program="Jaguar",
        program_version=version.group(1) if version else None,
        hessian="analytic" if settings.get("ifreq") == "1" and settings.get("nmder") != "2" else None,
    )
