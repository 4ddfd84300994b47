"""The committed pages of the experiment are what its commands make from the committed results."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert float(row.split("|")[3].split("±")[0]) == pytest.approx(mean, rel=5e-3)
    for run in runs:
        assert run["training"]["cpu_seconds"] > 0
        assert re.fullmatch(r"[0-9a-f]{64}", run["model_sha256"])
        assert run["stores"]


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
