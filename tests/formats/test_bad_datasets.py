"""Data sets and binary files, cut or with bytes changed: a HessianDataError that names the file, or a record."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from molecules import labelled
from test_hdf5_datasets import openreact, pysisyphus, themol
from test_hessian_qm9 import table
from test_hessian_qm9 import write as write_arrow
from test_lmdb import ase_row
from test_lmdb import write as write_lmdb

from nequip_hessian.errors import HessianDataError
from nequip_hessian.formats import format_of, read
from nequip_hessian.formats.deepmd_npy import write_deepmd_npy
from nequip_hessian.formats.geometric_txt import write_geometric_txt
from nequip_hessian.formats.phonopy_files import write_phonopy_files
from nequip_hessian.record import LabelledGeometry

FIXTURES = {
    "phonopy/phonopy.yaml": "phonopy",
    "phonopy/FORCE_CONSTANTS": "phonopy",
    "h5/force_constants.hdf5": "phonopy",
    "dp/H2O/set.000/hessian.npy": "deepmd-npy",
    "dp/H2O/set.000/coord.npy": "deepmd-npy",
    "dp/H2O/type.raw": "deepmd-npy",
    "geo/hessian.txt": "geometric-txt",
    "geo/coords.xyz": "geometric-txt",
    "a.aselmdb": "ase-lmdb",
    "a.db": "ase-db",
    "vacuum/a.arrow": "hessian-qm9",
    "molecules-IRC.h5": "openreact-h5",
    "hessian_0.h5": "themol-h5",
    "final_hessian.h5": "pysisyphus-h5",
}
NAMED = {"coord.npy": "hessian.npy", "type.raw": "set.000/hessian.npy", "coords.xyz": "hessian.txt"}
NAMED |= {"phonopy.yaml": "phonopy.yaml", "FORCE_CONSTANTS": "phonopy.yaml"}


def crystal() -> LabelledGeometry:
    atoms = bulk("Cu", cubic=True)
    springs = 10 * (np.eye(12) - np.tile(np.eye(3), (4, 4)) / 4)
    return LabelledGeometry(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True, hessian=springs
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One sound file of each format."""
    from phonopy.file_IO import write_force_constants_to_hdf5

    path = tmp_path_factory.mktemp("sound")
    water, cyanide = labelled("H2O", 0), labelled("HCN", 1)
    write_phonopy_files(path / "phonopy", crystal())
    shutil.copytree(path / "phonopy", path / "h5")
    (path / "h5" / "FORCE_CONSTANTS").unlink()
    blocks = crystal().hessian.reshape(4, 3, 4, 3).transpose(0, 2, 1, 3)
    write_force_constants_to_hdf5(np.ascontiguousarray(blocks), str(path / "h5" / "force_constants.hdf5"))
    write_deepmd_npy(path / "dp", [water])
    write_geometric_txt(path / "geo", water)
    write_lmdb(path / "a.aselmdb", {1: ase_row(water, hessian=water.hessian)})
    atoms = Atoms(numbers=water.numbers, positions=water.positions)
    atoms.calc = SinglePointCalculator(atoms, energy=water.energy, forces=water.forces)
    with connect(path / "a.db") as rows:
        rows.write(atoms, data={"hessian": water.hessian})
    write_arrow(path / "vacuum" / "a.arrow", table([water]))
    openreact(path / "molecules-IRC.h5", [water, cyanide])
    themol(path / "hessian_0.h5", [water, cyanide])
    pysisyphus(path / "final_hessian.h5", water)
    return path


def place(folder: Path, name: str, tmp_path: Path) -> tuple[Path, Path]:
    """Copy everything; return the file to damage and the one to read."""
    shutil.copytree(folder, tmp_path / "all")
    path = tmp_path / "all" / name
    wanted = NAMED.get(path.name, path.name)
    return path, path.parent / wanted


def outcome(path: Path, reader: str) -> list | HessianDataError:
    """Read all records, or return the error; any other exception is a failure of the test."""
    try:
        return list(read(path, reader))
    except HessianDataError as exc:
        return exc


def one_line(error: HessianDataError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 900
    return text


def rounds(name: str) -> int:
    return 6 if FIXTURES[name] == "phonopy" else 25  # phonopy takes its time


@pytest.mark.parametrize("name", FIXTURES)
def test_cut_at_any_byte(folder, tmp_path, name):
    damaged, path = place(folder, name, tmp_path)
    assert format_of(path).name == FIXTURES[name]
    reference = list(read(path))
    whole = damaged.read_bytes()
    refused = 0
    for cut in np.linspace(1, len(whole) - 2, rounds(name)).astype(int):
        damaged.write_bytes(whole[:cut])
        result = outcome(path, FIXTURES[name])
        if isinstance(result, HessianDataError):
            refused += 1
            assert damaged.name in one_line(result) or path.name in one_line(result)
            continue
        for record, made in zip(result, reference, strict=True):
            assert record.numbers.tolist() == made.numbers.tolist()
            assert np.max(np.abs(record.hessian - made.hessian)) < 1e-9
            assert np.max(np.abs(record.positions - made.positions)) < 1e-9
    assert refused > (rounds(name) // 3 if damaged.suffix not in (".raw", ".xyz") else 3)


@pytest.mark.parametrize("name", FIXTURES)
def test_bytes_changed(folder, tmp_path, name):
    damaged, path = place(folder, name, tmp_path)
    whole = damaged.read_bytes()
    rng = np.random.default_rng(11)
    for _ in range(rounds(name)):
        noisy = bytearray(whole)
        at = int(rng.integers(0, max(1, len(whole) - 4)))
        noisy[at : at + 4] = rng.integers(1, 256, len(noisy[at : at + 4]), dtype=np.uint8).tobytes()
        damaged.write_bytes(bytes(noisy))
        result = outcome(path, FIXTURES[name])
        if isinstance(result, HessianDataError):
            one_line(result)
        else:
            assert all(record.hessian is None or np.all(np.isfinite(record.hessian)) for record in result)
        with contextlib.suppress(HessianDataError):
            format_of(path)
