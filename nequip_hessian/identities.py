"""Exact identities of a Hessian, and what a violation says about unit, sign, frame or order.

They hold for any true energy surface of a free molecule, at any geometry:
H = H^T; the block columns of H sum to zero over atoms (translation); and
H (A r) = -A F for each generator A of rotations (rotation: differentiate
F(Q r) = Q F(r) once). The last one ties the units and signs of Hessian and
forces to each other and to the frame of the positions. Degree of freedom
i = 3*atom + xyz; H in eV/angstrom^2, positions in angstrom, forces (not
gradients) in eV/angstrom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import LINEAR_THRESHOLD, rotate_vectors
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR2

Array = npt.NDArray[np.floating[Any]]


def translation_residual(hessian: Array) -> float:
    """Largest element of the sum over atoms of the block columns, eV/angstrom^2; 0 for a true Hessian (n, n)."""
    return float(np.max(np.abs(hessian.reshape(len(hessian), -1, 3).sum(axis=1)), initial=0.0))


SCALE_ERROR: Final = 0.2
"""Largest standard error of `RotationFit.scale` that says anything: unit and sign differ from 1 by more than that."""

SCALE_TOLERANCE: Final = 0.1
"""Distance of `RotationFit.scale` from 1, or three standard errors, that rounding and grids explain; a wrong unit
differs by a factor of 1.9 or more."""

DIPOLE_SUM: Final = 0.02
"""e; integration grids and printed decimals reach 0.01."""

BORN_MEAN: Final = 0.02
"""e an atom; k-point meshes and plane-wave cutoffs reach 0.01."""


def dipole_sum(derivatives: Array, charge: int | None) -> tuple[float, float]:
    """Hold dipole derivatives against their sum rule: added over the atoms they are the charge times the identity.

    It is what a common shift of all atoms does to the dipole moment of a fixed origin. A dipole about an origin
    that moves with the atoms (their centre of mass) has the sum 0 whatever the charge.

    Args:
        derivatives: (3N, 3), e; row 3*atom + xyz, column dipole component
        charge: of the molecule, e; None: the third of the trace is taken for it

    Returns:
        The largest deviation of an element, e, and the charge used, e.
    """
    total = np.asarray(derivatives, dtype=np.float64).reshape(-1, 3, 3).sum(axis=0)
    used = float(np.trace(total)) / 3 if charge is None else float(charge)
    return float(np.max(np.abs(total - used * np.eye(3)))), used


def dipole_warnings(derivatives: Array, charge: int | None) -> list[str]:
    """Say what the sum rule has against dipole derivatives (3N, 3), e: over the atoms they add to the charge."""
    worst, charge_found = dipole_sum(np.asarray(derivatives), charge)
    if worst <= DIPOLE_SUM:
        return []
    expected = "a multiple of the identity" if charge is None else f"the charge ({charge_found:g} e)"
    return [
        f"the dipole derivatives do not sum to {expected} but are {worst:.2g} e from it; infrared intensities hold "
        "only if the dipole is about the centre of mass"
    ]


def born_mean(charges: Array) -> float:
    """Return the largest element of the mean of Born effective charges (N, 3, 3), e; the acoustic sum rule wants 0."""
    return float(np.max(np.abs(np.mean(charges, axis=0, dtype=np.float64))))


def born_warnings(charges: Array) -> list[str]:
    """Say what the acoustic sum rule has against Born effective charges (N, 3, 3), e: their mean is zero."""
    worst = born_mean(charges)
    return [f"the Born effective charges sum to {worst:.2g} e an atom instead of zero"] if worst > BORN_MEAN else []


DIELECTRIC_ASYMMETRY: Final = 0.01
"""Of the largest element; printed decimals and k-point meshes stay far below."""


def dielectric_warnings(tensor: Array) -> list[str]:
    """Say what is wrong with a static dielectric tensor (3, 3), which is symmetric and positive definite."""
    values = np.asarray(tensor, dtype=np.float64)
    asymmetry, largest = float(np.max(np.abs(values - values.T))), float(np.max(np.abs(values)))
    if asymmetry > DIELECTRIC_ASYMMETRY * largest:
        return [f"the dielectric tensor is not symmetric: elements differ by {asymmetry:.2g}"]
    lowest = float(np.linalg.eigvalsh((values + values.T) / 2)[0])
    return [] if lowest > 0 else [f"the dielectric tensor has the eigenvalue {lowest:.2g}, it must be positive"]


@dataclass(frozen=True)
class RotationFit:
    """Least-squares fit of H (A r) = -s A F; s is 1 where unit, sign, frame and order are right.

    Attributes:
        scale: s, dimensionless; NaN where all forces are zero
        error: standard error of s, infinite where it cannot be estimated
        residual: max |H(Ar) + A F| over the three rotations, eV/angstrom
        relative: that residual over the largest |H| |A r| it could have been, dimensionless
        torque_free: max |H(Ar)|, eV/angstrom, what the residual would be with zero forces
    """

    scale: float
    error: float
    residual: float
    relative: float
    torque_free: float

    @property
    def determined(self) -> bool:
        """Whether the forces stand clear enough of the noise to say anything on unit and sign."""
        return bool(np.isfinite(self.error) and self.error <= SCALE_ERROR)


def rotation_fit(hessian: Array, positions: Array, forces: Array) -> RotationFit:
    """Fit the rotational identity H (A r) = -s A F.

    Args:
        hessian: (3N, 3N), eV/angstrom^2
        positions: (N, 3), angstrom
        forces: (N, 3), eV/angstrom

    Returns:
        The fit. Positions are taken relative to their centre, so that a Hessian that breaks the
        translational identity a little is not blamed here for a far-away origin.
    """
    centred = positions - positions.mean(axis=0)
    turned = rotate_vectors(centred)
    left = hessian @ turned
    right = -rotate_vectors(forces)
    norm = float(np.sum(right**2))
    residual = float(np.max(np.abs(left - right)))
    size = float(np.max(np.abs(hessian)) * np.max(np.linalg.norm(centred, axis=1), initial=0.0)) or 1.0
    scale, error = math.nan, math.inf
    if norm > 0:
        scale = float(np.sum(left * right)) / norm
        freedom = max(left.size - 1, 1)
        error = math.sqrt(float(np.sum((left - scale * right) ** 2)) / freedom / norm)
    return RotationFit(scale, error, residual, residual / size, float(np.max(np.abs(left))))


def implied_forces(hessian: Array, positions: Array) -> tuple[npt.NDArray[np.float64], float]:
    """Forces that a Hessian implies through the rotational identity, for files that hold none.

    For each atom, column e of the 3 x 3 block of H (A r) has to be -e x F = [F]x e: its antisymmetric
    part is the force, and its symmetric part has to vanish, at any geometry, stationary or not.

    Args:
        hessian: (3N, 3N), eV/angstrom^2
        positions: (N, 3), angstrom

    Returns:
        (N, 3) forces, eV/angstrom, and the largest element of the symmetric part, eV/angstrom: what
        no forces can explain. The noise of an integration grid is in both, so forces below a few
        times that remainder mean nothing.
    """
    blocks = (hessian @ rotate_vectors(positions - positions.mean(axis=0))).reshape(-1, 3, 3)
    transposed = blocks.transpose(0, 2, 1)
    odd = (blocks - transposed) / 2
    forces = np.stack([odd[:, 2, 1], odd[:, 0, 2], odd[:, 1, 0]], axis=1)
    return forces, float(np.max(np.abs(blocks + transposed), initial=0.0)) / 2


def restore_identities(hessian: Array, positions: Array, forces: Array | None) -> npt.NDArray[np.float64]:
    """Smallest change of a Hessian (Frobenius norm) after which translation and rotation hold exactly.

    With B an orthonormal basis of translations and rotations and T what H B has to be (zero for
    translations, -A F for rotations), the result is P H P + T B^T + B T^T - B (B^T T) B^T, P = 1 - B B^T.

    Args:
        hessian: (3N, 3N), symmetric, eV/angstrom^2
        positions: (N, 3), angstrom
        forces: (N, 3), eV/angstrom; None: a stationary point, T = 0

    Returns:
        (3N, 3N), symmetric, eV/angstrom^2. Net force and torque, which break the premise, are taken
        out of `forces` by symmetrising B^T T.
    """
    n_atoms = len(positions)
    motions = np.concatenate(
        [np.tile(np.eye(3), (n_atoms, 1)), rotate_vectors(positions - positions.mean(axis=0))], axis=1
    )
    left, values, right = np.linalg.svd(motions, full_matrices=False)
    kept = values > math.sqrt(LINEAR_THRESHOLD) * values[0]  # no rotation of a linear molecule about its own axis
    basis = left[:, kept]
    wanted = np.zeros_like(motions)
    if forces is not None:
        wanted[:, 3:] = -rotate_vectors(forces)
    target = wanted @ (right[kept].T / values[kept])
    inner = basis.T @ target
    outer = target - basis @ inner
    inside = hessian - basis @ (basis.T @ hessian)
    inside = inside - (inside @ basis) @ basis.T
    restored = inside + outer @ basis.T + basis @ outer.T + basis @ ((inner + inner.T) / 2) @ basis.T
    return (restored + restored.T) / 2


_KNOWN_FACTORS: Final = (
    (HARTREE_PER_BOHR2, "the Hessian is in Eh/a0^2 while the forces are in eV/angstrom"),
    (1 / HARTREE_PER_BOHR2, "the Hessian was multiplied with Eh/a0^2 -> eV/angstrom^2 twice, or the forces not at all"),
    (HARTREE, "the Hessian is in Eh/angstrom^2 while the forces are in eV/angstrom"),
    (1 / HARTREE, "the energy unit of Hessian and forces differs by Eh/eV"),
    (BOHR, "the length unit of the Hessian or of the positions differs by a0/angstrom"),
    (1 / BOHR, "the length unit of the Hessian or of the positions differs by a0/angstrom"),
    (BOHR**2, "the length unit of the Hessian differs by (a0/angstrom)^2"),
    (1 / BOHR**2, "the length unit of the Hessian differs by (a0/angstrom)^2"),
)


@dataclass(frozen=True)
class Diagnosis:
    """What the identities say of one Hessian.

    Attributes:
        verdict: `ok`, `undetermined` (nothing contradicts it, forces too small to fix unit and
            sign), `unit`, `sign`, `frame`, `order` or `inconsistent` (stale or damaged)
        message: one sentence for the user, with what would mend it
        asymmetry: max|H - H^T|, eV/angstrom^2
        translation: residual of the translational identity, eV/angstrom^2
        rotation: fit of the rotational identity; None for periodic, partial or force-free records
    """

    verdict: str
    message: str
    asymmetry: float
    translation: float | None
    rotation: RotationFit | None


ROTATION_TOLERANCE: Final = 0.02
"""`RotationFit.relative` above which positions, forces and Hessian cannot belong together.

Of 70 published outputs the worst sound one has 0.0025; turning the positions gives 0.03 to 0.7."""

NOISE: Final = 0.25
"""Residual of the rotational identity, eV/angstrom, that integration grids make by themselves.

No fault of unit or sign is claimed below it: for a linear or highly symmetric molecule noise alone
can look like a clean factor. Nor is one below NOISE_FACTOR times what no forces can explain in this
Hessian (`implied_forces`): in a published set with noise of 0.3 eV/angstrom, scales of 1.29 +- 0.09 occur."""

NOISE_FACTOR: Final = 5.0


def _match_factor(fit: RotationFit) -> str | None:
    # s = (unit of H) / (unit of F): 1/s is what the Hessian has to be multiplied with.
    tolerance = max(0.02, 2 * fit.error)
    for factor, text in _KNOWN_FACTORS:
        if abs(abs(fit.scale) * factor - 1) < tolerance:
            return text
    return None


def diagnose(
    hessian: Array,
    positions: Array,
    forces: Array | None,
    *,
    asymmetry: float = 0.0,
) -> Diagnosis:
    """Hold a free molecule's Hessian against the exact identities and name the likely fault.

    Args:
        hessian: (3N, 3N), eV/angstrom^2
        positions: (N, 3), angstrom
        forces: (N, 3), eV/angstrom, or None (those that the Hessian implies are taken: only frame,
            order and a stale Hessian can then be seen, and the verdict is at best `undetermined`)
        asymmetry: max|H - H^T| before symmetrising, eV/angstrom^2, passed through

    Returns:
        The diagnosis; never raises on bad physics.
    """
    translation = translation_residual(hessian)
    known = forces is not None and bool(np.all(np.isfinite(forces)))
    implied, noise = implied_forces(hessian, positions)
    used = np.asarray(forces) if known else implied
    fit = rotation_fit(hessian, positions, used)
    if not known:
        fit = replace(fit, scale=math.nan, error=math.inf)
    size = float(np.max(np.abs(hessian), initial=0.0)) or 1.0

    def result(verdict: str, message: str) -> Diagnosis:
        return Diagnosis(verdict, message, asymmetry, translation, fit)

    if len(positions) == 1:
        return result("undetermined", "one atom: the identities say nothing")
    if fit.determined and abs(fit.scale - 1) <= max(SCALE_TOLERANCE, 3 * fit.error):
        return result("ok", f"rotational identity holds, scale {fit.scale:.4f} +- {fit.error:.4f}")
    if fit.determined and fit.residual > max(NOISE, NOISE_FACTOR * noise):
        return result(*_explain_scale(fit))
    if fit.relative > ROTATION_TOLERANCE:
        return result(*_explain_geometry(hessian, positions, used, fit, translation / size))
    detail = "no forces" if not known else f"forces too small (scale {fit.scale:.2f} +- {fit.error:.2f})"
    return result("undetermined", f"{detail}: frame and order agree, unit and sign are not fixed by the identities")


def _explain_scale(fit: RotationFit) -> tuple[str, str]:
    text = f"H(Ar) = -s AF holds with s = {fit.scale:.4f} +- {fit.error:.4f} instead of 1"
    unit = _match_factor(fit)
    sign = fit.scale < 0
    if sign and unit is None and abs(fit.scale + 1) <= max(SCALE_TOLERANCE, 3 * fit.error):
        return "sign", f"{text}: gradients were stored as forces, or the Hessian has the opposite sign"
    if unit is not None:
        extra = ", and the sign of forces or Hessian is reversed" if sign else ""
        return "unit", f"{text}: {unit}{extra}"
    return "unit", f"{text}: units of Hessian and forces differ by that factor"


def _explain_geometry(
    hessian: Array, positions: Array, forces: Array, fit: RotationFit, translation: float
) -> tuple[str, str]:
    text = f"the Hessian does not turn with the geometry: relative residual {fit.relative:.3f}"
    if translation > ROTATION_TOLERANCE:
        return (
            "inconsistent",
            f"{text}, and its block columns do not sum to zero: the matrix is damaged or not Cartesian",
        )
    frame = find_frame(hessian, positions, forces)
    if frame is not None:
        return "frame", (
            f"{text}; it fits after turning the positions: Hessian and geometry are in different frames. "
            "Take both from the same block of the same file"
        )
    return "order", (
        f"{text}; no rotation mends it: the atoms are in another order than the Hessian's, or the Hessian belongs to "
        "another geometry (a checkpoint of an optimisation or IRC keeps an old one); convert the frequency job itself"
    )


def find_frame(hessian: Array, positions: Array, forces: Array, *, tries: int = 24) -> npt.NDArray[np.float64] | None:
    """Look for a rotation Q such that the Hessian fits the positions r Q^T.

    The condition H (A_e Q r) = 0 at a stationary point says that the vectors Q r, turned, lie in
    the null space of H: Q r = K with K the displacement field whose rotations H does not feel.
    The search is local from `tries` starting rotations (Kabsch-like, Levenberg-Marquardt).

    Args:
        hessian: (3N, 3N), eV/angstrom^2
        positions: (N, 3), angstrom
        forces: (N, 3), eV/angstrom, in the frame of the positions
        tries: number of starting rotations

    Returns:
        (3, 3) proper rotation that brings the relative residual below ROTATION_TOLERANCE / 2, or None.
    """
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    centred = positions - positions.mean(axis=0)
    scale = float(np.max(np.abs(hessian)) * np.max(np.linalg.norm(centred, axis=1))) or 1.0

    def misfit(vector: Array) -> Array:
        q = Rotation.from_rotvec(vector).as_matrix()
        value = hessian @ rotate_vectors(centred @ q.T) + rotate_vectors(forces @ q.T)
        return (value / scale).ravel()

    starts = Rotation.create_group("O").as_rotvec()[:tries]
    for start in starts:
        solution = least_squares(misfit, start, method="lm", max_nfev=200)
        if np.max(np.abs(solution.fun)) < ROTATION_TOLERANCE / 2:
            return np.asarray(Rotation.from_rotvec(solution.x).as_matrix(), dtype=np.float64)
    return None
