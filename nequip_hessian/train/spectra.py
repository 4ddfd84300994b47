"""Eigenvalues and frequencies in validation and test: figures that need the full matrix.

Names, units and definitions are those of `nequip-hessian evaluate` (docs/metrics.md); masses are the
standard ones of the elements. They cost a diagonalisation a geometry, on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from ase.data import atomic_masses
from nequip.data import AtomicDataDict

from nequip_hessian._keys import HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.curvature import match_columns, normal_modes
from nequip_hessian.errors import ConfigError
from nequip_hessian.train.products import Data, GeometryMean, Settings, frames_of, product_residuals

Float64 = npt.NDArray[np.float64]

IMAGINARY_THRESHOLD: Final = -20.0
"""A mode counts as imaginary below this wavenumber, cm^-1."""
STATIONARY_FORCE: Final = 0.05
"""Frequencies are compared where all reference force components are below this, eV/angstrom."""


@dataclass(frozen=True, eq=False)
class _Pair:
    """Reference and predicted Hessian (n, n), eV/angstrom^2, of one geometry, and what normal modes need."""

    reference: Float64
    predicted: Float64
    positions: Float64
    masses: Float64
    periodic: bool
    partial: bool
    stationary: bool

    def modes(self) -> tuple[tuple[Float64, Float64], tuple[Float64, Float64]]:
        """Wavenumbers (m,), cm^-1, and modes (n, m) of both."""
        return self._modes(self.reference), self._modes(self.predicted)

    def _modes(self, hessian: Float64) -> tuple[Float64, Float64]:
        values, vectors = normal_modes(
            hessian, self.positions, self.masses, periodic=self.periodic, project=not self.partial
        )
        return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)


class _MatrixFigure(GeometryMean):
    """A mean over geometries, or over their modes, of a figure that compares two matrices."""

    def check_probes(self, settings: Settings) -> None:
        """Refuse everything but the full matrix."""
        super().check_probes(settings)
        if settings.mode != "full" or settings.project:
            raise ConfigError(_full_needed(str(self)))

    def errors(self, pair: _Pair) -> npt.NDArray[np.floating[Any]]:
        """What one geometry adds to the mean, (m,); empty: nothing."""
        raise NotImplementedError

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch: outputs and labels, `hessian_product` (N, 3K), eV/angstrom^2, of the full matrix."""
        if HESSIAN_PRODUCT_KEY not in target or HESSIAN_PROBE_KEY not in target:
            return
        for pair in _pairs(preds, target, str(self)):
            errors = torch.from_numpy(np.asarray(self.errors(pair), dtype=np.float64))
            self._add(errors.to(self.total.device), float(len(errors)))

    def compute(self) -> torch.Tensor:
        """Return the mean, NaN where nothing could be compared."""
        return self.total / self.count


class EigenvalueMeanAbsoluteError(_MatrixFigure):
    """Mean absolute error of the ascending eigenvalues of the raw Hessian, eV/angstrom^2: mean over
    eigenvalues, then over geometries.

    Args:
        lowest: only the so many lowest ones
    """

    def __init__(self, lowest: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lowest = lowest

    def errors(self, pair: _Pair) -> npt.NDArray[np.floating[Any]]:
        """The geometry's mean, (1,), eV/angstrom^2."""
        difference = np.linalg.eigvalsh(pair.predicted) - np.linalg.eigvalsh(pair.reference)
        return np.array([np.mean(np.abs(difference[: self.lowest]))])

    def __str__(self) -> str:
        return "eigenvalue_mae" if self.lowest is None else f"eigenvalue_{self.lowest}_mae"


class FrequencyMeanAbsoluteError(_MatrixFigure):
    """Mean absolute error of harmonic wavenumbers at stationary points, cm^-1, over all modes.

    Imaginary ones count as negative; modes are paired by overlap (Hungarian method). Geometries with a
    reference force component of 0.05 eV/angstrom or more, or unknown forces, are left out.
    """

    def errors(self, pair: _Pair) -> npt.NDArray[np.floating[Any]]:
        """One error a mode, (m,), cm^-1."""
        if not pair.stationary:
            return np.zeros(0)
        (truth, vectors), (guess, others) = pair.modes()
        return np.abs(guess[match_columns(vectors, others)] - truth)

    def __str__(self) -> str:
        return "frequency_mae"


class ImaginaryAgreement(_MatrixFigure):
    """Share of geometries with the reference's number of modes below -20 cm^-1; 1 is best."""

    def errors(self, pair: _Pair) -> npt.NDArray[np.floating[Any]]:
        """1 where they agree, (1,)."""
        (truth, _), (guess, _) = pair.modes()
        return np.array([float(np.sum(truth < IMAGINARY_THRESHOLD) == np.sum(guess < IMAGINARY_THRESHOLD))])

    def __str__(self) -> str:
        return "imaginary_agreement"


def _full_needed(name: str) -> str:
    return f"{name}: needs the whole matrix; set val_hessian: {{mode: full}} (without project or mass_weighted)"


def _pairs(preds: Data, target: Data, name: str) -> Iterator[_Pair]:
    """Both matrices of each labelled geometry of a batch."""
    product_residuals(preds, target)  # its checks
    if AtomicDataDict.ATOMIC_NUMBERS_KEY not in target:
        raise ConfigError(f"{name}: the data hold no atomic_numbers, which masses are taken from")
    position = target[AtomicDataDict.POSITIONS_KEY].detach()
    batch, n_frames = frames_of(target, len(position))
    numbers = target[AtomicDataDict.ATOMIC_NUMBERS_KEY].view(-1)
    arrays = [
        value.detach().to("cpu", torch.float64).numpy()
        for value in (target[HESSIAN_PROBE_KEY], target[HESSIAN_PRODUCT_KEY], preds[HESSIAN_PRODUCT_KEY], position)
    ]
    force = target.get(AtomicDataDict.FORCE_KEY)
    forces = np.full_like(arrays[3], np.nan) if force is None else force.detach().to("cpu", torch.float64).numpy()
    pbc = target.get(AtomicDataDict.PBC_KEY)
    periodic = np.zeros(n_frames, dtype=bool) if pbc is None else pbc.view(n_frames, -1).any(dim=1).cpu().numpy()
    owner, masses = batch.cpu().numpy(), atomic_masses[numbers.cpu().numpy()]
    for frame in range(n_frames):
        atoms = np.flatnonzero(owner == frame)
        probes, reference, predicted = (_by_coordinate(array[atoms]) for array in arrays[:3])
        rows = np.isfinite(reference[:, 0])
        n = int(rows.sum())
        if not n:
            continue
        if not np.array_equal(probes[rows, :n], np.eye(n)):
            raise ConfigError(_full_needed(name))
        matrix = predicted[rows, :n]
        moving = rows.reshape(-1, 3).all(axis=1)
        yield _Pair(
            reference[rows, :n],
            (matrix + matrix.T) / 2,
            arrays[3][atoms][moving],
            masses[atoms][moving],
            bool(periodic[frame]),
            not bool(moving.all()),
            bool(np.all(np.abs(forces[atoms]) < STATIONARY_FORCE)),
        )


def _by_coordinate(columns: Float64) -> Float64:
    """(N, 3K) -> (3N, K): one probe a column."""
    n_atoms = len(columns)
    return columns.reshape(n_atoms, -1, 3).transpose(0, 2, 1).reshape(3 * n_atoms, -1)
