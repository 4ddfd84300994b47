"""geomeTRIC: `hessian.txt`, the full square in Eh/a0^2, a row a line, with `coords.xyz` (angstrom) beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._sink import atomic_hessian, new_folder, xyz_text
from nequip_hessian.formats._source import (
    ATOMIC_UNITS,
    Source,
    guarded,
    numbers,
    provenance,
    read_source,
    require_line_end,
)
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "geometric-txt"
PATTERNS = ("hessian*.txt",)
_FULL = re.compile(r"-?\d\.\d{18}e[-+]\d\d", re.IGNORECASE)  # a table of three columns is common, this form is not


def sniff(text: str) -> bool:
    """Say whether a text is a square matrix of numbers with exponents, of 3N rows; of one atom with all digits."""
    first = text.lstrip().partition("\n")[0].split()
    if not first or len(first) % 3 or not all("e" in token.lower() and "." in token for token in first):
        return False
    if len(first) == 3 and not all(_FULL.fullmatch(token) for token in first):
        return False
    return sum(1 for line in text.split("\n") if line.strip()) == len(first)


@guarded("geomeTRIC hessian.txt")
def read_geometric_txt(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a Hessian that geomeTRIC wrote, with the geometry beside it.

    Args:
        path: the file hessian.txt; its geometry is coords.xyz, or the only .xyz of that size in the folder

    Yields:
        One record; neither energy nor forces nor charge are in these files.

    Raises:
        FormatError: cut, damaged, no square matrix, or no geometry beside it.
    """
    source = read_source(path)
    require_line_end(source)
    rows = [line for line in source.lines if line.strip()]
    order = len(rows)
    if order % 3:
        raise source.error(f"expected 3N rows of 3N numbers, found {order} rows; the file is cut or of another program")
    matrix = np.array([numbers(row, source, i + 1, order, "row of the Hessian") for i, row in enumerate(rows)])
    geometry, atoms, positions = _geometry(source, order // 3)
    generic = source.path.stem.startswith("hessian")
    yield LabelledGeometry(
        numbers=atoms,
        positions=positions,
        hessian=matrix * ATOMIC_UNITS["hessian"][1],
        label=(source.path.absolute().parent.name or source.path.stem) if generic else source.path.stem,
        level=LevelOfTheory("unknown", hessian="finite_difference"),
        provenance=provenance(
            source,
            NAME,
            {"positions": ("angstrom", 1.0), "hessian": ATOMIC_UNITS["hessian"]},
            companions=[geometry.facts()],
        ),
    )


def _geometry(source: Source, count: int) -> tuple[Source, npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    folder = source.path.parent
    named = folder / "coords.xyz"
    candidates = [named] if named.is_file() else sorted(folder.glob("*.xyz"))
    fitting = [other for other in map(read_source, candidates) if other.lines[0].strip() == str(count)]
    if len(fitting) != 1:
        raise source.error(
            f"the file holds no geometry: expected coords.xyz of {count} atoms beside it, found "
            f"{len(fitting) or 'no'} such .xyz"
        )
    require_line_end(fitting[0])
    rows = [line.split() for line in fitting[0].lines[2 : 2 + count]]
    if len(rows) != count or any(len(row) < 4 for row in rows):
        raise fitting[0].error(f"expected {count} atoms, the file is cut")
    atoms = np.array([atomic_number(row[0]) for row in rows], dtype=np.uint8)
    return fitting[0], atoms, np.array([[float(value) for value in row[1:4]] for row in rows])


# -- writing --------------------------------------------------------------------------------


def write_geometric_txt(path: str | Path, record: LabelledGeometry, *, overwrite: bool = False) -> None:
    """Write a folder with `hessian.txt` and `coords.xyz`, for `geometric-optimize --hessian file:hessian.txt`.

    Args:
        path: the folder to make
        record: a molecule with a whole Hessian; nothing but Hessian and geometry has a place in this format
        overwrite: replace a folder that is there

    Raises:
        FormatError: no whole Hessian, a periodic geometry, or something at `path`.
    """
    hessian = atomic_hessian(record, NAME)
    with new_folder(path, overwrite=overwrite) as folder:
        np.savetxt(folder / "hessian.txt", hessian)
        (folder / "coords.xyz").write_text(xyz_text(record, record.label or ""), encoding="utf-8")
