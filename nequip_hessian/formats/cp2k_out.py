"""CP2K outputs of vibrational analyses.

What follows `VIB| Hessian in cartesian coordinates` is mass-weighted: times 10^6,
in Eh/(a0^2 m_e), the full square in blocks of five columns with six decimals, over
the atoms that move only. With fixed atoms the record has a partial Hessian; which
atoms those are stands in the table of the normal modes. Positions (angstrom, six
decimals) and masses are those of the table ATOMIC COORDINATES; energy and forces
those printed as `Minimum Structure`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import recognised_masses
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._blocks import Layout, columns_numbered, read_blocks
from nequip_hessian.formats._source import HEAD, Source, guarded, numbers, provenance, read_output, stem
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2

NAME = "cp2k-out"
PATTERNS = ("*.out", "*.log", "*.cp2k")

FloatArray = npt.NDArray[np.float64]
_TITLE: Final = re.compile(r"^ *VIB\| Hessian in cartesian coordinates *$", re.M)
_TABLE: Final = re.compile(
    r"^ *MODULE \w+: +ATOMIC COORDINATES IN angstrom *\n\s*\n? *Atom +Kind +.*Mass *\n", re.M | re.I
)
_ELECTRON_MASSES: Final = 1822.888486209  # per u, CODATA 2018


def sniff(text: str) -> bool:
    """Say whether a file looks like a CP2K output."""
    return "CP2K|" in text[:HEAD] or "VIB| Hessian in cartesian" in text or "VIB| Vibrational Analysis" in text[:HEAD]


def _row(row: int, column: int, text: str) -> bool:
    return text.split()[:1] == [str(row + 1)]


_LAYOUT: Final = Layout(5, "square", _row, lead=2, heading=columns_numbered)


@guarded("CP2K output")
def read_cp2k_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the Hessian of a CP2K vibrational analysis, the mass weights taken out again.

    Args:
        path: the output file

    Yields:
        One record; with atoms held fixed, a partial Hessian and the indices of those that move.

    Raises:
        NoHessianError: there is none in the file.
        FormatError: cut, damaged or trimmed.
    """
    source = read_output(path)
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        raise _no_hessian(source)
    start = source.line_of(titles[-1].start())
    modes, moving = _modes(source.text[titles[-1].end() :])
    atoms, positions, masses = _atoms(source, len(moving))
    elements = source.text[titles[-1].end() :]
    symbols = re.findall(r"^ *\d+ +([A-Z][a-z]?) +-?\d+\.\d+", elements[: elements.find("VIB|")], re.M)
    symbols = symbols[: 3 * len(moving) : 3]
    if not len(moving) or moving[-1] >= len(atoms) or [atomic_number(s) for s in symbols] != atoms[moving].tolist():
        raise source.error(
            f"expected the normal modes of the {len(symbols)} atoms of the Hessian behind it, found {len(moving)} "
            "atoms that are not those of the table of coordinates; the file is cut or damaged",
            start,
        )
    matrix, _ = read_blocks(source, start, 3 * len(moving), "Hessian", _LAYOUT)
    root = np.sqrt(np.repeat(masses[moving], 3) * _ELECTRON_MASSES)
    yield _record(source, titles[-1], atoms, positions, masses, moving, 1e-6 * matrix * np.outer(root, root), modes)


def _no_hessian(source: Source) -> Exception:
    if "PROGRAM ENDED" not in source.text:
        return source.error("the CP2K job did not end, and there is no Hessian in the file")
    return source.error(
        "no Hessian in this file: CP2K prints it in a VIBRATIONAL_ANALYSIS with its section PRINT/PROGRAM_RUN_INFO on",
        kind=NoHessianError,
    )


def _atoms(source: Source, needed: int) -> tuple[npt.NDArray[np.int_], FloatArray, FloatArray]:
    table = _TABLE.search(source.text)
    if table is None:
        raise source.error(
            f"expected the table ATOMIC COORDINATES of all atoms, found none: the Hessian of {needed} atoms, perhaps a "
            "partial one, cannot be placed without it; convert the whole, untrimmed output"
        )
    atoms: list[int] = []
    rows, decimals = [], 4
    for at in range(source.line_of(table.end()), len(source.lines) + 1):
        words = source.lines[at - 1].split()
        if not words and not atoms:
            continue
        if len(words) != 9 or words[0] != str(len(atoms) + 1):
            break
        atoms.append(int(words[3]))
        decimals = len(words[8].partition(".")[2])
        rows.append(numbers(" ".join([*words[4:7], words[8]]), source, at, 4, "ATOMIC COORDINATES"))
    total = re.search(r"^ *(?:Total number of +)?- Atoms: +(\d+) *$", source.text, re.M)
    if not atoms or (total is not None and int(total.group(1)) != len(atoms)):
        raise source.error("ATOMIC COORDINATES: the table is not whole; the file is cut", source.line_of(table.start()))
    values = np.array(rows)
    return np.array(atoms), values[:, :3], recognised_masses(values[:, 3], np.array(atoms), decimals)


def _modes(text: str) -> tuple[FloatArray | None, npt.NDArray[np.int32]]:
    """Frequencies, cm^-1, and the 0-based atoms of the normal modes."""
    rows = re.findall(r"^ *VIB\|Frequency \(cm\^-1\) +(.*)$", text, re.M)
    values = np.array([float(word) for row in rows for word in row.split()])
    table = re.search(r"^ *ATOM +EL +X +Y +Z.*\n((?: +\d+ +[A-Z][a-z]? .*\n)+)", text, re.M)
    found = [int(line.split()[0]) - 1 for line in table.group(1).strip().split("\n")] if table else []
    return (np.sort(values) if len(values) else None), np.array(found, dtype=np.int32)


def _record(
    source: Source,
    title: re.Match[str],
    atoms: npt.NDArray[np.int_],
    positions: FloatArray,
    masses: FloatArray,
    moving: npt.NDArray[np.int32],
    hessian: FloatArray,
    frequencies: FloatArray | None,
) -> LabelledGeometry:
    text = source.text[: title.start()]
    whole = len(moving) == len(atoms)
    energy, moved = _minimum(text, len(moving))
    forces = None if moved is None else np.full((len(atoms), 3), np.nan)
    if forces is not None and moved is not None:
        forces[moving] = moved
    charge, multiplicity = (re.findall(rf"DFT\| {name} +(-?\d+) *$", text, re.M) for name in ("Charge", "Multiplicity"))
    cell, pbc = _cell(text)
    conversions = {
        "positions": ("angstrom", 1.0),
        "energy": ("Eh", HARTREE),
        "forces": ("Eh/a0", HARTREE_PER_BOHR),
        "hessian": ("1e-6 Eh/(a0^2 m_e) x sqrt(m_i m_j)", HARTREE_PER_BOHR2),
    }
    for name, value in (("energy", energy), ("forces", forces)):
        if value is None:
            del conversions[name]
    return LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions,
        cell=cell,
        pbc=pbc,
        charge=int(charge[-1]) if charge else None,
        multiplicity=int(multiplicity[-1]) if multiplicity else None,
        energy=None if energy is None else energy * HARTREE,
        forces=None if forces is None else forces * HARTREE_PER_BOHR,
        hessian=hessian * HARTREE_PER_BOHR2,
        active=None if whole else moving,
        masses=masses,
        frequencies=frequencies,
        frequencies_projected=None if frequencies is None else whole,
        label=stem(source.path),
        level=_level(text),
        provenance=provenance(
            source,
            NAME,
            conversions,
            hessian=hessian * HARTREE_PER_BOHR2,
            line=source.line_of(title.start()),
            masses_from="file",
        ),
    )


def _minimum(text: str, n: int) -> tuple[float | None, FloatArray | None]:
    """Energy (Eh) and forces (Eh/a0) of the undisplaced geometry, on the atoms that move."""
    head = re.search(
        r"^ *Minimum Structure - Energy and Forces: *\n *VIB\| +Total energy: +(\S+) *\n.*\n", text, re.M | re.I
    )
    if head is None:
        return None, None
    rows = [line.split() for line in text[head.end() :].split("\n", n)[:n]]
    if len(rows) != n or any(len(row) != 5 or row[0] != "VIB|" for row in rows):
        return float(head.group(1)), None
    return float(head.group(1)), np.array([[float(word) for word in row[2:]] for row in rows])


def _cell(text: str) -> tuple[FloatArray | None, npt.NDArray[np.bool_]]:
    rows = re.findall(r"^ *CELL\| Vector [abc] \[angstrom\]: +(-?\S+) +(-?\S+) +(-?\S+) +\|", text, re.M)[:3]
    found = re.search(r"^ *CELL\| Periodicity +(\w+) *$", text, re.M)
    letters = "XYZ" if found is None else found.group(1)
    pbc = np.array([axis in letters for axis in "XYZ"])
    if len(rows) != 3:
        return None, np.zeros(3, dtype=bool)
    return (np.array(rows, dtype=np.float64) if pbc.any() else None), pbc


def _level(text: str) -> LevelOfTheory:
    functionals = re.findall(r"^ *FUNCTIONAL\| +(\w+)(?=:)", text, re.M)
    method = re.search(r"^ *(?:QS|SE)\| (?:Method|Semi-empirical method): +(\S+)", text, re.M | re.I)
    basis = re.search(r"^ *(?:Orbital Basis Set|ORBITAL BASIS) +(\S+)", text, re.M | re.I)
    version = re.search(r"CP2K version (\d\S*)", text)
    name = "+".join(dict.fromkeys(functionals)) if functionals else (method.group(1) if method else "unknown")
    return LevelOfTheory(
        method=name,
        basis=basis.group(1) if basis and functionals else None,
        program="CP2K",
        program_version=version.group(1) if version else None,
        hessian="finite_difference",
    )
