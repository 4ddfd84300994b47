"""A brief version of what `measure.py` does at length: nothing of it may fail."""

from __future__ import annotations

import os
import re
from pathlib import Path

import faults
import measure
import mutations
import numpy as np
import pytest

from nequip_hessian.store import StoreWriter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Flushing to disk shows only when the power fails; without it the tests do not wait for the disk."""
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        (faults.killed_conversions, {"kills": 4, "files": 6}),
        (faults.killed_conversions, {"kills": 3, "files": 6, "way": "workers"}),
        (faults.killed_conversions, {"kills": 5, "files": 6, "way": "shares"}),
        (faults.full_disk, {"steps": 6}),
        (faults.read_only_target, {}),
        (faults.two_writers, {"rounds": 1}),
        (faults.flipped_bytes, {"flips": 60}),
        (faults.hostile_zips, {}),
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


def test_changed_inputs(tmp_path):
    """Nothing that is cut comes out as another Hessian; of changed digits only small ones do."""
    inputs = [path for path in measure.made(tmp_path) if path.parent.name in ("fchk", "gaussian", "orca", "dalton")]
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
    rows = re.findall(r"^\| .* \| (\d+) \|$", text, flags=re.MULTILINE)
    assert rows == ["0"] * len(measure.steps(False))


def test_springs_are_a_sound_hessian():
    record = faults.springs(5, 0)
    hessian = np.asarray(record.hessian)
    assert np.allclose(hessian.reshape(15, 5, 3).sum(axis=1), 0, atol=1e-12)
    assert np.linalg.eigvalsh(hessian)[-1] > 30
