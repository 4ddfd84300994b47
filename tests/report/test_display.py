import json

import numpy as np
import pytest
from ase.io import read
from xtb_models import hydrogen_cyanide, xtb

from nequip_hessian.analysis.geometries import read_geometries
from nequip_hessian.analysis.labelled import compare_with_file
from nequip_hessian.analysis.prediction import atoms_of
from nequip_hessian.analysis.single import model_vibrations
from nequip_hessian.analysis.summary import Figure
from nequip_hessian.errors import ConfigError, FormatError, NoHessianError
from nequip_hessian.report.display import ALL_METRICS, SECTIONS, cell, change, number
from nequip_hessian.report.single import comparison_table, vibration_table, write_hessians, write_vibrations


def test_numbers_have_three_digits_and_no_needless_exponent():
    assert [number(v) for v in (0, 0.1234, 12.345, 123.45, 1234.5, -0.00123)] == [
        "0",
        "0.123",
        "12.3",
        "123",
        "1234",
        "-0.00123",
    ]
    assert number(1.234e-6) == "1.23e-06"


def test_every_figure_has_a_place_on_the_page():
    shown = {name for names in SECTIONS.values() for name in names}
    hidden = {"energy_rmse", "energy_per_atom_rmse", "shifted_energy_per_atom_rmse"}
    assert set(ALL_METRICS) - shown == hidden


def test_units_people_read():
    assert cell("force_mae", Figure(0.1234, 3, "eV/Å")) == "123 meV/Å"
    assert cell("energy_mae", Figure(12.0, 3, "eV")) == "12.0 eV"
    assert cell("barrier_mae", Figure(1.0, 3, "eV")) == "23.1 kcal/mol (1.00 eV)"
    assert cell("imaginary_agreement", Figure(0.5, 4, "1")) == "50.0 %"
    assert cell("hessian_mae", Figure(None, 0, "eV/Å²")) == "–"


def test_a_change_says_which_way_is_better():
    def judged(name, before, after):
        return change(name, Figure(before, 1, ""), Figure(after, 1, ""))

    assert judged("hessian_mae", 2.0, 1.0) == ("−50 %", "better")
    assert judged("hessian_mae", 1.0, 2.0) == ("+100 %", "worse")
    assert judged("projected_cosine_1", 0.5, 0.75) == ("+0.25", "better")
    assert judged("imaginary_agreement", 0.75, 0.5) == ("−25 points", "worse")
    assert judged("neb_failure_rate", 0.5, 0.25) == ("−25 points", "better")
    assert judged("hessian_mae", 1.0, 1.001) == ("no change", "same")
    assert judged("hessian_mae", 1.0, None) == ("", "same")


def test_vibrations_on_paper_and_in_files(tmp_path):
    record = hydrogen_cyanide()["transition_state"]
    found = model_vibrations(xtb("GFN2-xTB"), atoms_of(record))
    table = vibration_table(found)
    assert f"{abs(found.result.wavenumbers[0]):.1f}i" in table
    assert "imaginary modes below -20 cm⁻¹: 1; rigid motions projected out: 6" in table
    assert "no stationary point" not in table
    files = write_vibrations(tmp_path / "modes", found)
    assert len(files) == 2 + 3 + 2  # table and document, an animation a mode, Molden and Jmol
    document = json.loads((tmp_path / "modes" / "frequencies.json").read_text(encoding="utf-8"))
    assert document["wavenumbers_cm"][0] == pytest.approx(found.result.wavenumbers[0])
    mode = np.array(document["modes"][0])
    assert mode.shape == (3, 3)
    assert np.linalg.norm(mode) == pytest.approx(1.0)
    frames = read(tmp_path / "modes" / "mode_000.extxyz", index=":")
    assert len(frames) == 20
    assert frames[0].info["wavenumber_cm"] == pytest.approx(found.result.wavenumbers[0], abs=1e-3)
    # the animation follows the imaginary mode: the energy falls off to both sides
    energies = []
    for frame in (frames[5], frames[0], frames[15]):
        frame.calc = xtb("GFN2-xTB")
        energies.append(frame.get_potential_energy())
    assert energies[1] == max(energies)


def test_away_from_a_stationary_point_the_table_says_so():
    record = hydrogen_cyanide()["reactant"]
    atoms = atoms_of(record)
    atoms.positions[0, 2] -= 0.2
    assert "this is no stationary point" in vibration_table(model_vibrations(xtb("GFN2-xTB"), atoms))


def test_a_calculation_beside_the_model(tmp_path):
    # an xtb-style Hessian file of the reference; the same Hamiltonian must give the same numbers
    from nequip_hessian.units import BOHR, HARTREE_PER_BOHR2

    record = hydrogen_cyanide()["reactant"]
    flat = (record.hessian / HARTREE_PER_BOHR2).ravel()
    lines = ["$hessian", *(" ".join(f"{v:.10f}" for v in flat[k : k + 5]) for k in range(0, len(flat), 5)), "$end"]
    (tmp_path / "hessian").write_text("\n".join(lines) + "\n", encoding="utf-8")
    atoms = atoms_of(record)
    rows = [f"{s} {x:.10f} {y:.10f} {z:.10f}" for s, (x, y, z) in zip("HCN", atoms.positions, strict=True)]
    (tmp_path / "hcn.xyz").write_text("\n".join(["3", "", *rows]) + "\n", encoding="utf-8")
    assert BOHR < 1
    same = compare_with_file(xtb("GFN2-xTB"), tmp_path / "hessian")[0]
    np.testing.assert_allclose(same.model.wavenumbers, same.reference.wavenumbers, atol=1.0)
    np.testing.assert_allclose(same.overlap, 1.0, atol=1e-3)
    table = comparison_table(compare_with_file(xtb("GFN1-xTB"), tmp_path / "hessian")[0])
    assert "mean absolute difference" in table
    assert "n = 4" in table


def test_nothing_to_compare_with_is_said(tmp_path):
    (tmp_path / "empty.log").write_text("no calculation\n", encoding="utf-8")
    with pytest.raises((FormatError, NoHessianError), match=r"empty\.log"):
        compare_with_file(xtb("GFN1-xTB"), tmp_path / "empty.log")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.xyz", None, "no such file"),
        ("empty.xyz", "", "the file is empty"),
        ("cut.xyz", "3\n\nH 0 0 0\n", "cannot read a geometry"),
        ("odd.unknown", "hello\n", "cannot read|does not know"),
        ("nan.xyz", "1\n\nH nan 0 0\n", "finite positions"),
    ],
)
def test_bad_geometry_files_are_refused_by_name(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match=f"{name}.*({message})"):
        read_geometries(tmp_path / name)


def test_hessian_files(tmp_path):
    write_hessians(tmp_path / "a" / "h.npy", [np.eye(3)])
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "h.npy"), np.eye(3))
    write_hessians(tmp_path / "h.npz", [np.eye(3), np.eye(6)])
    assert np.load(tmp_path / "h.npz")["hessian_1"].shape == (6, 6)
    with pytest.raises(ConfigError, match=r"take \.npz"):
        write_hessians(tmp_path / "h.npy", [np.eye(3), np.eye(6)])
    with pytest.raises(ConfigError, match=r"ending in \.npy"):
        write_hessians(tmp_path / "h.txt", [np.eye(3)])


def test_a_change_beyond_tenfold_is_a_factor():
    first, second = Figure(2e-6, 9, "eV/Å²"), Figure(0.5, 9, "eV/Å²")
    assert change("hessian_mae", first, second) == ("× 2.50e+05", "worse")
    assert change("hessian_mae", second, first) == ("−100 %", "better")
    assert change("md_failure_temperature", Figure(500.0, 3, "K"), Figure(750.0, 3, "K")) == ("+50 %", "better")
    assert change("saddle_success", Figure(0.5, 4, "1"), Figure(1.0, 4, "1")) == ("+50 points", "better")
