"""One sound data set or binary file of each format that holds them, for the tests that damage them."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

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
    "q2mm/ts-hessian.npy": "q2mm-npy",
    "a.aselmdb": "ase-lmdb",
    "a.lmdb": "horm-lmdb",
    "a.db": "ase-db",
    "vacuum/a.arrow": "hessian-qm9",
    "molecules-IRC.h5": "openreact-h5",
    "hessian_0.h5": "themol-h5",
    "final_hessian.h5": "pysisyphus-h5",
}
"""File to damage -> its format."""

NAMED = {
    "coord.npy": "hessian.npy",
    "type.raw": "set.000/hessian.npy",
    "coords.xyz": "hessian.txt",
    "phonopy.yaml": "phonopy.yaml",
    "FORCE_CONSTANTS": "phonopy.yaml",
}
"""File that is damaged -> the file, from its folder, that is read, where that is another."""


def read_of(damaged: Path) -> Path:
    """The file that is read where a file is damaged."""
    return damaged.parent / NAMED.get(damaged.name, damaged.name)


def crystal() -> LabelledGeometry:
    """Four atoms of copper with springs to the lattice."""
    atoms = bulk("Cu", cubic=True)
    springs = 10 * (np.eye(12) - np.tile(np.eye(3), (4, 4)) / 4)
    return LabelledGeometry(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True, hessian=springs
    )


def write_datasets(folder: Path) -> Path:
    """Write all of FIXTURES below a folder that is there."""
    import emitters
    from molecules import labelled
    from phonopy.file_IO import write_force_constants_to_hdf5
    from test_dftb import q2mm
    from test_hdf5_datasets import openreact, pysisyphus, themol
    from test_hessian_qm9 import table
    from test_hessian_qm9 import write as write_arrow
    from test_lmdb import ase_row, horm
    from test_lmdb import write as write_lmdb

    water, cyanide = labelled("H2O", 0), labelled("HCN", 1)
    write_phonopy_files(folder / "phonopy", crystal())
    shutil.copytree(folder / "phonopy", folder / "h5")
    (folder / "h5" / "FORCE_CONSTANTS").unlink()
    blocks = crystal().hessian.reshape(4, 3, 4, 3).transpose(0, 2, 1, 3)
    write_force_constants_to_hdf5(np.ascontiguousarray(blocks), str(folder / "h5" / "force_constants.hdf5"))
    write_deepmd_npy(folder / "dp", [water])
    write_geometric_txt(folder / "geo", water)
    (folder / "q2mm").mkdir()
    q2mm(folder / "q2mm", emitters.made())
    write_lmdb(folder / "a.aselmdb", {1: ase_row(water, hessian=water.hessian)})
    graphs = {i: pickle.dumps(horm(dict, record, i)) for i, record in enumerate((water, cyanide))}
    write_lmdb(folder / "a.lmdb", graphs, length=pickle.dumps(2))
    atoms = Atoms(numbers=water.numbers, positions=water.positions)
    atoms.calc = SinglePointCalculator(atoms, energy=water.energy, forces=water.forces)
    with connect(folder / "a.db") as rows:
        rows.write(atoms, data={"hessian": water.hessian})
    write_arrow(folder / "vacuum" / "a.arrow", table([water]))
    openreact(folder / "molecules-IRC.h5", [water, cyanide])
    themol(folder / "hessian_0.h5", [water, cyanide])
    pysisyphus(folder / "final_hessian.h5", water)
    return folder
