"""A brief version of what `measure.py` does at length: nothing of it may fail."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import faults
import measure
import mutations
import numpy as np
import pytest
from watch import measured_apart

from nequip_hessian.checks import check
from nequip_hessian.formats import format_of, formats, read
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.store import StoreWriter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Flushing to disk shows only when the power fails; without it the tests do not wait for the disk."""
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return measure.made(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        (faults.killed_conversions, {"kills": 4, "files": 6}),
        (faults.killed_conversions, {"kills": 3, "files": 6, "way": "workers"}),
        (faults.killed_conversions, {"kills": 5, "files": 6, "way": "shares"}),
        (faults.full_disk, {"steps": 6}),
        (faults.full_disk_of_verbs, {"steps": 3, "formats": ("fchk", "extxyz", "deepmd-npy")}),
        (faults.full_disk_of_labels, {"steps": 2}),
        (faults.read_only_target, {}),
        (faults.two_writers, {"rounds": 3}),
        (faults.flipped_bytes, {"flips": 60}),
        (faults.changed_stores, {"each": 4, "change": mutations.cut}),
        (faults.changed_stores, {"each": 3, "change": mutations.mutate}),
        (faults.hostile_zips, {}),
        (faults.hostile_labels, {"formats": ("fchk", "extxyz")}),
        (faults.hostile_archives, {}),
        (faults.large_geometry, {"atoms": 300}),
        (faults.many_offsets, {"geometries": 50_000}),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fault(tmp_path, fault, options):
    result = fault(tmp_path, **options)
    assert result["failed"] == 0, result


def test_flips_are_found_not_just_survived(tmp_path):
    result = faults.flipped_bytes(tmp_path, 40, seed=3)
    assert result["found"] + result["changed nothing"] == 40
    assert result["found"] >= 30


def test_changed_inputs(sound, tmp_path):
    """Nothing that is cut comes out as another Hessian; of changed digits only small ones do."""
    inputs = [one for one in sound if one.root.name in ("fchk", "gaussian", "orca", "dalton")]
    assert len(inputs) == 4
    cut = mutations.measured(inputs, mutations.cut, 8, tmp_path)
    assert cut["failed"] == cut["silent"] == 0, cut
    assert cut["refused"] > 20
    bytes_ = mutations.measured(inputs, mutations.mutate, 8, tmp_path)
    assert bytes_["failed"] == 0, bytes_
    digits = mutations.measured(inputs, mutations.exchange_digit, 20, tmp_path)
    assert digits["failed"] == 0, digits
    assert digits["largest silent change of a Hessian in %"] < 0.2
    assert digits["warned"] + digits["refused"] > 4 * digits["silent"]


def test_changed_data_sets(sound, tmp_path):
    """Of several records, in several files or in files of their own layout."""
    inputs = [one for one in sound if one.deep or one.changed.endswith((".h5", "db"))]
    assert len(inputs) == 16
    cut = mutations.measured(inputs, mutations.cut, 2, tmp_path)
    assert cut["failed"] == cut["silent"] == 0, cut
    bytes_ = mutations.measured(inputs, mutations.mutate, 2, tmp_path)
    assert bytes_["failed"] == 0, bytes_


def test_every_format_has_an_input(sound):
    assert {format_of(one.root / one.read).name for one in sound} == set(formats())


def test_records_are_compared_one_by_one(tmp_path):
    path, name = tmp_path / "a.xyz", "extxyz"
    records = [faults.springs(4, seed) for seed in range(3)]

    def outcome(*changed):
        write_extxyz(path, changed)
        return mutations.outcome(path, name, clean)[0]

    write_extxyz(path, records)
    clean = [check(record) for record in read(path)]
    assert outcome(*records) == "unchanged"
    assert outcome(*records[:2]) == outcome(records[0], records[2], records[1]) == "silent"
    moved = np.array(records[2].positions)
    moved[1, 1] += 0.003
    assert outcome(*records[:2], records[2].replace(positions=moved)) == "warned"


def test_a_hang_is_counted_as_failed(tmp_path, monkeypatch):
    write_extxyz(tmp_path / "a.xyz", [faults.springs(4, 0)])
    entry = mutations.Input.of(tmp_path / "a.xyz")
    clean = [check(record) for record in read(tmp_path / "a.xyz")]

    def hangs(_path, _name):
        while True:
            try:
                time.sleep(10)
            except Exception:  # as a reader may do
                continue

    monkeypatch.setattr(mutations, "read", hangs)
    begun = time.perf_counter()
    assert mutations.outcome(tmp_path / "a.xyz", "extxyz", clean, seconds=1)[0] == "hang"
    assert time.perf_counter() - begun < 5
    monkeypatch.setattr(mutations, "_checked", lambda _path, name: clean if name is None else hangs(_path, name))
    monkeypatch.setattr(mutations, "outcome", lambda *_: ("hang", mutations.NOTHING))
    assert mutations.measured([entry], mutations.cut, 2, tmp_path / "copy")["failed"] == 2


def test_peak_memory_of_a_child_is_what_it_held():
    found, _, memory = measured_apart(lambda: int(np.ones(4_000_000).sum()))
    assert found == 4_000_000
    assert 30e6 < memory < 50e6
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        measured_apart(lambda: 1 / 0)


def test_every_file_and_folder_is_on_disk_before_the_rename(tmp_path, monkeypatch):
    synced, target = set(), tmp_path / "a.zarr"
    rename = os.rename

    def sync(descriptor):
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))

    def checked(source, place):
        if Path(place) == target:
            below = {str(path) for path in Path(source).rglob("*")} | {str(source)}
            assert below <= synced
            synced.clear()
        rename(source, place)

    monkeypatch.setattr("os.fsync", sync)
    monkeypatch.setattr("os.rename", checked)
    with StoreWriter(target) as writer:
        writer.append(faults.springs(4, 0))
    assert str(tmp_path) in synced  # the new name itself


def test_page_is_of_a_full_run_without_a_failure():
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert "A full run" in text
    rows = re.findall(r"^\| .* \| ([^|]+) \|$", text, flags=re.MULTILINE)[1:]
    assert len(rows) == len(measure.steps(False))
    assert set(rows) == {"0"}


def test_springs_are_a_sound_hessian():
    record = faults.springs(5, 0)
    hessian = np.asarray(record.hessian)
    assert np.allclose(hessian.reshape(15, 5, 3).sum(axis=1), 0, atol=1e-12)
    assert np.linalg.eigvalsh(hessian)[-1] > 30
