"""Geometries from any file ASE reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError

from nequip_hessian.errors import ConfigError, FormatError


def require_molecule(job: str, atoms: Atoms) -> None:
    """Refuse what is no free molecule of two or more atoms.

    Args:
        job: for the message
        atoms: the geometry

    Raises:
        ConfigError: one atom, or a cell periodic in some direction.
    """
    if len(atoms) < 2:
        raise ConfigError(f"{job}: expected a molecule of two or more atoms, found {len(atoms)}")
    if np.any(atoms.pbc):
        raise ConfigError(
            f"{job}: {atoms.get_chemical_formula()}: expected a free molecule, found a periodic cell; a molecule in a "
            'box can be written without it (pbc="F F F")'
        )


def other_atoms(first: Atoms, second: Atoms) -> str | None:
    """Say how the atoms of two geometries differ, by kind and order; None where they do not."""
    if first.numbers.tolist() == second.numbers.tolist():
        return None
    formulas = first.get_chemical_formula(), second.get_chemical_formula()
    if formulas[0] != formulas[1]:
        return f"{formulas[0]} and {formulas[1]}"
    index = int(np.flatnonzero(first.numbers != second.numbers)[0])
    symbols = first.symbols[index], second.symbols[index]
    where = f"atom {index} (from 0) is {symbols[0]} in the one and {symbols[1]} in the other"
    return f"another order of {formulas[0]}: {where}"


def read_geometries(path: str | Path) -> list[Atoms]:
    """Read all geometries of a file, angstrom, without whatever labels the file has.

    Raises:
        FormatError: not there, of no format ASE knows, damaged, or without a geometry.
    """
    place = Path(path)
    if not place.is_file():
        raise FormatError(f"{path}: {'a folder, not a file' if place.is_dir() else 'no such file'}")
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
