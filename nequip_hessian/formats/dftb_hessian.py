"""DFTB+: `hessian.out`, bare numbers in Eh/a0^2, with the geometry of the run in .gen format.

The full square, four numbers a line, each row of the matrix on lines of its own. Of
several .gen files in the folder that is taken which `modes_in.hsd` names.
Frequencies (Eh) come from the `vibrations.tag` of the program `modes`. Masses are
standard atomic weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._assemble import AVERAGE, Parsed, files_beside, record_of
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._source import Source, guarded, numbers, read_source, require_line_end
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import CM_TO_EV, HARTREE

NAME = "dftb-hessian"
PATTERNS = ("hessian.out", "hessian*.out", "*hessian.out")

FloatArray = npt.NDArray[np.float64]
_WORD: Final = r"[ \t]*-?\d+\.\d+(?:[Ee][+-]\d+)?"
_HEAD: Final = re.compile(rf"\s*?(?:(?:{_WORD}){{4}}[ \t]*\n|(?:{_WORD}){{3}}[ \t]*\n){{2}}")
_NOTHING: Final = 0.01  # cm^-1, below which a frequency of `modes` is a rigid motion that was projected out


def sniff(text: str) -> bool:
    """Say whether a file looks like DFTB+'s hessian.out: four numbers a line and nothing else."""
    return _HEAD.match(text[:400]) is not None and re.fullmatch(r"[\s\d.Ee+-]*", text) is not None


@guarded("DFTB+ hessian.out")
def read_dftb_hessian(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a DFTB+ Hessian with its geometry.

    Args:
        path: the file hessian.out; a .gen file is looked for in its folder

    Yields:
        One record; periodic where the .gen file is.

    Raises:
        FormatError: cut or damaged, or no .gen file fits, or several do.
    """
    source = read_source(path)
    if not sniff(source.text):
        raise source.error("expected DFTB+'s hessian.out: four numbers a line and nothing else")
    require_line_end(source)
    values = numbers(source.text, source, 1, None, "Hessian")
    order = round(len(values) ** 0.5)
    if order * order != len(values) or order % 3 or not order:
        raise source.error(f"expected the (3N)^2 numbers of a square matrix, found {len(values)}; the file is cut")
    geometry, atoms, positions, cell = _geometry(source, order // 3)
    tag, frequencies = _frequencies(source.path.parent, order)
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            values.reshape(order, order),
            length="angstrom",
            masses_from=AVERAGE,
            frequencies=frequencies,
            projected=True,
            level=LevelOfTheory("DFTB (parameters unknown)", program="DFTB+", hessian="finite_difference"),
            companions=(geometry,) if tag is None else (geometry, tag),
        ),
        cell=cell,
        pbc=cell is not None,
    )


def _gen(source: Source) -> tuple[npt.NDArray[np.int_], FloatArray, FloatArray | None]:
    """Read a .gen file: cluster (C), supercell (S) or fractional coordinates (F); angstrom."""
    lines = [line.split("#")[0] for line in source.lines if line.split("#")[0].strip()]
    count, kind = lines[0].split()[:2]
    n, kind = int(count), kind.upper()
    if kind not in ("C", "S", "F"):
        raise source.error(f"expected a geometry of kind C, S or F, found {kind!r}", 1)
    species = [atomic_number(word) for word in lines[1].split()]
    rows = [line.split() for line in lines[2 : 2 + n]]
    if len(rows) != n or any(len(row) < 5 for row in rows):
        raise source.error(f"expected {n} lines of index, species, x, y, z; the file is cut")
    atoms = np.array([species[int(row[1]) - 1] for row in rows])
    positions = np.array([[float(word) for word in row[2:5]] for row in rows])
    if kind == "C":
        return atoms, positions, None
    cell = np.array([[float(word) for word in line.split()[:3]] for line in lines[3 + n : 6 + n]])
    if cell.shape != (3, 3):
        raise source.error("expected an origin and three lattice vectors behind the atoms; the file is cut")
    return atoms, positions @ cell if kind == "F" else positions, cell


def _geometry(source: Source, n: int) -> tuple[Source, npt.NDArray[np.int_], FloatArray, FloatArray | None]:
    folder = source.path.parent
    fitting = {}
    for beside in files_beside(source.path, (".gen",)):
        try:
            geometry = read_source(beside)
            atoms, positions, cell = _gen(geometry)
        except (FormatError, ValueError, IndexError):
            continue
        if len(atoms) == n:
            fitting[beside.name] = (geometry, atoms, positions, cell)
    named = ""
    if (folder / "modes_in.hsd").is_file():
        found = re.search(r"<<<\s*\"?([^\"\s]+\.gen)", read_source(folder / "modes_in.hsd").text)
        named = Path(found.group(1)).name if found else ""
    if named in fitting:
        return fitting[named]
    if named and (folder / named).exists():
        raise source.error(
            f"modes_in.hsd names the geometry {named}, which is no whole .gen file of {n} atoms; fetch it again"
        )
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    listed = f"several ({', '.join(fitting)}); modes_in.hsd does not say which" if fitting else "none"
    raise source.error(
        f"the file holds no geometry: expected one .gen file of {n} atoms beside it, found {listed}; put the one at "
        "which the second derivatives were taken there"
    )


def _frequencies(folder: Path, order: int) -> tuple[Source | None, FloatArray | None]:
    for name in ("vibrations.tag", "_vibrations.tag"):
        if not (folder / name).is_file():
            continue
        try:
            source = read_source(folder / name)
            found = re.search(rf"^ *frequencies *:real:1:{order} *\n((?:[ \d.Ee+-]+\n)+)", source.text, re.M)
            if found is None:
                continue
            values = numbers(found.group(1), source, source.line_of(found.start(1)), order, "frequencies")
        except FormatError:
            continue
        values = values * HARTREE / CM_TO_EV
        return source, values[np.abs(values) > _NOTHING]
    return None, None
