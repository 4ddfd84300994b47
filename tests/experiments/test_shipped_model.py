"""The model that comes with the repository: it is the one on its card, and does what the card says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.store import HessianStore

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "reactions-xtb.nequip.zip"
CARD = ROOT / "models" / "README.md"
RESULTS = ROOT / "experiments" / "seed-table" / "results"


@pytest.fixture(scope="module")
def calculator():
    return HessianCalculator.from_file(MODEL)


def test_it_is_small_enough_to_ship():
    assert MODEL.stat().st_size < 10e6


def test_the_card_holds_the_figures_of_its_run():
    card = CARD.read_text()
    (name,) = [path.stem for path in RESULTS.glob("nequip_all_*.json") if path.stem in card]
    run = json.loads((RESULTS / f"{name}.json").read_text())
    row = next(line for line in card.splitlines() if line.startswith("| force MAE"))
    for cell, part in zip(row.split("|")[2:5], ("test", "test_irc", "test_displaced"), strict=True):
        assert float(cell) == pytest.approx(1000 * run["figures"][part]["force_mae"]["value"], rel=5e-3)


def test_its_hessian_is_the_derivative_of_its_forces(calculator):
    atoms = molecule("H2CO")
    atoms.calc = calculator
    exact, step, columns = calculator.get_hessian(atoms), 0.005, []
    for shift in step * np.eye(12).reshape(12, 4, 3):
        ends = [molecule("H2CO", positions=atoms.positions + sign * shift) for sign in (1, -1)]
        (_, above), (_, below) = calculator.evaluate_many(ends)
        columns.append((below - above).ravel() / (2 * step))
    assert np.abs(exact - np.array(columns)).max() < 0.01 * np.abs(exact).max()  # float32


def test_its_error_on_the_test_reactions_is_that_of_its_card(calculator):
    store = HessianStore(ROOT / "datasets" / "reactions-xtb" / "reactions-xtb.zarr")
    codes, parts = store.split("reaction_all")
    records = store[np.flatnonzero(codes == parts.index("test"))]
    found = calculator.evaluate_many([Atoms(r.numbers, r.positions) for r in records])
    errors = np.concatenate([np.abs(forces - r.forces).ravel() for (_, forces), r in zip(found, records, strict=True)])
    said = float(next(line for line in CARD.read_text().splitlines() if line.startswith("| force MAE")).split("|")[2])
    assert 1000 * errors.mean() == pytest.approx(said, rel=0.01)


def test_an_element_it_has_not_seen_is_refused_by_name(tmp_path):
    molecule("SH2").write(tmp_path / "h2s.xyz")
    command = [sys.executable, "-m", "nequip_hessian", "energy", MODEL, tmp_path / "h2s.xyz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "S" in done.stderr
    assert "Traceback" not in done.stderr
