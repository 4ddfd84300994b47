"""Workers of an evaluation that die or are interrupted: counted, said, and nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from emt_pairs import labelled_pair

from nequip_hessian.cli import main
from nequip_hessian.store import StoreWriter

TESTS = Path(__file__).parent
GEOMETRIES = 18  # more than a batch


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "pairs.zarr"
    with StoreWriter(path) as writer:
        writer.extend(labelled_pair("N2", 0.9 + 0.02 * k) for k in range(GEOMETRIES - 2))
        writer.extend(labelled_pair("CO", 1.0 + 0.1 * k) for k in range(2))
    return str(path)


def command(store, out, **options):
    """The arguments of an evaluation by two workers."""
    chosen = ["--tasks", "accuracy", "--workers", "2"]
    return [
        "evaluate",
        "m=ase:deadly:Deadly",
        store,
        "-o",
        str(out),
        *chosen,
        "--calculator-options",
        f"m={json.dumps(options)}",
    ]


def _takes_ctrl_c():
    """Jobs in the background of a shell ignore Ctrl-C, and so would what they start: tests that run there too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ended(group):
    """Whether all processes of a group are gone, after some patience."""
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def report(out):
    return json.loads((Path(out) / "report.json").read_text(encoding="utf-8"))["models"][0]


def test_a_worker_that_dies_is_a_counted_failure_and_is_made_up_for(store, tmp_path, capsys):
    flag, out, log = tmp_path / "flag", tmp_path / "out", tmp_path / "log"
    flag.touch()
    arguments = command(store, out, flag=str(flag), log=str(log))
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    figures = report(out)["figures"]
    assert figures["failure_rate"] == {"value": pytest.approx(2 / GEOMETRIES), "n": GEOMETRIES, "unit": "1"}
    assert figures["hessian_mae"]["n"] == GEOMETRIES - 2
    assert figures["hessian_mae"]["value"] < 1e-4
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("the worker process died (out of memory, or a crash in a library)") >= 2
    flag.unlink()
    log.unlink()
    assert main(arguments) == 0
    figures = report(out)["figures"]
    assert figures["failure_rate"]["value"] == 0
    assert figures["hessian_mae"]["n"] == GEOMETRIES
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"CO"}  # what was done is not done again
    assert "worker process died" not in (out / "report.html").read_text(encoding="utf-8")


def test_ctrl_c_in_the_middle_is_one_line_and_the_same_command_goes_on(store, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = command(store, out, pause=0.1, log=str(log))
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    running = subprocess.Popen(
        [sys.executable, "-m", "nequip_hessian", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_takes_ctrl_c,
    )
    deadline = time.monotonic() + 900
    while not list(out.glob("cache/*/*.npz")) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("cache/*/*.npz")}
    assert kept
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = running.communicate(timeout=600)
    assert running.returncode == 130
    assert errors.strip().splitlines()[-1].endswith("interrupted; the same command goes on where it was")
    assert "Traceback" not in errors
    assert _ended(running.pid)
    assert not (out / "report.html").exists()
    done = subprocess.run([sys.executable, "-m", "nequip_hessian", *arguments], env=environment, check=False)
    assert done.returncode == 0
    assert report(out)["figures"]["hessian_mae"]["n"] == GEOMETRIES
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("cache/*/*.npz")}
    assert kept.items() <= again.items()
    assert np.isfinite(report(out)["figures"]["energy_mae"]["value"])
