"""A training that goes to NaN or infinity stops with the geometry's name, before a checkpoint is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from nequip.train import NequIPLightningModule

from nequip_hessian._keys import HESSIAN_GEOMETRY_KEY
from nequip_hessian.errors import ConfigError, DivergedError

Names = Callable[[int], str]

EXPLODED: Final = 1e12
"""Hessian term of one geometry, (eV/angstrom^2)^2, beyond any model that is still one: errors of an element of 1e6
eV/angstrom^2, where the stiffest bonds have 200."""

_SHOWN: Final = 8


def geometries_of(target: dict[str, torch.Tensor], which: torch.Tensor, name: Names | None) -> str:
    """Name geometries of a batch, e.g. `geometry 57 (HCN -> HNC, point 3)`, at most eight.

    Args:
        target: the batch; `hessian_geometry` (G, 1) are indices in the store
        which: (P,) int64 places in the batch
        name: index in the store -> label
    """
    known = target.get(HESSIAN_GEOMETRY_KEY)
    texts = []
    for place in which[:_SHOWN].tolist():
        if known is None:
            texts.append(f"number {place} of the batch")
            continue
        index = int(known.reshape(-1)[place])
        texts.append(f"geometry {index}" + (f" ({label})" if name is not None and (label := name(index)) else ""))
    more = f" and {len(which) - _SHOWN} more" if len(which) > _SHOWN else ""
    return ", ".join(texts) + more


def stop_where_bad(term: str, values: torch.Tensor, target: dict[str, torch.Tensor], name: Names | None) -> None:
    """Stop where the loss of a geometry is no number, or far beyond one that can be learnt from.

    Args:
        term: name of the loss term
        values: (G,) the term of each geometry
        target: the batch
        name: index in the store -> label

    Raises:
        DivergedError: it names the geometries and says what to look at.
    """
    bad = torch.nonzero(~(values.detach().abs() < EXPLODED)).view(-1)
    if not len(bad):
        return
    found = float(values.detach()[bad[0]])
    where = geometries_of(target, bad, name)
    reason = (
        "all geometries of the batch: the weights have run away; lower the learning rate or the coefficient, or set "
        "gradient_clip_val"
        if len(bad) == len(values) > 1
        else "look at the geometry and its label (nequip-hessian validate, nequip-hessian info), then at the learning "
        "rate, the coefficient and gradient_clip_val"
    )
    raise DivergedError(
        f"{term}: expected a finite number below {EXPLODED:.0e}, found {found:.3g} for {where}. {reason[0].upper()}"
        f"{reason[1:]}. No step was taken with it; the last checkpoint is of before"
    )


class StopAtNonFinite(Callback):
    """Stop before the optimiser takes a gradient that is not finite, and name the geometries of the batch.

    The Hessian loss itself stops the training where a geometry's term is not finite. A gradient can be
    so although every term is a number, and energies and forces can bring it too; the next checkpoint
    would then hold NaN. It costs a sum over the gradients a step.

    Raises:
        DivergedError: step, parameter and geometries of the batch.

    Example:
        .. code-block:: yaml

            callbacks:
              - _target_: nequip_hessian.train.StopAtNonFinite
    """

    def __init__(self) -> None:
        self._batch: dict[str, Any] = {}
        self._name: Names | None = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: NequIPLightningModule) -> None:
        """Check that gradients are looked at where they are whole."""
        if "16" in str(trainer.precision):
            raise ConfigError("StopAtNonFinite: gradients of mixed precision are scaled and may overflow; leave it out")
        datamodule: Any = getattr(trainer, "datamodule", None)
        self._name = getattr(datamodule, "geometry_name", None)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: NequIPLightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Remember the batch."""
        self._batch = batch

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: NequIPLightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the sum of each gradient."""
        named = [(name, p.grad) for name, p in pl_module.named_parameters() if p.grad is not None and p.grad.numel()]
        if not named:
            return
        sums = torch.stack([gradient.sum() for _, gradient in named])
        if bool(torch.isfinite(sums).all()):
            return
        first = named[int(torch.nonzero(~torch.isfinite(sums)).view(-1)[0])][0]
        frames = torch.arange(len(self._batch["num_atoms"]) if "num_atoms" in self._batch else 0)
        raise DivergedError(
            f"step {trainer.global_step}: expected finite gradients, found others, first in {first}; the batch is "
            f"{geometries_of(self._batch, frames, self._name) or 'one geometry'}. Lower the learning rate, and look at "
            "these geometries for atoms that coincide and for labels that are wrong (nequip-hessian validate). No step "
            "was taken with it; the last checkpoint is of before"
        )
