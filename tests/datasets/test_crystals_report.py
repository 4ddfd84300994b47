"""The comparison of experiments/crystals: its errors against those computed by hand, its table, its page."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator

from nequip_hessian.analysis.phonons import lattice_dynamics
from nequip_hessian.errors import HessianDataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    target = tmp_path_factory.mktemp("report") / "crystals.zarr"
    command = [sys.executable, str(ROOT / "datasets" / "crystals" / "build.py"), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "crystals"))
    sys.modules.pop("report", None)
    yield importlib.import_module("report")
    sys.modules.pop("report", None)


class Scaled(Calculator):
    """The reference's own force constants times a factor; no forces."""

    def __init__(self, constants, factor):
        super().__init__()
        n = len(constants)
        self.hessian = factor * np.transpose(constants, (0, 2, 1, 3)).reshape(3 * n, 3 * n)

    def get_hessian(self, atoms, indices=None):
        return self.hessian


@pytest.mark.parametrize("factor", [1.0, 1.21])
def test_errors_of_scaled_force_constants_are_those_by_hand(report, store, factor):
    calculation, label = report.reference_of(store, "Si")
    assert label == "Si/supercell", "the held-out supercell of sixteen atoms"
    constants = np.asarray(calculation.force_constants)
    reference = lattice_dynamics(calculation, constants, mesh=report.MESH)
    found = report.errors_of(report.model_phonons(calculation, Scaled(constants, factor)), reference)
    weights = np.asarray(reference.weights, dtype=float)
    mean_square = np.average((reference.frequencies**2).mean(axis=1), weights=weights)
    expected = (np.sqrt(factor) - 1) * np.sqrt(mean_square)
    assert found["frequency_rmse_THz"] == pytest.approx(expected, abs=1e-4)
    assert found["frequency_max_THz"] == pytest.approx((np.sqrt(factor) - 1) * reference.frequencies.max(), abs=1e-4)
    assert found["imaginary_share"] == 0
    assert (found["heat_capacity_rmse_J_per_K_mol"] > 0.1) == (factor > 1)


def test_edge_of_the_cube_from_the_primitive_cell(report):
    cell = 2.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    assert report.cube_edge(Atoms("Si2", np.zeros((2, 3)), cell=cell, pbc=True)) == pytest.approx(5.0)


def rows():
    common = {
        "crystal": "Si",
        "reference": "Si/supercell",
        "frequency_max_THz": 2.0,
        "heat_capacity_rmse_J_per_K_mol": 0.25,
        "imaginary_share": 0.5,
        "reference_lattice_constant_A": 5.397,
    }
    first = {"model": "springs", "frequency_rmse_THz": 1.0, "lattice_constant_A": 5.5}
    second = {"model": "springs", "frequency_rmse_THz": 2.0, "lattice_constant_A": None}
    return [common | first, common | second, common | first | {"model": "other"}]


def test_table_shows_the_spread_of_seeds_and_what_did_not_relax(report):
    lines = report.table(rows()).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].endswith("| 5.397 |")
    assert "| springs | 2 | 1.50 (1.00 to 2.00) | 50 (33 to 67) |" in lines[3]
    assert lines[3].endswith("| 50 (50 to 50) | 5.500, 1 not relaxed |")
    assert "| other | 1 | 1.00 | 33 |" in lines[4]


def test_section_of_a_page_is_written_and_nothing_beside_it(report, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}old\n{report.END}behind\n")
    report.write_section(page, "new\n")
    assert page.read_text() == f"before\n{report.BEGIN}new\n{report.END}behind\n"
    page.write_text("no marks\n")
    with pytest.raises(HessianDataError, match="expected the lines"):
        report.write_section(page, "new\n")
    assert page.read_text() == "no marks\n"


def test_table_of_the_page_is_that_of_the_results(report):
    kept = json.loads((ROOT / "experiments" / "crystals" / "results" / "results.json").read_text())["rows"]
    page = (ROOT / "docs" / "phonons.md").read_text()
    assert report.BEGIN + report.table(kept) + report.END in page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere.zarr", "unnamed"], "expected NAME=MODEL"),
        (["nowhere.zarr", "name=nowhere.ckpt"], "nowhere.ckpt"),
        ([], "expected a store and models"),
        (["--results", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_input_is_told_in_one_line(arguments, expected, tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / "crystals" / "report.py"), "-o", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert expected in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr
