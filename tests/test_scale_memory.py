"""The memory that a conversion needs does not grow with the number of geometries in a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from springs import spring_network

from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore

MOST = 60 * 2**20
CONVERT = "import sys; from nequip_hessian.cli import main; sys.exit(main(sys.argv[1:]))"


def geometries(count: int):
    """Nine carbon atoms on springs, each time others."""
    for seed in range(count):
        positions, forces, hessian = spring_network(9, seed)
        yield LabelledGeometry(
            numbers=np.full(9, 6), positions=positions, energy=-1.0, forces=forces, hessian=hessian, label=f"g{seed}"
        )


def peak_of_convert(source: Path, target: Path) -> int:
    """Peak resident memory of the command, bytes."""
    command = [sys.executable, "-c", CONVERT, "convert", str(source), "-o", str(target)]
    files = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(sys.executable, command, {**os.environ, "OMP_NUM_THREADS": "1"}, file_actions=files)
    _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_memory_of_convert_does_not_grow_with_the_file(tmp_path):
    peaks = {}
    for count in (20, 2000):
        source, target = tmp_path / f"{count}.xyz", tmp_path / f"{count}.zarr"
        write_extxyz(source, geometries(count))
        peaks[count] = peak_of_convert(source, target)
        assert len(HessianStore(target)) == count
    assert peaks[2000] - peaks[20] < MOST, {count: peak >> 20 for count, peak in peaks.items()}
