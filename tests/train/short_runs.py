"""Training runs of a few steps in this process: NequIP's own training module and Lightning's trainer."""

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from nequip.train import NequIPLightningModule
from small_models import NEQUIP, R_MAX, SYMBOLS

from nequip_hessian.data import HessianDataModule

LOSS = {
    "_target_": "nequip_hessian.train.EnergyForceHessianLoss",
    "coeffs": {"total_energy": 1.0, "forces": 1.0, "hessian": 0.01},
}
METRICS = {"_target_": "nequip_hessian.train.EnergyForceHessianMetrics"}


class Recorder(lightning.Callback):
    """Loss terms and coefficients of each step."""

    def __init__(self):
        self.terms, self.coeffs = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.terms.append(dict(pl_module.loss.metrics_values_step))
        self.coeffs.append({name: entry.coeff for name, entry in pl_module.loss.entries.items()})


def datamodule(store, hessian, workers=0, **options):
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 8, "num_workers": workers}
    return HessianDataModule(
        seed=1,
        store=str(store),
        split="random",
        hessian=hessian,
        transforms=[
            {
                "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
                "model_type_names": SYMBOLS,
            },
            {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": R_MAX},
        ],
        train_dataloader={**loader, "shuffle": True},
        val_dataloader=loader,
        test_dataloader=loader,
        **options,
    )


def module(data, loss=None, **metrics):
    metrics = {"val_metrics": METRICS, **metrics}
    return NequIPLightningModule(
        model={"_target_": "nequip_hessian.model.NequIPGNNModel", **NEQUIP, "num_layers": 1, "num_features": 4},
        num_datasets=data.num_datasets,
        optimizer={"_target_": "torch.optim.Adam", "lr": 0.01},
        loss=loss or LOSS,
        info_dict={},
        **metrics,
    )


def trainer(folder, epochs=1, callbacks=(), **options):
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        inference_mode=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **{"enable_checkpointing": False, **options},
    )


def fit(store, folder, hessian, *, epochs=1, callbacks=(), loss=None, workers=0, ckpt=None, save=None, **options):
    """Train; return what was recorded in each step, and the training module."""
    recorder = Recorder()
    data = datamodule(store, hessian, workers, **options)
    net = module(data, loss)
    kept = [] if save is None else [ModelCheckpoint(save.parent, save.stem, enable_version_counter=False)]
    run = trainer(folder, epochs, [recorder, *callbacks, *kept], enable_checkpointing=bool(kept))
    run.fit(net, datamodule=data, ckpt_path=ckpt, weights_only=False)
    return recorder, net
