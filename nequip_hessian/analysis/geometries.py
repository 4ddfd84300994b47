"""Geometries from any file ASE reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError

from nequip_hessian.errors import ConfigError, FormatError

STATE: Final = ("charge", "multiplicity", "spin")
"""Keys of `info` that say which electronic state a geometry is in: e; 2S + 1, under either name."""


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

    A job keeps of each frame its atoms, masses, cell and constraints, and of `info` the electronic state (`STATE`):
    an energy, Hessian, level or role belongs to the geometry that was read, not to what the job makes of it.

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
    return [_bare(atoms) for atoms in frames]


def state_of(atoms: Atoms) -> dict[str, Any]:
    """What `info` says of the electronic state; empty where it says nothing."""
    return {name: atoms.info[name] for name in STATE if atoms.info.get(name) is not None}


def _bare(atoms: Atoms) -> Atoms:
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=state_of(atoms))
    if atoms.has("masses"):
        bare.set_masses(atoms.get_masses())
    bare.set_constraint(atoms.constraints)
    return bare
