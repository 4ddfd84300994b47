"""The labelling run: order, failures, pool, journal, resume."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from ase import Atoms
from ase.build import molecule

from nequip_hessian.checks import check
from nequip_hessian.errors import StoreError
from nequip_hessian.label.geometries import record_from_atoms
from nequip_hessian.label.run import label
from nequip_hessian.label.tblite import TbliteEngine
from nequip_hessian.store import HessianStore

sys.path.insert(0, str(Path(__file__).parent))
from engines import Counting

NAMES = ("H2O", "NH3", "HCN", "CO", "CH4")


def geometries(names=NAMES, **info):
    records = []
    for name in names:
        atoms = molecule(name)
        atoms.rattle(0.03, seed=3)
        atoms.info.update(info)
        records.append(record_from_atoms(atoms, "test", name))
    return records


def test_labels_are_those_of_the_engine_in_the_order_given(tmp_path):
    given = geometries(group="set", kind="displaced")
    report = label(given, tmp_path / "s.zarr", TbliteEngine())
    store = HessianStore(tmp_path / "s.zarr")
    assert (report.labelled, report.status, len(store)) == (5, 0, 5)
    assert store.levels == [TbliteEngine().level(True)]
    for i, geometry in enumerate(given):
        record = store[i]
        direct = TbliteEngine().calculate(geometry, hessian=True)
        np.testing.assert_allclose(record.hessian, (direct.hessian + direct.hessian.T) / 2, atol=1e-6)
        np.testing.assert_allclose(record.forces, direct.forces, atol=1e-8)
        assert record.asymmetry == pytest.approx(np.abs(direct.hessian - direct.hessian.T).max(), rel=1e-3)
        assert (record.label, record.group, record.kind) == (NAMES[i], "set", "displaced")
    assert not (tmp_path / "s.zarr.journal").exists()
    options = [entry.get("options", {}) for entry in store.attributes["provenance"]]
    assert any(o.get("engine") == "TbliteEngine" and o.get("displacement") == 0.005 for o in options)


def test_residuals_are_kept_with_the_labels(tmp_path):
    label(geometries(("CO", "H2O")), tmp_path / "s.zarr", TbliteEngine())
    records = list(HessianStore(tmp_path / "s.zarr"))
    stored = {name: zarr.open_array(tmp_path / "s.zarr/extra/quality" / name, mode="r")[...]
              for name in ("largest", "translation", "rotation")}  # fmt: skip
    for index, record in enumerate(records):
        found = check(record)[1]
        assert {name: values[index] for name, values in stored.items()} == {
            name: pytest.approx(getattr(found, name), rel=6e-4, abs=1e-6)
            for name in stored  # four digits
        }


def test_without_hessian(tmp_path):
    label(geometries(("CO",)), tmp_path / "s.zarr", TbliteEngine(), hessian=False)
    record = HessianStore(tmp_path / "s.zarr")[0]
    assert record.hessian is None
    assert record.forces is not None
    assert record.level.hessian is None


def test_a_failure_does_not_stop_the_others_and_only_it_is_tried_again(tmp_path):
    engine = Counting(str(tmp_path))
    flag = tmp_path / "fail-CHN"
    flag.touch()
    report = label(geometries(), tmp_path / "s.zarr", engine)
    assert report.status == 3
    assert [(f.index, f.label) for f in report.failures] == [(2, "HCN")]
    assert "told to fail" in report.failures[0].reason
    assert len(HessianStore(tmp_path / "s.zarr")) == 4
    assert sorted(engine.calls()) == sorted(["H2O", "H3N", "CHN", "CO", "CH4"])
    flag.unlink()
    report = label(geometries(), tmp_path / "s.zarr", engine, overwrite=True)
    assert (report.status, report.reused) == (0, 4)
    assert engine.calls()[5:] == ["CHN"]
    store = HessianStore(tmp_path / "s.zarr")
    assert [store[i].formula for i in range(5)] == ["H2O", "H3N", "CHN", "CO", "CH4"]
    assert not (tmp_path / "s.zarr.journal").exists()


def test_nothing_labelled_writes_nothing(tmp_path):
    (tmp_path / "fail-CO").touch()
    report = label(geometries(("CO",)), tmp_path / "s.zarr", Counting(str(tmp_path)))
    assert report.status == 1
    assert not (tmp_path / "s.zarr").exists()


def test_a_store_that_is_there_is_refused_before_any_calculation(tmp_path):
    engine = Counting(str(tmp_path))
    label(geometries(("CO",)), tmp_path / "s.zarr", TbliteEngine())
    with pytest.raises(StoreError, match="exists"):
        label(geometries(), tmp_path / "s.zarr", engine)
    assert engine.calls() == []


def test_equal_geometries_are_computed_once(tmp_path):
    engine = Counting(str(tmp_path))
    report = label(geometries(("CO", "H2O", "CO")), tmp_path / "s.zarr", engine)
    assert (report.labelled, engine.calls()) == (3, ["CO", "H2O"])


def test_pool_gives_what_one_process_gives(tmp_path):
    label(geometries(), tmp_path / "one.zarr", TbliteEngine())
    report = label(geometries(), tmp_path / "two.zarr", TbliteEngine(), workers=2)
    assert report.status == 0
    one, two = HessianStore(tmp_path / "one.zarr"), HessianStore(tmp_path / "two.zarr")
    for i in range(5):
        np.testing.assert_allclose(one[i].hessian, two[i].hessian, atol=1e-6)


def test_a_worker_that_dies_loses_only_its_own_geometry(tmp_path):
    (tmp_path / "die-CHN").touch()
    report = label(geometries(), tmp_path / "s.zarr", Counting(str(tmp_path)), workers=2)
    assert report.status == 3
    assert [f.label for f in report.failures] == ["HCN"]
    assert "died" in report.failures[0].reason
    assert len(HessianStore(tmp_path / "s.zarr")) == 4


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}]
from engines import Counting
from test_run import geometries
from nequip_hessian.label.run import label
if __name__ == "__main__":
    label(geometries(), {store!r}, Counting({folder!r}), workers={workers})
"""


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 1), (signal.SIGINT, 2)])
def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path, how, workers):
    engine, store = Counting(str(tmp_path)), tmp_path / "s.zarr"
    (tmp_path / "slow").touch()
    script = tmp_path / "run.py"
    tests = str(Path(__file__).parent)
    script.write_text(SCRIPT.format(tests=tests, store=str(store), folder=str(tmp_path), workers=workers))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # a test run in the background of a shell ignores SIGINT, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = tmp_path / "s.zarr.journal"
    while process.poll() is None and len(list(journal.glob("*.npz"))) < 2:
        time.sleep(0.02)
    os.kill(process.pid, how)
    assert process.wait(timeout=60) != 0
    assert not store.exists()
    kept, before = len(list(journal.glob("*.npz"))), len(engine.calls())
    assert 2 <= kept < 5
    (tmp_path / "slow").unlink()
    report = label(geometries(), store, engine)
    assert (report.labelled, report.reused) == (5, kept)
    assert len(engine.calls()) - before == 5 - kept
    assert len(HessianStore(store)) == 5


def test_a_damaged_journal_entry_is_made_again(tmp_path):
    engine = Counting(str(tmp_path))
    (tmp_path / "fail-CO").touch()
    label(geometries(("CO", "H2O", "NH3")), tmp_path / "s.zarr", engine)
    entry = sorted((tmp_path / "s.zarr.journal").glob("*.npz"))[0]
    entry.write_bytes(entry.read_bytes()[:100])
    (tmp_path / "fail-CO").unlink()
    report = label(geometries(("CO", "H2O", "NH3")), tmp_path / "s.zarr", engine, overwrite=True)
    assert (report.status, report.reused) == (0, 1)


def test_other_settings_take_nothing_from_the_journal(tmp_path):
    (tmp_path / "fail-CO").touch()
    label(geometries(("CO", "H2O")), tmp_path / "s.zarr", Counting(str(tmp_path)))
    report = label(geometries(("H2O",)), tmp_path / "s.zarr", TbliteEngine(displacement=0.01), overwrite=True)
    assert report.reused == 0
    assert HessianStore(tmp_path / "s.zarr").levels[0].displacement == 0.01


def test_a_label_that_contradicts_the_identities_is_left_out(tmp_path):
    """A calculator whose forces have the wrong sign in its Hessian: own Hessian against own forces."""
    from nequip_hessian.label.ase import AseEngine

    atoms = Atoms("HOH", [[0, 0, 0], [1.3, 0.2, 0], [1.5, 1.4, 0.1]])
    good = AseEngine("test_engines:Spring", {"stiffness": 20.0}, displacement=None)
    bad = AseEngine("test_run:FlippedSpring", {"stiffness": 20.0}, displacement=None)
    given = [record_from_atoms(atoms, "test", "chain")]
    assert label(given, tmp_path / "good.zarr", good).status == 0
    report = label(given, tmp_path / "bad.zarr", bad)
    assert report.status == 1
    assert "sign" in report.failures[0].reason


def __getattr__(name):
    if name == "FlippedSpring":
        from test_engines import Spring

        return type("FlippedSpring", (Spring,), {"get_hessian": lambda self, atoms: -Spring.get_hessian(self, atoms)})
    raise AttributeError(name)
