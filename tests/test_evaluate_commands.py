"""The documented commands on the model that comes with the repository, and the same commands on wrong input."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from nequip_hessian.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("evaluate", "energy", "optimise", "vibrations")


def blocks(page):
    return re.findall(r"```(bash|python)\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), flags=re.DOTALL)


BLOCKS = [(page, kind, text) for page in PAGES for kind, text in blocks(page)]
MODEL = "models/reactions-xtb.nequip.zip"
STORE = "datasets/reactions-xtb/reactions-xtb.zarr"


def run(kind, text, folder):
    command = ["bash", "-e", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder like the repository root, with an empty out/."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("configs", "datasets", "models", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "out").mkdir()
    return folder


def test_every_page_shows_something():
    assert {page for page, _, _ in BLOCKS} == set(PAGES)


@pytest.fixture(scope="module")
def outcomes(workplace):
    """Every documented block, run once."""
    return [run(kind, text, workplace) for _, kind, text in BLOCKS]


@pytest.mark.slow
def test_the_documented_blocks_run_and_write_what_they_say(workplace, outcomes):
    assert not any("Traceback" in done.stderr for done in outcomes)
    out = workplace / "out"
    hessian = np.load(out / "hessian.npy")
    assert hessian.shape == (12, 12)
    np.testing.assert_allclose(hessian, hessian.T)
    labelled = read(out / "labelled.extxyz")
    assert np.isfinite(labelled.get_potential_energy())
    assert labelled.get_forces().shape == (4, 3)
    modes = json.loads((out / "modes" / "frequencies.json").read_text(encoding="utf-8"))
    assert len(modes["wavenumbers_cm"]) == 6
    document = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    assert document["models"][0]["name"] == "efh"
    assert len(document["models"][0]["sha256"]) == 64
    assert document["models"][0]["figures"]["force_mae"]["n"] > 0
    # exact second derivatives of the forces' own energy
    assert document["models"][0]["figures"]["consistency"]["value"] < 1e-3


def test_wrong_input_is_one_line_and_a_status(workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    model = MODEL
    (tmp_path / "xenon.xyz").write_text("2\n\nXe 0 0 0\nXe 0 0 3\n", encoding="utf-8")
    (tmp_path / "cut.xyz").write_text("3\n\nH 0 0 0\n", encoding="utf-8")
    (tmp_path / "no.ckpt").write_text("no model", encoding="utf-8")
    cases = {
        ("vibrations", model, str(tmp_path / "xenon.xyz")): "has not seen Xe",
        ("optimise", "unread.ckpt", str(tmp_path / "cut.xyz")): "cut.xyz",
        ("optimise", "unread.ckpt", str(tmp_path / "none.xyz")): "no such file",
        ("energy", str(tmp_path / "no.ckpt"), "out/formaldehyde.xyz"): "no.ckpt",
        ("vibrations", model, "--compare", str(tmp_path / "cut.xyz")): "cut.xyz",
        ("evaluate", model, "out/nothing.zarr", "-o", str(tmp_path / "o")): "nothing.zarr",
        ("evaluate", "absent.ckpt", STORE, "-o", str(tmp_path / "o")): "absent.ckpt",
        ("evaluate", model, STORE, "-o", str(tmp_path / "o"), "--split", "reaction:nowhere"): "no part 'nowhere'",
    }
    from ase.build import molecule
    from ase.io import write

    write("out/formaldehyde.xyz", molecule("H2CO"))
    for arguments, message in cases.items():
        assert main(list(arguments)) == 1, arguments
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert error.startswith(f"nequip-hessian {arguments[0]}: error: ")
        assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()
    assert main(["vibrations", model]) == 2


def test_a_minimisation_that_does_not_converge_is_status_1(workplace, capsys, monkeypatch):
    from ase.build import molecule
    from ase.io import write

    monkeypatch.chdir(workplace)
    write("out/bent.xyz", molecule("H2CO"))
    assert main(["optimise", MODEL, "out/bent.xyz", "--fmax", "1e-9", "--steps", "1"]) == 1
    captured = capsys.readouterr()
    assert "NO" in captured.out
    assert "geometry 0: largest force" in captured.err
