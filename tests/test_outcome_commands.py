"""The verbs md and ts: what they write, that a repeated command does nothing again, and what they refuse."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from browser import check_page
from xtb_models import HCN_TO_HNC_TS

from nequip_hessian.analysis.saddle import search_saddle
from nequip_hessian.analysis.saddle_jobs import search_facts, search_from
from nequip_hessian.cli import main
from nequip_hessian.potentials import load_potential

QUICK = ["--start", "50", "--increment", "50", "--maximum", "100", "--hold", "0.01", "--nve", "0.02"]


@pytest.fixture
def monoxide(tmp_path):
    write(tmp_path / "co.extxyz", [molecule("CO"), molecule("N2")])
    return str(tmp_path / "co.extxyz")


def refused(*args, **kwargs):
    raise AssertionError("this was done already")


def test_md_writes_tables_and_a_page_and_goes_on(monoxide, tmp_path, capsys, monkeypatch):
    command = ["md", "ase:emt", monoxide, *QUICK, "-o", str(tmp_path / "md")]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "> 100" in table
    document = json.loads((tmp_path / "md" / "md.json").read_text(encoding="utf-8"))
    assert [m["formula"] for m in document["molecules"]] == ["CO", "N2"]
    assert all(m["survived"] and abs(m["drift"]) < 0.1 for m in document["molecules"])
    assert "2 of 2 molecules are whole at 100 K" in (tmp_path / "md" / "report.html").read_text(encoding="utf-8")
    check_page(tmp_path / "md" / "report.html", tmp_path / "browser")
    # from the state after the first temperature the same comes out, and of what is finished nothing is run
    folder = tmp_path / "md" / "cache"
    first = next(path for path in folder.glob("md-*.json") if "state" not in path.name)
    first.unlink()
    assert main(command) == 0
    again = json.loads((tmp_path / "md" / "md.json").read_text(encoding="utf-8"))
    assert again["molecules"] == document["molecules"]
    monkeypatch.setattr("nequip_hessian.analysis.md_jobs.run_dynamics", refused)
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command[:-1], str(tmp_path / "md"), "--maximum", "1"]) == 2
    assert "--maximum: expected the first temperature (--start, 50 K) or more, found 1 K" in capsys.readouterr().err


def test_a_molecule_that_cannot_be_run_is_named_and_the_others_are_run(tmp_path, capsys):
    write(tmp_path / "two.extxyz", [molecule("CO"), Atoms("Xe2", [[0, 0, 0], [0, 0, 4.0]])])
    assert main(["md", "ase:emt", str(tmp_path / "two.extxyz"), *QUICK]) == 1
    captured = capsys.readouterr()
    assert "nequip-hessian md: molecule 1: " in captured.err
    assert "> 100" in captured.out
    assert "Traceback" not in captured.err


def test_ts_keeps_each_search(tmp_path, capsys, monkeypatch):
    write(tmp_path / "guess.xyz", Atoms("HCN", HCN_TO_HNC_TS))
    command = ["ts", "tblite", str(tmp_path / "guess.xyz"), "--starts", "2", "--spread", "0.05", "-o"]
    command.append(str(tmp_path / "ts"))
    assert main(command) == 0
    first = (tmp_path / "ts" / "searches.csv").read_text(encoding="utf-8")
    assert len(list((tmp_path / "ts" / "cache").glob("ts-*.json"))) == 2
    found = read(tmp_path / "ts" / "ts.xyz")
    capsys.readouterr()
    monkeypatch.setattr("nequip_hessian.analysis.saddle_jobs.search_saddle", refused)
    assert main(command) == 0
    assert (tmp_path / "ts" / "searches.csv").read_text(encoding="utf-8") == first
    np.testing.assert_array_equal(read(tmp_path / "ts" / "ts.xyz").positions, found.positions)
    with pytest.raises(AssertionError, match="done already"):  # other settings are another search
        main([*command, "--fmax", "0.01"])


def test_a_search_comes_back_from_json_as_it_was():
    start = Atoms("HCN", HCN_TO_HNC_TS)
    search = search_saddle(start, load_potential("tblite"))
    back = search_from(json.loads(json.dumps(search_facts(search))), start)
    np.testing.assert_array_equal(back.hessian, search.hessian)
    np.testing.assert_array_equal(back.modes.wavenumbers, search.modes.wavenumbers)
    assert (back.energy, back.steps, back.failure) == (search.energy, search.steps, None)


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (
            "md",
            "md: molecule 1: N2: expected a free molecule, found a periodic cell; a molecule in a box can be written",
        ),
        ("ts", "saddle search: start 1: N2: expected a free molecule, found a periodic cell"),
        ("irc", "irc: N2: expected a free molecule, found a periodic cell"),
    ],
)
def test_a_periodic_cell_is_refused_before_anything_runs(verb, message, tmp_path, capsys, monkeypatch):
    boxed = molecule("N2", vacuum=4, pbc=True)
    write(tmp_path / "two.extxyz", [molecule("CO"), boxed])
    monkeypatch.setattr("nequip_hessian.analysis.jobs._one", refused)
    assert main([verb, "ase:emt", str(tmp_path / "two.extxyz")]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["md", "ts", "irc"])
def test_one_atom_is_refused_with_what_was_found(verb, tmp_path, capsys):
    write(tmp_path / "atom.xyz", Atoms("O"))
    assert main([verb, "ase:emt", str(tmp_path / "atom.xyz")]) == 1
    assert "expected a molecule of two or more atoms, found 1" in capsys.readouterr().err


def test_a_band_of_periodic_cells_is_no_path(tmp_path, capsys):
    for name in ("r", "p"):
        write(tmp_path / f"{name}.extxyz", molecule("N2", vacuum=4, pbc=True))
    assert main(["neb", "ase:emt", str(tmp_path / "r.extxyz"), str(tmp_path / "p.extxyz")]) == 1
    assert "expected free molecules, found a periodic cell" in capsys.readouterr().err


def test_a_charge_that_the_model_cannot_know_is_told(tmp_path, capsys):
    write(tmp_path / "oh.xyz", molecule("OH"))
    main(["energy", "none.ckpt", str(tmp_path / "oh.xyz"), "--charge", "-1"])
    assert "charge -1: a NequIP model has no input for the charge" in capsys.readouterr().err
    main(["energy", "none.ckpt", str(tmp_path / "oh.xyz")])
    assert "note" not in capsys.readouterr().err
    assert main(["energy", "tblite", str(tmp_path / "oh.xyz"), "--charge", "-1"]) == 0
    assert "note" not in capsys.readouterr().err
