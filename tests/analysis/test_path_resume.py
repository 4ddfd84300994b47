"""A single band that is killed, interrupted and resumed ends where an undisturbed one does."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from browser import check_page
from xtb_models import hydrogen_cyanide

from nequip_hessian.analysis.answers import Answers
from nequip_hessian.analysis.prediction import atoms_of
from nequip_hessian.cli import main

# dies after so many kept answers, without any chance to clean up
KILLED = """
import os, signal, sys
from nequip_hessian.analysis.answers import Answers
from nequip_hessian.cli import main

keep, left = Answers.keep, [int(sys.argv.pop(1))]

def keep_and_die(self, *args):
    keep(self, *args)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

Answers.keep = keep_and_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def command(tmp_path):
    members = hydrogen_cyanide()
    for role in ("reactant", "product"):
        write(tmp_path / f"{role}.xyz", atoms_of(members[role]))
    ends = [str(tmp_path / f"{role}.xyz") for role in ("reactant", "product")]
    return ["neb", "tblite", *ends, "--images=5", "--fmax=0.1", "-o"]


@pytest.fixture
def kept(monkeypatch):
    """The answers that are kept from now on, one a call."""
    keep, found = Answers.keep, []
    monkeypatch.setattr(Answers, "keep", lambda self, *args: (found.append(args), keep(self, *args)))
    return found


def test_killed_and_cut_it_ends_where_it_would_have_ended(command, tmp_path, capsys, kept):
    plain, other = tmp_path / "plain", tmp_path / "killed"
    assert main([*command, str(plain)]) == 0
    wanted = len(kept)
    dead = subprocess.run([sys.executable, "-c", KILLED, "4", *command, str(other)], capture_output=True, check=False)
    assert dead.returncode == -signal.SIGKILL
    assert b"Traceback" not in dead.stderr
    file = other / "cache" / "band.answers"
    with file.open("r+b") as stream:  # the fourth is only half on the disk
        stream.truncate(file.stat().st_size - 100)
    kept.clear()
    assert main([*command, str(other)]) == 0
    assert len(kept) == pytest.approx(wanted - 3, abs=1)
    found, expected = (json.loads((folder / "neb.json").read_text()) for folder in (other, plain))
    # xTB starts its SCF from the last wave function, so energies differ in the tenth digit
    assert found["barrier_forward_eV"] == pytest.approx(expected["barrier_forward_eV"], abs=1e-5)
    for left, right in zip(read(other / "band.extxyz", ":"), read(plain / "band.extxyz", ":"), strict=True):
        np.testing.assert_allclose(left.positions, right.positions, atol=1e-3)
    capsys.readouterr()


def test_a_finished_band_asks_nothing_again_and_another_setting_is_another_band(command, tmp_path, kept):
    assert main([*command, str(tmp_path / "neb")]) == 0
    first = (tmp_path / "neb" / "band.extxyz").read_bytes()
    check_page(tmp_path / "neb" / "report.html", tmp_path / "browser")
    kept.clear()
    assert main([*command, str(tmp_path / "neb")]) == 0
    assert not kept
    assert (tmp_path / "neb" / "band.extxyz").read_bytes() == first
    assert main([*command, str(tmp_path / "neb"), "--images=6"]) == 0
    assert kept


def test_ctrl_c_says_how_to_go_on(command, tmp_path, capsys, monkeypatch):
    keep, calls = Answers.keep, []

    def interrupted(self, *args):
        keep(self, *args)
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Answers, "keep", interrupted)
        assert main([*command, str(tmp_path / "neb")]) == 130
    assert "the same command goes on where it was" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "neb")]) == 0


def test_answers_to_other_questions_are_dropped(tmp_path):
    frames = [molecule("H2O"), molecule("H2O")]
    frames[1].positions += 0.1
    answers = [(float(k), np.full((3, 3), float(k))) for k in range(2)]
    log = Answers(tmp_path / "a")
    assert log.kept(frames) is None
    log.keep(frames, answers)
    log.keep(frames[:1], answers[:1])
    again = Answers(tmp_path / "a")
    for (energy, forces), (other_energy, other_forces) in zip(again.kept(frames), answers, strict=True):
        assert energy == other_energy
        np.testing.assert_array_equal(forces, other_forces)
    assert again.kept(frames[1:]) is None  # another geometry: nothing from here on holds
    assert again.kept(frames[:1]) is None
    again.keep(frames[1:], answers[1:])
    third = Answers(tmp_path / "a")
    assert third.kept(frames) is not None
    assert third.kept(frames[1:])[0][0] == 1.0
    assert third.kept(frames) is None
