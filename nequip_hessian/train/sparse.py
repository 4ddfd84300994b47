"""NequIP's squared error for labels that may be missing (NaN), down to a batch that has none at all."""

from __future__ import annotations

import torch
from nequip.train import MeanSquaredError


class SparseMeanSquaredError(MeanSquaredError):
    """Mean squared error over the labels that are there, square of the unit of its field.

    NequIP's own gives NaN for a batch without any label; this gives 0 with a graph, so that
    energy-free or force-free batches can stand beside labelled ones. A NaN prediction is not masked.
    """

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Take in predictions and labels, same shape and unit (the field's); NaN where there is no label."""
        there = ~torch.isnan(target)
        if bool(there.all()):
            super().update(preds, target)
            return
        preds, target = preds[there], target[there]
        if preds.numel():
            super().update(preds, target)
        else:
            self.sum: torch.Tensor = self.sum + preds.sum()

    def compute(self) -> torch.Tensor:
        """Return the mean (a scalar, square of the field's unit), 0 where nothing was labelled."""
        return self.sum / self.count.clamp(min=1)
