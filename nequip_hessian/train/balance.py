"""Loss coefficients from the initial size of the loss terms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from nequip.train import NequIPLightningModule
from nequip.utils import RankedLogger

from nequip_hessian.errors import ConfigError

_log = RankedLogger(__name__, rank_zero_only=True)


class BalanceLossCoefficients(Callback):
    """Set the coefficients before the first step so that each term starts with its share of the loss.

    The `coeffs` of the loss are then shares of the initial loss, without unit: {total_energy: 1,
    forces: 2, hessian: 1} makes half of the initial loss that of the forces, whatever the size of the
    errors. The terms are measured with the initial model on a few training batches; coefficient =
    share / term, divided by the sum. They are logged (`loss_initial/<term>`, `loss_coeff/<term>`), kept
    in the checkpoint and not measured again on a restart. NequIP's schedulers act on them later; one
    that sets coefficients at epoch 0 would undo them.

    Args:
        batches: number of training batches to measure on

    Raises:
        ConfigError: a term that is zero or not finite on these batches.

    Example:
        .. code-block:: yaml

            callbacks:
              - _target_: nequip_hessian.train.BalanceLossCoefficients
                batches: 10
    """

    def __init__(self, batches: int = 10) -> None:
        if not isinstance(batches, int) or isinstance(batches, bool) or batches < 1:
            raise ConfigError(f"BalanceLossCoefficients batches: expected 1 or more, found {batches!r}")
        self.batches = batches
        self.measured = 0
        self.magnitudes: dict[str, float] | None = None
        self.coeffs: dict[str, float] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: NequIPLightningModule) -> None:
        """Measure the terms and set the coefficients; a restored run keeps those it has."""
        if self.coeffs is not None:
            return
        if trainer.global_step > 0:
            raise ConfigError(
                "BalanceLossCoefficients: the checkpoint is of a run without it, and its first losses are gone; leave "
                "it out, or begin a new training"
            )
        loss = pl_module.loss
        shares = {name: entry.coeff for name, entry in loss.entries.items() if entry.coeff}
        self.magnitudes = self._measure(trainer, pl_module)
        for name in shares:
            value = self.magnitudes[name]
            if not math.isfinite(value) or value <= 0.0:
                raise ConfigError(
                    f"BalanceLossCoefficients: {name} is {value} on the first {self.measured} batches, so no "
                    "coefficient follows from it; are there labels for it? Raise `batches`, or set coefficients by hand"
                )
        raw = {name: share / self.magnitudes[name] for name, share in shares.items()}
        loss.set_coeffs(raw)
        self.coeffs = {name: float(loss.entries[name].coeff) for name in raw}
        self._report(trainer)

    def _measure(self, trainer: lightning.Trainer, pl_module: NequIPLightningModule) -> dict[str, float]:
        loss = pl_module.loss
        loader: Any = trainer.train_dataloader
        self.measured = 0
        for index, batch in enumerate(itertools.islice(loader, self.batches)):
            batch = trainer.strategy.batch_to_device(batch)
            target = pl_module.process_target(batch, index)
            loss(pl_module(batch), target)
            self.measured += 1
        # the mean over the batches and, in a distributed run, over the ranks
        found = loss.compute()
        magnitudes = {name: float(found[name]) for name in loss.entries}
        loss.reset()
        return magnitudes

    def _report(self, trainer: lightning.Trainer) -> None:
        magnitudes, coeffs = self.magnitudes or {}, self.coeffs or {}
        text = ", ".join(f"{name} {magnitudes[name]:.4g} -> coefficient {coeffs[name]:.4g}" for name in coeffs)
        few = "" if self.measured == self.batches else f" (of {self.batches} that were asked for: an epoch has no more)"
        _log.info(f"Loss coefficients from the initial terms of {self.measured} batches{few}: {text}")
        figures = {f"loss_initial/{name}": value for name, value in magnitudes.items()}
        figures |= {f"loss_coeff/{name}": value for name, value in coeffs.items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=0)

    def state_dict(self) -> dict[str, Any]:
        """Return the measured terms and the coefficients."""
        return {"magnitudes": self.magnitudes, "coeffs": self.coeffs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them; the coefficients themselves come back with the loss."""
        self.magnitudes, self.coeffs = state_dict["magnitudes"], state_dict["coeffs"]
