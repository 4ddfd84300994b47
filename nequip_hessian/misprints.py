"""One number of a file that contradicts all the others: a wrong Hessian element, coordinate or force.

The exact identities of translation and rotation (see `identities`) hold each number of a Hessian against the
others. Integration grids and rounding break them everywhere a little; one wrong number breaks them in a pattern
that it alone explains, and the pattern says which number it is and by how much it is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import rotate_vectors

EXPLAINED: Final = 0.95
"""Share of the squared violation above which one number is blamed.

Of 100 published Hessians and 400 of GFN2-xTB by differences the highest share without a misprint is 0.86 (four
atoms or more); grid noise and rounding spread over all elements."""

EXPLAINED_OF_THREE: Final = 0.995
"""The same for three atoms, where symmetry alone makes shares up to 0.97; of two atoms nothing can be said."""

SURE: Final = 0.995
"""Share, of four atoms or more, from which a misprint of more than SURE_SIZE is certain."""

SMALLEST: Final = {"element": 1e-3, "position": 2e-4, "force": 1e-2}
"""Errors below which nothing is said: eV/angstrom^2, angstrom, eV/angstrom."""

SURE_SIZE: Final = {"element": 0.1, "position": 0.01, "force": 0.1}

_LONE: Final = 5.0  # largest asymmetry over the next one
_LONE_SIZE: Final = 1e-3  # eV/angstrom^2
_PARTIAL: Final = 1.0  # eV/angstrom^2; sums over atoms that are larger are those of a part of the atoms

_MOST_ATOMS: Final = 500  # beyond, the work space would be gigabytes

Array = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Misprint:
    """The one change that explains most of what breaks the identities.

    Attributes:
        what: `element` of the Hessian, `position` or `force`
        place: (row, column) of the element, 0-based, row >= column; else (atom,), 0-based
        error: by how much it is too large: one number, eV/angstrom^2; else (3,), angstrom or eV/angstrom
        explained: share of the squared violation that vanishes with it, 0 to 1
        before, after: root mean square violation as it is and without the change, eV/angstrom^2
    """

    what: str
    place: tuple[int, ...]
    error: tuple[float, ...]
    explained: float
    before: float
    after: float

    @property
    def size(self) -> float:
        """Largest component of the error."""
        return max(abs(value) for value in self.error)

    def certain(self, n_atoms: int) -> bool:
        """Whether nothing but this one number is wrong, by so much that the record is of no use."""
        return n_atoms > 3 and self.explained >= SURE and self.size >= SURE_SIZE[self.what]

    def __str__(self) -> str:
        values = ", ".join(f"{value:.2g}" for value in self.error)
        where = {
            "element": f"element ({', '.join(str(index) for index in self.place)}) of the Hessian, counted from 0,",
            "position": f"the position of atom {self.place[0]}",
            "force": f"the force on atom {self.place[0]}",
        }[self.what]
        unit = {"element": "eV/A^2", "position": "A", "force": "eV/A"}[self.what]
        return (
            f"{where} contradicts all other numbers, it seems to be off by {values} {unit}: without that the "
            f"identities of translation and rotation would hold {self.before / max(self.after, 1e-12):.0f} times better"
        )


def find_misprint(hessian: Array, positions: Array, forces: Array | None) -> Misprint | None:
    """Look for one number that contradicts all the others.

    Args:
        hessian: (3N, 3N), symmetric, eV/angstrom^2, of a free molecule
        positions: (N, 3), angstrom
        forces: (N, 3), eV/angstrom; None: unknown, and wrong forces cannot be found

    Returns:
        The misprint, or None where none stands clear of the noise, and for fewer than three or more than 500 atoms.
    """
    if not 3 <= len(positions) <= _MOST_ATOMS:
        return None
    least = EXPLAINED if len(positions) > 3 else EXPLAINED_OF_THREE
    candidates = [likeliest(hessian, positions, forces)]
    if forces is None and len(positions) > 3:
        candidates.append(likeliest_position(hessian, positions))
    for found in candidates:
        if found is not None and found.explained >= least and found.size >= SMALLEST[found.what]:
            return found
    return None


def lone_asymmetry(hessian: Array) -> str | None:
    """Look for one pair of elements (i, j), (j, i) that differ where all others agree.

    Args:
        hessian: (n, n), in any shape, as printed and not symmetrised, eV/angstrom^2

    Returns:
        A warning, or None: where a program does not symmetrise, several elements differ alike (the largest
        difference of 20 published Hessians is at most 1.6 times the next one), or less than the sums over atoms, which
        should vanish, differ from zero (analytic Hessians of density functionals, whose grid does not move).
    """
    order = math.isqrt(np.size(hessian))
    if order < 3 or order**2 != np.size(hessian):  # packed: one triangle says nothing of the other
        return None
    matrix = np.asarray(hessian, dtype=np.float64).reshape(order, order)
    difference = np.tril(np.abs(matrix - matrix.T))
    i, j = np.unravel_index(int(np.argmax(difference)), difference.shape)
    largest = float(difference[i, j])
    difference[i, j] = 0.0
    if largest < max(_LONE_SIZE, _LONE * float(np.max(difference)), _noise(matrix, int(i), int(j))):
        return None
    return (
        f"is one number of the file wrong? Elements ({i}, {j}) and ({j}, {i}) of the Hessian, counted from 0, differ "
        f"by {largest:.2g} eV/A^2, all others by at most {np.max(difference):.1g}; their mean was taken"
    )


def _noise(matrix: Float64, i: int, j: int) -> float:
    """Largest sum over the atoms of a row other than i and j; 0 where the sums are no noise, of a partial Hessian."""
    if len(matrix) % 3:
        return 0.0
    sums = (matrix + matrix.T).reshape(len(matrix), -1, 3).sum(axis=1) / 2
    sums[[i, j]] = 0.0
    noise = float(np.max(np.abs(sums)))
    return noise if noise < _PARTIAL else 0.0


def violation(hessian: Array, positions: Array, forces: Array | None) -> tuple[Float64, Float64, float]:
    """What breaks the identities of translation and, with forces, of rotation.

    Args:
        hessian: (3N, 3N), symmetric, eV/angstrom^2
        positions: (N, 3), angstrom
        forces: (N, 3), eV/angstrom; None: translation only

    Returns:
        (3N, m) violation, eV/angstrom^2, the (3N, m) rigid motions it belongs to, m = 3 or 6, and the radius of
        gyration, angstrom, by which rotations are divided, so that both have one unit and size.
    """
    n_atoms = len(positions)
    motions = np.tile(np.eye(3), (n_atoms, 1))
    wanted = np.zeros_like(motions)
    centred = positions - positions.mean(axis=0)
    radius = float(np.sqrt(np.mean(np.sum(centred**2, axis=1)))) or 1.0
    if forces is not None:
        motions = np.concatenate([motions, rotate_vectors(centred) / radius], axis=1)
        wanted = np.concatenate([wanted, -rotate_vectors(np.asarray(forces)) / radius], axis=1)
    return hessian @ motions - wanted, motions, radius


def likeliest(hessian: Array, positions: Array, forces: Array | None) -> Misprint | None:
    """Return the change of one number that explains most of what breaks the identities; None where nothing does."""
    broken, motions, radius = violation(hessian, positions, forces)
    total = float(np.sum(broken**2))
    if total == 0.0:
        return None
    found = [_element(broken, motions)]
    if forces is not None:
        found += [_position(broken[:, 3:], hessian, radius), _force(broken[:, 3:], radius)]
    what, place, error, gained = max(found, key=lambda one: one[3])
    mean = float(np.sqrt(total / broken.size))
    share = min(gained / total, 1.0)
    return Misprint(what, place, error, share, mean, mean * float(np.sqrt(1.0 - share)))


_Candidate = tuple[str, tuple[int, ...], tuple[float, ...], float]


def _element(broken: Float64, motions: Float64) -> _Candidate:
    """An element (i, j) that is too large by d adds d B_j to row i of the violation and d B_i to row j."""
    overlap = broken @ motions.T
    along = overlap + overlap.T
    lengths = np.sum(motions**2, axis=1)
    norm = lengths[:, None] + lengths[None, :]
    diagonal = np.diag_indices(len(along))
    along[diagonal] /= 2
    norm[diagonal] /= 2
    gained = along**2 / np.maximum(norm, 1e-300)
    i, j = np.unravel_index(int(np.argmax(np.tril(gained))), gained.shape)
    return "element", (int(i), int(j)), (float(along[i, j] / norm[i, j]),), float(gained[i, j])


_AXES: Final = np.stack([np.cross(np.eye(3), axis) for axis in np.eye(3)])
"""(3, 3, 3): rotation generator e, component of the result, for a unit vector along each axis (first index)."""


def likeliest_position(hessian: Array, positions: Array) -> Misprint | None:
    """Return the change of one position that explains most of what no forces can explain, see `implied_forces`."""
    centred = positions - positions.mean(axis=0)
    radius = float(np.sqrt(np.mean(np.sum(centred**2, axis=1)))) or 1.0
    broken = _even((np.asarray(hessian) @ rotate_vectors(centred) / radius)[:, :, None])[:, :, 0]
    total = float(np.sum(broken**2))
    if total == 0.0:
        return None
    what, place, error, gained = _position(broken, hessian, radius, even=True)
    mean, share = float(np.sqrt(total / broken.size)), min(gained / total, 1.0)
    return Misprint(what, place, error, share, mean, mean * float(np.sqrt(1.0 - share)))


def _even(turned: Float64) -> Float64:
    """Symmetric part of the (component, axis) block of each atom, of (3N, 3, d): forces are in the other part."""
    blocks = turned.reshape(-1, 3, 3, turned.shape[2])
    return ((blocks + blocks.transpose(0, 2, 1, 3)) / 2).reshape(turned.shape)


def _position(broken: Float64, hessian: Array, radius: float, *, even: bool = False) -> _Candidate:
    """A position that is off by d adds H (e x d) to the violation of the rotation about each axis e, (3N, 3)."""
    best: _Candidate = ("position", (0,), (0.0,), 0.0)
    for atom in range(len(hessian) // 3):
        columns = np.asarray(hessian)[:, 3 * atom : 3 * atom + 3]
        # design[row, e, d]: change of the violation (row, rotation e) with component d of the position
        design = np.einsum("rk,dek->red", columns, _AXES) / radius
        design = _even(design) if even else design
        best = max(best, _fitted("position", atom, design.reshape(-1, 3), broken), key=lambda one: one[3])
    return best


def _force(broken: Float64, radius: float) -> _Candidate:
    """A force that is off by d adds e x d to the rows of its atom."""
    best: _Candidate = ("force", (0,), (0.0,), 0.0)
    design = np.einsum("dek->ked", _AXES).reshape(-1, 3) / radius
    for atom in range(len(broken) // 3):
        rows = broken[3 * atom : 3 * atom + 3]
        best = max(best, _fitted("force", atom, design, rows), key=lambda one: one[3])
    return best


def _fitted(what: str, atom: int, design: Float64, broken: Float64) -> _Candidate:
    values = broken.ravel()
    error, _, rank, _ = np.linalg.lstsq(design, values, rcond=1e-6)
    gained = float(np.sum(values**2) - np.sum((values - design @ error) ** 2)) if rank else 0.0
    return what, (atom,), tuple(float(one) for one in error), gained
