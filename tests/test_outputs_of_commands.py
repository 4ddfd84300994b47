"""What a user points a command at by mistake: nothing is lost, nothing hangs, the mistake is told before the work."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from nequip_hessian.analysis.saddle import SaddleSearch, judge
from nequip_hessian.cli import main
from nequip_hessian.errors import ConfigError

DATA = Path(__file__).parent / "formats" / "data"


def test_info_does_not_replace_a_file_unasked(small_store, tmp_path, capsys):
    precious = tmp_path / "geometry.xyz"
    precious.write_text("mine")
    assert main(["info", str(small_store), "--html", str(precious)]) == 1
    assert precious.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert main(["info", str(small_store), "--html", str(precious), "--overwrite"]) == 0
    assert precious.read_text().startswith("<!doctype html>")


def test_a_pipe_among_the_inputs_does_not_stop_a_conversion(tmp_path, capsys):
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "water.json").write_bytes((DATA / "water_hf_pyscf.json").read_bytes())
    os.mkfifo(folder / "pipe.log")
    assert main(["convert", str(folder), "-o", str(tmp_path / "a.zarr")]) == 0
    assert main(["convert", str(folder / "pipe.log"), "-o", str(tmp_path / "b.zarr")]) == 1
    assert "found a pipe" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["vibrations", "ts", "irc", "neb", "reaction"])
def test_an_output_that_is_a_file_is_refused_before_the_calculation(verb, tmp_path, capsys):
    place = tmp_path / "taken"
    place.write_text("mine")
    geometry = tmp_path / "water.xyz"
    molecule("H2O").write(geometry)
    ends = [str(geometry)] * (2 if verb in ("neb", "reaction") else 1)
    assert main([verb, "tblite", *ends, "-o", str(place)]) == 1
    message = capsys.readouterr().err
    assert "expected a folder, found a file" in message
    assert place.read_text() == "mine"


@pytest.mark.parametrize(
    "options",
    [["--symmetry", "0"], ["--temperature", "-5"], ["--pressure", "nan"], ["--fwhm", "0"], ["--temperature", "warm"]],
)
def test_a_wrong_number_is_wrong_usage_before_the_calculation(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["vibrations", "no such model", "nowhere.xyz", *options])
    assert caught.value.code == 2
    assert "expected a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"), [("h.txt", ".npy"), ("folder.npy", "found a folder"), ("file/h.npy", "nothing can be written")]
)
def test_a_file_for_the_hessian_is_tried_before_the_calculation(name, text, tmp_path, capsys, monkeypatch):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").write_text("mine")
    geometry = tmp_path / "water.xyz"
    molecule("H2O").write(geometry)
    monkeypatch.setattr("nequip_hessian.analysis.single.model_vibrations", None)  # would fail if it came so far
    assert main(["vibrations", "tblite", str(geometry), "--hessian", str(tmp_path / name)]) == 1
    assert text in capsys.readouterr().err


def test_modes_of_another_molecule_do_not_stay_behind(tmp_path):
    for name, modes in (("HCN", 4), ("H2O", 3)):
        path = tmp_path / f"{name}.xyz"
        molecule(name).write(path)
        assert main(["vibrations", "tblite", str(path), "--optimise", "-o", str(tmp_path / "modes")]) == 0
        assert len(list((tmp_path / "modes").glob("mode_*.extxyz"))) == modes


def test_a_reference_of_another_molecule_is_refused():
    search = object.__new__(SaddleSearch)
    object.__setattr__(search, "atoms", Atoms("HCN", np.eye(3)))
    with pytest.raises(ConfigError, match="expected the atoms of the search"):
        judge(search, reference=molecule("H2O"))
