"""NequIP's squared error for labels that may be missing (NaN), down to a batch that has none at all."""

from __future__ import annotations

import torch
from nequip.data import AtomicDataDict
from nequip.train import MeanSquaredError

from nequip_hessian.errors import ConfigError


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


class SparseStressMeanSquaredError(SparseMeanSquaredError):
    """The same for the stress of whole dictionaries, (eV/angstrom^3)^2, so that data without any are named.

    A molecule has no stress: where the cell has no volume the label does not count.
    """

    def update(self, preds: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:  # type: ignore[override]
        """Take in outputs and labels with `stress` (G, 3, 3), eV/angstrom^3.

        Raises:
            ConfigError: there is no stress among the labels or the outputs.
        """
        for name, data in (("data hold", target), ("model gives", preds)):
            if AtomicDataDict.STRESS_KEY not in data or AtomicDataDict.CELL_KEY not in target:
                raise ConfigError(
                    f"the {name} no stress: Hessian stores hold none, so use NequIP's own datasets of periodic cells "
                    "with the transform nequip_hessian.data.HessianProbes, or EnergyForceHessianLoss"
                )
        predicted = preds[AtomicDataDict.STRESS_KEY].view(-1, 3, 3)
        label = target[AtomicDataDict.STRESS_KEY].view(-1, 3, 3)
        volume = torch.linalg.det(target[AtomicDataDict.CELL_KEY].view(-1, 3, 3)).abs()
        super().update(predicted, torch.where((volume > 0).view(-1, 1, 1), label, torch.nan))
