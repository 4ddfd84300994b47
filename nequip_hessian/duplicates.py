"""Recognising one calculation that comes in several files (.log and .fchk, a copy in another folder)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nequip_hessian.checks import invariants
from nequip_hessian.record import LabelledGeometry

POSITION_TOLERANCE: Final = 2e-3  # angstrom
EIGENVALUE_TOLERANCE: Final = 5e-3  # eV/angstrom^2; a printout with seven decimals is 1e-5


class Seen:
    """The records met so far, by what survives a change of frame."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[tuple[npt.NDArray[np.float64], npt.NDArray[np.floating[Any]], Any, str]]] = {}

    def find(self, record: LabelledGeometry, name: str) -> str | None:
        """Look for the same geometry and Hessian, and remember this one if there is none.

        Two records are the same when atoms and their order are, when a proper rotation brings one
        geometry onto the other (a mirror image is another geometry: it can be the other end of an
        inversion), and when the eigenvalues of their Hessians agree. The same calculation as a part
        of two reactions stays in both.

        Args:
            record: the new record
            name: what to call it

        Returns:
            The name of the first one of its kind, or None.
        """
        numbers = np.asarray(record.numbers).tobytes()
        kind = b"H" if record.hessian is not None else b"F"
        belongs = (record.group, record.role) if record.role is not None else None
        values = invariants(record)
        candidates = self._known.setdefault(kind + numbers, [])
        for other, positions, other_belongs, other_name in candidates:
            if (
                len(other) == len(values)
                and np.allclose(other, values, rtol=1e-4, atol=EIGENVALUE_TOLERANCE)
                and (belongs is None or other_belongs is None or belongs == other_belongs)
                and superposition_error(positions, record.positions) < POSITION_TOLERANCE
            ):
                return other_name
        candidates.append((values, record.positions, belongs, name))
        return None


def superposition_error(first: npt.NDArray[np.floating[Any]], second: npt.NDArray[np.floating[Any]]) -> float:
    """Largest distance, angstrom, of two (N, 3) geometries after the best proper rotation and shift."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    if len(a) == 1:
        return 0.0
    u, _, vt = np.linalg.svd(a.T @ b)
    sign = np.sign(np.linalg.det(u @ vt)) or 1.0
    rotation = Rotation.from_matrix(u @ np.diag([1.0, 1.0, sign]) @ vt).as_matrix()
    return float(np.max(np.linalg.norm(a @ rotation - b, axis=1)))
