"""Molpro, Jaguar, CFOUR, ACES III, DALTON, GAMESS-UK and UniMoVib."""

from __future__ import annotations

import emitters
import numpy as np
import pytest
import text_emitters
from compare import labels, one, same

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import read
from nequip_hessian.formats._source import guarded


@pytest.fixture(scope="module")
def made():
    return emitters.made("CH3OH")


@pytest.fixture(scope="module")
def average():
    return emitters.made("CH3OH", average=True)


def test_molpro_takes_the_atoms_in_the_order_of_the_hessian(tmp_path, average):
    """The first table of the file has them in another order."""
    record = one(emitters.write(tmp_path / "a.out", text_emitters.molpro_out(average)), "molpro-out")
    same(record, average)
    labels(record, average, forces=None)
    assert (record.charge, record.multiplicity) == (0, 1)
    assert (record.level.method, record.level.basis) == ("RB3LYP", "cc-pVDZ")


def test_molpro_imaginary_modes_have_a_heading_of_their_own(tmp_path, average):
    negative = average.replace(frequencies=np.concatenate([[-400.0, -20.5], average.frequencies[2:]]))
    (record,) = read(emitters.write(tmp_path / "a.out", text_emitters.molpro_out(negative)))
    assert record.frequencies[:2].tolist() == [-400.0, -20.5]


def test_molpro_rows_of_other_atoms(tmp_path, average):
    text = text_emitters.molpro_out(average)
    begin = text.index("Force Constants")
    text = text[:begin] + text[begin:].replace("OX2", "CX2")
    with pytest.raises(FormatError, match="Force Constants: expected the heading of column 1"):
        list(read(emitters.write(tmp_path / "a.out", text)))


@pytest.mark.parametrize("companion", [True, False])
def test_jaguar(tmp_path, made, companion):
    if companion:
        emitters.write(tmp_path / "a.out", text_emitters.jaguar_out(made))
    record = one(emitters.write(tmp_path / "a.01.in", text_emitters.jaguar_in(made)), "jaguar-in")
    if companion:
        same(record, made, hessian=2e-6)
        labels(record, made, forces=None)
    else:
        assert np.max(np.abs(record.hessian - made.hessian)) < 2e-6 * np.max(np.abs(made.hessian))
        assert record.frequencies is None
        assert record.energy is None
    assert (record.charge, record.multiplicity, record.level.method) == (0, 1, "b3lyp")


def test_jaguar_guess_of_an_optimisation_is_no_hessian(tmp_path, made):
    path = emitters.write(tmp_path / "a.01.in", text_emitters.jaguar_in(made, ifreq=0))
    with pytest.raises(NoHessianError, match="that of an optimisation, a guess"):
        list(read(path))


@pytest.mark.parametrize("grd", [True, False])
def test_cfour(tmp_path, made, grd):
    files = text_emitters.cfour(made)
    path = emitters.write(tmp_path / "cfour.out", files["cfour.out"])
    if grd:
        emitters.write(tmp_path / "GRD", files["GRD"])
    record = one(path, "cfour-out")
    same(record, made, hessian=1e-6, positions=1e-8 if grd else 1e-7, frequencies=0.1)
    labels(record, made, energy=0.0, forces=1e-6 if grd else None)
    assert (record.charge, record.multiplicity, record.level.method) == (0, 1, "CCSD(T)")


def test_cfour_in_symmetry_coordinates_is_refused(tmp_path, made):
    text = text_emitters.cfour(made)["cfour.out"]
    heading = text.index("Molecular hessian")
    broken = text[:heading] + text[heading:].replace("-----------------\n", "-----------------\n\n   Symmetry 1\n", 1)
    with pytest.raises(FormatError, match="printed in symmetry coordinates"):
        list(read(emitters.write(tmp_path / "a.out", broken)))


def test_aces3(tmp_path, made):
    record = one(emitters.write(tmp_path / "a.out", text_emitters.aces3_out(made)), "aces3-out")
    same(record, made, hessian=1e-7)
    labels(record, made, forces=None)
    assert record.level.method == "SCF"


def test_dalton(tmp_path, made):
    record = one(emitters.write(tmp_path / "a.out", text_emitters.dalton_out(made)), "dalton-out")
    same(record, made, hessian=1e-6, frequencies=0.1)
    labels(record, made)
    assert (record.charge, record.multiplicity) == (0, 1)
    assert (record.level.method, record.level.basis) == ("B3LYP", "STO-3G")


def test_gamess_uk(tmp_path, made):
    record = one(emitters.write(tmp_path / "a.out", text_emitters.gamess_uk_out(made)), "gamess-uk-out")
    same(record, made, hessian=1e-5, positions=1e-7, frequencies=1.5)  # five decimals of Eh/a0^2
    labels(record, made, forces=None)
    assert (record.charge, record.multiplicity, record.level.method) == (0, 1, "B3LYP")


@pytest.mark.parametrize("packed", [False, True])
def test_unimovib(tmp_path, made, packed):
    path = emitters.write(tmp_path / "a.umv", text_emitters.unimovib(made, packed=packed))
    record = one(path, "unimovib")
    assert np.max(np.abs(record.positions - made.positions)) < 1e-9
    assert np.max(np.abs(record.hessian - made.hessian)) < 1e-7
    assert np.allclose(record.masses, made.masses, rtol=1e-9)
    assert np.max(np.abs(record.forces - made.forces)) < 1e-8
    assert check(record)[1].verdict == "ok"
    text = path.read_text()
    begin = text.index("FFX")
    emitters.write(path, text[:begin] + "NOAPT\n")
    with pytest.raises(NoHessianError, match="no FFX or FFXLT"):
        list(read(path))


def test_a_format_that_is_called_a_file_is_not_called_so_twice(tmp_path):
    @guarded("UniMoVib data file")
    def read_one(path):
        raise ValueError("lost")
        yield

    with pytest.raises(FormatError, match=r"damaged or unusual UniMoVib data file \(lost\)"):
        list(read_one(tmp_path / "a.umv"))


def test_element_that_contradicts_its_mass_is_a_warning(tmp_path, average):
    """Carbon at the mass of oxygen in an ORCA Hessian file; deuterium is nothing to warn of."""
    swapped = average.replace(masses=np.where(average.numbers == 6, 15.999, average.masses))
    lines = emitters.orca_hess(swapped).split("\n")
    begin, end = lines.index("$vibrational_frequencies"), lines.index("$atoms")
    (record,) = read(emitters.write(tmp_path / "a.hess", "\n".join(lines[:begin] + lines[end:])))
    _, found = check(record)
    assert any("is C but has the mass 15.999 u" in warning for warning in found.warnings)
    heavy = average.replace(masses=np.where(average.numbers == 1, 2.014, average.masses), frequencies=None)
    assert not any("has the mass" in warning for warning in check(heavy)[1].warnings)
