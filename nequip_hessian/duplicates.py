"""Recognising one calculation that comes in several files (.log and .fchk, a copy in another folder)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nequip_hessian.checks import invariants
from nequip_hessian.errors import StoreWriteError
from nequip_hessian.record import LabelledGeometry

POSITION_TOLERANCE: Final = 2e-5  # angstrom; six printed decimals, far below any finite-difference step
EIGENVALUE_TOLERANCE: Final = 1e-3  # eV/angstrom^2; seven printed decimals are 1e-5 an element
SAME_ENERGY: Final = 0.01  # eV; wider than the digits of any output
SAME_FORCES: Final = 0.01  # eV/angstrom, of their root mean square, plus 1 % of it
_CELL: Final = 0.5  # angstrom^2 and eV/angstrom^2: width of the boxes that candidates are looked up in


@dataclass(frozen=True)
class Twin:
    """The first record of a kind.

    Attributes:
        name: what it was called
        contradiction: energy or forces that differ from those of the second one, with both values; empty if
            none do, or if one of them has none
    """

    name: str
    contradiction: str


class Seen:
    """The records met so far, by what survives a change of frame; on disk once there are many: memory stays flat.

    Raises:
        StoreWriteError: in `find` and `remember`, where the temporary folder is full.
    """

    def __init__(self) -> None:
        self._known = sqlite3.connect("", isolation_level=None)  # a private file that goes when it is closed
        self._known.execute("PRAGMA journal_mode = OFF")
        self._known.execute("PRAGMA synchronous = OFF")
        self._known.execute("CREATE TABLE known (box BLOB, vals BLOB, positions BLOB, facts TEXT)")
        self._known.execute("CREATE INDEX boxes ON known (box)")

    def find(self, record: LabelledGeometry, name: str) -> Twin | None:
        """Look for the same geometry and Hessian, and remember this one if there is none.

        Two records are the same when atoms and their order are, when a proper rotation brings one
        geometry onto the other (a mirror image is another geometry: it can be the other end of an
        inversion), and when the eigenvalues of their Hessians agree. The same calculation as a part
        of two reactions stays in both, and one that is a part of a reaction is never left out for a
        copy that is part of none.

        Args:
            record: the new record
            name: what to call it

        Returns:
            The first one of its kind, or None.
        """
        values = invariants(record)
        belongs = (record.group, record.role) if record.role is not None else None
        atoms, size, trace = _box(record, values)
        for key in itertools.product((size - 1, size, size + 1), (trace - 1, trace, trace + 1)):
            for other, positions, facts in self._ask(_key(atoms, *key)):
                group, role, known, *labels = json.loads(facts)
                theirs = (group, role) if role is not None else None
                if (
                    np.max(np.abs(np.frombuffer(other)[3:] - values[3:]), initial=0.0) < EIGENVALUE_TOLERANCE
                    and (belongs is None or belongs == theirs)
                    and superposition_error(np.frombuffer(positions).reshape(-1, 3), record.positions)
                    < POSITION_TOLERANCE
                ):
                    return Twin(str(known), _contradiction(labels, _labels(record)))
        self._put(record, values, belongs, name)
        return None

    def remember(self, record: LabelledGeometry, name: str, belongs: tuple[str | None, str] | None) -> None:
        """Remember a record without looking for it.

        Args:
            record: with atoms, positions and Hessian (without one: forces)
            name: what to call it
            belongs: its group and its role there, `None` where it has no role
        """
        self._put(record, invariants(record), belongs, name)

    def _put(
        self,
        record: LabelledGeometry,
        values: npt.NDArray[np.float64],
        belongs: tuple[str | None, str] | None,
        name: str,
    ) -> None:
        group, role = belongs or (None, None)
        positions = np.ascontiguousarray(record.positions, dtype=np.float64).tobytes()
        row = (
            _key(*_box(record, values)),
            values.tobytes(),
            positions,
            json.dumps([group, role, name, *_labels(record)]),
        )
        with _disk():
            self._known.execute("INSERT INTO known VALUES (?, ?, ?, ?)", row)

    def _ask(self, key: bytes) -> list[tuple[bytes, bytes, str]]:
        sql = "SELECT vals, positions, facts FROM known WHERE box = ? ORDER BY rowid"
        with _disk():
            return self._known.execute(sql, (key,)).fetchall()


def _labels(record: LabelledGeometry) -> tuple[float | None, float | None]:
    """Energy, and root mean square of the forces' components: both survive a change of frame."""
    forces = None if record.forces is None else float(np.sqrt(np.mean(np.square(record.forces, dtype=np.float64))))
    return None if record.energy is None else float(record.energy), forces


def _contradiction(first: Sequence[float | None], second: Sequence[float | None]) -> str:
    found = []
    for name, unit, same, relative, one, other in (
        ("energy", "eV", SAME_ENERGY, 0.0, first[0], second[0]),
        ("RMS force", "eV/angstrom", SAME_FORCES, 0.01, first[1], second[1]),
    ):
        if one is not None and other is not None and abs(one - other) > same + relative * max(one, other):
            found.append(f"{name} {other:.6g} {unit} here, {one:.6g} there")
    return "; ".join(found)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreWriteError(f"the list of geometries in the temporary folder cannot be written: {exc}") from exc


def _key(atoms: bytes, size: int, trace: int) -> bytes:
    return hashlib.blake2b(atoms + b"|%d|%d" % (size, trace), digest_size=16).digest()


def _box(record: LabelledGeometry, values: npt.NDArray[np.float64]) -> tuple[bytes, int, int]:
    atoms = (b"H" if record.hessian is not None else b"F") + np.asarray(record.numbers).tobytes()
    if np.any(record.pbc):  # a crystal is no copy of a molecule, nor of another cell
        cell = np.asarray(record.cell)
        atoms += np.asarray(record.pbc).tobytes() + (np.round(cell @ cell.T, 2) + 0.0).tobytes()
    return atoms, round(float(values[:3].sum()) / _CELL), round(float(values[3:].sum()) / _CELL)


def superposition_error(first: npt.NDArray[np.floating[Any]], second: npt.NDArray[np.floating[Any]]) -> float:
    """Largest distance, angstrom, of two (N, 3) geometries after the best proper rotation and shift."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    if len(a) == 1:
        return 0.0
    u, _, vt = np.linalg.svd(a.T @ b)
    sign = np.sign(np.linalg.det(u @ vt)) or 1.0
    rotation = Rotation.from_matrix(u @ np.diag([1.0, 1.0, sign]) @ vt).as_matrix()
    return float(np.max(np.linalg.norm(a @ rotation - b, axis=1)))
