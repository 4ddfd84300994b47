"""The command: exit statuses, messages, what ends up in the store."""

import json

import pytest
from ase.build import molecule
from ase.io import write

from nequip_hessian.cli import main
from nequip_hessian.store import HessianStore


@pytest.fixture
def water(tmp_path):
    path = tmp_path / "water.extxyz"
    atoms = molecule("H2O")
    atoms.info.update(kind="displaced", group="water", label="bent water", charge=0, multiplicity=1)
    write(path, [atoms, molecule("CO")])
    return str(path)


def test_a_file_of_two_frames(tmp_path, water, capsys):
    out = tmp_path / "out.zarr"
    status = main(["label", water, "-o", str(out), "--engine", "tblite", "--json", str(tmp_path / "r.json")])
    assert status == 0
    store = HessianStore(out)
    assert [(store[i].label, store[i].group) for i in range(2)] == [("bent water", "water"), ("water-1", None)]
    assert store[0].multiplicity == 1
    assert "labelled 2 of 2" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["labelled"] == 2
    source = store.attributes["provenance"][0]["sources"][0]
    assert source["name"] == "water.extxyz"
    assert len(source["sha256"]) == 64


def test_some_failed_is_status_three(tmp_path, capsys):
    path = tmp_path / "set.extxyz"
    charged = molecule("CO")
    charged.info["charge"] = 1
    write(path, [molecule("H2O"), charged])
    status = main(["label", str(path), "-o", str(tmp_path / "o.zarr"), "--engine", "ase", "--calculator", "emt"])
    assert status == 3
    assert len(HessianStore(tmp_path / "o.zarr")) == 1
    assert "geometry 1 (set-1)" in capsys.readouterr().err


def test_options_reach_the_engine(tmp_path, water):
    out = tmp_path / "o.zarr"
    arguments = ["--engine", "pyscf", "--method", "hf", "--basis", "sto-3g", "--dtype", "float32"]
    assert main(["label", water, "-o", str(out), *arguments]) == 0
    store = HessianStore(out)
    assert (store.levels[0].method, store.levels[0].basis, store.levels[0].hessian) == ("HF", "sto-3g", "analytic")
    assert store[0].hessian.dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "pyscf", "--displacement", "0.01"], "--displacement belongs to --engine tblite or ase"),
        (["--engine", "ase"], "needs --calculator"),
        (["--engine", "ase", "--calculator", "emt", "--calculator-options", "{"], "JSON object"),
        (["--engine", "ase", "--calculator", "no.such:Thing"], "not found"),
        (["--engine", "tblite", "--method", "AM1"], "GFN2-xTB"),
        (["--engine", "tblite", "--workers", "0"], "at least one worker"),
        (["--engine", "tblite", "--charge", "1"], "no store was written"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, water, capsys, arguments, message):
    even = [*arguments, "--multiplicity", "1"]
    path = tmp_path / "co.xyz"
    write(path, molecule("CO"))
    depends = message in ("not found", "no store was written")  # on what is installed, and on the molecule
    assert main(["label", str(path), "-o", str(tmp_path / "o.zarr"), *even]) == (1 if depends else 2)
    captured = capsys.readouterr()
    assert message in captured.err + captured.out
    assert "Traceback" not in captured.err
    assert not (tmp_path / "o.zarr").exists()


def test_a_name_does_not_command_the_terminal(tmp_path, water, capsys):
    arguments = ["-o", str(tmp_path / "\x1b[31m.zarr"), "--engine", "ase", "--calculator", "emt"]
    assert main(["label", str(water), *arguments]) == 0
    assert main(["label", str(water), *arguments, "--overwrite", "--rank", "0", "--world", "1"]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert captured.out.count("\\x1b[31m.zarr") == 2


@pytest.mark.parametrize("content", ["", "3\n\nH 0 0 0\n", "no geometry at all\n"])
def test_files_that_hold_no_geometry(tmp_path, capsys, content):
    path = tmp_path / "bad.xyz"
    path.write_text(content)
    assert main(["label", str(path), "-o", str(tmp_path / "o.zarr"), "--engine", "tblite"]) == 1
    assert "bad.xyz" in capsys.readouterr().err


def test_two_atoms_at_one_place_name_file_and_frame(tmp_path, capsys):
    path = tmp_path / "clash.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.7\n2\n\nH 0 0 0\nH 0 0 0\n")
    assert main(["label", str(path), "-o", str(tmp_path / "o.zarr"), "--engine", "tblite"]) == 1
    assert "clash.xyz, geometry 1: positions: two atoms" in capsys.readouterr().err
