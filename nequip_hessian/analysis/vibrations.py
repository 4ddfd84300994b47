"""Harmonic vibrations: wavenumbers, modes, and how two sets of them differ.

Wavenumbers are in cm^-1, ascending, an imaginary one negative (printed `1426i`). Modes are orthonormal
columns in mass-weighted Cartesian coordinates. Translations and rotations are projected out by the
Eckart conditions (Wilson, Decius, Cross, Molecular Vibrations, 1955): 5 for linear, 6 for other molecules,
3 for periodic ones, none for a partial Hessian, whose atoms move against a fixed environment.

Differences, model minus reference, each mode against its partner (the one-to-one assignment of largest
total squared overlap, Hungarian method; Kuhn, Nav. Res. Logist. Q. 1955, 2, 83):

frequency_mae        cm^-1   mean |difference| over all reference modes, imaginary ones as negative numbers
frequency_low_mae    cm^-1   the same over real reference modes below 400 cm^-1
frequency_high_mae   cm^-1   the same over reference modes of 400 cm^-1 and above
imaginary_mae        cm^-1   the same over reference modes below -20 cm^-1
zpe_error            eV      half the sum of the real modes, model minus reference
wasserstein          cm^-1   Wasserstein-1 distance of the two sets as distributions, no matching involved
overlap              1       mean |overlap| of the matched modes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.vibrations import VibrationsData
from scipy.stats import wasserstein_distance

from nequip_hessian.curvature import match_columns, normal_modes
from nequip_hessian.units import CM_TO_EV

Array = npt.NDArray[np.floating[Any]]

IMAGINARY_THRESHOLD: Final = -20.0
"""A mode counts as imaginary below this wavenumber, cm^-1, after projection."""

DEGENERATE: Final = 1.0
"""Modes closer than this, cm^-1, count as degenerate in overlaps."""

LOW_FREQUENCY: Final = 400.0
"""Border between low and high modes, cm^-1."""


@dataclass(frozen=True, eq=False)
class Vibrations:
    """Normal modes of one geometry.

    Attributes:
        wavenumbers: (m,), cm^-1, ascending, imaginary negative
        modes: (n, m), orthonormal mass-weighted columns; n = 3 x number of atoms that move
        masses: (n / 3,), u, of the atoms that move
    """

    wavenumbers: npt.NDArray[np.float64]
    modes: npt.NDArray[np.float64]
    masses: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.wavenumbers)

    @property
    def n_imaginary(self) -> int:
        """Number of modes below `IMAGINARY_THRESHOLD`."""
        return int(np.sum(self.wavenumbers < IMAGINARY_THRESHOLD))

    @property
    def zero_point_energy(self) -> float:
        """Half the sum of the real modes, eV."""
        return float(0.5 * CM_TO_EV * np.sum(np.clip(self.wavenumbers, 0.0, None)))

    def displacements(self) -> npt.NDArray[np.float64]:
        """Return Cartesian modes (m, N, 3) of unit norm, not mass-weighted, in ascending order of wavenumber."""
        cartesian = self.modes / np.sqrt(np.repeat(self.masses, 3))[:, None]
        norms = np.linalg.norm(cartesian, axis=0)
        return (cartesian / norms).T.reshape(len(self), -1, 3)

    def reduced_masses(self) -> npt.NDArray[np.float64]:
        """Return the reduced masses (m,), u, that go with displacements of unit Cartesian norm (as Gaussian prints)."""
        return 1.0 / np.sum(self.modes**2 / np.repeat(self.masses, 3)[:, None], axis=0)


def vibrations(
    hessian: Array,
    positions: Array,
    masses: Array,
    *,
    periodic: bool = False,
    active: npt.NDArray[np.integer[Any]] | None = None,
    linear: bool | None = None,
) -> Vibrations:
    """Normal modes from a Cartesian Hessian.

    Args:
        hessian: (3N, 3N), or (3a, 3a) for a atoms in `active`, eV/angstrom^2
        positions: (N, 3), angstrom
        masses: (N,), u
        periodic: project out three translations only
        active: indices of the atoms of a partial Hessian; nothing is projected out then
        linear: force 5 (True) or 6 (False) rigid motions; decided by the inertia tensor by default

    Returns:
        3N - 6 (5, 3) modes, or 3a for a partial Hessian; none for a single atom.
    """
    if active is not None:
        moving = np.asarray(masses, dtype=np.float64)[active]
        values, modes = normal_modes(hessian, np.asarray(positions)[active], moving, project=False)
    else:
        moving = np.asarray(masses, dtype=np.float64)
        values, modes = normal_modes(hessian, positions, moving, periodic=periodic, linear=linear)
    return Vibrations(np.asarray(values, dtype=np.float64), np.asarray(modes, dtype=np.float64), moving)


def vibrations_data(
    atoms: Atoms, hessian: Array, indices: npt.NDArray[np.integer[Any]] | None = None
) -> VibrationsData:
    """Return ASE's `VibrationsData` (nothing projected out) for a Hessian (n, n) in eV/angstrom^2."""
    return VibrationsData.from_2d(
        atoms, np.asarray(hessian, dtype=np.float64), None if indices is None else indices.tolist()
    )


def match_modes(reference: Vibrations, other: Vibrations) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Pair the modes of two Hessians of the same atoms in the same orientation.

    Args:
        reference: m modes
        other: m' modes in the same coordinates

    Returns:
        partner (m,), index into `other` of each reference mode, -1 where `other` has fewer modes;
        overlap (m,), |overlap| with the partner, 0 to 1, NaN without one. Of degenerate modes, whose
        choice is free, the length of the projection onto the partners of all of them.
    """
    overlaps = np.abs(reference.modes.T @ other.modes)
    partner = match_columns(reference.modes, other.modes)
    quality = np.full(len(reference), np.nan)
    for row in np.flatnonzero(partner >= 0):
        alike = np.abs(reference.wavenumbers - reference.wavenumbers[row]) < DEGENERATE
        partners = partner[alike & (partner >= 0)]
        quality[row] = np.linalg.norm(overlaps[row, partners])
    return partner, quality


@dataclass(frozen=True)
class VibrationErrors:
    """Differences of one geometry's vibrations; fields as the module defines them, None without a case.

    `n`, `n_low`, `n_high` and `n_imaginary` are the numbers of reference modes behind each mean.
    """

    n: int
    frequency_mae: float | None
    n_low: int
    frequency_low_mae: float | None
    n_high: int
    frequency_high_mae: float | None
    n_imaginary: int
    imaginary_mae: float | None
    zpe_error: float
    wasserstein: float | None
    overlap: float | None


def compare_vibrations(reference: Vibrations, other: Vibrations) -> VibrationErrors:
    """Compare two sets of modes of the same atoms in the same orientation (see the module for each figure)."""
    partner, quality = match_modes(reference, other)
    paired = partner >= 0
    truth = reference.wavenumbers[paired]
    error = np.abs(other.wavenumbers[partner[paired]] - truth)
    low = (truth >= 0) & (truth < LOW_FREQUENCY)
    high = truth >= LOW_FREQUENCY
    imaginary = truth < IMAGINARY_THRESHOLD

    def mean(mask: npt.NDArray[np.bool_]) -> float | None:
        return float(np.mean(error[mask])) if mask.any() else None

    both = len(reference) > 0 and len(other) > 0
    return VibrationErrors(
        n=len(truth),
        frequency_mae=mean(np.ones(len(truth), dtype=bool)),
        n_low=int(low.sum()),
        frequency_low_mae=mean(low),
        n_high=int(high.sum()),
        frequency_high_mae=mean(high),
        n_imaginary=int(imaginary.sum()),
        imaginary_mae=mean(imaginary),
        zpe_error=other.zero_point_energy - reference.zero_point_energy,
        wasserstein=float(wasserstein_distance(reference.wavenumbers, other.wavenumbers)) if both else None,
        overlap=float(np.nanmean(quality)) if both else None,
    )


def turn_modes(modes: Vibrations, rotation: Array) -> Vibrations:
    """Return the modes after turning the molecule by `rotation` (3, 3), r -> R r; wavenumbers unchanged."""
    columns = modes.modes.T.reshape(len(modes), -1, 3) @ np.asarray(rotation).T
    return Vibrations(modes.wavenumbers, columns.reshape(len(modes), -1).T, modes.masses)


def format_wavenumber(value: float, digits: int = 1) -> str:
    """Print a wavenumber, cm^-1, an imaginary one as `1426.0i`."""
    text = f"{abs(value):.{digits}f}"
    return f"{text}i" if value < 0 and float(text) != 0 else text


def animate_mode(atoms: Atoms, displacement: Array, *, frames: int = 20, amplitude: float = 0.4) -> list[Atoms]:
    """Return one period of a mode as geometries.

    Args:
        atoms: the geometry, angstrom
        displacement: (N, 3) Cartesian mode, any norm
        frames: number of geometries
        amplitude: largest displacement of any atom, angstrom

    Returns:
        `frames` copies of `atoms`, the first one at rest.
    """
    scale = amplitude / float(np.max(np.linalg.norm(displacement, axis=1)) or 1.0)
    images = []
    for phase in np.linspace(0.0, 2 * np.pi, frames, endpoint=False):
        image = atoms.copy()
        image.calc = None
        image.positions += np.sin(phase) * scale * displacement
        images.append(image)
    return images
