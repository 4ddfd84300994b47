"""GAMESS and Firefly outputs and punch files."""

from __future__ import annotations

import emitters
import numpy as np
import pytest
import text_emitters
from compare import labels, one, same
from text_emitters import gamess_dat, gamess_out

from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import read


@pytest.fixture(scope="module")
def made():
    return emitters.made()


@pytest.fixture(scope="module")
def large():
    """Eighteen rows: three blocks of two atoms."""
    return emitters.made("CH3OH")


@pytest.mark.parametrize("firefly", [False, True])
def test_output(tmp_path, large, firefly):
    record = one(emitters.write(tmp_path / "a.out", gamess_out(large, firefly=firefly)), "gamess-out")
    same(record, large, hessian=1e-6, frequencies=0.1)
    labels(record, large, forces=1e-6)
    assert (record.charge, record.multiplicity) == (0, 1)
    assert record.level.method == "B3LYP"  # what was done, not what the input asked for
    assert record.level.basis == "6-31G"
    assert record.level.program == ("Firefly" if firefly else "GAMESS")


def test_punch_file_takes_the_true_hessian_and_the_output_beside_it(tmp_path, large):
    emitters.write(tmp_path / "a.out", gamess_out(large))
    record = one(emitters.write(tmp_path / "a.dat", gamess_dat(large)), "gamess-dat")
    same(record, large, hessian=1e-8, frequencies=0.02)
    labels(record, large, forces=1e-8)
    assert [facts["source"] for facts in record.provenance["companions"]] == ["a.out"]


@pytest.mark.parametrize("unit", [1.0, 1.0 / 0.529177210903])
def test_punch_file_alone_finds_the_unit_of_its_geometry_by_the_nuclear_repulsion(tmp_path, made, unit):
    record = one(emitters.write(tmp_path / "a.dat", gamess_dat(made, unit=unit)), "gamess-dat")
    assert np.max(np.abs(record.positions - made.positions)) < 1e-8
    assert np.max(np.abs(record.hessian - made.hessian)) < 1e-5
    assert np.max(np.abs(record.forces - made.forces)) < 1e-8
    assert record.frequencies is None


def test_punch_file_of_another_geometry(tmp_path, made):
    text = gamess_dat(made).replace("E(NUC) IS ", "E(NUC) IS 1")
    with pytest.raises(FormatError, match="or another geometry"):
        list(read(emitters.write(tmp_path / "a.dat", text)))


def test_output_of_another_hessian_is_no_companion(tmp_path, made):
    emitters.write(tmp_path / "a.out", gamess_out(emitters.made(seed=5)))
    record = one(emitters.write(tmp_path / "a.dat", gamess_dat(made)), "gamess-dat")
    assert "companions" not in record.provenance
    assert np.max(np.abs(record.positions - made.positions)) < 1e-8


def test_row_numbers_of_two_digits_start_anew_at_100(tmp_path):
    """A hundred and two rows: made of blocks, so that the numbers need no quantum chemistry."""
    n = 34
    rng = np.random.default_rng(1)
    atoms = emitters.made().replace(
        numbers=np.full(n, 6),
        positions=rng.uniform(0, 9, (n, 3)),
        forces=np.zeros((n, 3)),
        hessian=np.einsum("ij,kl->ijkl", np.eye(n), np.eye(3)).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n) * 50,
        masses=np.full(n, 12.0),
        frequencies=None,
    )
    (record,) = read(emitters.write(tmp_path / "a.dat", gamess_dat(atoms)))
    assert len(record.hessian) == 102
    assert np.max(np.abs(record.hessian - atoms.hessian)) < 1e-6


def test_files_without_hessian(tmp_path, made):
    text = gamess_out(made)
    begin = text.index("CARTESIAN FORCE CONSTANT")
    with pytest.raises(FormatError, match=r"did not end.*RUNTYP=HESSIAN"):
        list(read(emitters.write(tmp_path / "a.out", text[:begin] + "\n")))
    text = gamess_dat(made)
    with pytest.raises(NoHessianError, match="only those of APPROXIMATE Hessians"):
        list(read(emitters.write(tmp_path / "a.dat", text[: text.rindex(" $HESS")])))


def test_imaginary_frequency(tmp_path, made):
    negative = made.replace(frequencies=np.concatenate([[-300.0], made.frequencies[1:]]))
    (record,) = read(emitters.write(tmp_path / "a.out", text_emitters.gamess_out(negative)))
    assert record.frequencies[0] == -300.0
