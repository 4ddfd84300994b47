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
from nequip_hessian.train.spectra import (
    EigenvalueMeanAbsoluteError,
    FrequencyMeanAbsoluteError,
    ImaginaryAgreement,
)
from nequip_hessian.train.terms import (
    HessianHuber,
    HessianMeanAbsoluteErrorTerm,
    HessianMeanSquaredError,
    MassWeightedHessianMeanSquaredError,
)

__all__ = [
    "BalanceLossCoefficients",
    "EigenvalueMeanAbsoluteError",
    "EnergyForceHessianLoss",
    "EnergyForceHessianMetrics",
    "EnergyForceMassWeightedHessianLoss",
    "EnergyForceStressHessianLoss",
    "EnergyForceStressHessianMetrics",
    "FrequencyMeanAbsoluteError",
    "HessianEveryNSteps",
    "HessianHuber",
    "HessianMeanAbsoluteError",
    "HessianMeanAbsoluteErrorTerm",
    "HessianMeanSquaredError",
    "HessianRootMeanSquaredError",
    "ImaginaryAgreement",
    "MassWeightedHessianMeanSquaredError",
    "MassWeightedHessianRootMeanSquaredError",
    "SparseMeanSquaredError",
    "StopAtNonFinite",
    "WriteEvaluationPage",
]
