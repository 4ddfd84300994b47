"""Errors of Hessian products: the metrics under our loss and our validation figures.

With r = H_model v - H_reference v, the entries that are finite in a geometry's
reference products are its k probes x n degrees of freedom, so the mean of r^2
over them is (1/k) sum_k (1/n) |r_k|^2: exactly L_H = (1/n^2)||dH||_F^2 for the
full matrix, an unbiased estimate of it for columns and random probes of norm 1.
Each geometry counts once, whatever its size.
"""

from __future__ import annotations

from typing import Any

import torch
from nequip.data import AtomicDataDict
from torchmetrics import Metric

from nequip_hessian._keys import HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY, HESSIAN_WEIGHT_KEY
from nequip_hessian.errors import ConfigError

Data = dict[str, torch.Tensor]


def product_residuals(preds: Data, target: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Return residuals (N, 3K), eV/angstrom^2, zero where there is no label, and the boolean mask of labels.

    Raises:
        ConfigError: the model gave no products, or handed the labels back as if they were its own.
    """
    if HESSIAN_PRODUCT_KEY not in target or HESSIAN_PROBE_KEY not in target:
        raise ConfigError(
            "the data hold no Hessian products: set `hessian:` in the data section (HessianDataModule) or add the "
            "transform nequip_hessian.data.HessianProbes, or use a loss without Hessians"
        )
    label = target[HESSIAN_PRODUCT_KEY]
    predicted = preds.get(HESSIAN_PRODUCT_KEY)
    if predicted is None or predicted is label or predicted.data_ptr() == label.data_ptr() != 0:
        raise ConfigError(
            "the model predicts no Hessian products: use nequip_hessian.model.NequIPGNNModel or AllegroModel, or wrap "
            "a loaded model in nequip_hessian.model.HessianModel"
        )
    if predicted.shape != label.shape:
        raise ConfigError(f"Hessian products: expected {tuple(label.shape)}, the model gave {tuple(predicted.shape)}")
    mask = torch.isfinite(label)
    # where() on the label first: a NaN that only meets a mask afterwards still ruins the gradient
    residual = (predicted - torch.where(mask, label, torch.zeros_like(label))) * mask
    return residual, mask


def mean_over_geometries(values: torch.Tensor, mask: torch.Tensor, target: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of `values` (N, 3K) over each geometry's labelled entries.

    Returns:
        (G,) means, 0 for a geometry without labels, in the unit of `values`; (G,) boolean, labelled.
    """
    if AtomicDataDict.BATCH_KEY in target:
        batch = target[AtomicDataDict.BATCH_KEY]
        n_frames = len(target[AtomicDataDict.NUM_NODES_KEY])
    else:
        batch, n_frames = torch.zeros(len(values), dtype=torch.long, device=values.device), 1
    sums = torch.zeros(n_frames, dtype=values.dtype, device=values.device).index_add(0, batch, values.sum(dim=1))
    counts = torch.zeros(n_frames, dtype=values.dtype, device=values.device)
    counts = counts.index_add(0, batch, mask.sum(dim=1).to(values.dtype))
    return sums / counts.clamp(min=1), counts > 0


class _GeometryMean(Metric):
    """Sum and count over geometries; sums over ranks give the figure of one process."""

    higher_is_better = False
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.total: torch.Tensor
        self.count: torch.Tensor

    def _add(self, values: torch.Tensor, count: torch.Tensor | float) -> None:
        self.total = self.total + values.to(torch.float64).sum()
        self.count = self.count + count


class HessianMeanSquaredError(_GeometryMean):
    """Loss term: mean squared error of a Hessian element, eV^2/angstrom^4, over geometries.

    A batch without any label gives 0 with a graph.

    Args:
        normalise: `share` divides the sum over labelled geometries by p x (geometries of the batch),
            p the share of labelled ones in the training set, so that the term keeps its scale where
            labels are sparse; `labelled` divides by the labelled ones of the batch
    """

    def __init__(self, normalise: str = "share", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if normalise not in ("share", "labelled"):
            raise ConfigError(f"normalise: expected `share` or `labelled`, found {normalise!r}")
        self.normalise = normalise

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch: outputs and labels, `hessian_product` (N, 3K), eV/angstrom^2."""
        residual, mask = product_residuals(preds, target)
        means, labelled = mean_over_geometries(residual.square(), mask, target)
        if self.normalise == "labelled":
            self._add(means, float(labelled.sum()))
        else:
            self._add(means * target[HESSIAN_WEIGHT_KEY].view(-1), float(len(means)))

    def compute(self) -> torch.Tensor:
        """Return the loss term, eV^2/angstrom^4."""
        return self.total / self.count.clamp(min=1)

    def __str__(self) -> str:
        return "hessian_mse"


class HessianRootMeanSquaredError(_GeometryMean):
    """Root mean squared error of a Hessian element over labelled geometries, eV/angstrom^2; NaN without labels."""

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch: outputs and labels, `hessian_product` (N, 3K), eV/angstrom^2."""
        if HESSIAN_PRODUCT_KEY not in target:
            return
        residual, mask = product_residuals(preds, target)
        means, labelled = mean_over_geometries(residual.square(), mask, target)
        self._add(means, float(labelled.sum()))

    def compute(self) -> torch.Tensor:
        """Return the figure, eV/angstrom^2."""
        return torch.sqrt(self.total / self.count)

    def __str__(self) -> str:
        return "hessian_rmse"


class HessianMeanAbsoluteError(_GeometryMean):
    """Mean absolute error of a Hessian element over labelled geometries, eV/angstrom^2; NaN without labels.

    Only from full matrices or columns: the absolute error of a random product is another quantity.
    """

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch: outputs and labels, `hessian_product` (N, 3K), eV/angstrom^2.

        Raises:
            ConfigError: the probes are not unit vectors.
        """
        if HESSIAN_PRODUCT_KEY not in target:
            return
        probes = target[HESSIAN_PROBE_KEY]
        if bool(((probes != 0) & (probes != 1)).any()):
            raise ConfigError(
                "hessian_mae: the mean absolute error of an element is not what random probes give; use hessian_rmse, "
                "or val_hessian: {mode: full} (or columns)"
            )
        residual, mask = product_residuals(preds, target)
        means, labelled = mean_over_geometries(residual.abs(), mask, target)
        self._add(means, float(labelled.sum()))

    def compute(self) -> torch.Tensor:
        """Return the figure, eV/angstrom^2."""
        return self.total / self.count

    def __str__(self) -> str:
        return "hessian_mae"
