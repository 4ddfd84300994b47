"""ASE databases (SQLite) with Hessians in `data`."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from molecules import labelled

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError
from nequip_hessian.formats import format_of, read


@pytest.fixture(scope="module")
def records():
    return [labelled("H2O", 0), labelled("HCN", 1), labelled("NH3", 2, hessian=False)]


def atoms_of(record) -> Atoms:
    atoms = Atoms(numbers=record.numbers, positions=record.positions)
    atoms.calc = SinglePointCalculator(atoms, energy=record.energy, forces=record.forces)
    return atoms


def database(path, records, shape=lambda n: (3 * n, 3 * n)):
    with connect(path) as rows:
        for index, record in enumerate(records):
            data = {} if record.hessian is None else {"hessian": record.hessian.reshape(shape(len(record)))}
            rows.write(atoms_of(record), data=data, group=f"g{index}", charge=0, method="GFN2-xTB")
    return path


@pytest.mark.parametrize("shape", [lambda n: (3 * n, 3 * n), lambda n: (-1,), lambda n: (n, 3, n, 3)])
def test_rows(tmp_path, records, shape):
    path = database(tmp_path / "a.db", records, shape)
    before = path.read_bytes()
    assert format_of(path).name == "ase-db"
    for index, (record, made) in enumerate(zip(read(path), records, strict=True)):
        assert record.numbers.tolist() == made.numbers.tolist()
        assert np.array_equal(record.positions, made.positions)
        assert np.array_equal(record.forces, made.forces)
        assert record.energy == made.energy
        assert (record.group, record.charge, record.level.method) == (f"g{index}", 0, "GFN2-xTB")
        if made.hessian is None:
            assert record.hessian is None
        else:
            assert np.array_equal(record.hessian, made.hessian)
            assert check(record)[1].verdict == "ok"
    assert path.read_bytes() == before


def test_masses_and_deleted_rows(tmp_path, records):
    path = tmp_path / "a.db"
    atoms = atoms_of(records[0])
    atoms.set_masses([15.99491461957, 2.01410177812, 2.01410177812])
    with connect(path) as rows:
        for _ in range(3):
            rows.write(atoms, data={"hessian": records[0].hessian})
        rows.delete([2])
    found = list(read(path))
    assert [record.label for record in found] == ["a-1", "a-3"]
    assert found[0].masses[1] == 2.01410177812


def test_other_databases_and_damage(tmp_path, records):
    path = tmp_path / "foreign.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(FormatError, match=r"foreign\.db: an SQLite database, but not of ASE.*people"):
        list(read(path))
    assert path.read_bytes() == before  # nothing was added to it
    path = database(tmp_path / "a.db", records)
    whole = path.read_bytes()
    for cut in (120, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"a\.db"):
            list(read(path))


def test_matrix_of_another_molecule(tmp_path, records):
    path = tmp_path / "a.db"
    with connect(path) as rows:
        rows.write(atoms_of(records[0]), data={"hessian": np.eye(6)})
    with pytest.raises(FormatError, match=r"a\.db: row 1: hessian: expected shape \(9, 9\)"):
        list(read(path))
