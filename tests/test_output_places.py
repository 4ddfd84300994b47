"""What -o and --hessian may name: no input is replaced and no folder of something else filled, told before the work."""

import json
import os
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.io import write

from nequip_hessian.cli import VERBS, main
from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.outputs import MARK, claim_folder, require_results_folder

FOLDERS = {
    "vibrations": ["{model}", "{xyz}"],
    "neb": ["{model}", "{xyz}", "{more}"],
    "ts": ["{model}", "{xyz}"],
    "irc": ["{model}", "{xyz}"],
    "reaction": ["{model}", "{xyz}", "{more}"],
    "phonons": ["{model}", "{cell}"],
    "md": ["{model}", "{xyz}"],
    "evaluate": ["{model}", "{store}"],
}
FILES = ("energy", "optimise", "vibrations")


@pytest.fixture
def named(tmp_path: Path, small_store: Path) -> dict[str, str]:
    """Inputs in a folder of their own; the model is none, so that whatever is refused later says something else."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    names = {"model": "mm.nequip.zip", "xyz": "a.xyz", "more": "b.xyz", "cell": "al.extxyz"}
    paths = {name: str(folder / end) for name, end in names.items()}
    for name in ("xyz", "more"):
        molecule("H2O").write(paths[name])
    bulk("Al").write(paths["cell"])
    Path(paths["model"]).write_text("no model")
    return {**paths, "store": str(small_store), "folder": str(folder)}


def run(verb, named, *options):
    words = FOLDERS.get(verb, ["{model}", "{xyz}"])
    return main([verb, *(word.format(**named) for word in words), *options])


def content(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_every_verb_with_results_in_a_folder_or_file_is_looked_at():
    others = {"convert", "export", "label", "validate", "info", "merge", "split", "repack", "card"}
    assert set(VERBS) == others | set(FOLDERS) | set(FILES)


@pytest.mark.parametrize("option", ["-o", "--hessian"])
@pytest.mark.parametrize("verb", FILES)
@pytest.mark.parametrize("victim", ["model", "xyz", "link"])
def test_no_input_is_replaced_by_a_file(verb, option, victim, named, capsys):
    if (verb, option) == ("vibrations", "-o"):
        option = "--hessian"
    os.link(named["model"], Path(named["folder"]) / "hard")
    before = content(named["folder"])
    place = {**named, "link": f"{named['folder']}/../inputs/hard"}[victim]
    assert run(verb, named, option, place) == 2
    assert f"is the file that is read, which would be lost; name another one with {option}" in capsys.readouterr().err
    assert content(named["folder"]) == before


@pytest.mark.parametrize("verb", sorted(FOLDERS))
def test_a_folder_that_holds_an_input_is_refused(verb, named, capsys):
    before = content(named["folder"])
    claim_folder(named["folder"], verb)  # made by the same command before: `ts M t/ts.xyz -o t`
    assert run(verb, named, "-o", named["folder"]) == 2
    assert "which is read here and could be lost; name another folder with -o" in capsys.readouterr().err
    (Path(named["folder"]) / MARK).unlink()
    assert content(named["folder"]) == before


@pytest.mark.parametrize("verb", sorted(FOLDERS))
def test_a_folder_of_other_things_is_refused(verb, named, tmp_path, capsys):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "report.html").write_text("precious")
    claim_folder(theirs, "neb" if verb != "neb" else "ts")
    before = content(mine) | content(theirs)
    assert run(verb, named, "-o", str(mine)) == 2
    assert f"made by nequip-hessian {verb} before, found report.html in it" in capsys.readouterr().err
    assert run(verb, named, "-o", str(theirs)) == 2
    assert f"holds the results of nequip-hessian {'neb' if verb != 'neb' else 'ts'}" in capsys.readouterr().err
    assert content(mine) | content(theirs) == before


@pytest.mark.parametrize("inside", ["", "/deeper"])
@pytest.mark.parametrize("verb", sorted({*FOLDERS, *FILES}))
def test_nothing_is_written_into_a_store(verb, inside, named, small_store, capsys):
    before = content(small_store)
    deeper = inside or ("/h.xyz" if verb not in FOLDERS else "")
    assert run(verb, named, "-o", f"{small_store}{deeper}") == 2
    assert "Zarr store" in capsys.readouterr().err
    assert content(small_store) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make files")
@pytest.mark.parametrize("verb", sorted({*FOLDERS, *FILES}))
def test_a_place_that_takes_no_file_is_told_before_the_work(verb, named, capsys):
    assert run(verb, named, "-o", "/proc/foo") == 1
    error = capsys.readouterr().err
    assert "output /proc/foo: " in error
    assert "no such file: " not in error
    assert "cannot be made" in error or "nothing can be written in /proc" in error


@pytest.mark.parametrize("verb", ["energy", "optimise"])
def test_a_name_for_the_hessian_is_looked_at_before_the_model(verb, named, tmp_path, capsys):
    assert run(verb, named, "--hessian", str(tmp_path / "h.txt")) == 2
    assert ".npy (one Hessian) or .npz" in capsys.readouterr().err
    write(named["xyz"], [molecule("H2O")] * 2)
    assert run(verb, named, "--hessian", str(tmp_path / "h.npy")) == 1
    assert "2 Hessians do not fit" in capsys.readouterr().err
    assert run(verb, named, "-o", str(tmp_path / "h.npz"), "--hessian", f"{tmp_path}/inputs/../h.npz") == 2
    assert "another option names the same file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "option"), [(v, o) for v in ("ts", "irc") for o in ("reactant", "product")] + [("ts", "reference")]
)
def test_ends_of_other_atoms_are_refused_before_the_search(verb, option, named, tmp_path, capsys):
    write(tmp_path / "co2.xyz", molecule("CO2"))
    assert run(verb, named, f"--{option}", str(tmp_path / "co2.xyz")) == 1
    error = capsys.readouterr().err
    assert f"--{option} {tmp_path}/co2.xyz: expected the atoms of {named['xyz']} in the same order" in error
    assert "found H2O and CO2" in error


def test_the_same_command_goes_on_in_its_folder_and_says_whose_it_is(tmp_path):
    write(tmp_path / "co.xyz", molecule("CO"))
    command = ["vibrations", "ase:emt", str(tmp_path / "co.xyz"), "--optimise", "-o", str(tmp_path / "modes")]
    assert main(command) == 0
    assert json.loads((tmp_path / "modes" / MARK).read_text())["command"] == "vibrations"
    assert main(command) == 0
    assert main(["md", *command[1:3], "--maximum=50", "--hold=0.01", "--nve=0.001", *command[4:]]) == 2


def test_a_folder_that_looks_empty_is_free(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    claim_folder(tmp_path, "ts")  # somebody removed all that is seen: rm -r folder/*
    assert require_results_folder(tmp_path, "neb") == tmp_path
    (tmp_path / "a").write_text("")
    (tmp_path / MARK).write_text("damaged")
    with pytest.raises(OptionError, match="found a in it"):
        require_results_folder(tmp_path, "neb")
    for name in "bcde":
        (tmp_path / name).write_text("")
    with pytest.raises(OptionError, match="found a, b, c and 2 more in it"):
        require_results_folder(tmp_path, "neb")
    with pytest.raises(ConfigError, match="expected a folder, found a file"):
        require_results_folder(tmp_path / "a", "neb")
    with pytest.raises(ConfigError, match="Not a directory"):
        require_results_folder(tmp_path / "a" / "new", "neb")


def test_results_of_other_molecules_do_not_stay_beside_new_ones(tmp_path):
    pair, one, out = tmp_path / "pair.extxyz", tmp_path / "one.xyz", tmp_path / "out"
    write(pair, [molecule("N2"), molecule("CO")])
    write(one, molecule("CO"))
    assert main(["vibrations", "ase:emt", str(pair), "--optimise", "-o", str(out)]) == 0
    assert {"0_frequencies.csv", "1_frequencies.csv"} <= {path.name for path in out.iterdir()}
    assert main(["vibrations", "ase:emt", str(one), "--optimise", "-o", str(out)]) == 0
    assert not [path.name for path in out.iterdir() if path.name[:2] in ("0_", "1_")]
    assert (out / "frequencies.csv").is_file()
    assert (out / "cache").is_dir()


def test_starts_and_meshes_that_nobody_can_compute_are_refused(tmp_path, capsys):
    from ase.build import bulk

    write(tmp_path / "w.xyz", molecule("H2O"))
    write(tmp_path / "al.cif", bulk("Al"))
    assert main(["ts", "ase:emt", str(tmp_path / "w.xyz"), "--starts", "1000000000"]) == 2
    assert main(["ts", "ase:emt", str(tmp_path / "w.xyz"), "--starts", "2", "--spread", "100"]) == 2
    mesh = ["--mesh", "100000", "8", "8", "--supercell", "2", "2", "2", "-o", str(tmp_path / "p")]
    assert main(["phonons", "ase:emt", str(tmp_path / "al.cif"), *mesh]) == 2
    said = capsys.readouterr().err
    for text in ("expected 1 to 100000 from each guess", "expected 0 to 2 angstrom", "at most 1000000 wave vectors"):
        assert text in said
