"""Data sets and binary files, cut or with bytes changed: a HessianDataError that names the file, or a record."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from sound_datasets import FIXTURES, read_of, write_datasets

from nequip_hessian.errors import HessianDataError
from nequip_hessian.formats import format_of, read


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_datasets(tmp_path_factory.mktemp("sound"))


def place(folder: Path, name: str, tmp_path: Path) -> tuple[Path, Path]:
    """Copy everything; return the file to damage and the one to read."""
    shutil.copytree(folder, tmp_path / "all")
    path = tmp_path / "all" / name
    return path, read_of(path)


def outcome(path: Path, reader: str) -> list | HessianDataError:
    """Read all records, or return the error; any other exception is a failure of the test."""
    try:
        return list(read(path, reader))
    except HessianDataError as exc:
        return exc


def one_line(error: HessianDataError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 900
    return text


def rounds(name: str) -> int:
    return 6 if FIXTURES[name] == "phonopy" else 25  # phonopy takes its time


@pytest.mark.parametrize("name", FIXTURES)
def test_cut_at_any_byte(folder, tmp_path, name):
    damaged, path = place(folder, name, tmp_path)
    assert format_of(path).name == FIXTURES[name]
    reference = list(read(path))
    whole = damaged.read_bytes()
    refused = 0
    for cut in np.linspace(1, len(whole) - 2, rounds(name)).astype(int):
        damaged.write_bytes(whole[:cut])
        result = outcome(path, FIXTURES[name])
        if isinstance(result, HessianDataError):
            refused += 1
            assert damaged.name in one_line(result) or path.name in one_line(result)
            continue
        for record, made in zip(result, reference, strict=True):
            assert record.numbers.tolist() == made.numbers.tolist()
            assert np.max(np.abs(record.hessian - made.hessian)) < 1e-9
            assert np.max(np.abs(record.positions - made.positions)) < 1e-9
    assert refused > (rounds(name) // 3 if damaged.suffix not in (".raw", ".xyz") else 3)


@pytest.mark.parametrize("name", FIXTURES)
def test_bytes_changed(folder, tmp_path, name):
    damaged, path = place(folder, name, tmp_path)
    whole = damaged.read_bytes()
    rng = np.random.default_rng(11)
    for _ in range(rounds(name)):
        noisy = bytearray(whole)
        at = int(rng.integers(0, max(1, len(whole) - 4)))
        noisy[at : at + 4] = rng.integers(1, 256, len(noisy[at : at + 4]), dtype=np.uint8).tobytes()
        damaged.write_bytes(bytes(noisy))
        result = outcome(path, FIXTURES[name])
        if isinstance(result, HessianDataError):
            one_line(result)
        else:
            assert all(record.hessian is None or np.all(np.isfinite(record.hessian)) for record in result)
        with contextlib.suppress(HessianDataError):
            format_of(path)
