"""A single reaction coordinate that is killed, interrupted and resumed ends where an undisturbed one does."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from xtb_models import HCN_TO_HNC_TS

from nequip_hessian.analysis.irc_job import follow, open_journal
from nequip_hessian.analysis.job_cache import JobCache
from nequip_hessian.cli import main
from nequip_hessian.potentials import ForeignPotential, load_potential

# dies after so many kept points, without any chance to clean up
KILLED = """
import os, signal, sys
from nequip_hessian.analysis.job_cache import JobCache
from nequip_hessian.cli import main

put, left = JobCache.put_descent, [int(sys.argv.pop(1))]

def put_and_die(self, *args):
    put(self, *args)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

JobCache.put_descent = put_and_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def command(tmp_path):
    """The command but for its output folder, on the transition state of HCN to HNC."""
    write(tmp_path / "ts.xyz", Atoms("HCN", HCN_TO_HNC_TS))
    write(tmp_path / "hcn.xyz", Atoms("HCN", [[0, 0, -1.07], [0, 0, 0], [0, 0, 1.15]]))
    return ["irc", "tblite", str(tmp_path / "ts.xyz"), "--reactant", str(tmp_path / "hcn.xyz"), "--step=0.1", "-o"]


def killed(command, points):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(points), *command], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode == -signal.SIGKILL


def test_killed_twice_it_ends_where_it_would_have_ended(command, tmp_path, capsys, monkeypatch):
    plain, other = tmp_path / "plain", tmp_path / "killed"
    assert main([*command, str(plain)]) == 0
    document = json.loads((plain / "irc.json").read_text(encoding="utf-8"))
    points = len(document["arc_sqrt_u_angstrom"]) - 1
    assert killed([*command, str(other)], 4)  # on the first side
    assert killed([*command, str(other)], points - 4 - 5)  # on the second
    assert not (other / "irc.json").exists()
    descent = JobCache.put_descent
    resumed = []
    monkeypatch.setattr(JobCache, "put_descent", lambda self, name, d: (resumed.append(name), descent(self, name, d)))
    assert main([*command, str(other)]) == 0
    assert resumed == ["reverse"] * 5  # nothing twice
    # xTB starts its SCF from the last wave function, so energies differ in the tenth digit
    expected, found = (np.genfromtxt(folder / "irc.csv", delimiter=",", skip_header=1) for folder in (plain, other))
    assert len(expected) == points + 1
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for side in ("forward.xyz", "reverse.xyz"):
        np.testing.assert_allclose(read(other / side).positions, read(plain / side).positions, atol=1e-4)
    capsys.readouterr()


def test_a_finished_path_is_not_computed_again_and_another_setting_is_another_path(command, tmp_path, monkeypatch):
    assert main([*command, str(tmp_path / "irc")]) == 0
    first = (tmp_path / "irc" / "irc.csv").read_bytes()

    def refused(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr("nequip_hessian.analysis.irc_job.intrinsic_reaction_coordinate", refused)
    monkeypatch.setattr("nequip_hessian.analysis.irc_job.relax", refused)
    assert main([*command, str(tmp_path / "irc")]) == 0
    assert (tmp_path / "irc" / "irc.csv").read_bytes() == first
    with pytest.raises(AssertionError, match="computed again"):
        main([*command, str(tmp_path / "irc"), "--step=0.2"])


def test_ctrl_c_says_how_to_go_on(command, tmp_path, capsys, monkeypatch):
    descent, calls = JobCache.put_descent, []

    def interrupted(self, name, found):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        descent(self, name, found)

    with monkeypatch.context() as patch:
        patch.setattr(JobCache, "put_descent", interrupted)
        assert main([*command, str(tmp_path / "irc")]) == 130
    assert "the same command goes on where it was" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "irc")]) == 0


def test_a_side_whose_model_fails_is_tried_again_from_its_last_point(tmp_path):
    class Flaky(ForeignPotential):
        """A potential whose license server is away after the tenth answer."""

        answers, limit = 0, 10

        def calculate(self, *args, **kwargs):
            self.answers += 1
            if self.answers > self.limit:
                raise RuntimeError("license server away")
            super().calculate(*args, **kwargs)

    start, settings = Atoms("HCN", HCN_TO_HNC_TS), {"step": 0.1}
    model = Flaky(load_potential("tblite").inner, "flaky")
    first = follow(start, model, open_journal(tmp_path, "flaky", start, settings), **settings)
    assert "license server away" in first.failure
    model.limit = 10**6
    again = follow(start, model, open_journal(tmp_path, "flaky", start, settings), **settings)
    assert again.failure is None
    undisturbed = follow(start, load_potential("tblite"), **settings)
    assert again.arc == pytest.approx(undisturbed.arc, abs=1e-6)
    assert len(again.forward) == len(undisturbed.forward)
