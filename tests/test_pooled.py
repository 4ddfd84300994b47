"""A calculator in several processes answers as in one, and shares what is asked for together."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from nequip_hessian.analysis.prediction import evaluate_atoms
from nequip_hessian.cli import main
from nequip_hessian.errors import EngineError, OptionError
from nequip_hessian.potentials import PotentialSource

HERE = os.path.dirname(__file__)
MODEL = Path(__file__).parents[1] / "models" / "reactions-xtb.nequip.zip"


@pytest.fixture(autouse=True)
def _workers_see_deadly(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setattr(sys, "path", [HERE, *sys.path])


def _calls(log):
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def test_hessian_and_images_are_those_of_one_process_and_are_shared(tmp_path):
    atoms = molecule("CH3OH")
    alone = PotentialSource("ase:deadly:Deadly", options={"log": str(tmp_path / "alone")})
    pooled = PotentialSource("ase:deadly:Deadly", options={"log": str(tmp_path / "pool"), "pause": 0.02}, workers=3)
    calculator = pooled.load()
    np.testing.assert_array_equal(calculator.get_hessian(atoms), alone.load().get_hessian(atoms))
    np.testing.assert_array_equal(calculator.get_hessian(atoms, [1, 4]), alone.load().get_hessian(atoms, [1, 4]))
    images = [atoms.copy() for _ in range(5)]
    for shift, image in enumerate(images):
        image.positions[0] += 0.01 * shift
    for (energy, forces), (expected, expected_forces) in zip(
        evaluate_atoms(calculator, images), evaluate_atoms(alone.load(), images), strict=True
    ):
        assert energy == expected
        np.testing.assert_array_equal(forces, expected_forces)
    calls = _calls(tmp_path / "pool")
    assert len(calls) == 6 * 6 + 6 * 2 + 5  # nothing is asked for twice
    processes = {pid for _, pid in calls}
    assert len(processes) == 3
    assert str(os.getpid()) not in processes


def test_charge_and_multiplicity_reach_the_workers():
    pytest.importorskip("tblite")
    ion = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1, "multiplicity": 1})
    radical = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"multiplicity": 2})
    one, two = (PotentialSource("tblite", workers=workers).load() for workers in (1, 2))
    answers = evaluate_atoms(two, [ion, radical])
    for (energy, forces), (expected, expected_forces) in zip(answers, evaluate_atoms(one, [ion, radical]), strict=True):
        assert energy == pytest.approx(expected, abs=1e-7)
        np.testing.assert_allclose(forces, expected_forces, atol=1e-5)
    assert abs(answers[0][0] - answers[1][0]) > 0.5


def test_a_worker_that_dies_is_one_line(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    calculator = PotentialSource("ase:deadly:Deadly", options={"flag": str(flag)}, workers=2).load()
    with pytest.raises(EngineError, match="worker process died"):
        evaluate_atoms(calculator, [molecule("CO"), molecule("CO")])
    flag.unlink()  # others take its place
    assert len(evaluate_atoms(calculator, [molecule("CO"), molecule("CO")])) == 2


def test_phonons_in_two_processes_are_those_in_one(tmp_path, capsys):
    pytest.importorskip("phonopy")
    from ase.build import bulk

    bulk("Al", cubic=False).write(tmp_path / "Al.cif")
    pages = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        options = ["--supercell", "2", "2", "2", "--relax", "none", "--mesh", "4", "4", "4", "--workers", workers]
        main(["phonons", "ase:emt", str(tmp_path / "Al.cif"), *options, "-o", str(out)])
        pages.append(np.array((out / "FORCE_CONSTANTS").read_text().split(), dtype=float))
    np.testing.assert_allclose(pages[0], pages[1], atol=1e-10)  # EMT sums over neighbours in the order it met them


def test_a_nequip_file_and_no_worker_are_refused(tmp_path, capsys):
    for name in ("reactant", "product"):
        molecule("CH3OH").write(tmp_path / f"{name}.xyz")
    files = [str(tmp_path / f"{name}.xyz") for name in ("reactant", "product")]
    assert main(["neb", str(MODEL), *files, "--workers", "2"]) == 2
    assert "is a NequIP file" in capsys.readouterr().err
    with pytest.raises(OptionError, match="expected 1 or more, found 0"):
        PotentialSource("ase:emt", workers=0).load()
