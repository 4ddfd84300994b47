"""What a model answered while a search ran, kept on disk in that order, so that a search that was cut goes on.

A search whose optimiser is deterministic asks for the same geometries when it is begun again: it is given the kept
answers until they end, and takes the path it took before, bit by bit. Where it asks for something else (another
machine rounds in another way) the kept answers from there on are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms

Array = npt.NDArray[np.floating[Any]]


class Answers:
    """Energies and forces of several geometries at a time, in a file that grows.

    Args:
        path: the file; what a kill left of a record at its end is dropped
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: list[Array] = []
        self._ends = [0]
        self._asked = 0
        if path.is_file():
            self._read()

    def _read(self) -> None:
        size = self._path.stat().st_size
        with self._path.open("rb") as stream:
            while self._ends[-1] < size:
                try:
                    record = np.load(stream, allow_pickle=False)
                except (ValueError, EOFError, OSError):
                    break
                if record.ndim != 3 or record.shape[2] != 7:
                    break
                self._kept.append(record)
                self._ends.append(stream.tell())

    def kept(self, images: Sequence[Atoms]) -> list[tuple[float, Array]] | None:
        """Return (energy, forces) of each geometry, eV and eV/angstrom, if these were asked for next before."""
        if self._asked == len(self._kept):
            return None
        record = self._kept[self._asked]
        asked = np.array([atoms.positions for atoms in images])
        if record.shape[:2] != asked.shape[:2] or not np.array_equal(record[:, :, :3], asked):
            del self._kept[self._asked :], self._ends[self._asked + 1 :]
            return None
        self._asked += 1
        return [(float(one[0, 6]), one[:, 3:6].copy()) for one in record]

    def keep(self, images: Sequence[Atoms], found: Sequence[tuple[float, Array]]) -> None:
        """Add what a model answered."""
        record = np.array(
            [
                np.column_stack([atoms.positions, forces, np.full(len(atoms), energy)])
                for atoms, (energy, forces) in zip(images, found, strict=True)
            ],
            dtype=np.float64,
        )
        with self._path.open("r+b" if self._path.exists() else "wb") as stream:
            stream.truncate(self._ends[-1])
            stream.seek(self._ends[-1])
            np.save(stream, record, allow_pickle=False)
            self._ends.append(stream.tell())
        self._kept.append(record)
        self._asked += 1
