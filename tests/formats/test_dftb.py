"""DFTB+ hessian.out with its .gen file, and NumPy arrays of q2mm."""

from __future__ import annotations

import emitters
import numpy as np
import pytest
from ase.data import chemical_symbols
from compare import one, same
from text_emitters import dftb

from nequip_hessian.errors import FormatError
from nequip_hessian.formats import read
from nequip_hessian.units import HARTREE_PER_BOHR2


@pytest.fixture(scope="module")
def average():
    return emitters.made(average=True)


def test_dftb(tmp_path, average):
    """Of two geometries that is taken which modes_in.hsd names; frequencies are in hartree."""
    for name, text in dftb(average).items():
        emitters.write(tmp_path / name, text)
    same(one(tmp_path / "hessian.out", "dftb-hessian"), average, hessian=1e-8)
    (tmp_path / "modes_in.hsd").unlink()
    with pytest.raises(FormatError, match=r"several \(geom\.gen, start\.gen\)"):
        list(read(tmp_path / "hessian.out"))
    (tmp_path / "start.gen").unlink()
    same(one(tmp_path / "hessian.out", "dftb-hessian"), average, hessian=1e-8)
    (tmp_path / "geom.gen").unlink()
    with pytest.raises(FormatError, match=r"expected one \.gen file of 4 atoms beside it, found none"):
        list(read(tmp_path / "hessian.out"))


@pytest.mark.parametrize("kind", ["S", "F"])
def test_periodic_gen_file(tmp_path, average, kind):
    cell = np.diag([8.0, 9.0, 10.0])
    files = dftb(average)
    positions = average.positions if kind == "S" else average.positions @ np.linalg.inv(cell)
    names = [chemical_symbols[z] for z in average.numbers]
    species = sorted(set(names))
    rows = [f"{i} {species.index(s) + 1} " + " ".join(f"{v:.12f}" for v in row)
            for i, (s, row) in enumerate(zip(names, positions, strict=True), 1)]  # fmt: skip
    vectors = [" ".join(f"{v:.6f}" for v in row) for row in [np.zeros(3), *cell]]
    text = "\n".join([f"4 {kind}  # a comment", " ".join(species), *rows, *vectors]) + "\n"
    emitters.write(tmp_path / "geo_end.gen", text)
    (record,) = read(emitters.write(tmp_path / "hessian.out", files["hessian.out"]))
    assert record.pbc.all()
    assert np.allclose(record.cell, cell)
    assert np.allclose(record.positions, average.positions, atol=1e-9)


def q2mm(folder, record, *, dtype=np.float64):
    np.save(folder / "ts-hessian.npy", (record.hessian / HARTREE_PER_BOHR2).astype(dtype))
    rows = [f"{chemical_symbols[z]} {x:.12f} {y:.12f} {w:.12f}" for z, (x, y, w) in
            zip(record.numbers, record.positions, strict=True)]  # fmt: skip
    emitters.write(folder / "ts-optimized.xyz", "\n".join([str(len(record)), "", *rows]) + "\n")
    text = "# frequencies (cm^-1)\n" + "".join(f"{v:.10e}\n" for v in record.frequencies)
    emitters.write(folder / "ts-frequencies.txt", text)
    return folder / "ts-hessian.npy"


def test_array_of_q2mm(tmp_path):
    made = emitters.made()
    path = q2mm(tmp_path, made)
    emitters.write(tmp_path / "other.xyz", "4\n\nC 0 0 0\nO 0 0 1\nH 0 1 0\nH 1 0 0\n")
    same(one(path, "q2mm-npy"), made, hessian=1e-12)
    (tmp_path / "ts-optimized.xyz").unlink()
    (tmp_path / "other.xyz").unlink()
    with pytest.raises(FormatError, match=r"expected one \.xyz of 4 atoms beside it, found none"):
        list(read(path))


def test_array_that_is_no_hessian(tmp_path):
    made = emitters.made()
    path = q2mm(tmp_path, made)
    np.save(path, np.zeros((4, 5)))
    with pytest.raises(FormatError, match=r"expected a real matrix of shape \(3N, 3N\), found shape \(4, 5\)"):
        list(read(path))
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="no whole NumPy array of numbers"):
        list(read(path))
    whole = q2mm(tmp_path, made).read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(FormatError, match="no whole NumPy array of numbers"):
        list(read(path))
