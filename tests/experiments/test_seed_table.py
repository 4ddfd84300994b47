"""The committed pages of the experiment are what its commands make from the committed results."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = ROOT / "experiments" / "seed-table"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    shutil.copytree(EXPERIMENT / "results", folder / "results")
    command = [sys.executable, EXPERIMENT / "tables.py", "--results", folder / "results", "-o", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_page_of_results_is_made_from_the_results(made):
    assert (made / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text()
    assert (made / "results" / "results.csv").read_bytes() == (EXPERIMENT / "results" / "results.csv").read_bytes()


def test_every_figure_of_the_page_is_committed_and_made(made):
    names = re.findall(r"\]\(figures/([a-z-]+\.svg)\)", (made / "results.md").read_text())
    assert "arms.svg" in names
    for name in names:
        assert (made / "figures" / name).is_file()
        assert (ROOT / "docs" / "figures" / name).is_file()


def test_a_run_can_be_traced_and_numbers_of_the_page_are_its_own(made):
    """Recomputed here from a result file, not by the functions of the page."""
    page = (made / "results.md").read_text()
    runs = [
        json.loads(path.read_text()) for path in sorted((EXPERIMENT / "results").glob("nequip_mixed_1_E-F_seed*.json"))
    ]
    mean = sum(1000 * run["figures"]["test_displaced"]["force_mae"]["value"] for run in runs) / len(runs)
    table = page[page.index("Held-out reactions, displaced (") :]
    row = next(line for line in table.splitlines() if line.startswith("| force MAE"))
    assert float(row.split("|")[4].split("±")[0]) == pytest.approx(mean, rel=5e-3)
    for run in runs:
        assert run["training"]["cpu_seconds"] > 0
        assert re.fullmatch(r"[0-9a-f]{64}", run["model_sha256"])
        assert run["stores"]


def test_no_model_has_the_size_of_the_labels_as_its_error():
    """Recomputed here from the labels of the data set."""
    kept = json.loads((EXPERIMENT / "results" / "no-model.json").read_text())["figures"]["test_irc"]
    store = HessianStore(ROOT / "datasets" / "reactions-xtb" / "reactions-xtb.zarr")
    codes, parts = store.split("reaction")
    held = np.flatnonzero(codes == parts.index("test_irc"))
    chosen = held[np.linspace(0, len(held) - 1, 150).round().astype(int)]
    forces = np.concatenate([record.forces.ravel() for record in store[chosen]])
    assert kept["force_rmse"]["value"] == pytest.approx(np.sqrt(np.mean(forces**2)), rel=1e-5)
    assert kept["force_mae"]["value"] == pytest.approx(np.abs(forces).mean(), rel=1e-5)


def test_errors_of_bands_are_over_reactions_that_converged_in_both_arms(made):
    """Recomputed here, pair by pair: bands of other reactions would compare the reactions."""
    found = {"E-F": [], "E-F-H": []}
    for seed in (1, 2, 3):
        pair = [EXPERIMENT / "results" / f"nequip_mixed_1_{arm}_seed{seed}.json" for arm in found]
        lists = [json.loads(path.read_text())["reaction_list"] for path in pair]
        both = [k for k in range(len(lists[0])) if lists[0][k]["failure"] is None and lists[1][k]["failure"] is None]
        assert 0 < len(both) < min(sum(band["failure"] is None for band in bands) for bands in lists) + 1
        for arm, bands in zip(found, lists, strict=True):
            errors = [abs(bands[k][end]) for k in both for end in ("forward_error", "reverse_error")]
            found[arm].append(1000 * sum(errors) / len(errors))
    row = next(line for line in (made / "results.md").read_text().splitlines() if line.startswith("| NEB barrier MAE"))
    for cell, values in zip(row.split("|")[2:4], found.values(), strict=True):
        assert float(cell.split("±")[0]) == pytest.approx(sum(values) / 3, rel=5e-3)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run.py", "--only", "zzz", "--list"], "no run of the plan"),
        (["run.py"], "--store and --work are needed"),
        (["run.py", "--store", "nowhere.zarr", "--work", "work"], "nothing there"),
        (["tables.py", "--store", "nowhere.zarr", "-o", "page"], "nothing there"),
    ],
    ids=["no such run", "nothing given", "no data", "no data for the page"],
)
def test_what_cannot_be_run_is_told_before_anything_is_written(command, said, tmp_path):
    done = subprocess.run(
        [sys.executable, EXPERIMENT / command[0], *command[1:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "page").exists()


def test_an_empty_folder_of_results_is_told(tmp_path):
    command = [sys.executable, EXPERIMENT / "tables.py", "--results", tmp_path, "-o", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no result in" in done.stderr
    assert "Traceback" not in done.stderr


def module_of_the_experiment(name, monkeypatch):
    """Import a module of the folder, whatever other folder's modules of these names are loaded."""
    for path in EXPERIMENT.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    monkeypatch.syspath_prepend(str(EXPERIMENT))
    return importlib.import_module(name)


def test_outcomes_are_a_table_of_what_both_models_answered(tmp_path, monkeypatch):
    """Percentages in points, other figures relative, the interval behind; a dash where only one has a figure."""
    outcomes = module_of_the_experiment("outcomes", monkeypatch)
    assert outcomes.section(tmp_path) == []
    first = {
        "saddle_success": {"value": 0.4, "n": 30},
        "saddle_gradients": {"value": 50.0, "n": 10},
        "zpe_mae": {"value": 0.1, "n": 60},
    }
    model = {"saddle_success": {"value": 0.5, "n": 30}, "saddle_gradients": {"value": 40.0, "n": 10}}
    intervals = {
        "saddle_success": {"difference": [-0.1, 0.3], "relative": [-0.2, 0.9]},
        "saddle_gradients": {"difference": [-15.0, -5.0], "relative": [-0.3, -0.1]},
        "zpe_mae": {"difference": [-0.1, 0.1], "relative": [-1.0, 1.0]},
    }
    compared = {"first": first, "model": model, "intervals": intervals}
    content = {"reactions": 30, "models": {"E-F": {"against_first": None}, "E-F-H": {"against_first": compared}}}
    (tmp_path / "outcomes.json").write_text(json.dumps(content))
    lines = outcomes.section(tmp_path)
    assert "on 30 held-out reactions" in lines[2]
    rows = {line.split(" | ")[0]: line for line in lines if line.startswith("| ")}
    assert rows["| transition states found that connect the right ends, %"].endswith(
        "| 40.0 (30) | 50.0 (30) | +10 (-10 to +30) |"
    )
    assert rows["| force calls of a search with the model's Hessian"].endswith(
        "| 50.0 (10) | 40.0 (10) | -20 % (-30 to -10) |"
    )
    assert rows["| zero-point energy MAE, meV"].endswith("| 100 (60) | – | – |")


def test_every_trial_of_the_page_is_one_of_the_command(monkeypatch):
    tune = module_of_the_experiment("tune", monkeypatch)
    kept = json.loads((EXPERIMENT / "tuning.json").read_text())
    assert set(kept) == {name for stage in tune.STAGES for name in tune.trials(stage)}
    assert (EXPERIMENT / "tuning.md").read_text() == tune.page(kept)


def test_a_folder_of_stores_is_of_one_data_set(tmp_path, monkeypatch):
    stores = module_of_the_experiment("stores", monkeypatch)
    small = ROOT / "datasets" / "reactions-xtb" / "small.zarr.zip"
    stores.make_stores(small, tmp_path / "stores")
    assert len(HessianStore(tmp_path / "stores" / "all.zarr")) == 420
    stores.make_stores(small, tmp_path / "stores")  # again: nothing to do
    with pytest.raises(StoreError, match="made from another data set"):
        stores.make_stores(small.with_name("reactions-xtb.zarr"), tmp_path / "stores")
    foreign = ROOT / "tests" / "conformance" / "valid" / "rich.zarr.zip"
    with pytest.raises(StoreError, match="no split scheme 'reaction'"):
        stores.make_stores(foreign, tmp_path / "others")
    assert not (tmp_path / "others").exists()
