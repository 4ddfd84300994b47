"""One seam for conversion and labelling: the same store whoever does the work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from springs import spring_network

from nequip_hessian import executors
from nequip_hessian.cli import main
from nequip_hessian.conversion.parts import Parts, ReadPart
from nequip_hessian.conversion.read import Reading
from nequip_hessian.convert import convert, convert_share
from nequip_hessian.errors import ConfigError, OptionError, StoreError
from nequip_hessian.executors import Executor, Lost, default_workers, share_of
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.label.geometries import record_from_atoms
from nequip_hessian.label.run import label, label_share
from nequip_hessian.record import FIELD_NAMES, LabelledGeometry
from nequip_hessian.store import HessianStore, differences

sys.path.insert(0, str(Path(__file__).parent / "formats"))
sys.path.insert(0, str(Path(__file__).parent / "label"))
import emitters
from engines import Counting

DATA = Path(__file__).parent / "formats" / "data"


def squared(number: int) -> int:
    """A task; the number 13 kills its process."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A reaction in three files, a duplicate in another frame, one of many geometries, a bad one and a stray one."""
    root = tmp_path_factory.mktemp("inputs")
    for seed, name in enumerate(("reactant", "ts", "product"), 1):
        emitters.write(root / "a" / f"{name}.fchk", emitters.fchk(emitters.made("H2CO", seed=seed)))
    emitters.write(root / "b" / "again.log", emitters.gaussian_log(emitters.made("H2CO", seed=2)))
    (root / "c").mkdir()
    write_extxyz(root / "c" / "many.xyz", [springs(index) for index in range(5)])
    (root / "a" / "bad.fchk").write_text("nonsense\n")
    (root / "c" / "stray.log").write_text("hello\n")
    return root


def springs(seed: int) -> LabelledGeometry:
    """Exact forces and Hessian of springs between four atoms."""
    positions, forces, hessian = spring_network(4, seed)
    return LabelledGeometry(numbers=[6, 1, 1, 8], positions=positions, energy=-1.0, forces=forces, hessian=hessian,
                            label=f"springs {seed}")  # fmt: skip


def entries(target: Path) -> list[dict]:
    return json.loads(Path(f"{target}.report.json").read_text())["entries"]


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> Path:
    """The store of one process."""
    target = tmp_path_factory.mktemp("whole") / "s.zarr"
    assert main(["convert", str(inputs), "-o", str(target)]) == 3
    return target


def test_answers_of_a_pool_and_a_task_that_kills_its_process():
    tasks = {str(n): n for n in (1, 2, 13, 3)}
    found = dict(Executor(workers=2).run(squared, tasks))
    assert found == {"1": 1, "2": 4, "3": 9, "13": Lost()}


def test_workers_end_when_their_parent_is_killed():
    code = """if True:
        import time
        from nequip_hessian.executors import Executor
        for key, _ in Executor(workers=2).run(time.sleep, {"long": 600, "short": 0.1, "last": 0.1}):
            print(key, flush=True)"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout.readline() == "short\n"
        parent.kill()
        parent.communicate(timeout=20)  # the pipe ends with the last process that holds it
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def test_shares_are_all_there_once():
    keys = [str(n) for n in range(11)]
    assert sorted(key for rank in range(4) for key in share_of(keys, rank, 4)) == sorted(keys)
    for rank, world in ((4, 4), (-1, 4)):
        with pytest.raises(ConfigError, match="--rank 0 to 3"):
            share_of(keys, rank, world)
    with pytest.raises(ConfigError):
        Executor(workers=0)
    with pytest.raises(ConfigError, match="one of them"):
        Executor(workers=2, dask="tcp://localhost:1")
    assert default_workers(10) == 1
    assert 1 <= default_workers(2**40) <= 8


def files_of_every_format() -> list[Path]:
    return sorted(path for path in DATA.rglob("*") if path.is_file() and path.stat().st_size < 300_000)


@pytest.mark.parametrize("reading", [Reading(), Reading(project="asr", without_hessian=True)], ids=["plain", "asr"])
def test_what_a_worker_hands_over_is_what_it_read(tmp_path, reading):
    """All formats: records, checks, notes and refusals survive their way over the disk, bit for bit."""
    parts, seen = Parts(tmp_path / "parts", reading), set()
    for path in files_of_every_format():
        ReadPart(str(parts.folder), reading)(str(path))
        direct, handed = list(reading.outcomes(path)), list(parts.outcomes(path))
        assert len(direct) == len(handed)
        for one, two in zip(direct, handed, strict=True):
            assert {**vars(one), "record": None} == {**vars(two), "record": None}
            assert (one.record is None) == (two.record is None)
            for name in FIELD_NAMES if one.record is not None else ():
                a, b = getattr(one.record, name), getattr(two.record, name)
                if isinstance(a, np.ndarray):
                    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
                    seen.add(name)
                else:
                    assert json.dumps(a, default=vars) == json.dumps(b, default=vars)
    assert {"hessian", "forces", "frequencies", "masses"} <= seen


def test_part_of_a_file_that_changed_or_was_cut_is_not_used(tmp_path, inputs):
    source = tmp_path / "x.fchk"
    source.write_bytes((inputs / "a" / "ts.fchk").read_bytes())
    parts = Parts(tmp_path / "parts", Reading())
    ReadPart(str(parts.folder), Reading())(str(source))
    assert parts.has(source)
    assert not Parts(parts.folder, Reading(project="asr")).has(source)
    path = parts.path(source)
    raw = path.read_bytes()
    for length in range(0, len(raw), 97):
        path.write_bytes(raw[:length])
        with pytest.raises(StoreError, match="cannot be used"):
            list(parts.outcomes(source))
    os.utime(source, (1, 1))
    assert not parts.has(source)


def test_workers_write_the_store_of_one_process(inputs, whole, tmp_path, capsys):
    target = tmp_path / "s.zarr"
    assert main(["convert", str(inputs), "-o", str(target), "--workers", "2"]) == 3
    assert differences(whole, target) == []
    assert entries(target) == entries(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "s.zarr.report.json"]


def test_shares_write_the_store_of_one_process(inputs, whole, tmp_path, capsys):
    target = tmp_path / "s.zarr"
    command = ["convert", str(inputs), "-o", str(target)]
    assert main([*command, "--rank", "1", "--world", "2"]) == 0
    assert main([*command, "--finalize"]) == 1
    assert "4 of 7 inputs have not been read" in capsys.readouterr().err
    assert not target.exists()
    assert main([*command, "--rank", "0", "--world", "2"]) == 0
    assert main([*command, "--rank", "0", "--world", "2"]) == 0
    assert "0 of 4 inputs read, 4 more by an earlier run" in capsys.readouterr().out
    assert main([*command, "--finalize", "--project", "asr"]) == 1  # read with other options
    assert main([*command, "--finalize"]) == 3
    assert differences(whole, target) == []
    assert entries(target) == entries(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "s.zarr.report.json"]
    assert main([*command, "--rank", "0", "--world", "2"]) == 1
    assert "something already" in capsys.readouterr().err


def test_a_share_reads_nothing_of_the_others(inputs, tmp_path):
    report = convert_share([inputs], tmp_path / "s.zarr", 0, 3)
    assert (report.files, report.read) == (3, 3)
    assert len(list(Path(report.folder).glob("*.part"))) == 3


@pytest.mark.parametrize("way", ["workers", "finalize"])
def test_killed_in_the_middle_each_way_resumes_to_the_same_store(inputs, whole, tmp_path, monkeypatch, way):
    from nequip_hessian.store import StoreWriter

    target = tmp_path / "s.zarr"
    options = {"executor": Executor(workers=2)} if way == "workers" else {"finalize": True}
    for rank in range(2) if way == "finalize" else ():
        convert_share([inputs], target, rank, 2)
    append, count = StoreWriter.append, []

    def killed(self, record, quality):
        append(self, record, quality)
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        convert([inputs], target, resume=True, **options)
    monkeypatch.undo()
    assert not target.exists()
    convert([inputs], target, resume=True, **options)
    assert differences(whole, target) == []
    assert entries(target) == entries(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "s.zarr.report.json"]


# -- labels ---------------------------------------------------------------------------------


def geometries() -> list[LabelledGeometry]:
    found = []
    for name in ("H2O", "NH3", "HCN", "CO", "H2O"):
        atoms = molecule(name)
        atoms.rattle(0.03, seed=3)
        found.append(record_from_atoms(atoms, "test", name))
    return found


def test_shares_of_labels_write_the_store_of_one_process(tmp_path):
    engine = Counting(str(tmp_path))
    label(geometries(), tmp_path / "whole.zarr", engine)
    (tmp_path / "calls").unlink()
    target = tmp_path / "s.zarr"
    (tmp_path / "fail-CHN").touch()
    first = label_share(geometries(), target, engine, 0, 2)
    with pytest.raises(StoreError, match="2 geometries have not been labelled"):
        label(geometries(), target, engine, finalize=True)
    second = label_share(geometries(), target, engine, 1, 2)
    assert (first.total + second.total, first.labelled + second.labelled) == (4, 3)
    assert sorted(engine.calls()) == sorted(["H2O", "H3N", "CHN", "CO"])
    report = label(geometries(), target, engine, finalize=True)
    assert [(f.index, f.reason) for f in report.failures] == [(2, "CHN: told to fail")]
    assert len(HessianStore(target)) == 4
    (tmp_path / "fail-CHN").unlink()
    assert label_share(geometries(), target, engine, 0, 2, overwrite=True).status == 0
    label(geometries(), target, engine, finalize=True, overwrite=True)
    assert differences(tmp_path / "whole.zarr", target) == []
    assert len(engine.calls()) == 5  # nothing was done twice but what failed
    assert not (tmp_path / "s.zarr.journal").exists()


# -- a real Dask cluster --------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as running:
        code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent / 'label')]!r}"
        from distributed import Client

        with Client(running, set_as_default=False) as client:
            client.run(exec, code)
        yield running


def test_dask_writes_the_store_of_one_process(inputs, whole, tmp_path, cluster, capsys):
    target = tmp_path / "s.zarr"
    assert main(["convert", str(inputs), "-o", str(target), "--dask", cluster.scheduler_address]) == 3
    assert differences(whole, target) == []
    assert entries(target) == entries(whole)
    engine = Counting(str(tmp_path))
    label(geometries(), tmp_path / "here.zarr", engine, workers=2)
    label(geometries(), tmp_path / "there.zarr", engine, dask=cluster.scheduler_address)
    assert differences(tmp_path / "here.zarr", tmp_path / "there.zarr") == []


@pytest.mark.parametrize(
    ("scheduler", "kind", "said"),
    [
        ("tcp://127.0.0.1:9", ConfigError, "nothing answers there"),
        ("127.0.0.1:9", ConfigError, "nothing answers there"),
        ("nope", OptionError, "expected an address such as tcp://host:8786"),
        ("tcp://nope:port", OptionError, "expected an address such as tcp://host:8786"),
        ("{}/absent.json", ConfigError, "no scheduler file"),
        ("{}/other.json", ConfigError, "expected the file that dask scheduler --scheduler-file writes"),
        ("{}/stale.json", ConfigError, "nothing answers there"),
    ],
)
def test_dask_that_is_not_there_is_told_before_a_client_is_made(tmp_path, monkeypatch, scheduler, kind, said):
    import distributed

    def client(**_):
        pytest.fail("a client of a scheduler that is not there goes on trying for a minute")

    monkeypatch.setattr(distributed, "Client", client)
    monkeypatch.setattr(executors, "SECONDS_TO_REACH", 0.3)
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "stale.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    with pytest.raises(kind, match=said):
        list(Executor(dask=scheduler.format(tmp_path)).run(squared, {"1": 1}))


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_a_dask_address_at_which_something_else_listens(monkeypatch, answer):
    monkeypatch.setattr(executors, "SECONDS_TO_REACH", 0.5)
    with socket.create_server(("localhost", 0)) as server:
        held = []

        def answering():
            with contextlib.suppress(OSError):
                held.append(server.accept()[0])
                held[0].sendall(answer)

        thread = threading.Thread(target=answering, daemon=True)
        thread.start()
        where = f"tcp://localhost:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match="what listens there is no Dask scheduler"):
            list(Executor(dask=where).run(squared, {"1": 1}))
        thread.join()
        held[0].close()


def test_dask_that_has_many_threads():
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as threads:
        where = threads.scheduler_address
        assert dict(Executor(dask=where).run(squared, {"2": 2})) == {"2": 4}
        with pytest.raises(ConfigError, match="--nthreads 1"):
            list(Executor(dask=where, one_thread=True).run(squared, {"1": 1}))


def test_a_dask_run_that_is_cut_goes_on_to_the_same_store(inputs, whole, tmp_path, cluster, monkeypatch):
    from nequip_hessian.store import StoreWriter

    target, executor = tmp_path / "s.zarr", Executor(dask=cluster.scheduler_address)
    append, count = StoreWriter.append, []

    def killed(self, record, quality):
        append(self, record, quality)
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        convert([inputs], target, resume=True, executor=executor)
    monkeypatch.undo()
    assert not target.exists()
    convert([inputs], target, resume=True, executor=executor)
    assert differences(whole, target) == []
    assert entries(target) == entries(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "s.zarr.report.json"]

    engine = Counting(str(tmp_path))
    label(geometries(), tmp_path / "whole.zarr", engine, workers=2)
    (tmp_path / "calls").unlink()
    run = Executor.run

    def cut(self, work, tasks, *more, **options):
        for done, answer in enumerate(run(self, work, tasks, *more, **options)):
            if done == 2:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(Executor, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        label(geometries(), tmp_path / "there.zarr", engine, dask=cluster.scheduler_address)
    monkeypatch.undo()
    kept = len(list((tmp_path / "there.zarr.journal").iterdir()))
    assert kept >= 2
    label(geometries(), tmp_path / "there.zarr", engine, dask=cluster.scheduler_address)
    assert differences(tmp_path / "whole.zarr", tmp_path / "there.zarr") == []
    assert len(engine.calls()) < 2 * 4  # what the first run had labelled was not labelled again
