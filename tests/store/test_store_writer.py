"""The writer: nothing half-done at the target, nothing clobbered, a kill at any moment survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from nequip_hessian.errors import OptionError, StoreError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate

SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    import numpy as np
    from nequip_hessian.record import LabelledGeometry
    from nequip_hessian.store import StoreWriter, build
    import nequip_hessian.store.spool as spool

    spool.BATCH_BYTES = 20_000
    path, count = sys.argv[1], int(sys.argv[2])

    def killed_at(owner, name, call):
        # killed without any goodbye in that call of the function
        original, calls = getattr(owner, name), iter(range(1, 10**9))

        def wrapper(*args, **options):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        setattr(owner, name, wrapper)

    if len(sys.argv) > 3:
        killed_at({"os": os, "Builder": build.Builder}[sys.argv[3]], sys.argv[4], int(sys.argv[5]))

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


def run(path, count, *kill):
    command = [sys.executable, "-c", SCRIPT, str(path), str(count), *map(str, kill)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    done = run(path, 150)
    assert "finished" in done.stdout, done.stderr
    assert validate(path, 3).valid
    return path


MOMENTS = [
    ("os", "fsync", 5),  # the first rows are on disk, the journal is not
    ("os", "replace", 1),
    ("os", "fsync", 100),  # in the middle of a batch
    ("os", "replace", 6),
    ("Builder", "add_spooled", 8),  # some arrays are built
    ("Builder", "finish", 1),  # all are, the root attributes are not
    ("os", "rename", 1),  # the store is finished and not at its place
]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_kill_leaves_nothing_and_resumes_to_the_same(tmp_path, undisturbed, moment):
    path = tmp_path / "a.zarr"
    assert run(path, 150, *moment).returncode == -signal.SIGKILL
    assert not path.exists()
    with pytest.raises(StoreError, match="an unfinished one is at"):
        HessianStore(path)
    with pytest.raises(StoreError, match="unfinished store is there"):
        StoreWriter(path)
    again = run(path, 150)
    assert "finished" in again.stdout, again.stderr
    early = moment in MOMENTS[:2]
    assert ("from 0\n" in again.stdout) is early
    assert differences(path, undisturbed) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


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


@pytest.mark.parametrize("damage", ["journal", "cut", "gone"])
def test_damaged_unfinished_store_is_refused(tmp_path, records, damage):
    writer = StoreWriter(tmp_path / "a.zarr", resume=True)
    writer.extend(records[:4])
    writer.abandon()
    folder = tmp_path / "a.zarr.unfinished"
    with pytest.raises(StoreError, match="an unfinished store; go on writing"):
        HessianStore(folder)
    assert "unfinished store" in validate(folder).messages[0].found
    data = folder / "hessian.data.float64.bin"
    if damage == "journal":
        (folder / "journal.json").write_text('{"rows": ')
    elif damage == "cut":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        data.unlink()
    with pytest.raises(StoreError, match="start again with overwrite=True"):
        StoreWriter(tmp_path / "a.zarr", resume=True)
    with StoreWriter(tmp_path / "a.zarr", overwrite=True) as again:
        again.extend(records[:2])
    assert len(HessianStore(tmp_path / "a.zarr")) == 2


def test_killed_between_two_renames_names_the_old_store(write):
    path = write()
    path.rename(path.with_name(path.name + ".old"))
    with pytest.raises(StoreError, match="the one that was being replaced is at"):
        HessianStore(path)


def test_no_record(tmp_path):
    writer = StoreWriter(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="expected a LabelledGeometry, found dict"):
        writer.append({"numbers": [1]})
    writer.abandon()


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
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be made: Not a directory|cannot be made: File exists"):
        StoreWriter(tmp_path / "file" / "a.zarr")
    with pytest.raises(OptionError, match="written by profile 'publish'"):
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
    bad = LabelledGeometry(numbers=np.array([1]), positions=np.zeros((1, 3)), group="new", label="bad")
    with StoreWriter(tmp_path / "a.zarr") as writer:
        writer.append(records[0])
        with pytest.raises(StoreError, match="quality: unknown temperature"):
            writer.append(bad, {"temperature": 300.0})
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
