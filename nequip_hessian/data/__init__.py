"""NequIP's side of a Hessian store: dataset, datamodule, and the transform that draws probes."""

from nequip_hessian.data.datamodule import HessianDataModule
from nequip_hessian.data.dataset import HessianDataset
from nequip_hessian.data.transform import HessianProbes

__all__ = ["HessianDataModule", "HessianDataset", "HessianProbes"]
