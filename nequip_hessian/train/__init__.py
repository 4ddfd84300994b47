"""Losses and metrics that a YAML names in `_target_`."""

from nequip_hessian.train.loss import EnergyForceHessianLoss
from nequip_hessian.train.metrics import EnergyForceHessianMetrics
from nequip_hessian.train.products import (
    HessianMeanAbsoluteError,
    HessianMeanSquaredError,
    HessianRootMeanSquaredError,
)
from nequip_hessian.train.sparse import SparseMeanSquaredError

__all__ = [
    "EnergyForceHessianLoss",
    "EnergyForceHessianMetrics",
    "HessianMeanAbsoluteError",
    "HessianMeanSquaredError",
    "HessianRootMeanSquaredError",
    "SparseMeanSquaredError",
]
