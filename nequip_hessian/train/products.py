"""Residuals of Hessian products: what every Hessian loss term and metric is made of.

With r = H_model v - H_reference v, the entries that are finite in a geometry's
reference products are its k probes x n degrees of freedom, so the mean of r^2
over them is (1/k) sum_k (1/n) |r_k|^2: exactly L_H = (1/n^2)||dH||_F^2 for the
full matrix, an unbiased estimate of it for columns and random probes of norm 1.
Each geometry counts once, whatever its size.
"""

from __future__ import annotations

from typing import Any, Protocol
from warnings import warn

import torch
from nequip.data import AtomicDataDict
from torchmetrics import Metric

from nequip_hessian._keys import (
    HESSIAN_PROBE_KEY,
    HESSIAN_PRODUCT_KEY,
    HESSIAN_RIGID_KEY,
    HESSIAN_ROW_WEIGHT_KEY,
)
from nequip_hessian.errors import ConfigError, HessianDataWarning

Data = dict[str, torch.Tensor]


class Settings(Protocol):
    """What a metric asks about the probes: `nequip_hessian.data.settings.ProbeSettings` fits."""

    mode: str
    mass_weighted: bool
    project: bool
    method: str

    @property
    def unit_vectors(self) -> bool:
        """Whether products are columns of the matrix."""
        ...


def product_residuals(preds: Data, target: Data, *, mass_weighted: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Residuals of products, and where there are labels.

    Translations and rotations are taken out where the data name them (`project`).

    Args:
        preds: outputs of the model
        target: labels, `hessian_probe` and `hessian_product` (N, 3K), eV/angstrom^2
        mass_weighted: return M^-1/2 r; the probes must then be M^-1/2 u

    Returns:
        residuals (N, 3K), eV/angstrom^2 (eV/(angstrom^2 u) where mass-weighted), zero where there is no
        label; boolean mask (N, 3K) of labels.

    Raises:
        ConfigError: the model gave no products, or handed the labels back as if they were its own; probes
            that do not belong to this loss.
    """
    if HESSIAN_PRODUCT_KEY not in target:
        raise ConfigError(
            "the data hold no Hessian products: set `hessian:` in the data section (HessianDataModule) or add the "
            "transform nequip_hessian.data.HessianProbes, or use a loss without Hessians"
        )
    label = target[HESSIAN_PRODUCT_KEY]
    mask = torch.isfinite(label)
    if HESSIAN_PROBE_KEY not in target:
        # a step without Hessians (`HessianEveryNSteps`): nothing was asked of the model
        if bool(mask.any()):
            raise ConfigError("the data hold Hessian products without their probes (hessian_probe)")
        return torch.zeros_like(label) + 0 * preds[AtomicDataDict.FORCE_KEY].sum(), mask
    if (HESSIAN_ROW_WEIGHT_KEY in target) != mass_weighted:
        raise ConfigError(
            "this loss or metric is mass-weighted, the probes are not: set mass_weighted: true in the data section"
            if mass_weighted
            else "the probes are mass-weighted, this loss or metric is not: use EnergyForceMassWeightedHessianLoss and "
            "mass_weighted_hessian_rmse, or leave mass_weighted out of `hessian:` (or val_hessian)"
        )
    predicted = preds.get(HESSIAN_PRODUCT_KEY)
    if predicted is None or predicted is label or predicted.data_ptr() == label.data_ptr() != 0:
        raise ConfigError(
            "the model predicts no Hessian products: use nequip_hessian.model.NequIPGNNModel or AllegroModel, or wrap "
            "a loaded model in nequip_hessian.model.HessianModel"
        )
    if predicted.shape != label.shape:
        raise ConfigError(f"Hessian products: expected {tuple(label.shape)}, the model gave {tuple(predicted.shape)}")
    # where() on the label first: a NaN that only meets a mask afterwards still ruins the gradient
    residual = (predicted - torch.where(mask, label, torch.zeros_like(label))) * mask
    if mass_weighted:
        residual = residual * target[HESSIAN_ROW_WEIGHT_KEY]
    if HESSIAN_RIGID_KEY in target:
        residual = _project(residual, target)
    return residual, mask


def _project(residual: torch.Tensor, target: Data) -> torch.Tensor:
    """r - B B^T r of each geometry and probe, for the orthonormal rigid motions B of the data."""
    batch, n_frames = frames_of(target, len(residual))
    basis = target[HESSIAN_RIGID_KEY].view(len(residual), -1, 3)
    rows = residual.view(len(residual), -1, 3)
    overlaps = torch.einsum("nmx,nkx->nmk", basis, rows)
    summed = overlaps.new_zeros(n_frames, *overlaps.shape[1:]).index_add(0, batch, overlaps)
    return (rows - torch.einsum("nmx,nmk->nkx", basis, summed[batch])).reshape(residual.shape)


def frames_of(target: Data, n_atoms: int) -> tuple[torch.Tensor, int]:
    """Return the geometry index (N,) int64 of each atom and the number of geometries, also of a lone geometry."""
    if AtomicDataDict.BATCH_KEY in target:
        return target[AtomicDataDict.BATCH_KEY], len(target[AtomicDataDict.NUM_NODES_KEY])
    device = target[HESSIAN_PRODUCT_KEY].device
    return torch.zeros(n_atoms, dtype=torch.long, device=device), 1


def mean_over_geometries(
    values: torch.Tensor, mask: torch.Tensor, target: Data, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of `values` (N, 3K) over each geometry's labelled entries, zero where there is no label.

    Args:
        values: (N, 3K)
        mask: (N, 3K) boolean, labelled entries
        target: labels, for the geometry of each atom
        weights: (N,) above 0: weight of each atom's rows; default equal

    Returns:
        (G,) means, 0 for a geometry without labels, in the unit of `values`; (G,) boolean, labelled.
    """
    batch, n_frames = frames_of(target, len(values))
    per_atom, entries = values.sum(dim=1), mask.sum(dim=1).to(values.dtype)
    if weights is not None:
        per_atom, entries = per_atom * weights, entries * weights
    zeros = torch.zeros(n_frames, dtype=values.dtype, device=values.device)
    sums, counts = zeros.index_add(0, batch, per_atom), zeros.index_add(0, batch, entries)
    there = counts > 0
    return sums / torch.where(there, counts, torch.ones_like(counts)), there


def require_unit_vectors(target: Data, name: str) -> None:
    """Refuse probes that are no unit vectors.

    Raises:
        ConfigError: absolute errors of such products are not those of Hessian elements.
    """
    probes = target.get(HESSIAN_PROBE_KEY)
    if probes is not None and bool(((probes != 0) & (probes != 1)).any()):
        raise ConfigError(not_elements(name))


def not_elements(name: str) -> str:
    """Say why a figure cannot be had from the probes that were chosen."""
    return (
        f"{name}: absolute errors of Hessian elements are not what random probes, modes, or projected ones give; use "
        "squares (hessian_mse, hessian_rmse), or mode full or columns without `project`"
    )


class GeometryMean(Metric):
    """Sum and count over geometries; sums over ranks give the figure of one process."""

    mass_weighted = False
    """Whether it is of the mass-weighted Hessian."""

    monitored = False
    """Whether it has a coefficient, so that a NaN would decide which checkpoint is kept."""

    higher_is_better = False
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._in_step = False  # whether a batch's own figure is made, and not that of an epoch
        self._empty = 0  # epochs with nothing to compare; the first may be a sanity check of few batches
        self._asked = False  # whether the data of this epoch hold products, if without a label
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.total: torch.Tensor
        self.count: torch.Tensor

    def check_probes(self, settings: Settings) -> None:
        """Refuse, before anything is trained, probes that this figure cannot be had from.

        Raises:
            ConfigError: it says what to change.
        """
        if settings.method == "taylor":
            raise ConfigError(
                "hessian method `taylor` labels displaced geometries with energies and forces: there is no Hessian "
                "term; use nequip.train.EnergyForceLoss and EnergyForceMetrics"
            )
        if settings.mass_weighted != self.mass_weighted:
            wanted, found = str(self.mass_weighted).lower(), str(settings.mass_weighted).lower()
            raise ConfigError(
                f"{self}: needs mass_weighted: {wanted} in `hessian:` (for metrics in val_hessian), found {found}; for "
                "true EnergyForceMassWeightedHessianLoss and mass_weighted_hessian_rmse"
            )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take in a batch and return its own figure; what `compute` then gives is no epoch's."""
        self._in_step = True
        try:
            return super().forward(*args, **kwargs)
        finally:
            self._in_step = False

    def reset(self) -> None:
        """Begin a new epoch."""
        super().reset()
        if not self._in_step:
            self._asked = False

    def warn_if_empty(self, reason: str) -> None:
        """Say at the end of an epoch, once, that a figure is NaN because nothing could be compared.

        Raises:
            ConfigError: so for the second epoch, where the figure is part of `weighted_sum`, which picks checkpoints.
        """
        if self._in_step or not self._asked or float(self.count):
            return
        text = f"{self} is NaN: {reason}"
        self._empty += 1
        if self.monitored and self._empty > 1:
            raise ConfigError(
                f"{text}. It makes weighted_sum NaN, which picks checkpoints: give it no coefficient (null)"
            )
        if self._empty == 1:
            warn(text, HessianDataWarning, stacklevel=3)

    def _add(self, values: torch.Tensor, count: torch.Tensor | float) -> None:
        self.total = self.total + values.to(torch.float64).sum()
        self.count = self.count + count
