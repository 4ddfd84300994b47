"""Crystals and reference force constants from files: what `nequip-hessian phonons` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from nequip_hessian.errors import ConfigError, FormatError, NoHessianError
from nequip_hessian.record import LabelledGeometry


@dataclass(frozen=True, eq=False)
class CrystalFile:
    """A unit cell, and what a phonopy file says beside it (None elsewhere)."""

    atoms: Atoms
    supercell: Any = None
    born: Any = None


def read_crystal(path: str) -> CrystalFile:
    """Read a unit cell from a file ASE knows, or from a YAML file of phonopy with its supercell and Born charges.

    Raises:
        FormatError: no such file, damaged, or no crystal in it.
    """
    if Path(path).name.endswith((".yaml", ".yaml.xz", ".yaml.bz2", ".yaml.gz")):
        from nequip_hessian.formats import _phonopy
        from nequip_hessian.formats._source import read_source

        found = _phonopy.load(read_source(Path(path)))
        unit, factor = found.phonon.unitcell, found.length_factor()
        cell, positions = np.asarray(unit.cell) * factor, np.asarray(unit.positions) * factor
        atoms = Atoms(unit.numbers, positions, cell=cell, pbc=True, masses=unit.masses)
        return CrystalFile(atoms, np.asarray(found.phonon.supercell_matrix), found.phonon.nac_params)
    from nequip_hessian.analysis.geometries import read_geometries

    atoms = read_geometries(path)[-1]
    if abs(np.linalg.det(np.asarray(atoms.cell))) < 1e-6:
        raise FormatError(
            f"{path}: expected a crystal, found no cell with a volume; phonons need a cell periodic in three "
            "directions (a molecule is for nequip-hessian vibrations)"
        )
    if not np.all(atoms.pbc):
        raise FormatError(
            f"{path}: expected a crystal, found a cell periodic along {atoms.pbc.tolist()}; for phonons set pbc to all "
            "three directions"
        )
    return CrystalFile(atoms)


def read_reference(path: str, atoms: Atoms, index: int | None = None) -> Any:
    """Read reference force constants as a `phonopy.Phonopy`, in eV and angstrom.

    Args:
        path: a phonopy YAML file with its force constants, or a Hessian store
        atoms: the crystal; a store is searched for it
        index: which geometry of a store; default: the only one that fits

    Raises:
        FormatError, StoreError: the file; ConfigError: no or several geometries that fit.
    """
    from nequip_hessian.formats._phonopy import calculation_of

    place = Path(path)
    if place.name.endswith((".zarr", ".zarr.zip")):
        record = _from_store(place, atoms, index)
    elif not place.is_file():
        raise FormatError(f"{path}: no such file; expected phonopy.yaml with its force constants, or a Hessian store")
    else:
        from nequip_hessian.formats.phonopy_files import read_phonopy_files

        record = next(iter(read_phonopy_files(place)))
    made = calculation_of(record, path)
    return _as_primitive(made, record)


def _as_primitive(made: Any, record: LabelledGeometry) -> Any:
    """The same calculation over the primitive cell that symmetry finds, so that wave vectors mean the same."""
    from nequip_hessian.analysis.force_constants import phonon_calculation

    unit = made.unitcell
    atoms = Atoms(unit.numbers, unit.positions, cell=unit.cell, pbc=True, masses=unit.masses)
    phonon = phonon_calculation(atoms, made.supercell_matrix)
    count = len(record)
    hessian = np.asarray(record.hessian, dtype=np.float64).reshape(count, 3, count, 3)
    phonon.force_constants = np.ascontiguousarray(hessian.transpose(0, 2, 1, 3))
    if made.nac_params is not None:
        charges = np.asarray(record.born_charges)[np.asarray(phonon.primitive.p2s_map)]
        phonon.nac_params = {**made.nac_params, "born": charges}
    return phonon


def _from_store(place: Path, atoms: Atoms, index: int | None) -> LabelledGeometry:
    from nequip_hessian.store import HessianStore

    store = HessianStore(place)
    if index is not None:
        if not 0 <= index < len(store):
            raise ConfigError(f"--record {index}: {place} has geometries 0 to {len(store) - 1}")
        record = store[index]
        if record.hessian is None or record.active is not None or not np.all(record.pbc):
            raise NoHessianError(f"{place}: geometry {index}: expected a crystal with a whole Hessian")
        return record
    wanted = atoms.get_chemical_formula(empirical=True)
    found = []
    for k in np.flatnonzero(np.asarray(store.has_hessian)):
        record = store[int(k)]
        if record.supercell_matrix is None or record.active is not None:
            continue
        other = Atoms(np.asarray(record.numbers, dtype=int)).get_chemical_formula(empirical=True)
        if other == wanted:
            found.append((int(k), record))
    if len(found) != 1:
        listed = ", ".join(f"{k} ({record.label})" for k, record in found[:12]) or "none"
        raise ConfigError(
            f"{place}: expected one phonon calculation of {wanted}, found {len(found)}: {listed}; "
            + ("choose one with --record" if found else "the store has no supercell Hessian of this crystal")
        )
    return found[0][1]
