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


def test_an_empty_folder_of_results_is_told(tmp_path):
    command = [sys.executable, EXPERIMENT / "tables.py", "--results", tmp_path, "-o", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no result in" in done.stderr
    assert "Traceback" not in done.stderr
