"""THEMol, OpenREACT and pysisyphus files: their layout, their units, and the disputed unit decided by physics."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
from ase.build import molecule
from ase.optimize import BFGS
from molecules import labelled, xtb, xtb_hessian
from tblite.ase import TBLite

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, HessianDataError, MissingExtraError
from nequip_hessian.formats import format_of, read
from nequip_hessian.formats.themol_h5 import charge_of
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import BOHR, HARTREE, KCAL_PER_MOL

NAMES = ("H2O", "HCN", "H2CO", "NH3")


@pytest.fixture(scope="module")
def displaced():
    return [labelled(name, seed) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def relaxed():
    """Minima: the forces left over say nothing on units."""
    found = []
    for name in ("H2O", "HCN"):
        atoms = molecule(name)
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)
        BFGS(atoms, logfile=None).run(fmax=1e-5, steps=100)
        energy, forces = xtb(atoms)
        found.append(
            LabelledGeometry(
                numbers=atoms.numbers,
                positions=atoms.positions,
                energy=energy,
                forces=forces,
                hessian=xtb_hessian(atoms),
                label=name,
            )
        )
    return found


def same(found, made, tolerance=1e-9):
    assert found.numbers.tolist() == made.numbers.tolist()
    assert np.max(np.abs(found.positions - made.positions)) < 1e-9
    assert np.max(np.abs(found.hessian - made.hessian)) < tolerance * np.max(np.abs(made.hessian))


# -- OpenREACT ------------------------------------------------------------------------------

HESSIAN = {"Eh/a0^2": HARTREE / BOHR**2, "Eh/angstrom^2": HARTREE}
FORCES = {"Eh/a0": HARTREE / BOHR, "Eh/angstrom": HARTREE}


def openreact(path, records, hessian="Eh/a0^2", forces="Eh/a0", sign=1, text=True):
    """One reaction a record, with the record twice in it."""
    with h5py.File(path, "w") as file:
        for index, record in enumerate(records):
            group = file.create_group(f"rxn{index:06d}")
            group.attrs.update(crg=0, mult=1, nat=len(record))
            group["coordinates"] = np.array([record.positions] * 2)
            group["energies"] = np.array([record.energy] * 2) / HARTREE
            group["forces"] = np.array([record.forces] * 2) * sign / FORCES[forces]
            group["hessian"] = np.array([record.hessian] * 2) / HESSIAN[hessian]
            symbols = {1: "H", 6: "C", 7: "N", 8: "O"}
            group["species"] = [symbols[int(z)].encode() for z in record.numbers] if text else record.numbers
    return path


@pytest.mark.parametrize("hessian", HESSIAN)
@pytest.mark.parametrize("forces", FORCES)
@pytest.mark.parametrize("sign", [1, -1])
def test_units_follow_from_the_rotational_identity(tmp_path, displaced, hessian, forces, sign):
    path = openreact(tmp_path / "molecules-IRC.h5", displaced, hessian, forces, sign)
    assert format_of(path).name == "openreact-h5"
    found = list(read(path))
    assert len(found) == 8
    for index, record in enumerate(found):
        made = displaced[index // 2]
        same(record, made)
        assert np.allclose(record.forces, made.forces, atol=1e-9)
        assert record.energy == pytest.approx(made.energy, abs=1e-9)
        assert record.group == f"rxn{index // 2:06d}"
        assert (record.charge, record.multiplicity) == (0, 1)
        assert check(record)[1].verdict == "ok"
    facts = found[0].provenance
    assert facts["conversions"]["hessian"]["from"] == hessian
    assert facts["conversions"]["forces"]["from"] == forces
    assert facts["units_decided_by"].startswith("rotational identity: ratio")
    assert ("gradients" in facts["units_decided_by"]) == (sign < 0)


@pytest.mark.parametrize("hessian", HESSIAN)
def test_at_minima_the_highest_wavenumber_decides_and_forces_are_left_out(tmp_path, relaxed, hessian):
    quiet = [record.replace(forces=np.zeros_like(record.forces)) for record in relaxed]
    for index, records in enumerate((quiet, relaxed)):
        path = openreact(tmp_path / f"molecules-RTP{index}.h5", records, hessian, text=False)
        for record, made in zip(read(path), np.repeat(relaxed, 2), strict=True):
            same(record, made)
            assert "cm^-1" in record.provenance["units_decided_by"] or record.forces is not None
    first = next(iter(read(tmp_path / "molecules-RTP0.h5")))
    assert first.forces is None
    assert "forces" not in first.provenance["conversions"]


def test_a_unit_that_nobody_uses_is_refused(tmp_path, displaced, relaxed):
    odd = [record.replace(hessian=record.hessian * 7.7) for record in displaced]
    with pytest.raises(FormatError, match=r"molecules-IRC\.h5: the rotational identity gives .* fits no pair"):
        list(read(openreact(tmp_path / "molecules-IRC.h5", odd)))
    still = [record.replace(hessian=record.hessian * 20, forces=np.zeros_like(record.forces)) for record in relaxed]
    with pytest.raises(FormatError, match="nothing decides the unit"):
        list(read(openreact(tmp_path / "molecules-RTP.h5", still)))


def test_damaged_reactions_are_named(tmp_path, displaced):
    path = openreact(tmp_path / "molecules-IRC.h5", displaced)
    with h5py.File(path, "a") as file:
        del file["rxn000002/energies"]
        file["rxn000002/energies"] = np.zeros(5)
    with pytest.raises(FormatError, match="rxn000002: expected arrays of one length"):
        list(read(path))


# -- THEMol ---------------------------------------------------------------------------------

UUID = "0f3c5a7e-0000-4000-8000-00000000000{}"
SMILES = ("[O:1]([H:2])[H:3]", "[H:1][C:2]#[N:3]")


def themol(path, records):
    with h5py.File(path, "w") as file:
        for index, (record, smiles) in enumerate(zip(records, SMILES, strict=True)):
            group = file.create_group(UUID.format(index))
            group["mapped_nonisomeric_smiles"] = smiles
            group["mapped_isomeric_smiles"] = smiles
            group["atomic_numbers"] = record.numbers[:, None].astype(np.int32)
            group["coords"] = record.positions
            group["hessian"] = record.hessian / KCAL_PER_MOL
    return path


def test_themol(tmp_path, relaxed):
    path = themol(tmp_path / "hessian_0.h5", relaxed)
    assert format_of(path).name == "themol-h5"
    for index, (record, made) in enumerate(zip(read(path), relaxed, strict=True)):
        same(record, made)
        assert record.label == UUID.format(index)
        assert record.group == SMILES[index]
        assert record.charge == 0
        assert record.level.dispersion == "D3BJ"
        assert check(record)[0].kind == "minimum"


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[NH3+:1][CH2:2][C:3](=[O:4])[O-:5]", 0),
        ("[NH4+:1]", 1),
        ("[Mg+2:1]", 2),
        ("[Mg++:1]", 2),
        ("[O-2:3]", -2),
        ("[C@@H:1]([Br:2])-[CH3:3]", 0),
        ("[O-:1][N+:2](=[O:3])-[c:4]1[cH:5][cH:6][cH:7][cH:8][c:9]1[O-:10]", -1),
    ],
)
def test_charge_of_a_smiles(smiles, charge):
    assert charge_of(smiles) == charge


def test_themol_damage(tmp_path, relaxed):
    path = themol(tmp_path / "hessian_0.h5", relaxed)
    with h5py.File(path, "a") as file:
        group = file[UUID.format(1)]
        del group["hessian"]
        group["hessian"] = np.zeros((8, 9))
    with pytest.raises(HessianDataError, match=rf"hessian_0\.h5: {UUID.format(1)}: hessian"):
        list(read(path))


# -- all of them ----------------------------------------------------------------------------


def pysisyphus(path, record):
    with h5py.File(path, "w") as file:
        file.attrs.update(energy=record.energy / HARTREE, mult=1, charge=0)
        file.attrs["atoms"] = ["oHC"["OHC".index({8: "O", 1: "H", 6: "C"}[int(z)])].lower() for z in record.numbers]
        file["coords3d"] = record.positions / BOHR
        file["hessian"] = record.hessian / HESSIAN["Eh/a0^2"]
    return path


def test_pysisyphus(tmp_path, displaced):
    path = pysisyphus(tmp_path / "final_hessian.h5", displaced[0])
    assert format_of(path).name == "pysisyphus-h5"
    (record,) = read(path)
    same(record, displaced[0])
    assert record.energy == pytest.approx(displaced[0].energy, abs=1e-9)


@pytest.mark.parametrize("reader", ["openreact-h5", "themol-h5", "pysisyphus-h5"])
def test_files_cut_or_of_another_layout(tmp_path, displaced, relaxed, reader):
    path = openreact(tmp_path / "a.h5", displaced)
    whole = path.read_bytes()
    for cut in np.linspace(1, len(whole) - 1, 12).astype(int):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"a\.h5"):
            list(read(path, reader))
    with h5py.File(path, "w") as file:
        file["something"] = np.zeros(3)
    with pytest.raises(FormatError, match=r"a\.h5"):
        list(read(path, reader))
    with pytest.raises(FormatError, match="an HDF5 file of no layout known here"):
        format_of(path)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, relaxed):
    path = themol(tmp_path / "hessian_0.h5", relaxed)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r'hessian_0\.h5: .* pip install "nequip-hessian\[hdf5\]"'):
        format_of(path)
