"""Psi4 1.3.2, HF and MP2 in STO-3G, outputs of its own; PySCF computed the same Hessian."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from compare import one

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import read
from nequip_hessian.record import LevelOfTheory

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def pyscf():
    (record,) = read(DATA / "water_hf_pyscf.json")
    return record


@pytest.mark.parametrize(("name", "reader"), [("water.out", "psi4-out"), ("water.h2o.hess", "psi4-hess")])
def test_hessian_forces_and_energy_are_those_of_another_program(pyscf, name, reader):
    record = one(DATA / "psi4" / name, reader)
    assert np.allclose(record.positions, pyscf.positions, atol=1e-9)
    assert np.max(np.abs(record.hessian - pyscf.hessian)) < 1e-4
    assert np.max(np.abs(record.forces - pyscf.forces)) < 1e-5
    assert record.energy == pytest.approx(pyscf.energy, abs=1e-6)
    assert (record.charge, record.multiplicity) == (0, 1)
    assert record.level == LevelOfTheory("HF", "STO-3G", program="Psi4", program_version="1.3.2", hessian="analytic")
    found = check(record)[1]
    assert found.verdict == "ok"
    assert found.scale == pytest.approx(1.0, abs=1e-6)
    assert found.frequency_deviation < 1e-3


def test_finite_differences_take_the_undisplaced_geometry_and_the_right_surface(pyscf):
    """Eleven displaced geometries are printed, HF and spin-scaled energies beside those of MP2."""
    record = one(DATA / "psi4" / "mp2.h2o.hess", "psi4-hess")
    assert record.level.method == "MP2"
    assert record.level.hessian == "finite_difference"
    assert 0.9 < pyscf.energy - record.energy < 1.1  # eV of correlation below PySCF's HF energy
    found = check(record)[1]
    assert found.verdict == "ok"  # forces of HF, or of a displaced geometry, would not fit
    assert found.scale == pytest.approx(1.0, abs=1e-3)
    assert found.rotation < 1e-3
    assert found.frequency_deviation < 1e-3
    assert [facts["source"] for facts in record.provenance["companions"]] == ["mp2.out"]


def test_output_without_hessian_names_the_file_that_has_it():
    with pytest.raises(NoHessianError, match=r"convert the \.hess file"):
        list(read(DATA / "psi4" / "mp2.out"))


def test_hessian_file_without_output(tmp_path):
    shutil.copy(DATA / "psi4" / "water.h2o.hess", tmp_path)
    with pytest.raises(FormatError, match="expected the Psi4 output of the frequency job on 3 atoms beside it"):
        list(read(tmp_path / "water.h2o.hess"))


def test_hessian_file_of_another_number_of_atoms(tmp_path):
    for name in ("water.h2o.hess", "water.out"):
        shutil.copy(DATA / "psi4" / name, tmp_path)
    path = tmp_path / "water.h2o.hess"
    path.write_text(path.read_text().replace("    3    9", "    2    6", 1))
    with pytest.raises(FormatError, match="expected 36 numbers, found 81"):
        list(read(path))


def test_job_that_failed(tmp_path):
    text = (DATA / "psi4" / "water.out").read_text()
    path = tmp_path / "a.out"
    path.write_text(text[: text.index("## Nuclear Hessian")] + "\nFatal Error: PSIO Error\n")
    with pytest.raises(FormatError, match="the Psi4 job failed, and there is no Hessian: PSIO Error"):
        list(read(path))
