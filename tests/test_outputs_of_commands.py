"""What a user points a command at by mistake: nothing is lost, nothing hangs, the mistake is told before the work."""

import bz2
import gzip
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from nequip_hessian.analysis.saddle import SaddleSearch, judge
from nequip_hessian.cli import main
from nequip_hessian.errors import ConfigError
from nequip_hessian.store import HessianStore

DATA = Path(__file__).parent / "formats" / "data"


def test_info_does_not_replace_a_file_unasked(small_store, tmp_path, capsys):
    precious = tmp_path / "geometry.xyz"
    precious.write_text("mine")
    assert main(["info", str(small_store), "--html", str(precious)]) == 1
    assert precious.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert main(["info", str(small_store), "--html", str(precious), "--overwrite"]) == 0
    assert precious.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("place", [".", "/", ".."])
@pytest.mark.parametrize(
    "command",
    [
        ["convert", "{log}", "-o"],
        ["convert", "{log}", "--rank", "0", "--world", "1", "-o"],
        ["label", "{xyz}", "--engine", "tblite", "-o"],
        ["export", "{store}", "--format", "extxyz", "-o"],
        ["export", "{store}", "--format", "xtb", "-o"],
        ["merge", "{store}", "{store}", "-o"],
        ["repack", "{store}", "-o"],
        ["card", "{store}", "--title", "a", "--version-of-data", "1", "--description", "b", "--license", "MIT",
         "--author", "A", "-o"],
        ["info", "{store}", "--html"],
    ],
    ids=lambda one: " ".join(one[::2]),
)  # fmt: skip
def test_an_output_without_a_name_is_refused(command, place, small_store, tmp_path, monkeypatch, capsys):
    molecule("H2O").write(tmp_path / "a.xyz")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "precious").write_text("mine")
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    names = {"log": DATA / "water_hf_pyscf.json", "xyz": tmp_path / "a.xyz", "store": small_store}
    assert main([*(word.format(**names) for word in command), place, "--overwrite"]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "name" in line or "is no Hessian store" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pipe_among_the_inputs_does_not_stop_a_conversion(tmp_path, capsys):
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "water.json").write_bytes((DATA / "water_hf_pyscf.json").read_bytes())
    os.mkfifo(folder / "pipe.log")
    assert main(["convert", str(folder), "-o", str(tmp_path / "a.zarr")]) == 0
    assert main(["convert", str(folder / "pipe.log"), "-o", str(tmp_path / "b.zarr")]) == 1
    assert "found a pipe" in capsys.readouterr().err


def test_names_that_are_no_text_and_links_in_a_circle(tmp_path, capsys):
    folder = tmp_path / "jobs"
    folder.mkdir()
    water = (DATA / "water_hf_pyscf.json").read_bytes()
    for name in (b"a b.json", "ü水.json".encode(), b"new\nline.json", b"bad\xff.json"):
        (folder / os.fsdecode(name)).write_bytes(water)
    (folder / "loop").symlink_to(".")
    (folder / "dangling.log").symlink_to("nowhere")
    assert main(["convert", str(folder), "-o", str(tmp_path / "s p" / "ü.zarr")]) == 3
    printed = capsys.readouterr()
    assert "1 taken, 3 duplicate, 1 refused" in printed.out
    assert "dangling.log" in printed.err
    only = os.fsdecode(os.fsencode(folder) + b"/bad\xff.json")
    assert main(["convert", only, "-o", str(tmp_path / "b.zarr")]) == 0
    assert HessianStore(tmp_path / "b.zarr").label(0) == "bad_"


@pytest.mark.parametrize(("ending", "packed"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_outputs_in_a_folder_are_read(ending, packed, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / f"water.out.{ending}").write_bytes(packed((DATA / "nwchem" / "water.out").read_bytes()))
    assert main(["convert", str(folder), "-o", str(tmp_path / "a.zarr")]) == 0
    monkeypatch.setattr("nequip_hessian.formats._source.LARGEST_TEXT", 10_000)  # as a file that grows without end
    assert main(["convert", str(folder / f"water.out.{ending}"), "-o", str(tmp_path / "b.zarr")]) == 1
    assert "when decompressed" in capsys.readouterr().err


def test_an_empty_folder_is_called_so(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["convert", str(tmp_path / "empty"), "-o", str(tmp_path / "a.zarr")]) == 1
    assert "no file there has the name of a known format" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["validate"], ["info"], ["repack", "-o", "x.zarr"], ["export", "--format", "fchk", "-o", "x"]]
)
def test_a_pipe_in_place_of_a_store_is_not_waited_for(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert main([command[0], "pipe", *command[1:]]) == 1
    printed = capsys.readouterr()
    assert "found a pipe" in printed.out + printed.err


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
    monkeypatch.setattr("nequip_hessian.analysis.vibration_jobs.run_vibrations", None)  # would fail if it came so far
    assert main(["vibrations", "tblite", str(geometry), "--hessian", str(tmp_path / name)]) == (
        2 if text == ".npy" else 1
    )
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


@pytest.mark.parametrize("verb", ["energy", "optimise"])
def test_the_file_that_is_read_is_not_written(verb, tmp_path, capsys):
    file = tmp_path / "water.xyz"
    write(file, molecule("H2O"))
    before = file.read_bytes()
    assert main([verb, "tblite", str(file), "-o", f"{tmp_path}/../{tmp_path.name}/water.xyz"]) == 2
    assert "is the file that is read" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main([verb, "tblite", str(file), "-o", str(tmp_path)]) == 1
    assert "found a folder" in capsys.readouterr().err


RICH = Path(__file__).parent / "conformance" / "valid" / "rich.zarr.zip"


@pytest.mark.parametrize("place", ["store.zarr/new.zarr", "store.zarr/atom/new.zarr", "http://127.0.0.1:1/new.zarr"])
@pytest.mark.parametrize("verb", ["convert", "repack", "merge", "export", "info", "card", "label"])
def test_nothing_is_written_into_a_store_or_to_an_address(verb, place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["repack", str(RICH), "-o", "store.zarr"]) == 0
    write("water.xyz", molecule("H2O"))
    command = {
        "convert": ["convert", str(RICH.parents[2] / "formats" / "data" / "water_hf_pyscf.json"), "-o"],
        "repack": ["repack", str(RICH), "-o"],
        "merge": ["merge", str(RICH), str(RICH.with_name("phonon.zarr.zip")), "--license", "CC0-1.0", "-o"],
        "export": ["export", str(RICH), "--format", "extxyz", "-o"],
        "info": ["info", str(RICH), "--html"],
        "card": ["card", str(RICH), "-o"],
        "label": ["label", "water.xyz", "--engine", "tblite", "-o"],
    }[verb]
    before = sorted(tmp_path.rglob("*"))
    assert main([*command, place]) == 2
    error = capsys.readouterr().err
    assert ("addresses are for reading" if "http" in place else "lies inside the Zarr store") in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_split_is_not_written_to_an_address(capsys):
    assert main(["split", "http://127.0.0.1:1/rem.zarr"]) == 2
    assert "addresses are for reading" in capsys.readouterr().err


def test_the_report_of_labels_replaces_a_report_and_nothing_else(tmp_path, capsys):
    geometry, report = tmp_path / "water.xyz", tmp_path / "report.json"
    write(geometry, molecule("H2O"))
    before = geometry.read_bytes()
    command = ["label", str(geometry), "--engine", "tblite", "--no-hessian", "-o", str(tmp_path / "a.zarr")]
    assert main([*command, "--json", str(geometry)]) == 2
    assert "is no report" in capsys.readouterr().err
    assert geometry.read_bytes() == before
    assert main([*command, "--json", str(report)]) == 0
    assert main([*command, "--json", str(report), "--overwrite"]) == 0


def test_the_store_that_is_read_is_never_the_output(small_store, tmp_path, capsys):
    """Not even with --overwrite, and a card replaces a card only."""
    from nequip_hessian.store.repack import repack

    repack(small_store, tmp_path / "s.zip", profile="publish")
    before = (tmp_path / "s.zip").read_bytes()
    (tmp_path / "job.log").write_text("mine")
    card = ["--title", "a", "--version-of-data", "1", "--description", "b", "--license", "MIT", "--author", "A"]
    for command in (
        ["info", "s.zip", "--html", "s.zip"],
        ["export", "s.zip", "--format", "extxyz", "-o", "s.zip"],
        ["card", "s.zip", *card, "-o", "s.zip"],
        ["card", "s.zip", *card, "-o", "job.log"],
    ):
        words = [str(tmp_path / word) if word in ("s.zip", "job.log") else word for word in command]
        assert main([*words, "--overwrite"]) in (1, 2), command
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert (tmp_path / "s.zip").read_bytes() == before
    assert (tmp_path / "job.log").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.log", "s.zip"]


def test_files_of_the_user_beside_a_target_stay(tmp_path, capsys):
    """Folders have names of ours, and reports: what lies there and is not ours is not touched."""
    molecule("H2O").write(tmp_path / "a.xyz")
    for folder in ("s.zarr.parts", "l.zarr.journal"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "notes.txt").write_text("mine")
    (tmp_path / "r.zarr.report.json").write_text("mine")
    log = str(DATA / "water_hf_pyscf.json")
    assert main(["convert", log, "-o", str(tmp_path / "s.zarr")]) == 0
    assert main(["label", str(tmp_path / "a.xyz"), "--engine", "tblite", "-o", str(tmp_path / "l.zarr")]) == 0
    assert main(["convert", log, "-o", str(tmp_path / "r.zarr")]) == 1
    assert "is no report of a conversion" in capsys.readouterr().err
    for name in ("s.zarr.parts/notes.txt", "l.zarr.journal/notes.txt", "r.zarr.report.json"):
        assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("value", ["40000", "0.5"])
def test_a_charge_that_no_store_holds_is_told_with_its_frame(tmp_path, capsys, value):
    for name, charge in (("good.xyz", "0"), ("bad.xyz", value)):
        atoms = molecule("H2O")
        atoms.info["charge"] = float(charge) if "." in charge else int(charge)
        atoms.info["energy"] = -1.0
        write(tmp_path / name, atoms, format="extxyz")
    bad, good, target = (str(tmp_path / name) for name in ("bad.xyz", "good.xyz", "q.zarr"))
    assert main(["convert", bad, "-o", target, "--without-hessian"]) == 1
    error = capsys.readouterr().err
    assert "frame 0: charge: expected an integer" in error
    assert f"found {value}" in error
    assert main(["convert", bad, good, "-o", target, "--without-hessian"]) == 3
    assert len(HessianStore(target)) == 1
    capsys.readouterr()
    assert main(["label", good, bad, "--engine", "tblite", "-o", str(tmp_path / "l.zarr")]) == 1
    assert "bad.xyz, geometry 0: charge: expected an integer" in capsys.readouterr().err


def test_an_empty_input_is_not_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "water.json").write_bytes((DATA / "water_hf_pyscf.json").read_bytes())
    assert main(["convert", "", "-o", "s.zarr"]) in (1, 2)
    assert "was a variable not set" in capsys.readouterr().err
    assert not (tmp_path / "s.zarr").exists()


def test_pipes_given_to_label_and_as_a_list_do_not_hang(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.xyz")
    assert main(["label", str(tmp_path / "pipe.xyz"), "--engine", "tblite", "-o", str(tmp_path / "l.zarr")]) == 1
    assert main(["convert", f"@{tmp_path / 'pipe.xyz'}", "-o", str(tmp_path / "s.zarr")]) == 1
    assert capsys.readouterr().err.count("pipe or device") == 2


def test_a_label_run_of_nothing_leaves_nothing(tmp_path, capsys):
    molecule("H2O").write(tmp_path / "a.xyz")
    words = [str(tmp_path / "a.xyz"), "--engine", "tblite", "--charge", "1", "--multiplicity", "1"]
    assert main(["label", *words, "-o", str(tmp_path / "l.zarr")]) == 1
    assert "journal" not in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["a.xyz"]
