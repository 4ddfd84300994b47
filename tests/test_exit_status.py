"""Exit status of every verb: 2 for a command line that is wrong whatever the files hold, 1 for files that are wrong."""

from pathlib import Path

import pytest
from ase.build import bulk, molecule

from nequip_hessian.cli import VERBS, main

# A value, or a combination, that argparse lets through: the library finds it. The files it names are sound.
WRONG_OPTION = {
    "convert": ["{xyz}", "-o", "{out}.zarr", "--overwrite", "--resume"],
    "label": ["{xyz}", "-o", "{out}.zarr", "--engine", "tblite", "--basis", "def2-svp"],
    "export": ["{store}", "--format", "fchk", "-o", "{out}", "--select", "kinds=minimum"],
    "merge": ["{store}", "{store}", "-o", "{out}.zarr"],
    "split": ["{store}", "--fractions", "train=0.8", "val=0.7"],
    "repack": ["{store}", "-o", "{out}.zarr.zip", "--profile", "local"],
    "energy": ["ase:emt", "{xyz}", "--model-options", "none"],
    "optimise": ["ase:emt", "{xyz}", "--fmax", "-1"],
    "vibrations": ["ase:emt", "{xyz}", "--hessian", "{out}.txt"],
    "neb": ["ase:emt", "{xyz}", "{xyz}", "--images", "1", "-o", "{out}"],
    "ts": ["ase:emt", "{xyz}", "--fmax", "-1"],
    "irc": ["ase:emt", "{xyz}", "--step=-1"],
    "reaction": ["ase:emt", "{xyz}", "{xyz}", "--images", "1", "-o", "{out}"],
    "phonons": ["ase:emt", "{cif}", "-o", "{out}", "--supercell", "2", "2"],
    "md": ["ase:emt", "{xyz}", "--timestep", "-1"],
    "evaluate": ["ase:emt", "{store}", "-o", "{out}", "--tasks", "colour"],
}
ONLY_ARGPARSE = {"validate", "info", "card"}  # no option of these has a wrong value that argparse lets through

WRONG_INPUT = {
    "convert": ["{junk}", "-o", "{out}.zarr"],
    "label": ["{junk}", "-o", "{out}.zarr", "--engine", "tblite"],
    "export": ["{junk}", "--format", "fchk", "-o", "{out}"],
    "validate": ["{junk}"],
    "info": ["{junk}"],
    "merge": ["{junk}", "{store}", "-o", "{out}.zarr"],
    "split": ["{junk}"],
    "repack": ["{junk}", "-o", "{out}.zarr"],
    "card": ["{junk}", "-o", "{out}.yaml"],
    "energy": ["ase:emt", "{junk}"],
    "optimise": ["ase:emt", "{junk}"],
    "vibrations": ["ase:emt", "{junk}"],
    "neb": ["ase:emt", "{junk}", "{junk}", "-o", "{out}"],
    "ts": ["ase:emt", "{junk}"],
    "irc": ["ase:emt", "{junk}"],
    "reaction": ["ase:emt", "{junk}", "{junk}", "-o", "{out}"],
    "phonons": ["ase:emt", "{junk}", "-o", "{out}"],
    "md": ["ase:emt", "{junk}"],
    "evaluate": ["ase:emt", "{junk}", "-o", "{out}"],
}


@pytest.fixture
def named(tmp_path: Path, small_store: Path) -> dict[str, str]:
    paths = {name: str(tmp_path / end) for name, end in (("xyz", "water.xyz"), ("cif", "al.cif"), ("junk", "junk.xyz"))}
    molecule("H2O").write(paths["xyz"])
    bulk("Al").write(paths["cif"])
    Path(paths["junk"]).write_text("neither a geometry nor a store\n")
    return {**paths, "store": str(small_store), "out": str(tmp_path / "made")}


def test_every_verb_has_its_case():
    assert set(WRONG_OPTION) | ONLY_ARGPARSE == set(VERBS) == set(WRONG_INPUT)


def _status(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:  # argparse leaves this way
        return int(ended.code or 0)


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_that_does_not_exist_is_wrong_usage(verb, capsys):
    assert _status([verb, "somewhere", "--colour", "red"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(WRONG_OPTION))
def test_a_wrong_value_is_wrong_usage_and_writes_nothing(verb, named, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert _status([verb, *(argument.format(**named) for argument in WRONG_OPTION[verb])]) == 2
    assert "error: " in capsys.readouterr().err
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()] == []


@pytest.mark.parametrize("verb", sorted(WRONG_INPUT))
def test_a_wrong_file_is_no_wrong_usage(verb, named, capsys):
    assert _status([verb, *(argument.format(**named) for argument in WRONG_INPUT[verb])]) == 1
    printed = capsys.readouterr()
    assert "junk.xyz" in printed.out + printed.err
    assert "Traceback" not in printed.err
