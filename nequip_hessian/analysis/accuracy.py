"""How far predicted energies, forces and Hessians are from their labels.

Per geometry (n = 3N, or 3 x active atoms); the names and units are those of `METRICS` below:

energy               total energy, eV, and per atom, eV/atom
shifted energy       the same after a least-squares composition shift: sum over elements of count x
                     constant, fitted per model to all evaluated geometries. Models trained with another
                     reference for the free atoms differ by just that; it cancels in every reaction.
force                Cartesian components, eV/angstrom, pooled over all components of a subset
hessian_mae, _rmse   over all n x n elements, eV/angstrom^2
hessian_relative     |H_model - H_ref| / |H_ref|, Frobenius norms
eigenvalue_mae       over the ascending eigenvalues of the raw Cartesian Hessian, eV/angstrom^2; the name,
                     and Eh/a0^2 beside it, as in HORM (Cui et al., arXiv 2505.12447)
eigenvalue_1/2_mae   the lowest and second lowest of them; cosine_1/2: |cos| of their eigenvectors;
                     of degenerate ones, whose choice is free, the length of the projection of the
                     reference's onto the model's vectors of the same ranks
projected_*          the same of the mass-weighted Hessian in the 3N - 6 (5, 3) dimensional space
                     without translations and rotations (Eckart; HIP, Burger et al., arXiv 2509.21624),
                     eV/(angstrom^2 u)
imaginary_agreement  fraction of geometries with the reference's number of modes below -20 cm^-1
negative_agreement   the same, counting projected eigenvalues below -1e-6 eV/(angstrom^2 u), as HIP does

Hessian figures of a subset are means over geometries of the per-geometry figure (HORM, HIP), except
the two RMSE, which pool all elements. A prediction that failed enters no mean; it is counted in
`failure_rate`, and as a disagreement in the two agreements. A reference that contradicts the prediction's
shape raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.vibrations import VibrationErrors, Vibrations, compare_vibrations, vibrations
from nequip_hessian.curvature import mass_weight, project_out, rigid_motions
from nequip_hessian.errors import RecordError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import WAVENUMBER

Array = npt.NDArray[np.floating[Any]]

NEGATIVE_EIGENVALUE: Final = -1e-6
"""Projected eigenvalues below this, eV/(angstrom^2 u), count as negative in `negative_agreement`."""

STATIONARY_KINDS: Final = ("minimum", "transition_state", "higher_saddle")


DEGENERATE: Final = 1e-3
"""Reference eigenvalues this close to each other, relative, count as degenerate in the cosines."""

STATIONARY_FORCE: Final = 0.05
"""A geometry of unknown kind counts as stationary where all force components are below this, eV/angstrom."""


def is_stationary(record: LabelledGeometry) -> bool:
    """Whether harmonic frequencies of a record mean something: by its kind, else by its forces."""
    if record.kind is not None:
        return record.kind in STATIONARY_KINDS
    return record.forces is not None and bool(np.all(np.abs(record.forces) < STATIONARY_FORCE))


@dataclass(frozen=True)
class Spectrum:
    """Errors of one pair of symmetric matrices: eigenvalues in the unit of the matrices, cosines of 0 to 1."""

    mae: float
    first: float
    second: float | None
    cosine_1: float
    cosine_2: float | None


@dataclass(frozen=True)
class HessianErrors:
    """Errors of one Hessian; definitions and units in the module."""

    elements: int
    mae: float
    rmse: float
    relative: float | None
    projected_mae: float
    projected_rmse: float
    projected_relative: float | None
    spectrum: Spectrum
    projected: Spectrum | None
    imaginary: tuple[int, int]
    negative: tuple[int, int]
    vibrations: VibrationErrors


@dataclass(frozen=True)
class GeometryErrors:
    """Errors of one prediction; None where the label or the prediction is missing.

    Attributes:
        energy: model minus reference, eV
        shifted_energy: the same after the composition shift, eV; filled in by `apply_shift`
        force_mae, force_rmse: eV/angstrom over `force_count` known components
        hessian: errors of the Hessian
        reference_imaginary: imaginary modes of the reference Hessian, None where there is no such Hessian
        failure: why there is no prediction
    """

    n_atoms: int
    energy: float | None = None
    shifted_energy: float | None = None
    force_mae: float | None = None
    force_rmse: float | None = None
    force_count: int = 0
    hessian: HessianErrors | None = None
    reference_imaginary: int | None = None
    failure: str | None = None

    @property
    def has_hessian(self) -> bool:
        """Whether there is a reference Hessian to compare with."""
        return self.reference_imaginary is not None


def _cosine(rank: int, values: Array, vectors: Array, other: Array) -> float:
    alike = np.abs(values - values[rank]) <= DEGENERATE * abs(values[rank])
    return float(np.linalg.norm(other[:, alike].T @ vectors[:, rank]))


def _spectrum(reference: tuple[Array, Array], other: tuple[Array, Array]) -> Spectrum | None:
    (truth, vectors), (guess, guessed_vectors) = reference, other
    if not len(truth):
        return None
    difference = np.abs(guess - truth)
    cosines = [_cosine(rank, truth, vectors, guessed_vectors) for rank in range(min(2, len(truth)))]
    two = len(truth) > 1
    return Spectrum(
        float(np.mean(difference)),
        float(difference[0]),
        float(difference[1]) if two else None,
        cosines[0],
        cosines[1] if two else None,
    )


def _eigenvalues(modes: Vibrations) -> Array:
    # back from cm^-1 to eV/(angstrom^2 u): one diagonalisation serves frequencies and eigenvalues
    return np.sign(modes.wavenumbers) * (modes.wavenumbers / WAVENUMBER) ** 2


def _relative(difference: Array, truth: Array) -> float | None:
    norm = float(np.linalg.norm(truth))
    return float(np.linalg.norm(difference)) / norm if norm > 0 else None


def _inner(record: LabelledGeometry, hessian: Array, masses: Array) -> Array:
    # mass-weighted, and without rigid motions unless the atoms move against a fixed environment
    if record.active is not None:
        return mass_weight(hessian, masses[record.active])
    basis = rigid_motions(record.positions, masses, periodic=bool(np.any(record.pbc)))
    return project_out(mass_weight(hessian, masses), basis)


def record_vibrations(record: LabelledGeometry, hessian: Array, masses: Array) -> Vibrations:
    """Normal modes of `hessian` (n, n), eV/angstrom^2, at the geometry of `record`; masses (N,), u."""
    return vibrations(hessian, record.positions, masses, periodic=bool(np.any(record.pbc)), active=record.active)


def hessian_errors(record: LabelledGeometry, hessian: Array, masses: Array) -> HessianErrors:
    """Compare a predicted Hessian (n, n), eV/angstrom^2, with the label of `record`; masses (N,), u.

    Raises:
        RecordError: the record has no Hessian, or one of another shape than the prediction.
    """
    if record.hessian is None or record.hessian.shape != hessian.shape:
        found = "none" if record.hessian is None else str(record.hessian.shape)
        raise RecordError(f"reference Hessian: expected shape {hessian.shape}, found {found} ({record.label})")
    truth = np.asarray(record.hessian, dtype=np.float64)
    difference = hessian - truth
    reference_modes = record_vibrations(record, truth, masses)
    model_modes = record_vibrations(record, hessian, masses)
    reference_values, model_values = _eigenvalues(reference_modes), _eigenvalues(model_modes)
    raw = _spectrum(np.linalg.eigh(truth), np.linalg.eigh(hessian))
    inner_truth = _inner(record, truth, masses)
    inner_difference = _inner(record, hessian, masses) - inner_truth
    if raw is None:
        raise RecordError(f"reference Hessian: it is empty ({record.label})")
    return HessianErrors(
        elements=truth.size,
        mae=float(np.mean(np.abs(difference))),
        rmse=float(np.sqrt(np.mean(difference**2))),
        relative=_relative(difference, truth),
        spectrum=raw,
        projected_mae=float(np.mean(np.abs(inner_difference))),
        projected_rmse=float(np.sqrt(np.mean(inner_difference**2))),
        projected_relative=_relative(inner_difference, inner_truth),
        projected=_spectrum((reference_values, reference_modes.modes), (model_values, model_modes.modes)),
        imaginary=(reference_modes.n_imaginary, model_modes.n_imaginary),
        negative=(int(np.sum(reference_values < NEGATIVE_EIGENVALUE)), int(np.sum(model_values < NEGATIVE_EIGENVALUE))),
        vibrations=compare_vibrations(reference_modes, model_modes),
    )


def geometry_errors(record: LabelledGeometry, prediction: Prediction, masses: Array) -> GeometryErrors:
    """Compare one prediction with one labelled geometry; masses (N,) in u serve the projected figures."""
    imaginary = None
    if record.hessian is not None:
        imaginary = record_vibrations(record, record.hessian, masses).n_imaginary
    if prediction.failure is not None or prediction.energy is None or prediction.forces is None:
        reason = prediction.failure or "no energy and forces"
        return GeometryErrors(len(record), reference_imaginary=imaginary, failure=reason)
    energy = None if record.energy is None else prediction.energy - record.energy
    force_mae = force_rmse = None
    count = 0
    if record.forces is not None:
        difference = (prediction.forces - record.forces)[np.isfinite(record.forces)]
        count = difference.size
        if count:
            force_mae = float(np.mean(np.abs(difference)))
            force_rmse = float(np.sqrt(np.mean(difference**2)))
    hessian = None
    if imaginary is not None and prediction.hessian is not None:
        hessian = hessian_errors(record, prediction.hessian, masses)
    return GeometryErrors(len(record), energy, None, force_mae, force_rmse, count, hessian, imaginary)


def composition_shift(compositions: Sequence[Array], errors: Sequence[float | None]) -> Array | None:
    """Fit one constant an element to energy errors by least squares.

    Args:
        compositions: (N_i,) atomic numbers of each geometry
        errors: energy error of each, eV; None is left out

    Returns:
        (119,) eV per atom of each atomic number (0 for absent ones), or None where there are no more
        geometries than independent compositions: the fit would then say nothing.
    """
    used = [(np.asarray(z, dtype=int), e) for z, e in zip(compositions, errors, strict=True) if e is not None]
    if not used:
        return None
    counts = np.stack([np.bincount(z, minlength=119) for z, _ in used]).astype(np.float64)
    solution, _, rank, _ = np.linalg.lstsq(counts, np.array([e for _, e in used]), rcond=1e-8)
    return None if len(used) <= rank else np.asarray(solution)
