"""Dipole derivatives in outputs: unit, order and frame, against differences of dipoles and the sum rule."""

from __future__ import annotations

from pathlib import Path

import emitters
import numpy as np
import pytest
from compare import one
from text_emitters import gamess_out

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError
from nequip_hessian.formats import read
from nequip_hessian.identities import dipole_sum
from nequip_hessian.units import BOHR, DEBYE

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def made():
    """Formaldehyde with derivatives that differ from their transpose and sum to zero."""
    table = np.random.default_rng(3).normal(size=(4, 3, 3))
    table -= table.mean(axis=0)
    return emitters.made().replace(dipole_derivatives=table.reshape(12, 3))


def test_debye_is_that_of_the_definition():
    from ase.units import Debye

    assert pytest.approx(Debye, rel=1e-7) == DEBYE


@pytest.mark.parametrize("separator", ["\\", "|"])
def test_gaussian_archive(tmp_path, made, separator):
    record = one(emitters.write(tmp_path / "a.log", emitters.gaussian_log(made, separator=separator)), "gaussian-log")
    assert np.max(np.abs(record.dipole_derivatives - made.dipole_derivatives)) < 1e-7
    assert record.hessian is not None


def test_gamess_output(tmp_path, made):
    record = one(emitters.write(tmp_path / "a.out", gamess_out(made)), "gamess-out")
    assert np.max(np.abs(record.dipole_derivatives - made.dipole_derivatives)) < 1e-7
    assert record.provenance["conversions"]["dipole_derivatives"]["from"] == "debye/angstrom"


@pytest.mark.parametrize(("end", "name"), [("D/DY", "a.out"), ("MU-X", "b.out")])
def test_a_cut_table_is_damage(tmp_path, made, end, name):
    text = gamess_out(made)
    begin = text.index(end, text.index("DIPOLE DERIVATIVE TENSOR"))
    cut = text[: text.index("\n", begin) + 1]
    with pytest.raises(FormatError, match="DIPOLE DERIVATIVE TENSOR: expected row"):
        list(read(emitters.write(tmp_path / name, cut)))


def test_nwchem_agrees_with_differences_of_dipoles_of_another_program():
    from pyscf import gto, scf

    (record,) = read(DATA / "nwchem" / "water.out")
    step, rows = 1e-3, []
    for i in range(9):
        moments = []
        for sign in (1, -1):
            positions = record.positions.ravel() / BOHR
            positions[i] += sign * step
            atoms = list(zip(("O", "H", "H"), positions.reshape(3, 3), strict=True))
            solved = scf.RHF(gto.M(atom=atoms, basis="sto-3g", unit="Bohr", verbose=0)).run(conv_tol=1e-11)
            moments.append(solved.dip_moment(unit="AU", verbose=0))
        rows.append((moments[0] - moments[1]) / (2 * step))
    assert record.numbers.tolist() == [8, 1, 1]
    assert np.max(np.abs(record.dipole_derivatives - np.array(rows))) < 2e-4  # four printed decimals
    assert np.max(np.abs(np.array(rows) - np.array(rows).reshape(3, 3, 3).transpose(0, 2, 1).reshape(9, 3))) > 0.05


def test_sum_rule(tmp_path, made):
    charged = made.replace(charge=1, dipole_derivatives=made.dipole_derivatives + np.tile(np.eye(3) / 4, (4, 1)))
    assert dipole_sum(charged.dipole_derivatives, 1)[0] < 1e-12
    assert dipole_sum(charged.dipole_derivatives, None) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0))
    assert not any("dipole" in text for text in check(charged)[1].warnings)
    debye = made.replace(dipole_derivatives=charged.dipole_derivatives / DEBYE)
    (warning,) = [text for text in check(debye)[1].warnings if "dipole" in text]
    assert "do not sum to the charge (0 e)" in warning
