"""Pure array maths on one Hessian: shape, packing, projection, normal modes, differences of forces.

Conventions, the same everywhere: degree of freedom i = 3*atom + xyz; a Hessian
is the Cartesian +d2E/dxdx in eV/angstrom^2, never mass-weighted; positions in
angstrom, masses in u. Packed element k = i(i+1)/2 + j for i >= j (row-major
lower triangle = LAPACK's column-major upper 'U' packed form = the order of a
Gaussian formatted checkpoint file), so k does not depend on the size of the
matrix. The exact identities live next door, in `identities.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dspmv, sspmv

from nequip_hessian.units import WAVENUMBER

Array = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

LINEAR_THRESHOLD: Final = 1e-5
"""Smallest over largest principal moment of inertia below which a molecule counts as linear."""

_GENERATORS: Final = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ],
    dtype=np.float64,
)  # (A_e r) = e x r for e = x, y, z


# -- shape, symmetry, packing ---------------------------------------------------------------


def as_square(hessian: Array, n_atoms: int) -> Array:
    """Bring a Hessian of any customary shape to (3N, 3N).

    Args:
        hessian: (3N, 3N), (9N^2,), (N, 3, N, 3), (3N, N, 3) or (N, N, 3, 3), any unit
        n_atoms: N, the number of atoms the matrix covers

    Returns:
        (3N, 3N) with row and column index 3*atom + xyz, same dtype and unit.

    Raises:
        ValueError: another shape; the message names what was expected and found. For N = 3,
            (N, 3, N, 3) and (N, N, 3, 3) look alike: the former is assumed.
    """
    array = np.asarray(hessian)
    n = 3 * n_atoms
    if array.shape in ((n, n), (n * n,), (n_atoms, 3, n_atoms, 3), (n, n_atoms, 3)):
        return array.reshape(n, n)
    if array.shape == (n_atoms, n_atoms, 3, 3):
        return array.transpose(0, 2, 1, 3).reshape(n, n)
    raise ValueError(
        f"hessian: expected shape ({n}, {n}) for {n_atoms} atoms (or {n * n} numbers, ({n_atoms}, 3, {n_atoms}, 3), "
        f"({n}, {n_atoms}, 3), ({n_atoms}, {n_atoms}, 3, 3)), found {array.shape}"
    )


def symmetrise(hessian: Array) -> tuple[Array, float]:
    """Return ((H + H^T)/2, max|H - H^T|), both in the unit of `hessian` (n, n)."""
    transposed = hessian.T
    return (hessian + transposed) / 2, float(np.max(np.abs(hessian - transposed), initial=0.0))


def packed_size(n: int) -> int:
    """Number of packed elements, n(n+1)/2, of a symmetric (n, n) matrix."""
    return n * (n + 1) // 2


def order_of_packed(size: int) -> int:
    """Return n for a packed length n(n+1)/2.

    Raises:
        ValueError: `size` is not a triangular number.
    """
    n = (math.isqrt(8 * size + 1) - 1) // 2
    if packed_size(n) != size:
        raise ValueError(f"packed Hessian: {size} elements is no n(n+1)/2")
    return n


def pack(hessian: Array) -> Array:
    """Pack a symmetric (n, n) matrix into its row-major lower triangle, (n(n+1)/2,), same unit and dtype."""
    return np.ascontiguousarray(hessian[np.tril_indices(len(hessian))])


_LARGEST_KEPT_TRIANGLE = 384  # 128 atoms; 64 pairs of index arrays of that size are 75 MB


@lru_cache(maxsize=64)
def _small_triangle(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return np.tril_indices(n)  # building them costs several times what filling the matrix does


def unpack(packed: Array) -> Array:
    """Unpack (n(n+1)/2,) into the full symmetric (n, n) matrix, same unit and dtype."""
    n = order_of_packed(len(packed))
    full = np.empty((n, n), dtype=packed.dtype)
    rows, columns = _small_triangle(n) if n <= _LARGEST_KEPT_TRIANGLE else np.tril_indices(n)
    full[rows, columns] = packed
    full[columns, rows] = packed
    return full


def packed_product(packed: Array, vectors: Array) -> Array:
    """Multiply a packed symmetric matrix with vectors without unpacking it.

    Args:
        packed: (n(n+1)/2,) float32 or float64, eV/angstrom^2
        vectors: (n,) or (k, n), dimensionless

    Returns:
        H v for each vector, shape of `vectors`, unit of `packed`.
    """
    n = order_of_packed(len(packed))
    spmv = sspmv if packed.dtype == np.float32 else dspmv
    if vectors.ndim == 1:
        return spmv(n, 1.0, packed, vectors)
    return np.stack([spmv(n, 1.0, packed, vector) for vector in vectors]) if len(vectors) else vectors.copy()


# -- rigid motions, projection, normal modes ------------------------------------------------


def principal_moments(positions: Array, masses: Array) -> Array:
    """Return the three principal moments of inertia about the centre of mass, u angstrom^2, ascending."""
    r = positions - np.average(positions, axis=0, weights=masses)
    tensor = np.einsum("i,ij,ij->", masses, r, r) * np.eye(3) - np.einsum("i,ij,ik->jk", masses, r, r)
    return np.clip(np.linalg.eigvalsh(tensor), 0.0, None)


def is_linear(positions: Array, masses: Array, threshold: float = LINEAR_THRESHOLD) -> bool:
    """Say whether a molecule counts as linear: smallest / largest principal moment below `threshold`.

    Two atoms are linear, one atom is not (it has no rotations at all). The default threshold
    lies where a triatomic such as CO2 is bent by about 0.4 degrees.
    """
    if len(positions) < 3:
        return len(positions) == 2
    moments = principal_moments(positions, masses)
    return bool(moments[0] < threshold * moments[2])


def rotate_vectors(vectors: Array) -> npt.NDArray[np.float64]:
    """Apply the three rotation generators to (N, 3) vectors: (3N, 3), column e holds e x v, unit of the input."""
    return np.einsum("ejk,ik->ije", _GENERATORS, vectors).reshape(3 * len(vectors), 3)


def rigid_motions(
    positions: Array, masses: Array, *, periodic: bool = False, linear: bool | None = None
) -> npt.NDArray[np.float64]:
    """Orthonormal basis of translations and rotations in mass-weighted coordinates (Eckart conditions).

    Args:
        positions: (N, 3), angstrom
        masses: (N,), u; all ones gives the basis in plain Cartesian coordinates
        periodic: only the three translations
        linear: force 5 (True) or 6 (False) motions; default: decided by `is_linear`

    Returns:
        (3N, m) with m = 3 (one atom or periodic), 5 (linear) or 6; dimensionless columns.
    """
    n_atoms = len(positions)
    root = np.sqrt(masses)
    translations = np.einsum("i,jk->ijk", root, np.eye(3)).reshape(3 * n_atoms, 3)
    if periodic or n_atoms == 1:
        return np.linalg.qr(translations)[0]
    linear = is_linear(positions, masses) if linear is None else linear
    r = positions - np.average(positions, axis=0, weights=masses)
    rotations = rotate_vectors(r) * np.repeat(root, 3)[:, None]
    # Singular vectors, not Gram-Schmidt: of a (nearly) linear molecule the rotation about its own
    # axis has (nearly) no length, comes last and is dropped where the molecule counts as linear.
    left, _, _ = np.linalg.svd(rotations, full_matrices=False)
    basis = np.concatenate([translations, left[:, : 2 if linear else 3]], axis=1)
    return np.linalg.qr(basis)[0]


def project_out(hessian: Array, basis: Array) -> Array:
    """Return P H P with P = 1 - B B^T for an orthonormal basis B (n, m); unit of `hessian` (n, n)."""
    half = hessian - basis @ (basis.T @ hessian)
    return half - (half @ basis) @ basis.T


def mass_weight(hessian: Array, masses: Array) -> Array:
    """Return M^-1/2 H M^-1/2 for `hessian` (3N, 3N) in eV/angstrom^2 and masses (N,) in u; eV/(angstrom^2 u)."""
    inverse_root = 1.0 / np.sqrt(np.repeat(masses, 3))
    return hessian * inverse_root[:, None] * inverse_root[None, :]


def signed_wavenumbers(eigenvalues: Array) -> Array:
    """Turn eigenvalues of the mass-weighted Hessian, eV/(angstrom^2 u), into cm^-1, imaginary as negative."""
    return np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * WAVENUMBER


def normal_modes(
    hessian: Array,
    positions: Array,
    masses: Array,
    *,
    periodic: bool = False,
    linear: bool | None = None,
    project: bool = True,
) -> tuple[Array, Array]:
    """Harmonic wavenumbers and mass-weighted modes of one geometry.

    Args:
        hessian: (3N, 3N), eV/angstrom^2
        positions: (N, 3), angstrom
        masses: (N,), u
        periodic, linear: as in `rigid_motions`
        project: take translations and rotations out; the result then has 3N - 6 (5, 3) modes

    Returns:
        wavenumbers (m,), cm^-1, ascending, imaginary negative; modes (3N, m), orthonormal columns
        in mass-weighted coordinates (divide by sqrt(mass) for the Cartesian displacement).
    """
    weighted = mass_weight(np.asarray(hessian, dtype=np.float64), masses)
    if not project:
        values, vectors = np.linalg.eigh(weighted)
        return signed_wavenumbers(values), vectors
    basis = rigid_motions(positions, masses, periodic=periodic, linear=linear)
    # Diagonalise inside the orthogonal complement, so that exactly m modes come back and no soft
    # mode can be mistaken for a rigid motion.
    complement = np.linalg.svd(basis, full_matrices=True)[0][:, basis.shape[1] :]
    values, vectors = np.linalg.eigh(complement.T @ weighted @ complement)
    return signed_wavenumbers(values), complement @ vectors


def match_columns(reference: Array, other: Array) -> npt.NDArray[np.intp]:
    """Pair the columns of two sets of modes one to one by largest total squared overlap.

    Hungarian method (Kuhn, Nav. Res. Logist. Q. 1955, 2, 83).

    Args:
        reference: (n, m), orthonormal columns
        other: (n, m'), orthonormal columns in the same coordinates

    Returns:
        (m,) index into the columns of `other` of each reference column, -1 where `other` has fewer.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment((reference.T @ other) ** 2, maximize=True)
    partner = np.full(reference.shape[1], -1, dtype=np.intp)
    partner[rows] = columns
    return partner


# -- differences of forces ------------------------------------------------------------------

Stencil = tuple[tuple[int, float], ...]
SECOND_ORDER: Final[Stencil] = ((1, -1 / 2), (-1, 1 / 2))
"""(multiple of the step, weight) pairs of -dF/dx by central differences, error of order step^2."""
FOURTH_ORDER: Final[Stencil] = ((1, -2 / 3), (-1, 2 / 3), (2, 1 / 12), (-2, -1 / 12))
"""The same with an error of order step^4."""


def displaced(positions: Array, step: float, stencil: Stencil, atoms: Iterable[int] | None = None) -> list[Float64]:
    """Geometries whose forces give a Hessian by differences.

    Args:
        positions: (N, 3), angstrom
        step: angstrom
        stencil: `SECOND_ORDER` or `FOURTH_ORDER`
        atoms: which atoms to move; default all

    Returns:
        3n x len(stencil) copies (N, 3), coordinate by coordinate, each in the order of the stencil.
    """
    result = []
    for atom in range(len(positions)) if atoms is None else atoms:
        for axis in range(3):
            for multiple, _ in stencil:
                moved = np.array(positions, dtype=np.float64)
                moved[atom, axis] += multiple * step
                result.append(moved)
    return result


def difference_hessian(forces: Iterable[Array], step: float, stencil: Stencil) -> Float64:
    """Hessian from the forces at the geometries of `displaced`.

    Args:
        forces: for each of them the forces (n, 3) on the atoms to cover, eV/angstrom
        step: angstrom
        stencil: as for `displaced`

    Returns:
        (3n, 3n), eV/angstrom^2; row 3*atom + xyz is what was displaced. Not symmetrised: its
        asymmetry tells the noise.
    """
    rows = np.array([np.ravel(f) for f in forces], dtype=np.float64)
    weights = np.array([weight for _, weight in stencil]) / step
    return np.einsum("m,rmc->rc", weights, rows.reshape(-1, len(stencil), rows.shape[1]))
