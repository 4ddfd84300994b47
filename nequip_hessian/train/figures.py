"""Validation and test figures on Hessian products: means over labelled geometries, NaN where there is none."""

from __future__ import annotations

from typing import Final

import torch

from nequip_hessian._keys import HESSIAN_PRODUCT_KEY
from nequip_hessian.errors import ConfigError
from nequip_hessian.train.products import (
    Data,
    GeometryMean,
    Settings,
    mean_over_geometries,
    not_elements,
    product_residuals,
    require_unit_vectors,
)

_NO_LABELS: Final = "no geometry had a Hessian: `hessian` may be misspelt in the file, or missing from include_keys"


class HessianRootMeanSquaredError(GeometryMean):
    """Root mean squared error of a Hessian element over labelled geometries, eV/angstrom^2; NaN without labels.

    Exact from the full matrix, an estimate from columns and random probes; along `stored` probes it
    is the error along those.
    """

    def check_probes(self, settings: Settings) -> None:
        """Refuse normal modes, whose errors are not those of elements."""
        super().check_probes(settings)
        if settings.mode == "modes":
            raise ConfigError(f"{self}: mode `modes` gives no error of an element; set val_hessian: {{mode: full}}")

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch: outputs and labels, `hessian_product` (N, 3K), eV/angstrom^2."""
        if HESSIAN_PRODUCT_KEY not in target:
            return
        self._asked = True
        residual, mask = product_residuals(preds, target, mass_weighted=self.mass_weighted)
        means, labelled = mean_over_geometries(residual.square(), mask, target)
        self._add(means, float(labelled.sum()))

    def compute(self) -> torch.Tensor:
        """Return the figure, eV/angstrom^2."""
        self.warn_if_empty(_NO_LABELS)
        return torch.sqrt(self.total / self.count)

    def __str__(self) -> str:
        return "hessian_rmse"


class MassWeightedHessianRootMeanSquaredError(HessianRootMeanSquaredError):
    """The same of M^-1/2 H M^-1/2, eV/(angstrom^2 u); needs val_hessian with `mass_weighted: true`."""

    mass_weighted = True

    def __str__(self) -> str:
        return "mass_weighted_hessian_rmse"


class HessianMeanAbsoluteError(GeometryMean):
    """Mean absolute error of a Hessian element over labelled geometries, eV/angstrom^2; NaN without labels.

    Only from full matrices or columns: the absolute error of a random product is another quantity.
    """

    def check_probes(self, settings: Settings) -> None:
        """Refuse probes other than unit vectors."""
        super().check_probes(settings)
        if not settings.unit_vectors:
            raise ConfigError(not_elements(str(self)))

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch: outputs and labels, `hessian_product` (N, 3K), eV/angstrom^2.

        Raises:
            ConfigError: the probes are not unit vectors.
        """
        if HESSIAN_PRODUCT_KEY not in target:
            return
        self._asked = True
        require_unit_vectors(target, str(self))
        residual, mask = product_residuals(preds, target)
        means, labelled = mean_over_geometries(residual.abs(), mask, target)
        self._add(means, float(labelled.sum()))

    def compute(self) -> torch.Tensor:
        """Return the figure, eV/angstrom^2."""
        self.warn_if_empty(_NO_LABELS)
        return self.total / self.count

    def __str__(self) -> str:
        return "hessian_mae"
