"""VASP OUTCAR files of jobs of finite differences or linear response (IBRION 5 to 8).

`SECOND DERIVATIVES (NOT SYMMETRIZED)` is the matrix of force derivatives in
eV/angstrom^2, of the opposite sign of a Hessian, over the free ions only: with
selective dynamics the record has a partial Hessian. Positions and cell are those
printed first, with eight decimals; forces and the free energy, whose derivatives
the forces are, those of the first ionic step, which is the undisplaced one.
Masses are those of the POTCAR (hydrogen 1.000).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._dipoles import last
from nequip_hessian.formats._source import Source, guarded, numbers, provenance, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "vasp-outcar"
PATTERNS = ("OUTCAR", "OUTCAR.*", "*.OUTCAR", "OUTCAR_*", "*_OUTCAR", "*.outcar")

FloatArray = npt.NDArray[np.float64]
BORN: Final = {"born_charges": ("e", 1.0)}
UNITS: Final = {"positions": ("angstrom", 1.0), "energy": ("eV", 1.0), "forces": ("eV/angstrom", 1.0),
                "hessian": ("-eV/angstrom^2", -1.0)}  # fmt: skip
_TITLE: Final = re.compile(r"^ *SECOND DERIVATIVES \(NOT SYMMETRIZED\) *\n *-+ *\n", re.M)
_SAME: Final = 2e-5  # angstrom; the table of forces prints five decimals
OTHER_FIRST_STEP: Final = (
    "energy and forces were left out: the first step of the job is not at the positions that stand before it; was the "
    "job continued, or is one of the positions wrong in the file?"
)


def sniff(text: str) -> bool:
    """Say whether a file looks like an OUTCAR."""
    return re.match(r"\s*vasp\.\d", text[:200]) is not None or "SECOND DERIVATIVES (NOT SYMMETRIZED)" in text


@guarded("OUTCAR")
def read_vasp_outcar(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the second derivatives of an OUTCAR, with the sign of a Hessian.

    Args:
        path: the file

    Yields:
        One periodic record; with ions held fixed, a partial Hessian and the indices of the free ones.

    Raises:
        NoHessianError: there are none in the file.
        FormatError: cut or damaged, or ions that are free in some directions only.
    """
    source = read_output(path)
    titles = list(_TITLE.finditer(source.text))
    if not titles:
        raise _no_hessian(source)
    atoms, masses = _ions(source)
    cell, positions = _geometry(source, len(atoms))
    free, matrix = _derivatives(source, titles[-1], len(atoms))
    energy, forces = _first_step(source, positions, cell)
    frequencies = _frequencies(source.text[titles[-1].end() :], 3 * len(free))
    born = _born(source, len(atoms))
    missing = {name for name, value in (("energy", energy), ("forces", forces)) if value is None}
    yield LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions,
        cell=cell,
        pbc=True,
        energy=energy,
        forces=forces,
        hessian=-matrix,
        active=None if len(free) == len(atoms) else free.astype(np.int32),
        masses=masses,
        born_charges=born,
        frequencies=frequencies,
        frequencies_projected=None if frequencies is None else False,
        label=None if source.path.parent.name == "" else source.path.resolve().parent.name or None,
        level=_level(source.text),
        provenance=provenance(
            source,
            NAME,
            {name: pair for name, pair in UNITS.items() if name not in missing} | ({} if born is None else BORN),
            hessian=-matrix,
            line=source.line_of(titles[-1].start()),
            warnings=[] if forces is not None else [OTHER_FIRST_STEP],
            masses_from="file",
        ),
    )


def _no_hessian(source: Source) -> Exception:
    if "General timing and accounting" not in source.text:
        return source.error("the VASP job did not end, and there are no second derivatives in the file")
    return source.error(
        "no Hessian in this file: VASP prints SECOND DERIVATIVES in jobs with IBRION 5, 6, 7 or 8 only",
        kind=NoHessianError,
    )


def _ions(source: Source) -> tuple[npt.NDArray[np.int_], FloatArray]:
    names = re.findall(r"^ *VRHFIN *=\s*([A-Za-z]+)", source.text, re.M)
    masses = re.findall(r"^ *POMASS = +(\d+\.\d*); *ZVAL", source.text, re.M)
    found = re.search(r"^ *ions per type = +([\d ]+)$", source.text, re.M)
    counts = [int(word) for word in found.group(1).split()] if found else []
    if not counts or len(names) != len(counts) or len(masses) != len(counts):
        raise source.error(
            f"expected element, mass and number of each type of ion, found {len(names)} elements (VRHFIN), "
            f"{len(masses)} masses (POMASS) and {len(counts)} numbers (ions per type); the file is cut or damaged"
        )
    declared = re.search(r"\bNIONS = +(\d+)", source.text)
    if declared is None or int(declared.group(1)) != sum(counts):
        raise source.error(f"expected NIONS = {sum(counts)}, the sum of the ions per type; the file is damaged")
    atoms = np.repeat([atomic_number(name) for name in names], counts)
    return atoms, np.repeat([float(mass) for mass in masses], counts)


def _geometry(source: Source, n: int) -> tuple[FloatArray, FloatArray]:
    lattice = re.search(r"^ *direct lattice vectors +reciprocal lattice vectors *\n", source.text, re.M)
    table = re.search(r"^ *position of ions in cartesian coordinates +\(Angst\): *\n", source.text, re.M)
    if lattice is None or table is None:
        raise source.error("expected lattice vectors and positions of the ions; the file is cut or damaged")
    first = source.line_of(lattice.end())
    both = np.array(
        [numbers(source.lines[first - 1 + i], source, first + i, 6, "direct lattice vectors") for i in range(3)]
    )
    require_reciprocal(source, both[:, :3], both[:, 3:], first)
    start = source.line_of(table.end())
    if start - 1 + n > len(source.lines):
        raise source.error(f"position of ions: expected {n} lines; the file is cut", start)
    positions = [numbers(source.lines[start - 1 + i], source, start + i, 3, "position of ions") for i in range(n)]
    return both[:, :3], np.array(positions)


def require_reciprocal(source: Source, cell: FloatArray, reciprocal: FloatArray, line: int | None = None) -> None:
    """Refuse lattice vectors (3, 3), angstrom, that contradict the reciprocal ones (3, 3), 1/angstrom, beside them."""
    if np.max(np.abs(cell @ reciprocal.T - np.eye(3))) > 1e-5 * max(1.0, float(np.max(np.abs(cell)))):
        raise source.error(
            "the lattice vectors and the reciprocal ones do not fit together: a number is wrong, the file is damaged",
            line,
        )


def same_place(first: FloatArray, second: FloatArray, cell: FloatArray, tolerance: float) -> bool:
    """Say whether two (N, 3) geometries, angstrom, are the same but for lattice vectors."""
    shift = (first - second) @ np.linalg.inv(cell)
    return bool(np.max(np.abs((shift - np.round(shift)) @ cell)) < tolerance)


def _derivatives(source: Source, title: re.Match[str], n: int) -> tuple[npt.NDArray[np.int_], FloatArray]:
    at = source.line_of(title.end()) - 1  # 0-based line of the names of the degrees of freedom
    names = source.lines[at].split() if at < len(source.lines) else []
    pairs = [re.fullmatch(r"(\d+)([XYZ])", name) for name in names]
    if not names or any(pair is None for pair in pairs):
        raise source.error("SECOND DERIVATIVES: expected names like 1X 1Y 1Z over the columns", at + 1)
    ions = np.array([int(pair.group(1)) - 1 for pair in pairs if pair])
    axes = "".join(pair.group(2) for pair in pairs if pair)
    free = np.unique(ions)
    if axes != "XYZ" * len(free) or not np.array_equal(ions, np.repeat(free, 3)) or free[-1] >= n:
        raise source.error(
            "SECOND DERIVATIVES: an ion that is free in some directions only (or an order of ions other than that "
            "of the POSCAR) cannot be stored; only whole ions can be held fixed",
            at + 1,
        )
    matrix = np.empty((len(names), len(names)))
    for row, name in enumerate(names):
        words = source.lines[at + 1 + row].split() if at + 1 + row < len(source.lines) else []
        if not words or words[0] != name:
            raise source.error(f"SECOND DERIVATIVES: expected the row {name}; the file is cut or damaged", at + 2 + row)
        matrix[row] = numbers(" ".join(words[1:]), source, at + 2 + row, len(names), f"SECOND DERIVATIVES, row {name}")
    return free, matrix


def _first_step(source: Source, positions: FloatArray, cell: FloatArray) -> tuple[float | None, FloatArray | None]:
    table = re.search(r"^ *POSITION +TOTAL-FORCE \(eV/Angst\) *\n *-+ *\n", source.text, re.M)
    energy = re.search(r"^ *free  energy   TOTEN += +(-?\d+\.\d+) eV", source.text, re.M)
    forces = None
    if table is not None:
        start = source.line_of(table.end())
        rows = [line.split() for line in source.lines[start - 1 : start - 1 + len(positions)]]
        if len(rows) == len(positions) and all(len(row) == 6 for row in rows):
            values = np.array([numbers(" ".join(row), source, start, 6, "TOTAL-FORCE") for row in rows])
            forces = values[:, 3:] if same_place(values[:, :3], positions, cell, _SAME) else None
    if forces is None:  # the first step is of another geometry: a continued or unusual job
        return None, None
    return (float(energy.group(1)) if energy else None), forces


def _born(source: Source, n: int) -> FloatArray | None:
    """Return the Born effective charges printed last with local field effects, (N, 3, 3), e, rows the field."""
    title = last(source, r"^ *BORN EFFECTIVE CHARGES \((?!excluding)[^\n]*\n *-+ *\n")
    if title is None:
        return None
    start, what = source.line_of(title.end()), "BORN EFFECTIVE CHARGES"
    charges = np.empty((n, 3, 3))
    for row in range(4 * n):
        ion, component = divmod(row, 4)
        words = source.lines[start - 1 + row].split() if start + row <= len(source.lines) else []
        if words[: 1 if component else 2] != ([str(component)] if component else ["ion", str(ion + 1)]):
            raise source.error(f"{what}: expected those of ion {ion + 1}; the file is cut or damaged", start + row)
        if component:
            charges[ion, component - 1] = numbers(" ".join(words[1:]), source, start + row, 3, what)
    return charges


def _frequencies(text: str, count: int) -> FloatArray | None:
    found = re.findall(r"^ *\d+ +f(/i)? *= +\d+\.\d+ THz +\d+\.\d+ 2PiTHz +(\d+\.\d+) cm-1", text, re.M)
    values = np.array([-float(value) if imaginary else float(value) for imaginary, value in found[:count]])
    return np.sort(values) if len(values) == count else None


def _level(text: str) -> LevelOfTheory:
    functional = re.search(r"^ *GGA += +(\S+) +GGA type", text, re.M)
    potential = re.search(r"^ *TITEL += +PAW_(\S+)", text, re.M)
    name = functional.group(1) if functional and functional.group(1) != "--" else None
    known = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "91": "PW91", "CA": "LDA", "BF": "BEEF-vdW"}
    version = re.match(r"\s*vasp\.(\S+)", text[:200])
    ibrion = re.search(r"^ *IBRION += +(\d+)", text, re.M)
    step = re.search(r"^ *POTIM += +(\d*\.\d+)", text, re.M)
    numerical = ibrion is not None and ibrion.group(1) in ("5", "6")
    dispersion = re.search(r"^ *IVDW += +([1-9]\d*)", text, re.M)
    return LevelOfTheory(
        method=known.get(name, name) if name else (potential.group(1) if potential else "unknown"),
        dispersion=f"IVDW = {dispersion.group(1)}" if dispersion else None,
        program="VASP",
        program_version=version.group(1) if version else None,
        hessian="finite_difference" if numerical else "analytic" if ibrion and ibrion.group(1) in "78" else None,
        displacement=float(step.group(1)) if numerical and step else None,
    )
