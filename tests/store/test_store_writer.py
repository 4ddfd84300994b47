"""The writer: nothing half-done at the target, nothing clobbered, a kill at any moment survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from nequip_hessian.errors import StoreError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate

SCRIPT = textwrap.dedent(
    """
    import sys
    import numpy as np
    from nequip_hessian.record import LabelledGeometry
    from nequip_hessian.store import StoreWriter
    import nequip_hessian.store.spool as spool

    spool.BATCH_BYTES = 20_000
    path, count = sys.argv[1], int(sys.argv[2])

    def record(i):
        rng = np.random.default_rng(i)
        n = 1 + i % 7
        hessian = rng.normal(size=(3 * n, 3 * n)).astype(np.float32 if i < count // 3 else np.float64)
        return LabelledGeometry(
            numbers=rng.integers(1, 9, n), positions=rng.normal(size=(n, 3)), hessian=hessian if i % 3 else None,
            forces=rng.normal(size=(n, 3)) if i % 2 else None, energy=float(i), label=f"g{i}", group=f"r{i // 5}",
            masses=np.ones(n) if i > count // 2 else None, charge=1 if i > 2 * count // 3 else None)

    with StoreWriter(path, resume=True) as writer:
        writer.add_provenance({"routine": "test", "options": {"executor": "none"}})
        print("from", len(writer), flush=True)
        for i in range(len(writer), count):
            writer.append(record(i))
        print("appended", flush=True)
    print("finished", flush=True)
    """
)


def start(path, count):
    command = [sys.executable, "-c", SCRIPT, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    with start(path, 400) as process:
        assert "finished" in process.communicate()[0]
    assert validate(path, 3).valid
    return path


@pytest.mark.parametrize("when", ["spooling", "later", "finishing"])
def test_kill_leaves_nothing_and_resumes_to_the_same(tmp_path, undisturbed, when):
    path = tmp_path / "a.zarr"
    folder = tmp_path / "a.zarr.unfinished"
    journal = folder / "journal.json"
    awaited = {
        "spooling": lambda: journal.exists() and '"geometries": 0' not in journal.read_text(),
        "later": lambda: journal.exists() and "atom/mass" in journal.read_text(),
        "finishing": lambda: (folder / "store" / "atom").exists(),
    }[when]
    process = start(path, 400)
    deadline = time.monotonic() + 60
    while not awaited() and time.monotonic() < deadline and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    with pytest.raises(StoreError, match="an unfinished one is at"):
        HessianStore(path)
    with pytest.raises(StoreError, match="unfinished store is there"):
        StoreWriter(path)
    with start(path, 400) as again:
        output = again.communicate()[0]
    assert "from 0\n" not in output
    assert "finished" in output
    assert differences(path, undisturbed) == []
    assert not folder.exists()


def test_exception_leaves_nothing(tmp_path, records):
    def stop():
        with StoreWriter(tmp_path / "a.zarr") as writer:
            writer.append(records[0])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        stop()
    assert list(tmp_path.iterdir()) == []


def test_exception_with_resume_keeps_what_was_appended(tmp_path, records):
    def stop():
        with StoreWriter(tmp_path / "a.zarr", resume=True) as writer:
            writer.extend(records[:5])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        stop()
    assert not (tmp_path / "a.zarr").exists()
    with StoreWriter(tmp_path / "a.zarr", resume=True) as writer:
        assert len(writer) == 5
        assert writer.labels() == [record.label or "" for record in records[:5]]
        writer.extend(records[5:])
    with StoreWriter(tmp_path / "b.zarr") as writer:
        writer.extend(records)
    assert differences(tmp_path / "a.zarr", tmp_path / "b.zarr") == []


def test_resume_with_other_options_is_refused(tmp_path, records):
    writer = StoreWriter(tmp_path / "a.zarr", resume=True)
    writer.append(records[0])
    writer.abandon()
    with pytest.raises(StoreError, match="was begun with"):
        StoreWriter(tmp_path / "a.zarr", resume=True, dtype="float32")
    StoreWriter(tmp_path / "a.zarr", overwrite=True).abandon()
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_store(tmp_path, records):
    with StoreWriter(tmp_path / "a.zarr") as first:
        first.append(records[0])
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(StoreError, match="another process"):
                StoreWriter(tmp_path / "a.zarr", **options)
    assert len(HessianStore(tmp_path / "a.zarr")) == 1


def test_refuses_to_clobber(write, tmp_path, records):
    path = write()
    with pytest.raises(StoreError, match="exists already"):
        StoreWriter(path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    with pytest.raises(StoreError, match="no Hessian store, so it is not replaced"):
        StoreWriter(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis/chapter.tex").read_text() == "years of work"


def test_overwrite_keeps_the_old_store_until_the_end(write, records):
    path = write()
    writer = StoreWriter(path, overwrite=True)
    writer.append(records[0])
    assert len(HessianStore(path)) == 15
    writer.finish()
    assert len(HessianStore(path)) == 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_target_that_appears_meanwhile_is_left_alone(tmp_path, records):
    writer = StoreWriter(tmp_path / "a.zarr")
    writer.append(records[0])
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(StoreError, match="appeared while"):
        writer.finish()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    assert list((tmp_path / "a.zarr").iterdir()) == []


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, records, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    writer = StoreWriter(tmp_path / "a.zarr")
    writer.extend(records)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dtype": "float16"}, "expected None, 'float32' or 'float64'"),
        ({"profile": "fast"}, "expected one of local, remote, publish"),
        ({"attributes": {"licence": "MIT"}}, "unknown key licence"),
        ({"attributes": {"extra": {"x": float("nan")}}}, "JSON"),
        ({"attributes": {"license": 3}}, "license: expected text"),
    ],
)
def test_bad_options(tmp_path, options, text):
    with pytest.raises(StoreError, match=text):
        StoreWriter(tmp_path / "a.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_bad_paths(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        StoreWriter(tmp_path / "no" / "a.zarr")
    with pytest.raises(StoreError, match="written by profile 'publish'"):
        StoreWriter(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("scheme", "parts", "codes", "text"),
    [
        ("a b", ["train"], [0], "letters, digits"),
        ("a", ["val", "train"], [0], "begin with train, val, test"),
        ("a", ["train"], [1], "codes"),
        ("a", ["train"], [0.5], "codes"),
        ("a", ["train"], [0, 0], "expected 1 codes"),
    ],
)
def test_bad_splits(tmp_path, records, scheme, parts, codes, text):
    writer = StoreWriter(tmp_path / "a.zarr")
    writer.append(records[0])

    def split():
        writer.set_split(scheme, parts, codes)
        writer.finish()

    with pytest.raises(StoreError, match=text):
        split()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_empty_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no geometry was appended"), StoreWriter(tmp_path / "a.zarr"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_refused_record_does_not_disturb_the_others(tmp_path, records):
    bad = LabelledGeometry(numbers=np.array([1]), positions=np.zeros((1, 3)), charge=40000, group="new", label="bad")
    with StoreWriter(tmp_path / "a.zarr") as writer:
        writer.append(records[0])
        with pytest.raises(StoreError, match="charge: expected"):
            writer.append(bad)
        writer.append(records[1])
    store = HessianStore(tmp_path / "a.zarr")
    assert len(store) == 2
    assert store.attributes["counts"]["groups"] == 1


def test_provenance(tmp_path, records):
    facts = {"routine": "convert", "sources": [{"name": "a.fchk", "size": 3, "program": "x"}, "b.log"], "mine": 1}
    with StoreWriter(tmp_path / "a.zarr", attributes={"doi": "10.1/x", "title": "T"}) as writer:
        writer.append(records[0])
        writer.add_provenance(facts)
        writer.add_provenance({**facts, "host": "elsewhere"})  # a resumed run says the same again
        with pytest.raises(StoreError, match="sources/0"):
            writer.add_provenance({"sources": [{"size": 3}]})
    attributes = HessianStore(tmp_path / "a.zarr").attributes
    assert attributes["doi"] == ["10.1/x"]
    assert [entry["routine"] for entry in attributes["provenance"]] == ["convert", "store"]
    assert attributes["provenance"][0]["sources"][0]["extra"] == {"program": "x"}
    assert attributes["provenance"][0]["extra"] == {"mine": 1}
    assert validate(tmp_path / "a.zarr").valid


def test_memory_stays_bounded(tmp_path):
    """200 MB of Hessians pass through without 80 MB of them being held."""
    script = textwrap.dedent(
        """
        import resource, sys
        import numpy as np
        from nequip_hessian.record import LabelledGeometry
        from nequip_hessian.store import StoreWriter
        rng = np.random.default_rng(0)
        record = LabelledGeometry(numbers=np.full(100, 6), positions=rng.normal(size=(100, 3)),
                                  hessian=rng.normal(size=(300, 300)))
        with StoreWriter(sys.argv[1]) as writer:
            for _ in range(50):
                writer.append(record)
            writer.flush()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(550):
                writer.append(record)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.zarr")], capture_output=True, text=True, check=True
    )
    assert sum(file.stat().st_size for file in (tmp_path / "a.zarr").rglob("*")) > 205e6
    assert int(done.stdout) < 80_000  # kB
