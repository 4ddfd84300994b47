"""What the commands say of names, atoms and numbers: which one, and once."""

import csv
import json
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from emt_pairs import labelled_pair

from nequip_hessian.analysis.geometries import other_atoms
from nequip_hessian.cli import main
from nequip_hessian.errors import OptionError
from nequip_hessian.evaluate import load_models
from nequip_hessian.potentials import load_potential
from nequip_hessian.report.display import ALL_METRICS, counted
from nequip_hessian.store import StoreWriter

MODEL = str(Path(__file__).parents[1] / "models" / "reactions-xtb.nequip.zip")


def test_options_that_tblite_does_not_know_are_refused():
    with pytest.raises(OptionError, match=r"unknown: acuracy; it knows accuracy, alpb_solvation, .*verbosity"):
        load_potential("tblite", options={"acuracy": 1})
    with pytest.raises(OptionError, match="unknown: method; the method is part of the name"):
        load_potential("tblite", options={"method": "GFN1-xTB"})
    water = molecule("H2O")
    water.calc = load_potential("tblite", options={"alpb_solvation": "water"})
    wet = water.get_potential_energy()
    water.calc = load_potential("tblite", options={"max_iterations": 100})
    assert wet < water.get_potential_energy() - 0.1


def test_how_two_files_differ_is_said_once(tmp_path, capsys):
    names = {name: str(tmp_path / f"{name}.xyz") for name in ("water", "turned", "methane")}
    write(names["water"], molecule("H2O"))
    write(names["turned"], molecule("H2O")[[1, 0, 2]])
    write(names["methane"], molecule("CH4"))
    assert main(["neb", "tblite", names["water"], names["methane"]]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    text = "reactant and product: expected the same atoms in the same order, found H2O and CH4"
    assert said.err.count(text) == 1
    assert main(["reaction", "tblite", names["water"], names["turned"], "-o", str(tmp_path / "o")]) == 1
    assert "another order of H2O: atom 0 (from 0) is O in the one and H in the other" in capsys.readouterr().err
    assert other_atoms(molecule("H2O"), molecule("H2O")) is None


@pytest.mark.parametrize("verb", ["energy", "optimise"])
def test_of_several_geometries_the_one_with_unseen_elements_is_named(verb, tmp_path, capsys):
    path = str(tmp_path / "two.extxyz")
    write(path, [molecule("H2O"), molecule("SiH4")])
    assert main([verb, MODEL, path]) == 1
    error = capsys.readouterr().err
    assert f"{path}: geometry 1: " in error
    assert "the model has not seen Si" in error


@pytest.mark.parametrize("entry", ["=tblite", "name=", " =tblite", ""])
def test_a_model_without_a_name_or_a_file_is_refused(entry):
    with pytest.raises(OptionError, match="expected MODEL or NAME=MODEL"):
        load_models([entry])


def test_tables_of_an_evaluation_say_what_they_count(tmp_path):
    with StoreWriter(tmp_path / "pairs.zarr") as writer:
        writer.extend(labelled_pair("N2", 1.0 + 0.05 * k) for k in range(2))
    out = tmp_path / "out"
    assert main(["evaluate", "ase:emt", str(tmp_path / "pairs.zarr"), "-o", str(out), "--tasks", "accuracy"]) == 0
    with (out / "summary.csv").open(encoding="utf-8") as stream:
        counts = {row["metric"]: row["n_counts"] for row in csv.DictReader(stream)}
    assert counts["hessian_mae"] == "geometries"
    assert counts["frequency_mae"] == "modes"
    assert counts["force_mae"] == "force components"
    assert counts["hessian_rmse"] == "matrix elements"
    with (out / "geometries.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert not any("(" in value for row in rows for name, value in row.items() if name != "label")
    assert rows[0]["hessian.imaginary.reference"] == "0"
    assert rows[0]["hessian.imaginary.predicted"] == "0"
    assert 'title="force components"' in (out / "report.html").read_text(encoding="utf-8")


def test_every_figure_has_a_unit_of_its_count():
    assert {counted(name) for name in ("barrier_mae", "gibbs_barrier_mae", "saddle_barrier_mae")} == {"barriers"}
    assert counted("saddle_success") == "searches"
    assert counted("irc_success") == counted("neb_failure_rate") == "reactions"
    assert counted("md_survival") == "molecules"
    assert counted("relaxed_frequency_mae") == counted("frequency_low_mae") == "modes"
    assert all(counted(name) for name in ALL_METRICS)


def test_thermochemistry_is_written_with_units_in_the_names(tmp_path, capsys):
    write(tmp_path / "n2.xyz", Atoms("N2", [[0, 0, 0], [0, 0, 1.0]]))
    command = [
        "vibrations",
        "ase:emt",
        str(tmp_path / "n2.xyz"),
        "--optimise",
        "--pressure",
        "2",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    facts = json.loads((tmp_path / "out" / "thermochemistry.json").read_text(encoding="utf-8"))
    assert facts["pressure_bar"] == pytest.approx(2)
    assert facts["temperature_K"] == 298.15
    assert facts["gibbs_eV"] == pytest.approx(facts["enthalpy_eV"] - 298.15 * facts["entropy_eV_per_K"])
    plain = {"symmetry_number", "multiplicity", "treatment", "n_modes", "n_left_out"}
    assert all(name in plain or name.endswith(("_eV", "_eV_per_K", "_K", "_bar")) for name in facts)
