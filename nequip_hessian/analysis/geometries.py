"""Geometries from any file ASE reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError

from nequip_hessian.errors import FormatError


def read_geometries(path: str | Path) -> list[Atoms]:
    """Read all geometries of a file, angstrom, without whatever labels the file has.

    Raises:
        FormatError: not there, of no format ASE knows, damaged, or without a geometry.
    """
    place = Path(path)
    if not place.is_file():
        raise FormatError(f"{path}: no such file")
    if place.stat().st_size == 0:
        raise FormatError(f"{path}: the file is empty")
    try:
        found = read(place, index=":")
    except UnknownFileTypeError as exc:
        raise FormatError(f"{path}: ASE does not know this file format; write the geometry as .xyz") from exc
    except Exception as exc:  # ASE's readers raise anything on a damaged file
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise FormatError(f"{path}: ASE cannot read a geometry from it ({type(exc).__name__}: {reason})") from exc
    frames = [atoms for atoms in found if isinstance(atoms, Atoms)] if isinstance(found, list) else [found]
    if not frames:
        raise FormatError(f"{path}: no geometry in it")
    for index, atoms in enumerate(frames):
        if not len(atoms) or not np.all(np.isfinite(atoms.positions)):
            raise FormatError(f"{path}: geometry {index}: expected one or more atoms at finite positions")
        if np.any(atoms.numbers < 1):
            raise FormatError(f"{path}: geometry {index}: an atom of unknown element")
        atoms.calc = None
    return frames
