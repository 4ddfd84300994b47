"""The data set crystals: its store, its physics, and how a job of ABINIT is read."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from nequip_hessian.errors import EngineError
from nequip_hessian.store import HessianStore, validate

FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "crystals"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    target = tmp_path_factory.mktemp("crystals") / "crystals.zarr"
    command = [
        sys.executable,
        str(FOLDER / "build.py"),
        "-o",
        str(target),
        "--stress",
        str(target.parent / "all.extxyz"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def dft(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("dft", None)
    yield importlib.import_module("dft")
    sys.modules.pop("dft", None)


def test_store_is_valid_and_its_hessians_obey_the_sum_rule(store):
    assert validate(store).valid
    records = HessianStore(store)
    with_hessian = np.flatnonzero(records.has_hessian)
    assert len(with_hessian) >= 20
    for index in with_hessian.tolist():
        record = records[index]
        count = len(record)
        blocks = np.asarray(record.hessian).reshape(count, 3, count, 3)
        assert np.max(np.abs(blocks.sum(axis=2))) < 0.01 * np.max(np.abs(record.hessian)), record.label
        assert np.linalg.eigvalsh(record.hessian)[0] > -0.01 * np.max(np.abs(record.hessian)), record.label


@pytest.mark.parametrize(
    ("name", "length", "frequency"), [("Si", 5.40, 15.5), ("C", 3.54, 39.5), ("SiC", 4.34, 24.0), ("NaCl", 5.53, 6.4)]
)
def test_optical_frequencies_and_lattice_constants_are_those_of_the_local_density_approximation(
    store, name, length, frequency
):
    from ase import Atoms

    from nequip_hessian.analysis.phonons import lattice_dynamics
    from nequip_hessian.cli._crystal import read_reference

    records = HessianStore(store)
    index = next(i for i in range(len(records)) if records.label(i) == f"{name}/volume+0.0")
    phonon = read_reference(str(store), Atoms(), index)
    found = lattice_dynamics(phonon, np.asarray(phonon.force_constants), mesh=(4, 4, 4), points=3)
    assert np.asarray(phonon.unitcell.cell)[0, 0] == pytest.approx(length, rel=0.01)
    assert len(phonon.primitive) == 2
    assert found.gamma[3:] == pytest.approx([frequency] * 3, rel=0.02)
    assert np.max(np.abs(found.gamma[:3])) < 1e-3
    assert found.n_imaginary_gamma == 0


def test_hessians_explain_the_forces_of_other_calculations(store):
    from ase.io import read

    records = HessianStore(store)
    start = next(records[i] for i in range(len(records)) if records.label(i) == "Si/volume+0.0")
    frames = [f for f in read(store.parent / "all.extxyz", index=":") if f.info["job"] == "Si/volume+0.0"]
    moved = frames[1]
    step = (moved.positions - start.positions).ravel()
    expected = -(np.asarray(start.hessian) @ step).reshape(-1, 3)
    assert np.max(np.abs(moved.get_forces() - expected)) < 0.02 * np.max(np.abs(expected))


def test_stress_is_the_slope_of_the_energy_with_the_volume(store):
    from ase.io import read

    frames = [f for f in read(store.parent / "all.extxyz", index=":") if f.info["job"] == "Si/scan"]
    volumes = np.array([f.get_volume() for f in frames])
    fit = np.polynomial.Polynomial.fit(volumes, [f.get_potential_energy() for f in frames], 4)
    pressures = np.array([-np.mean(f.get_stress()[:3]) for f in frames])
    # moderate cutoffs and their smoothing leave a part of a GPa
    np.testing.assert_allclose(pressures * 160.2, -fit.deriv()(volumes) * 160.2, atol=1.0)


def test_splits_hold_out_what_they_say(store):
    records = HessianStore(store)
    codes, parts = records.split("group4")
    for index, code in enumerate(codes.tolist()):
        label = str(records.label(index))
        if label.startswith("SiC"):
            assert parts[code] == "test_new"
        elif label.startswith("NaCl"):
            assert parts[code] == "unused"
        elif label.endswith(("/volume+0.0", "/supercell", "/trigonal")):
            assert parts[code] == "test"
    codes, parts = records.split("crystal")
    groups = {
        part: {str(records.label(i)).split("/")[0] for i in np.flatnonzero(codes == k)} for k, part in enumerate(parts)
    }
    assert groups["train"] == {"Si", "C"}
    assert groups["test"] == {"SiC"}


def test_card_is_that_of_the_store(store):
    from nequip_hessian.cli import main

    assert main(["card", str(store), "--check", str(FOLDER / "card.yaml")]) == 0


def test_journal_matches_what_the_seed_gives():
    sys.path.insert(0, str(FOLDER))
    try:
        crystals = importlib.import_module("crystals")
    finally:
        sys.path.remove(str(FOLDER))
    silicon = crystals.CRYSTALS[0]
    volume = json.loads((FOLDER / "journal" / "Si" / "volume+0.0.json").read_text())["calculations"][0]
    kept = json.loads((FOLDER / "journal" / "Si" / "rattled-1.json").read_text())["calculations"][0]
    made = crystals.rattled(silicon, volume["cell"][0][0], 1, crystals.RATTLED[1])
    np.testing.assert_allclose(made.positions, kept["positions"], atol=1e-9)


def test_input_names_pseudopotentials_and_starts_from_the_first_density(dft):
    atoms = bulk("NaCl", "rocksalt", a=5.5)
    text = dft._input([atoms, atoms], cutoff=14, bands=4, mesh="2 2 2", shifts="0 0 0")
    assert 'pseudos "11na.pspnc, 17cl.pspnc"' in text
    assert "typat 1 2" in text
    assert "getden2 1" in text
    assert dft.valence(atoms) == 8


def test_a_calculation_that_stopped_is_refused(dft, tmp_path):
    (tmp_path / "run.abo").write_text("-outvars: echo values of variables after computation\n")
    with pytest.raises(EngineError, match="did not finish"):
        dft._parse(tmp_path / "run.abo", [bulk("Si")])


def test_without_abinit_the_package_is_named(dft, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="apt-get install abinit"):
        dft.run([bulk("Si")], tmp_path / "work", cutoff=8, electrons=8, mesh="2 2 2", shifts="0 0 0")
