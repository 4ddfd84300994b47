"""The command `nequip-hessian phonons`: its files, its reference, its refusals."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from ase.build import bulk, molecule
from browser import check_page

from nequip_hessian.cli import main
from nequip_hessian.convert import convert
from nequip_hessian.formats.phonopy_files import read_phonopy_files
from nequip_hessian.store import StoreWriter

QUICK = ["--supercell", "2", "2", "2", "--mesh", "4", "4", "4", "--points", "5", "--temperatures", "0", "600", "100"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phonons")
    bulk("Al", a=4.05, cubic=True).write(folder / "Al.cif")
    status = main(["phonons", "ase:emt", str(folder / "Al.cif"), "-o", str(folder / "out"), *QUICK])
    assert status == 0
    return folder


def test_report_says_what_was_done(done):
    report = json.loads((done / "out" / "phonons.json").read_text())
    assert report["crystal"]["space_group"] == "Fm-3m (225)"
    assert report["crystal"]["cell_angstrom"][0][0] == pytest.approx(3.994, abs=2e-3)  # relaxed, from 4.05
    assert report["crystal"]["lattice_before_angstrom_degree"][0] == pytest.approx(4.05)
    assert report["acoustic_sum_rule_eV_per_angstrom2"]["used"] < 1e-12
    assert report["imaginary"]["modes_at_gamma"] == 0
    thermal = report["thermal_per_mole_of_primitive_cells"]
    assert thermal["temperatures_K"] == [0, 100, 200, 300, 400, 500, 600]
    # one atom a cell: near Dulong and Petit's value
    assert 23 < thermal["heat_capacity_J_per_K_mol"][-1] < 3 * 8.314463
    assert {"free_energy_kJ_per_mol", "entropy_J_per_K_mol"} < set(thermal)
    assert report["mesh"] == [4, 4, 4]
    assert report["versions"]["phonopy"]


def test_phonopy_goes_on_from_the_files(done):
    import phonopy

    report = json.loads((done / "out" / "phonons.json").read_text())
    loaded = phonopy.load(
        done / "out" / "phonopy.yaml", force_constants_filename=done / "out" / "FORCE_CONSTANTS", log_level=0
    )
    loaded.run_qpoints(report["mesh_modes"]["q"])
    np.testing.assert_allclose(loaded.qpoints.frequencies, report["mesh_modes"]["frequencies_THz"], atol=1e-5)
    taken = convert([done / "out" / "phonopy.yaml"], done / "taken.zarr")
    assert [entry.status for entry in taken.entries] == ["taken"]


def test_tables_hold_the_bands(done):
    rows = list(csv.DictReader((done / "out" / "bands.csv").open()))
    assert len(rows) == 5 * len({row["segment"] for row in rows})
    first = [float(rows[0][f"frequency_{k}_THz"]) for k in range(3)]
    assert np.max(np.abs(first)) < 1e-3  # acoustic, at Gamma
    at_x = max(float(rows[4][f"frequency_{k}_THz"]) for k in range(3))
    assert rows[4]["segment"] == "Γ–X"
    assert at_x == pytest.approx(8.6, abs=0.1)


def test_page_is_whole_and_stands_alone(done):
    page = (done / "out" / "report.html").read_text()
    check_page(done / "out" / "report.html", done / "browser")
    assert page.count("<figure>") == 2
    assert "Dynamically stable" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)
    for name in ("bands", "thermal"):
        assert (done / "out" / f"{name}.svg").stat().st_size > 5000
        assert (done / "out" / f"{name}.png").stat().st_size > 5000


def test_a_second_run_takes_the_stages(done, monkeypatch):
    from ase.calculators.emt import EMT

    before = json.loads((done / "out" / "phonons.json").read_text())

    def refuse(*args, **kwargs):
        raise AssertionError("calculated again")

    monkeypatch.setattr(EMT, "calculate", refuse)
    assert main(["phonons", "ase:emt", str(done / "Al.cif"), "-o", str(done / "out"), *QUICK]) == 0
    after = json.loads((done / "out" / "phonons.json").read_text())
    assert after["mesh_modes"] == before["mesh_modes"]


def test_reference_that_is_the_same_has_no_error(done, capsys):
    record = next(iter(read_phonopy_files(done / "out" / "phonopy.yaml")))
    store = done / "reference.zarr"
    with StoreWriter(store) as writer:
        writer.extend([record.replace(label="first"), record.replace(label="stiff", hessian=1.21 * record.hessian)])
    fixed = ["phonons", "ase:emt", str(done / "out" / "crystal.extxyz"), "--relax", "none", *QUICK]
    assert main([*fixed, "--reference", str(store), "-o", str(done / "twice")]) == 1
    assert "0 (first), 1 (stiff)" in capsys.readouterr().err
    assert main([*fixed, "--reference", str(store), "--record", "0", "-o", str(done / "same")]) == 0
    same = json.loads((done / "same" / "phonons.json").read_text())["errors"]
    assert same["frequency_max_THz"] < 1e-5
    assert main([*fixed, "--reference", str(store), "--record", "1", "-o", str(done / "other")]) == 0
    report = json.loads((done / "other" / "phonons.json").read_text())
    highest = max(max(row) for row in report["mesh_modes"]["frequencies_THz"])
    assert report["errors"]["frequency_max_THz"] == pytest.approx(0.1 * highest, rel=1e-4)
    assert "RMSE of the frequencies" in (done / "other" / "report.html").read_text()


def test_cell_and_supercell_come_from_a_phonopy_file(done):
    cell = str(done / "out" / "phonopy.yaml")
    arguments = ["phonons", "ase:emt", cell, "--relax", "none", "--mesh", "4", "4", "4", "--points", "3"]
    assert main([*arguments, "--reference", cell, "-o", str(done / "yaml")]) == 0
    report = json.loads((done / "yaml" / "phonons.json").read_text())
    assert report["supercell_matrix"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert report["errors"]["frequency_max_THz"] < 1e-5


def test_forces_left_are_said_where_nothing_is_relaxed(done, capsys):
    rattled = bulk("Al", a=4.0, cubic=True)
    rattled.rattle(0.05, seed=1)
    rattled.write(done / "rattled.extxyz")
    arguments = ["phonons", "ase:emt", str(done / "rattled.extxyz"), "--relax", "none", "--supercell", "1"]
    assert main([*arguments, "--mesh", "2", "2", "2", "--points", "3", "-o", str(done / "rattled")]) == 0
    assert "no equilibrium" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cell", "options", "text"),
    [
        ("water.xyz", [], "no cell with a volume"),
        ("slab.extxyz", [], "periodic along"),
        ("nothing.cif", [], "no such file"),
        ("Al.cif", ["--supercell", "2", "2"], "three numbers"),
        ("Al.cif", ["--supercell", "0", "1", "1"], "positive volume"),
        ("Al.cif", ["--mesh", "900", "900", "900"], "mesh"),
        ("Al.cif", ["--temperatures", "300", "100", "10"], "first < last"),
        ("Al.cif", ["--reference", "nothing.yaml"], "no such file"),
        ("Al.cif", ["--reference", "Al.cif"], "Al.cif"),
        ("Si.cif", [], "emt: NotImplementedError: No EMT-potential for Si"),
    ],
)
def test_what_cannot_be_done_is_one_line(done, cell, options, text, capsys):
    molecule("H2O").write(done / "water.xyz")
    slab = bulk("Al", cubic=True)
    slab.set_pbc((True, True, False))
    slab.write(done / "slab.extxyz")
    bulk("Si", cubic=True).write(done / "Si.cif")
    options = [str(done / name) if name.endswith((".yaml", ".cif")) else name for name in options]
    common = [] if "--supercell" in options else ["--supercell", "1"]
    status = main(["phonons", "ase:emt", str(done / cell), *common, *options, "-o", str(done / "refused")])
    error = capsys.readouterr().err
    value = "".join(options[:1]) in ("--supercell", "--mesh", "--temperatures")
    assert status == (2 if value else 1)  # wrong whatever the crystal is, or for this file
    assert text in error
    assert "Traceback" not in error
    assert not (done / "refused" / "phonons.json").exists()


def test_without_phonopy_the_extra_is_named(done, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "phonopy", None)
    assert main(["phonons", "ase:emt", str(done / "Al.cif"), "-o", str(done / "none")]) == 1
    assert "nequip-hessian[phonons]" in capsys.readouterr().err
