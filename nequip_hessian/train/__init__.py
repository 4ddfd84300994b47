"""Losses, metrics and callbacks that a YAML names in `_target_`."""

from nequip_hessian.train.balance import BalanceLossCoefficients
from nequip_hessian.train.every import HessianEveryNSteps
from nequip_hessian.train.figures import (
    HessianMeanAbsoluteError,
    HessianRootMeanSquaredError,
    MassWeightedHessianRootMeanSquaredError,
)
from nequip_hessian.train.guard import StopAtNonFinite
from nequip_hessian.train.loss import (
    EnergyForceHessianLoss,
    EnergyForceMassWeightedHessianLoss,
    EnergyForceStressHessianLoss,
)
from nequip_hessian.train.metrics import EnergyForceHessianMetrics, EnergyForceStressHessianMetrics
from nequip_hessian.train.page import WriteEvaluationPage
from nequip_hessian.train.sparse import SparseMeanSquaredError
from nequip_hessian.train.spectra import HessianFigure
from nequip_hessian.train.terms import (
    HessianHuber,
    HessianMeanAbsoluteErrorTerm,
    HessianMeanSquaredError,
    MassWeightedHessianMeanSquaredError,
)

__all__ = [
    "BalanceLossCoefficients",
    "EnergyForceHessianLoss",
    "EnergyForceHessianMetrics",
    "EnergyForceMassWeightedHessianLoss",
    "EnergyForceStressHessianLoss",
    "EnergyForceStressHessianMetrics",
    "HessianEveryNSteps",
    "HessianFigure",
    "HessianHuber",
    "HessianMeanAbsoluteError",
    "HessianMeanAbsoluteErrorTerm",
    "HessianMeanSquaredError",
    "HessianRootMeanSquaredError",
    "MassWeightedHessianMeanSquaredError",
    "MassWeightedHessianRootMeanSquaredError",
    "SparseMeanSquaredError",
    "StopAtNonFinite",
    "WriteEvaluationPage",
]
