"""Vibrations of many geometries by one command: kept, over processes, failures beside results."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import write

from nequip_hessian.analysis.single import model_vibrations
from nequip_hessian.analysis.vibration_jobs import run_vibrations
from nequip_hessian.cli import main
from nequip_hessian.potentials import PotentialSource


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Two molecules, and between them one that the calculator does not know."""
    found = [
        Atoms("N2", [[0, 0, 0], [0, 0, 1.0]]),
        Atoms("Xe2", [[0, 0, 0], [0, 0, 3.0]]),
        Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]),
    ]
    path = tmp_path_factory.mktemp("frames") / "three.extxyz"
    write(path, found)
    return path


def command(frames, out, log, *more):
    options = ["--calculator-options", json.dumps({"log": str(log)})]
    return ["vibrations", "ase:deadly:Deadly", str(frames), "--optimise", "-o", str(out), *options, *more]


def test_one_that_fails_is_told_and_the_others_are_written_and_not_done_again(frames, tmp_path, capsys):
    out, log = tmp_path / "out", tmp_path / "log"
    assert main(command(frames, out, log)) == 1
    first = capsys.readouterr()
    assert first.err.startswith("nequip-hessian vibrations: error: geometry 1: ")
    assert "No EMT-potential for Xe" in first.err
    assert first.out.count("zero-point energy") >= 2
    names = {path.name for path in out.iterdir()}
    assert {"0_frequencies.csv", "2_frequencies.csv"} <= names
    assert "1_frequencies.csv" not in names
    calls = len(log.read_text().split())
    assert main(command(frames, out, log, "--hessian", str(tmp_path / "all.npz"))) == 1
    second = capsys.readouterr()
    assert second.out == first.out
    assert "--hessian: not written" in second.err
    assert not (tmp_path / "all.npz").exists()
    assert len(log.read_text().split()) == calls
    assert main(command(frames, out, log, "--isotope", "0=15.0")) == 1  # another question
    assert len(log.read_text().split()) > calls


def test_two_processes_find_what_one_finds(frames, tmp_path, capsys):
    assert main(command(frames, tmp_path / "one", tmp_path / "log")) == 1
    one = capsys.readouterr().out
    assert main(command(frames, tmp_path / "two", tmp_path / "log", "--workers", "2")) == 1
    assert capsys.readouterr().out == one


def test_what_is_kept_is_what_was_found(tmp_path):
    """Exactly, with frozen atoms and masses of their own."""
    atoms = Atoms("N2O", [[0, 0, 0], [0, 0, 1.1], [0, 0.4, 2.2]], masses=[15.0, 14.0, 18.0])
    atoms.set_constraint(FixAtoms([0]))
    source = PotentialSource("ase:emt")
    model = source.load()
    direct = model_vibrations(model, atoms, atoms.get_masses(), [0])
    for _ in range(2):
        (kept,) = run_vibrations([atoms], model, source, folder=tmp_path, identity={"model": "emt"})
        np.testing.assert_array_equal(kept.hessian, direct.hessian)
        np.testing.assert_array_equal(kept.result.wavenumbers, direct.result.wavenumbers)
        np.testing.assert_array_equal(kept.forces, direct.forces)
        assert (kept.energy, kept.n_projected, kept.active.tolist()) == (direct.energy, 0, [1, 2])
        model = None  # the second time nothing is asked
