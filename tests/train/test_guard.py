"""A training that goes to NaN stops with the geometry's name, and leaves no checkpoint with NaN behind."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from short_runs import LOSS, datamodule, fit

from nequip_hessian.errors import DivergedError
from nequip_hessian.store import HessianStore
from nequip_hessian.train import StopAtNonFinite

pytestmark = pytest.mark.filterwarnings("ignore")


class Spoil(Callback):
    """Makes one reference product of the third step NaN-free but huge, or the weights NaN."""

    def __init__(self, what):
        self.what = what
        self.index = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != 2:
            return
        if self.what == "label":
            place = int(torch.nonzero(batch["hessian_weight"].view(-1))[1])
            self.index = int(batch["hessian_geometry"][place])
            batch["hessian_product"][batch["batch"] == place] = 1e9
        elif self.what == "weights":
            with torch.no_grad():
                next(pl_module.model.parameters()).fill_(torch.nan)

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == 2 and self.what == "gradient":
            next(p for p in pl_module.parameters() if p.grad is not None).grad[...] = torch.inf


def stopped(store, folder, what):
    spoil = Spoil(what)
    with pytest.raises(DivergedError) as caught:
        fit(
            store,
            folder,
            {"mode": "random"},
            epochs=4,
            callbacks=[spoil, StopAtNonFinite()],
            save=folder / "last.ckpt",
            loss=LOSS,
        )
    state = torch.load(folder / "last.ckpt", weights_only=False)
    assert state["global_step"] == 2  # of the epoch before
    weights = [value for name, value in state["state_dict"].items() if name.startswith("model.")]
    assert weights
    assert all(torch.isfinite(value).all() for value in weights)
    return str(caught.value), spoil


def test_an_exploding_label_is_named(small_store, tmp_path):
    message, spoil = stopped(small_store, tmp_path, "label")
    assert f"geometry {spoil.index} ({HessianStore(small_store).label(spoil.index)})." in message
    assert "hessian_mse: expected a finite number below 1e+12" in message


def test_runaway_weights_are_told_from_a_bad_geometry(small_store, tmp_path):
    message, _ = stopped(small_store, tmp_path, "weights")
    assert "found nan" in message
    assert "gradient" in message or "weights have run away" in message


def test_a_gradient_that_is_not_finite_is_not_stepped_along(small_store, tmp_path):
    message, _ = stopped(small_store, tmp_path, "gradient")
    assert message.startswith("step 2: expected finite gradients")
    assert message.count("geometry ") == 8


def test_names_are_those_of_the_store(small_store):
    assert datamodule(small_store, {"mode": "random"}).geometry_name(3) == "NH3-0"
