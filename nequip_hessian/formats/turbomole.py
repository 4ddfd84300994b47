"""Turbomole: a `control` file or a file `hessian` or `nprhessian`, with `coord` and what else lies in the folder.

`$hessian (projected)`, and `$nprhessian` without the projection of rigid motions, are
the full square in Eh/a0^2: lines of two numbers (row, line of the row; they may
touch) and five elements. The unprojected one is taken where both are there.
`$coord` is in a0. Energy and forces come from the last cycle of `gradient` if that is
of the same geometry, where there is none the energy from the last line of `energy`;
frequencies from `$vibrational spectrum` or `vibspectrum`. Masses are standard atomic weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats._assemble import AVERAGE, Parsed, record_of
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._source import Source, guarded, numbers, read_output, read_source
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "turbomole"
PATTERNS = ("control", "hessian", "nprhessian")

FloatArray = npt.NDArray[np.float64]
_GROUPS: Final = ("nprhessian", "hessian")
_DATA: Final = re.compile(r"^\$(?:nprhessian|hessian)[^\n]*\n *\d+ +\d+ +-?\d+\.\d+", re.M)
_NUMBER: Final = re.compile(r"-?\d*\.\d+(?:[EeDd][+-]\d+)?")


def sniff(text: str) -> bool:
    """Say whether a file looks like a Turbomole control file or Hessian."""
    if "$hessian" not in text and "$nprhessian" not in text and "$coord" not in text:
        return False
    return _DATA.search(text) is not None or re.search(r"^\$coord\b.*\bfile=", text, re.M) is not None


class _Folder:
    """The data groups of a run: in the file itself, in `control`, and in the files that `control` names."""

    def __init__(self, source: Source) -> None:
        self.main = source
        self.used: list[Source] = []
        control = source.path.parent / "control"
        self.control = source if source.path.name == "control" else self._open(control)

    def _open(self, path: Path) -> Source | None:
        try:
            return read_source(path) if path.is_file() else None
        except FormatError:
            return None

    def group(self, name: str, default: str | None = None) -> tuple[Source, str, int] | None:
        """Return the file, the text behind the heading of `$name` and its line, or None.

        Args:
            name: of the data group
            default: name of the file it is in where no `control` says so
        """
        sources = [self.main, *([self.control] if self.control and self.control is not self.main else [])]
        for source in sources:
            found = re.search(rf"^\${name}\b([^\n]*)\n([^$]*)", source.text, re.M)
            if found is None:
                continue
            reference = re.search(r"\bfile=(\S+)", found.group(1))
            if reference is None:
                self._use(source)
                return source, found.group(2), source.line_of(found.start(2))
            default = reference.group(1)
        beside = self._open(self.main.path.parent / Path(default).name) if default else None
        found = re.search(rf"^\${name}\b([^\n]*)\n([^$]*)", beside.text, re.M) if beside else None
        if beside is None or found is None:
            return None
        self._use(beside)
        return beside, found.group(2), beside.line_of(found.start(2))

    def _use(self, source: Source) -> None:
        if source is not self.main and source not in self.used:
            self.used.append(source)


@guarded("Turbomole")
def read_turbomole(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a Turbomole Hessian with its geometry.

    Args:
        path: `control`, `hessian` or `nprhessian`; companions are looked for in its folder

    Yields:
        One record.

    Raises:
        NoHessianError: neither the file nor what it names has a Hessian.
        FormatError: cut or damaged, or there is no `$coord`.
    """
    source = read_output(path)
    folder = _Folder(source)
    # Of a run with both files each of them gives the unprojected one, so that the run is in the store once.
    groups = [folder.group(name, name if source.path.name in ("control", "hessian") else None) for name in _GROUPS]
    hessian = next((found for found in groups if found and _NUMBER.search(found[1])), None)
    if hessian is None:
        raise source.error(
            "no Hessian in this file: neither $nprhessian nor $hessian has numbers, here or in the files named; "
            "aoforce and NumForce write them",
            kind=NoHessianError,
        )
    coord = folder.group("coord", "coord")
    if coord is None:
        raise source.error("the file holds no geometry: expected the file `coord` of the run beside it, found none")
    atoms, positions = _atoms(*coord)
    matrix = _matrix(hessian[0], hessian[1], hessian[2], 3 * len(atoms))
    energy, gradient = _gradient(folder, atoms, positions)
    frequencies = _frequencies(folder)
    output = folder._open(source.path.parent / "aoforce.out")
    first = folder._open(source.path.parent / "hessian")
    if first is not None and first is not source and first.text.lstrip().startswith("level"):
        folder.used.append(first)  # aoforce's scratch copy of the same matrix, in another layout
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            matrix,
            energy=energy,
            gradient=gradient,
            charge=_option(folder, r"\bcharge= *(-?\d+)"),
            masses_from=AVERAGE,
            frequencies=frequencies,
            projected=True,
            dipole=_dipole(folder, len(atoms)),
            level=_level(folder, output),
            line=hessian[2],
            companions=(*folder.used, *([output] if output is not None else [])),
        ),
    )


def _atoms(source: Source, text: str, line: int) -> tuple[npt.NDArray[np.int_], FloatArray]:
    atoms, rows = [], []
    for at, row in enumerate(text.split("\n"), line):
        words = row.split("#")[0].split()
        if not words:
            continue
        if len(words) not in (4, 5):
            raise source.error("$coord: expected x, y, z, element", at)
        atoms.append(atomic_number(words[3]))
        rows.append(numbers(" ".join(words[:3]), source, at, 3, "$coord"))
    if not atoms:
        raise source.error("$coord: no atoms; the file is cut or damaged", line)
    return np.array(atoms), np.array(rows)


def _matrix(source: Source, text: str, line: int, order: int) -> FloatArray:
    """Read the square; the number of each line within its row starts anew with each row."""
    matrix = np.empty((order, order))
    lines = text.rstrip().split("\n")
    at = 0
    for row in range(order):
        values: list[str] = []
        while len(values) < order:
            content = lines[at] if at < len(lines) else ""
            found = _NUMBER.findall(content)
            label = content[: content.find(found[0])].split() if found else []
            expected = str(len(values) // 5 + 1)
            if not found or not "".join(label).endswith(expected) or not "".join(label).startswith(str(row + 1)):
                raise source.error(
                    f"$hessian: expected line {expected} of row {row + 1} of {order}; the file is cut or damaged",
                    line + at,
                )
            values += found
            at += 1
        matrix[row] = numbers(" ".join(values), source, line + at, order, f"$hessian, row {row + 1}")
    if any(content.strip() for content in lines[at:]):
        raise source.error(
            f"$hessian: expected {order} rows, found more: the Hessian is of another molecule", line + at
        )
    return matrix


def _gradient(
    folder: _Folder, atoms: npt.NDArray[np.int_], positions: FloatArray
) -> tuple[float | None, FloatArray | None]:
    """Energy and gradient of the last cycle of `$grad`, where its geometry is that of `$coord`; without any gradient
    the last energy of `$energy`.
    """
    found = folder.group("grad", "gradient")
    cycles = re.split(r"^ *cycle *=", found[1], flags=re.M)[1:] if found else []
    if not cycles:
        return _last_energy(folder), None
    energy = re.search(r"energy *= *(-?\d+\.\d+)", cycles[-1])
    rows = [row.split() for row in cycles[-1].split("\n")[1:] if row.strip()]
    n = len(atoms)
    if len(rows) != 2 * n or any(len(row) < 3 for row in rows):
        return None, None
    table = np.array([[float(word.replace("D", "E")) for word in row[:3]] for row in rows])
    if np.max(np.abs(table[:n] - positions)) > 1e-6:
        return None, None
    return (float(energy.group(1)) if energy else None), table[n:]


def _last_energy(folder: _Folder) -> float | None:
    found = folder.group("energy", "energy")
    rows = re.findall(r"^ *\d+ +(-?\d+\.\d+)", found[1], re.M) if found else []
    return float(rows[-1]) if rows else None


def _dipole(folder: _Folder, n: int) -> FloatArray | None:
    """Return `$dipgrad`, one line a coordinate, (3N, 3), e; None where there is none."""
    found = folder.group("dipgrad", "dipgrad")
    if found is None or not found[1].strip():
        return None
    return numbers(found[1], found[0], found[2], 9 * n, "$dipgrad").reshape(3 * n, 3)


def _frequencies(folder: _Folder) -> FloatArray | None:
    found = folder.group("vibrational spectrum", "vibspectrum")
    rows = re.findall(r"^ *\d+ +(?:[A-Za-z]\S* +)?(-?\d+\.\d+) ", found[1], re.M) if found else []
    return np.array(rows, dtype=np.float64) if rows else None


def _option(folder: _Folder, pattern: str) -> int | None:
    found = re.search(pattern, folder.control.text) if folder.control else None
    return int(found.group(1)) if found else None


def _level(folder: _Folder, output: Source | None) -> LevelOfTheory:
    text = folder.control.text if folder.control else ""
    functional = re.search(r"^ *functional +(\S+)", text, re.M)
    basis = re.findall(r"^ *basis *= *\S+ +(.*?) *\\?$", text, re.M)
    dispersion = re.search(r"^\$(disp\d?\w*(?: +-?\w+)?)", text, re.M)
    version = re.search(r"TURBOMOLE +(?:rev\. +)?V?(\d\S*)", output.text) if output else None
    return LevelOfTheory(
        method=functional.group(1) if functional else ("HF" if "$closed shells" in text else "unknown"),
        basis=basis[0] if basis and len(set(basis)) == 1 else (", ".join(dict.fromkeys(basis)) or None),
        dispersion=dispersion.group(1) if dispersion else None,
        program="Turbomole",
        program_version=version.group(1) if version else None,
        hessian="analytic" if output is not None else None,
    )
