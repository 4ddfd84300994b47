"""A bare NumPy array of a Hessian with a geometry beside it, as q2mm keeps its references.

`<name>-hessian.npy` is the full (3N, 3N) square in Eh/a0^2; the geometry is the .xyz
of N atoms in the folder whose name begins like it, frequencies (cm^-1, one a line)
those of `<name>-frequencies.txt`. An array says no unit: where there are no
frequencies to hold it against, only the size of the force constants speaks for it.
Arrays of Python objects are never loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, files_beside, record_of, sources_beside
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._binary import NUMPY, binary_source, first_bytes
from nequip_hessian.formats._source import Source, guarded, numbers, read_source
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "q2mm-npy"
PATTERNS = ("*-hessian.npy", "*_hessian.npy")

FloatArray = npt.NDArray[np.float64]
_ENDINGS: Final = ("-hessian.npy", "_hessian.npy", ".npy")


def recognises(path: Path) -> bool:
    """Say whether a file is a NumPy array called a Hessian, and no part of a set of many frames."""
    named = path.name.lower().endswith(_ENDINGS) and "hess" in path.name.lower()
    return named and first_bytes(path).startswith(NUMPY) and not (path.parent / "coord.npy").exists()


@guarded("NumPy Hessian")
def read_q2mm_npy(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a Hessian kept as a NumPy array, with the geometry beside it.

    Args:
        path: the .npy file

    Yields:
        One record.

    Raises:
        FormatError: no real square matrix of order 3N, or no .xyz of N atoms beside it, or several.
    """
    source = binary_source(path, "a NumPy array", NUMPY)
    try:
        array = np.load(source.path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as exc:
        raise source.error(f"no whole NumPy array of numbers ({exc}); the file is cut or damaged") from exc
    square = isinstance(array, np.ndarray) and array.ndim == 2 and array.shape[0] == array.shape[1]
    if not square or array.dtype.kind != "f" or array.shape[0] % 3 or not array.size:
        found = f"shape {array.shape}, dtype {array.dtype}" if isinstance(array, np.ndarray) else "an archive"
        raise source.error(f"expected a real matrix of shape (3N, 3N), found {found}; of what format is it?")
    geometry, atoms, positions = _geometry(source, len(array) // 3)
    beside, frequencies = _frequencies(source)
    yield record_of(
        source,
        NAME,
        Parsed(
            atoms,
            positions,
            array.astype(np.float64),
            length="angstrom",
            masses_from=ISOTOPIC,
            frequencies=frequencies,
            projected=True,
            level=LevelOfTheory("unknown"),
            companions=(geometry,) if beside is None else (geometry, beside),
        ),
    )


def _stem(path: Path) -> str:
    return next(path.name[: -len(ending)] for ending in (*_ENDINGS, "") if path.name.lower().endswith(ending))


def _geometry(source: Source, n: int) -> tuple[Source, npt.NDArray[np.int_], FloatArray]:
    fitting: dict[str, tuple[Source, npt.NDArray[np.int_], FloatArray]] = {}
    for beside in files_beside(source.path, (".xyz",)):
        try:
            geometry = read_source(beside)
            rows = [line.split() for line in geometry.lines[2 : 2 + n]]
            if int(geometry.lines[0]) != n or len(rows) != n:
                continue
            atoms = np.array([atomic_number(row[0]) for row in rows])
            positions = np.array([[float(word) for word in row[1:4]] for row in rows]).reshape(n, 3)
        except (FormatError, ValueError, IndexError):
            continue
        fitting[beside.name] = (geometry, atoms, positions)
    stem = _stem(source.path)
    named = {name: entry for name, entry in fitting.items() if name.startswith(stem)} or fitting
    if len(named) == 1:
        return next(iter(named.values()))
    found = f"several ({', '.join(named)})" if named else "none"
    raise source.error(
        f"the file holds no geometry: expected one .xyz of {n} atoms beside it, found {found}; "
        f"call the one of the Hessian {stem}.xyz"
    )


def _frequencies(source: Source) -> tuple[Source | None, FloatArray | None]:
    stem = _stem(source.path)
    for beside in sources_beside(source.path, (".txt", ".dat")):
        if beside.path.name.startswith(stem) and "freq" in beside.path.name.lower():
            text = "\n".join(line.split("#")[0] for line in beside.lines)
            try:
                return beside, numbers(text, beside, 1, None, "frequencies")
            except FormatError:
                continue
    return None, None
