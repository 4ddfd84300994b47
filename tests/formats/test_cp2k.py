"""CP2K 2023.1 (PM6 in vacuum; DFTB in a box with one atom fixed), outputs of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compare import one

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import read

DATA = Path(__file__).parent / "data" / "cp2k"


def test_mass_weights_are_taken_out():
    """The printed frequencies follow, and the rotational identity ties the Hessian to forces printed apart from it."""
    record = one(DATA / "water.out", "cp2k-out")
    assert record.formula == "H2O"
    assert not record.pbc.any()
    assert record.positions[0].tolist() == [0.0, 0.0, 0.12]
    assert np.allclose(record.masses, [15.9994, 1.00794, 1.00794])
    assert record.energy == pytest.approx(-11.7253 * 27.2114, abs=0.01)
    found = check(record)[1]
    assert found.verdict == "ok"
    assert found.scale == pytest.approx(1.0, abs=2e-3)
    assert found.translation < 5e-3
    assert found.frequency_deviation < 0.01


def test_fixed_atom_makes_a_partial_hessian():
    record = one(DATA / "fixed.out", "cp2k-out")
    assert record.active.tolist() == [1, 2]
    assert record.hessian.shape == (6, 6)
    assert record.pbc.all()
    assert np.allclose(record.cell, np.diag([8.0, 9.0, 10.0]))
    assert np.isnan(record.forces[0]).all()
    assert np.isfinite(record.forces[1:]).all()
    found = check(record)[1]
    # CP2K diagonalises the upper triangle of a matrix that is asymmetric by 0.04: only the softest mode feels that.
    values = np.sort(record.frequencies)
    assert found.frequency_deviation < 40
    assert np.max(np.abs(values[3:] - [1563.975928, 3619.410758, 3801.673562])) < 1e-5


def test_trimmed_output_is_refused(tmp_path):
    text = (DATA / "fixed.out").read_text()
    path = tmp_path / "a.out"
    path.write_text(text.replace("ATOMIC COORDINATES IN ANGSTROM", "LINES REMOVED"))
    with pytest.raises(FormatError, match="a partial one, cannot be placed without it"):
        list(read(path))


def test_modes_of_other_atoms_than_those_of_the_hessian(tmp_path):
    text = (DATA / "fixed.out").read_text()
    path = tmp_path / "a.out"
    path.write_text(text.replace("     2  H ", "     1  O "))
    with pytest.raises(FormatError, match="the file is cut or damaged"):
        list(read(path))


def test_output_without_hessian(tmp_path):
    text = (DATA / "water.out").read_text()
    begin, end = text.index(" VIB| Hessian in cartesian"), text.index(" VIB| Cartesian Low")
    path = tmp_path / "a.out"
    path.write_text(text[:begin] + text[end:] + "\n  **** PROGRAM ENDED AT \n")
    with pytest.raises(NoHessianError, match="PRINT/PROGRAM_RUN_INFO"):
        list(read(path))
