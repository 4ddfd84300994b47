"""Extended XYZ with a Hessian: one frame a geometry, everything in units of the package.

The convention, per frame: `hessian` is either an entry of the comment line with
9 N^2 numbers (row-major, degree of freedom 3*atom + xyz), n(n+1)/2 numbers (row-major
lower triangle) or nested lists, or an atom property of 9 N columns (three rows of
the matrix an atom); eV/angstrom^2, +d2E/dxdx. `energy` in eV, `forces` in
eV/angstrom, `masses` in u, `dipole_derivatives` in e (nine columns an atom: dmu_x, dmu_y, dmu_z by x, then by y,
then by z). `charge`, `multiplicity`, `kind`, `role`, `group`,
`path_coordinate` (u^1/2 angstrom), `label`, `active` (atom indices of a partial
Hessian), `frequencies` (cm^-1, imaginary negative) and `level` (JSON, see
`LevelOfTheory`) are entries of the comment line.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import read_extxyz as ase_read_extxyz

from nequip_hessian.curvature import packed_size, unpack
from nequip_hessian.errors import FormatError
from nequip_hessian.formats._source import Source, guarded, provenance, stem
from nequip_hessian.formats._stream import head_of, lines_of, scan_source
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "extxyz"
PATTERNS = ("*.xyz", "*.extxyz", "*.xyz.gz", "*.extxyz.gz", "*.xyz.xz", "*.extxyz.xz")

_MATRIX: Final = re.compile(r'(?<=[\s])hessian="([-+\d.eE\s]+)"(?=\s|$)')
_TEXT_FIELDS: Final = ("kind", "role", "group", "label")
_NUMBER_FIELDS: Final = ("charge", "multiplicity", "path_coordinate")


def recognises(path: Path) -> bool:
    """Say whether a file looks like an extended XYZ file that could hold a Hessian, energies or forces."""
    lines = head_of(path).split("\n", 2) if path.is_file() else [""]
    return lines[0].strip().isdigit() and len(lines) > 1 and ("Properties=" in lines[1] or "hessian=" in lines[1])


@guarded("extended XYZ")
def read_extxyz(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the frames of an extended XYZ file, one after the other: files may be larger than the memory.

    Args:
        path: the file, possibly compressed

    Yields:
        One record a frame; frames without `hessian` give records without one.

    Raises:
        FormatError: damaged, a frame is cut, or a matrix does not fit its number of atoms.
    """
    source, encoding = scan_source(path)
    for index, (line, text) in enumerate(_frames(source, lines_of(source, encoding))):
        text, matrix = _without_matrix(text)
        try:
            atoms = next(iter(ase_read_extxyz(io.StringIO(text), index=0)))
        except (OSError, ValueError, KeyError, IndexError, TypeError, AssertionError) as exc:
            raise source.error(f"frame {index}: no valid extended XYZ ({exc})", line) from None
        try:
            yield _record(source, atoms, index, matrix)
        except (ValueError, TypeError) as exc:
            if str(source.path) in str(exc):
                raise
            raise source.error(f"frame {index}: {exc}", line) from None


def _frames(source: Source, lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    for at, first in (numbered := enumerate(lines, 1)):
        if not first.strip():
            continue
        if not first.strip().isdigit():
            raise source.error(f"expected the number of atoms of a frame, found {first.strip()[:40]!r}", at)
        count = int(first)
        frame = [line for _, line in itertools.islice(numbered, count + 1)]
        if len(frame) < count + 1 or any(not row.strip() for row in frame[1:]):
            raise source.error(f"the frame of {count} atoms is cut; fetch the whole file", at)
        yield at, "\n".join([first, *frame]) + "\n"


def _without_matrix(frame: str) -> tuple[str, npt.NDArray[np.float64] | None]:
    """Take a Hessian of plain numbers out of the comment line: ASE reads such lines one character at a time."""
    found = _MATRIX.search(frame)
    if found is None:
        return frame, None
    values = np.array([float(token) for token in found.group(1).split()])
    return frame[: found.start()] + " " + frame[found.end() :], values


def _record(source: Source, atoms: Atoms, index: int, matrix: npt.NDArray[np.float64] | None) -> LabelledGeometry:
    info, arrays = dict(atoms.info), atoms.arrays
    results = atoms.calc.results if atoms.calc is not None else {}
    active = _flat(info.get("active"))
    rows = len(atoms) if active is None else len(active)
    hessian = _hessian(
        source, matrix if matrix is not None else info.get("hessian", arrays.get("hessian")), rows, index
    )
    energy, forces = results.get("energy", info.get("energy")), results.get("forces", arrays.get("forces"))
    level = info.get("level")
    fields: dict[str, Any] = {name: str(info[name]) for name in _TEXT_FIELDS if name in info}
    fields |= {name: info[name] for name in _NUMBER_FIELDS if name in info}
    if "label" not in fields:
        fields["label"] = f"{stem(source.path)}-{index}"
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.array(atoms.cell) if atoms.cell.any() else None,
        pbc=atoms.pbc,
        energy=None if energy is None else float(energy),
        forces=None if forces is None else np.asarray(forces, dtype=np.float64),
        hessian=hessian,
        active=None if active is None else active.astype(int),
        masses=arrays.get("masses"),
        dipole_derivatives=_dipole(source, arrays.get("dipole_derivatives"), len(atoms), index),
        frequencies=_flat(info.get("frequencies")),
        level=_level(source, level, index),
        provenance=provenance(source, NAME, {}, hessian=hessian, index=index),
        **fields,
    )


def _flat(value: Any) -> npt.NDArray[np.float64] | None:
    # ASE turns nine numbers into a 3 x 3 array in column order, one number into a scalar.
    return None if value is None else np.asarray(value, dtype=np.float64).ravel(order="F")


def _hessian(source: Source, value: Any, rows: int, index: int) -> npt.NDArray[np.float64] | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise source.error(f"frame {index}: hessian: expected numbers, found {str(value)[:40]!r}")
    n = 3 * rows
    if array.ndim == 1 and array.size == packed_size(n) and n > 1:
        return np.asarray(unpack(array.astype(np.float64)), dtype=np.float64)
    if array.size != n * n:
        raise source.error(
            f"frame {index}: hessian: expected {n * n} numbers (full) or {packed_size(n)} (lower triangle) "
            f"for {rows} atoms, found {array.size}"
        )
    if array.shape == (rows, rows, 3, 3) and rows > 1 and rows != 3:
        array = array.transpose(0, 2, 1, 3)
    return array.reshape(n, n, order="C").astype(np.float64)


def _dipole(source: Source, value: Any, n: int, index: int) -> npt.NDArray[np.float64] | None:
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64)
    if array.size != 9 * n:
        raise source.error(
            f"frame {index}: dipole_derivatives: expected nine numbers an atom, found {array.size / n:g}"
        )
    return array.reshape(3 * n, 3)


def _level(source: Source, value: Any, index: int) -> LevelOfTheory:
    if value is None or np.size(value) == 0 or value == "":
        return LevelOfTheory("unknown")
    try:
        content = json.loads(value) if isinstance(value, str) and value.lstrip().startswith("{") else value
    except json.JSONDecodeError as exc:
        raise source.error(f"frame {index}: level: no valid JSON ({exc.msg})") from None
    if isinstance(content, Mapping):
        known = {key: content[key] for key in LevelOfTheory.__dataclass_fields__ if content.get(key) is not None}
        return LevelOfTheory(**known)
    return LevelOfTheory(str(content))


# -- writing --------------------------------------------------------------------------------


def write_extxyz(path: str | Path, records: Iterable[LabelledGeometry]) -> int:
    """Write records to an extended XYZ file that `read_extxyz` reads back to the same numbers.

    Args:
        path: the file; it appears only when all frames are written, and is replaced if it exists
        records: labelled geometries; a missing label is left out. Stored products have no
            place in this format

    Returns:
        How many frames were written.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    count = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for record in records:
                file.write(_frame_text(record))
                count += 1
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return count


def _row(values: npt.ArrayLike) -> str:
    return " ".join(repr(float(v)) for v in np.asarray(values, dtype=np.float64).ravel())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _frame_text(record: LabelledGeometry) -> str:
    entries: list[str] = []
    if np.any(record.pbc) or np.any(record.cell):
        entries.append(f'Lattice="{_row(np.asarray(record.cell))}"')
    columns, names = [record.positions], ["species:S:1", "pos:R:3"]
    if record.forces is not None:
        columns.append(record.forces)
        names.append("forces:R:3")
    if record.masses is not None:
        columns.append(record.masses[:, None])
        names.append("masses:R:1")
    if record.dipole_derivatives is not None:
        columns.append(np.reshape(record.dipole_derivatives, (len(record), 9)))
        names.append("dipole_derivatives:R:9")
    entries.append("Properties=" + ":".join(names))
    entries.append('pbc="' + " ".join("T" if p else "F" for p in np.asarray(record.pbc)) + '"')
    if record.energy is not None:
        entries.append(f"energy={record.energy!r}")
    entries += [f"{name}={value}" for name in _NUMBER_FIELDS if (value := getattr(record, name)) is not None]
    entries += [f"{name}={_quoted(value)}" for name in _TEXT_FIELDS if (value := getattr(record, name)) is not None]
    level = {key: value for key, value in record.level.as_dict().items() if value is not None}
    entries.append("level=" + _quoted("_JSON " + json.dumps(level)))
    if record.active is not None:
        entries.append('active="' + " ".join(str(int(a)) for a in record.active) + '"')
    if record.frequencies is not None:
        entries.append(f'frequencies="{_row(record.frequencies)}"')
    if record.hessian is not None:
        entries.append(f'hessian="{_row(record.hessian)}"')
    comment = " ".join(entries)
    if re.search(r"[\r\n]", comment):
        raise FormatError("extended XYZ: a text field holds a line break")
    rows = np.concatenate([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    symbols = [chemical_symbols[int(number)] for number in record.numbers]
    body = "".join(f"{symbol} {_row(row)}\n" for symbol, row in zip(symbols, rows, strict=True))
    return f"{len(record)}\n{comment}\n{body}"
