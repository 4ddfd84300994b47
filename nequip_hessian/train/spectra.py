"""Figures of validation and test that need the full matrix: eigenvalues, eigenvectors, frequencies.

Names, units and definitions are those of `nequip-hessian evaluate` (docs/metrics.md), and so is the code; masses are
the standard ones of the elements. They cost a diagonalisation a geometry, on the CPU, however many are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from ase.data import atomic_masses
from nequip.data import AtomicDataDict

from nequip_hessian._keys import HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.analysis.accuracy import STATIONARY_FORCE, GeometryErrors, geometry_errors
from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.summary import METRICS, Figure, summarise
from nequip_hessian.errors import ConfigError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.train.products import Data, GeometryMean, Settings, frames_of, product_residuals

Float64 = npt.NDArray[np.float64]

FIGURES: Final = tuple(
    name
    for name in METRICS
    if not name.startswith(("energy", "shifted", "force", "failure", "hessian_mae")) and not name.endswith("rmse")
)
"""Names of the figures that compare two matrices, as in docs/metrics.md."""

_KEPT: Final = 256
_STATIONARY: Final = ("frequency", "imaginary_mae", "wasserstein", "zpe")  # figures of stationary points only


@dataclass(frozen=True, eq=False)
class _Pair:
    """Reference and predicted Hessian (n, n), eV/angstrom^2, of one geometry, and what normal modes need."""

    record: LabelledGeometry
    predicted: Float64
    masses: Float64
    stationary: bool

    def figure(self, name: str) -> Figure:
        """One figure of this geometry alone; all of them are computed once."""
        if self._key not in _RECENT:
            while len(_RECENT) >= _KEPT:
                _RECENT.pop(next(iter(_RECENT)))
            _RECENT[self._key] = self._errors()
        return summarise([_RECENT[self._key]], [self.stationary])[name]

    @cached_property
    def _key(self) -> bytes:
        record, digest = self.record, hashlib.sha256()
        for array in (record.numbers, record.positions, record.hessian, self.predicted):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()

    def _errors(self) -> GeometryErrors:
        forces = np.zeros((len(self.record), 3))
        return geometry_errors(self.record, Prediction(0.0, forces, self.predicted), self.masses)


_RECENT: dict[bytes, GeometryErrors] = {}  # every figure of a batch asks for the same pairs


class HessianFigure(GeometryMean):
    """A mean over geometries, or over their modes, of a figure that compares two matrices.

    Frequency figures are taken at stationary points: geometries with a reference force component of 0.05 eV/angstrom
    or more, or unknown forces, are left out of them. Symmetric parts of predicted matrices are compared.

    Args:
        figure: one of `FIGURES`; unit and definition in docs/metrics.md

    Raises:
        ConfigError: another name.
    """

    def __init__(self, figure: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if figure not in FIGURES:
            raise ConfigError(f"figure: expected one of {', '.join(FIGURES)}, found {figure!r}")
        self.figure = figure

    def check_probes(self, settings: Settings) -> None:
        """Refuse everything but the full matrix."""
        super().check_probes(settings)
        if settings.mode != "full" or settings.project:
            raise ConfigError(_full_needed(str(self)))

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch: outputs and labels, `hessian_product` (N, 3K), eV/angstrom^2, of the full matrix."""
        if HESSIAN_PRODUCT_KEY not in target or HESSIAN_PROBE_KEY not in target:
            return
        self._asked = True
        for pair in _pairs(preds, target, str(self)):
            finite = bool(np.all(np.isfinite(pair.predicted)))
            found = pair.figure(self.figure) if finite else Figure(float("nan"), 1, "")
            if found.value is not None:
                self._add(torch.tensor(found.value * found.n, device=self.total.device), float(found.n))

    def compute(self) -> torch.Tensor:
        """Return the mean, NaN where nothing could be compared."""
        self.warn_if_empty(self._why_empty())
        return self.total / self.count

    def _why_empty(self) -> str:
        if not self.figure.startswith(_STATIONARY):
            return "no geometry had what it compares"
        return (
            f"no geometry is stationary (all reference forces known and below {STATIONARY_FORCE:g} eV/angstrom), where "
            "alone there are frequencies to compare"
        )

    def __str__(self) -> str:
        return self.figure


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
        inside = np.flatnonzero(moving).astype(np.int32)
        record = LabelledGeometry(
            numbers=numbers.cpu().numpy()[atoms],
            positions=arrays[3][atoms],
            hessian=reference[rows, :n],
            active=None if moving.all() else inside,
            cell=np.eye(3) if periodic[frame] else None,  # only that there is one matters to the modes
            pbc=bool(periodic[frame]),
        )
        yield _Pair(
            record,
            (matrix + matrix.T) / 2,
            masses[atoms],
            bool(np.all(np.abs(forces[atoms]) < STATIONARY_FORCE)),
        )


def _by_coordinate(columns: Float64) -> Float64:
    """(N, 3K) -> (3N, K): one probe a column."""
    n_atoms = len(columns)
    return columns.reshape(n_atoms, -1, 3).transpose(0, 2, 1).reshape(3 * n_atoms, -1)
