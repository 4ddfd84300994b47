"""Hessians in every n-th step only."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from nequip.train import NequIPLightningModule

from nequip_hessian._keys import (
    HESSIAN_DIFFERENCE_KEY,
    HESSIAN_PROBE_KEY,
    HESSIAN_PRODUCT_KEY,
    HESSIAN_WEIGHT_KEY,
)
from nequip_hessian.errors import ConfigError
from nequip_hessian.train.terms import HessianTerm


class HessianEveryNSteps(Callback):
    """Leave Hessians out of all steps but each n-th, which then costs an energy-force step.

    A step is an optimiser step (`trainer.global_step`), so ranks agree and batches of one accumulated
    step are treated alike. The logged Hessian term is the mean over all steps, those without a Hessian
    counting as 0. `probe_fraction` gives the same saving without spikes: try that first. A compiled
    model is compiled once more, for the steps without products.

    Args:
        n: 1 or more; Hessians in steps 0, n, 2n, ...
        compensate: multiply the term by n where it is there. Under plain SGD the gradient is then right
            on average; with Adam or gradient clipping the spikes cost more than they bring

    Raises:
        ConfigError: a wrong n; a loss without a Hessian term; `compensate` with normalise: labelled.
    """

    def __init__(self, n: int, compensate: bool = False) -> None:
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ConfigError(f"HessianEveryNSteps n: expected a whole number of 1 or more, found {n!r}")
        if not isinstance(compensate, bool):
            raise ConfigError(f"HessianEveryNSteps compensate: expected true or false, found {compensate!r}")
        self.n = n
        self.compensate = compensate

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: NequIPLightningModule) -> None:
        """Check that there is something to leave out."""
        terms = [metric for metric in pl_module.loss.values() if isinstance(metric, HessianTerm)]
        if not terms:
            raise ConfigError("HessianEveryNSteps: the loss has no Hessian term; leave the callback out")
        if self.compensate and any(term.normalise == "labelled" for term in terms):
            raise ConfigError("HessianEveryNSteps: compensate: true needs normalise: share in the loss")
        if self.compensate:
            for term in terms:
                term.expect_other_weights()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: NequIPLightningModule,
        batch: dict[str, Any],
        batch_idx: int,
    ) -> None:
        """Take the probes out of the batch, or weigh them, by the number of the step."""
        if HESSIAN_PROBE_KEY not in batch:
            return
        if trainer.global_step % self.n:
            del batch[HESSIAN_PROBE_KEY]
            batch.pop(HESSIAN_DIFFERENCE_KEY, None)
            batch[HESSIAN_PRODUCT_KEY] = torch.full_like(batch[HESSIAN_PRODUCT_KEY], torch.nan)
            batch[HESSIAN_WEIGHT_KEY] = torch.zeros_like(batch[HESSIAN_WEIGHT_KEY])
        elif self.compensate:
            batch[HESSIAN_WEIGHT_KEY] = batch[HESSIAN_WEIGHT_KEY] * self.n
