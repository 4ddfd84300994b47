"""Dipole derivatives in outputs: unit, order and frame, against differences of dipoles and the sum rule."""

from __future__ import annotations

import re
from pathlib import Path

import dipole_emitters
import emitters
import numpy as np
import pytest
import solid_emitters
from compare import one
from real_outputs import CASES
from text_emitters import gamess_out

from nequip_hessian.analysis.infrared import infrared_intensities
from nequip_hessian.analysis.vibrations import vibrations
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


def differences_of_dipoles(record) -> np.ndarray:
    """Of water with HF/STO-3G, (9, 3), e, by PySCF."""
    from pyscf import gto, scf

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
    return np.array(rows)


def test_nwchem_agrees_with_differences_of_dipoles_of_another_program():
    (record,) = read(DATA / "nwchem" / "water.out")
    rows = differences_of_dipoles(record)
    assert np.max(np.abs(record.dipole_derivatives - rows)) < 2e-4  # four printed decimals
    assert np.max(np.abs(rows - rows.reshape(3, 3, 3).transpose(0, 2, 1).reshape(9, 3))) > 0.05


def test_psi4_qcschema_agrees_with_differences_of_dipoles_of_another_program():
    record = one(DATA / "psi4_qcschema" / "water.json", "qcschema")
    assert record.provenance["conversions"]["dipole_derivatives"]["from"] == "e"
    assert np.max(np.abs(record.dipole_derivatives - differences_of_dipoles(record))) < 1e-5
    assert not check(record)[1].warnings


def test_sum_rule(tmp_path, made):
    charged = made.replace(charge=1, dipole_derivatives=made.dipole_derivatives + np.tile(np.eye(3) / 4, (4, 1)))
    assert dipole_sum(charged.dipole_derivatives, 1)[0] < 1e-12
    assert dipole_sum(charged.dipole_derivatives, None) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0))
    assert not any("dipole" in text for text in check(charged)[1].warnings)
    debye = made.replace(dipole_derivatives=charged.dipole_derivatives / DEBYE)
    (warning,) = [text for text in check(debye)[1].warnings if "dipole" in text]
    assert "do not sum to the charge (0 e)" in warning


# -- programs that print them in a table of their own ----------------------------------------


def place(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        emitters.write(folder / name, text)


@pytest.mark.parametrize("name", dipole_emitters.MOLECULES)
def test_tables_of_programs(tmp_path, made, name):
    write, file, digits = dipole_emitters.MOLECULES[name]
    place(tmp_path, write(made))
    record = one(tmp_path / file, name)
    assert np.max(np.abs(record.dipole_derivatives - made.dipole_derivatives)) < digits
    assert not any("dipole" in text for text in check(record)[1].warnings)
    unit = "debye/angstrom" if name in ("gamess-uk-out", "molpro-out") else "e"
    assert record.provenance["conversions"]["dipole_derivatives"]["from"] == unit


@pytest.mark.parametrize("name", dipole_emitters.MOLECULES)
def test_tables_that_are_damaged(tmp_path, made, name):
    write, file, _ = dipole_emitters.MOLECULES[name]
    files = write(made)
    holder = {"jaguar-in": "a.out", "turbomole": "dipgrad"}.get(name, file)
    numbers = {"turbomole": r"-?\d\.\d{13}D[+-]\d\d", "jaguar-in": r"(?<= )-?\d+\.\d{4}(?=\n)"}
    number = numbers.get(name, r"-?\d+\.\d{7,8}(?=\n)")
    begin = max(files[holder].rfind(title) for title in ("ipole", "Polar Tensors"))
    places = list(re.finditer(number, files[holder][begin:]))
    assert len(places) >= 5
    for found in (places[0], places[len(places) // 2]):
        at = begin + found.start()
        place(tmp_path, {**files, holder: files[holder][:at] + "x" + files[holder][at + 1 :]})
        with pytest.raises(FormatError, match=r"damaged|no number|expected"):
            list(read(tmp_path / file))


def test_a_table_by_symmetry_is_left_out(tmp_path, made):
    text = dipole_emitters.dalton(made)["a.out"]
    by_symmetry = re.sub(r"Ex +Ey +Ez", "Ex", text)
    assert by_symmetry != text
    record = one(emitters.write(tmp_path / "a.out", by_symmetry), "dalton-out")
    assert record.dipole_derivatives is None
    assert record.hessian is not None


def test_molpro_prints_zeros_where_it_has_none(tmp_path, made):
    zero = dipole_emitters.molpro(made.replace(dipole_derivatives=np.zeros((12, 3))))
    assert one(emitters.write(tmp_path / "a.out", zero["a.out"]), "molpro-out").dipole_derivatives is None


# -- Born charges of VASP ---------------------------------------------------------------------


@pytest.mark.parametrize(("file", "write"), [("OUTCAR", "outcar"), ("vasprun.xml", "vasprun")])
def test_born_charges_of_vasp(tmp_path, file, write):
    charges = np.random.default_rng(5).normal(size=(4, 3, 3))
    charges -= charges.mean(axis=0)
    solid = solid_emitters.alloy().replace(born_charges=charges)
    text = getattr(dipole_emitters, write)(solid)
    (record,) = read(emitters.write(tmp_path / file, text))
    assert np.max(np.abs(record.born_charges - charges)) < 1e-5
    assert not any("Born" in warning for warning in check(record)[1].warnings)
    (warning,) = [w for w in check(record.replace(born_charges=charges + np.eye(3)))[1].warnings if "Born" in w]
    assert "sum to 1 e an atom" in warning
    wrong = ("ion    3\n", "ion    4\n") if file == "OUTCAR" else ('"born_charges">', '"born_charges"><set></set>')
    damaged = text.replace(*wrong)
    assert damaged != text
    with pytest.raises(FormatError):
        list(read(emitters.write(tmp_path / file, damaged)))


# -- real outputs: the intensities that the program printed follow from them -----------------

PRINTED = {
    "cclib/dalton2015_dvb_ir.out": r"^ *\d+ +\S+ +(\d+\.\d+) +\d+\.\d{6} +(\d+\.\d+) +\d+\.\d+ *$",
    "unimovib/cfour_h2o/h2o-c1.out": r"^ *\S+ +(\d+\.\d+) +(\d+\.\d+) +VIBRATION *$",
    "cclib/gamessuk8_dvb_ir.out": r"^ = +(\d+\.\d+) +(?:-?\d\.\d+E[+-]\d\d +){4}(\d+\.\d+) = *$",
}


def rows_of_values(text: str, first: str, second: str) -> list[tuple[float, float]]:
    """Wavenumbers and intensities that stand in rows of their own."""
    wavenumbers, values = ([float(v) for row in re.findall(rf"^ *{re.escape(title)} +(\d.*)$", text, re.M)
                            for v in row.split()] for title in (first, second))  # fmt: skip
    return [pair for pair in zip(wavenumbers, values, strict=True) if pair[0]]


@pytest.mark.cases
@pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder {CASES}")
@pytest.mark.parametrize("name", [*PRINTED, "unimovib/molpro_ch4/ch4.out", "cclib/jaguar133_dvb_ir.01.in"])
def test_intensities_of_real_outputs(name):
    (record,) = read(CASES / name)
    text = (CASES / name.replace(".01.in", ".out")).read_text(errors="replace")
    if name in PRINTED:
        found = [(float(a), float(b)) for a, b in re.findall(PRINTED[name], text, re.M)]
    elif "molpro" in name:
        found = rows_of_values(text, "Wavenumbers [cm-1]", "Intensities [km/mol]")
    else:
        found = rows_of_values(text, "frequencies", "intensities")
    printed = np.array(sorted(found))
    modes = vibrations(record.hessian, record.positions, record.masses)
    intensities = infrared_intensities(modes, record.dipole_derivatives)
    assert len(printed) == len(intensities)
    low = printed[:, 0] < 1640.0 if len(record) > 5 else printed[:, 0] < 2000.0
    for some in (low, ~low):  # near-degenerate modes mix, so that only sums over ranges are the same
        assert np.sum(intensities[some]) == pytest.approx(np.sum(printed[some, 1]), rel=4e-3)
    assert dipole_sum(record.dipole_derivatives, record.charge or 0)[0] < 2e-3
    turned = np.asarray(record.dipole_derivatives).reshape(-1, 3, 3).transpose(0, 2, 1).reshape(-1, 3)
    if "ch4" not in name:  # whose tensors are symmetric
        assert abs(np.sum(infrared_intensities(modes, turned)[low]) - np.sum(intensities[low])) > 1.0
