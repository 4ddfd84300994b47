"""Loss terms on Hessian products; each geometry counts once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from warnings import warn

import torch
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict

from nequip_hessian._keys import HESSIAN_GEOMETRY_KEY, HESSIAN_PROBE_KEY, HESSIAN_WEIGHT_KEY
from nequip_hessian.errors import ConfigError, HessianDataWarning
from nequip_hessian.train.guard import Names, stop_where_bad
from nequip_hessian.train.products import (
    Data,
    GeometryMean,
    Settings,
    mean_over_geometries,
    not_elements,
    product_residuals,
    require_unit_vectors,
)

NORMALISATIONS: Final = ("share", "labelled")
_COUNTED: Final = 20  # geometries below which a share says nothing
_FAR: Final = (0.5, 2.0)  # found share over the one that was said


class HessianTerm(GeometryMean):
    """Mean over geometries of the mean over labelled entries of a function of the residual.

    A batch without any label gives 0 with a graph.

    Args:
        normalise: `share` divides the sum over labelled geometries by p x (geometries of the batch),
            p the share of geometries that carry a probe in a step, so that the term keeps its scale
            where labels or probes are sparse; `labelled` divides by the labelled ones of the batch
        per_type_coeffs: weight of the rows of each atom type, above 0, for every type; a row's weight is
            divided by the mean weight of the geometry's rows, so equal weights change nothing
        type_names: the model's type names, needed with `per_type_coeffs`

    Raises:
        ConfigError: a wrong option.
    """

    def __init__(
        self,
        normalise: str = "share",
        per_type_coeffs: Mapping[str, float] | None = None,
        type_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name in ("labelled", "seen", "weights"):
            self.add_state(name, default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.labelled: torch.Tensor
        self.seen: torch.Tensor
        self.weights: torch.Tensor
        self._warned = False
        self._type_names = list(type_names or [])
        self._species_known = False
        if normalise not in NORMALISATIONS:
            raise ConfigError(f"normalise: expected `share` or `labelled`, found {normalise!r}")
        self.normalise = normalise
        self._geometry_name: Names | None = None
        self.type_weights = None if per_type_coeffs is None else _type_weights(per_type_coeffs, type_names)

    def name_geometries(self, name: Names) -> None:
        """Use `name` (index in the store -> label) in messages."""
        self._geometry_name = name

    def expect_other_weights(self) -> None:
        """Do not hold the weights of an epoch against labelled_fraction: a callback changes them."""
        self._warned = True

    def error(self, residual: torch.Tensor) -> torch.Tensor:
        """Error of each entry of the residual (N, 3K), 0 where the residual is 0."""
        raise NotImplementedError

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch.

        Args:
            preds: outputs, `hessian_product` (N, 3K), eV/angstrom^2
            target: labels, the same with NaN where there is none, `hessian_probe` (N, 3K), `hessian_weight` (G, 1)

        Raises:
            ConfigError: weights by atom type, and no atom types in the data; with the first batch, elements that the
                data hand out as another type than the model's.
            DivergedError: the term of a geometry is not finite, or beyond all reason; its index and label.
        """
        if not self._species_known:
            self._species_known = True
            _check_species(self._type_names, target)
        residual, mask = product_residuals(preds, target, mass_weighted=self.mass_weighted)
        weights = None
        if self.type_weights is not None:
            types = preds.get(AtomicDataDict.ATOM_TYPE_KEY, target.get(AtomicDataDict.ATOM_TYPE_KEY))
            if types is None:
                raise ConfigError("per_type_hessian_coeffs: the data hold no atom types (atom_types)")
            weights = torch.tensor(self.type_weights, dtype=residual.dtype, device=residual.device)[types.view(-1)]
        means, labelled = mean_over_geometries(self.error(residual), mask, target, weights)
        stop_where_bad(str(self), means, target, self._geometry_name)
        if HESSIAN_PROBE_KEY in target and HESSIAN_GEOMETRY_KEY not in target:  # our own dataset has counted already
            self.labelled = self.labelled + labelled.sum()
            self.seen = self.seen + len(means)
            self.weights = self.weights + target[HESSIAN_WEIGHT_KEY].to(torch.float64).sum()
        if self.normalise == "labelled":
            self._add(means, float(labelled.sum()))
        else:
            self._add(means * target[HESSIAN_WEIGHT_KEY].view(-1), float(len(means)))

    def compute(self) -> torch.Tensor:
        """Return the loss term.

        Returns:
            scalar of the dtype of the metric's states, in the unit of `error`: the sum over the geometries seen of the
            mean error of their elements, each times its weight for sparse labels, over the number of geometries
            (`normalise: labelled`: over that of labelled ones); 0 where there were none.

        Raises:
            ConfigError: at the end of an epoch in which no geometry of a dataset other than ours had a label.
        """
        if not self._in_step:
            self._check_labels()
        return self.total / self.count.clamp(min=1)

    def _check_labels(self) -> None:
        """Tell at the end of an epoch whether labelled_fraction can be true: each label weighs 1 / fraction."""
        seen, labelled, weight = (int(self.seen), int(self.labelled), float(self.weights))
        if not seen:
            return
        if not labelled:
            raise ConfigError(
                f"{self}: none of the {seen} geometries of this epoch had a Hessian, although labelled_fraction says "
                "that some do. Is the field `hessian` misspelt in the file, or missing from include_keys: [hessian] of "
                "the dataset? (With a small probe_fraction, raise it.)"
            )
        if self._warned or seen < _COUNTED or _FAR[0] <= weight / seen <= _FAR[1]:
            return
        self._warned = True
        warn(
            f"{self}: {labelled} of the {seen} geometries of this epoch carried a Hessian, {weight / seen:.2g} times "
            "what labelled_fraction (times probe_fraction) of HessianProbes says, and the term is off by that factor: "
            "set labelled_fraction to the share of geometries that have one",
            HessianDataWarning,
            stacklevel=2,
        )


class HessianMeanSquaredError(HessianTerm):
    """Mean squared error of a Hessian element, eV^2/angstrom^4, over geometries."""

    def error(self, residual: torch.Tensor) -> torch.Tensor:
        """Squares, (N, 3K)."""
        return residual.square()

    def __str__(self) -> str:
        return "hessian_mse"


class MassWeightedHessianMeanSquaredError(HessianMeanSquaredError):
    """Mean squared error of an element of M^-1/2 H M^-1/2, eV^2/(angstrom^4 u^2), over geometries.

    It weighs heavy and light atoms as frequencies do. Probes must be drawn with `mass_weighted: true`.
    """

    mass_weighted = True

    def __str__(self) -> str:
        return "mass_weighted_hessian_mse"


class _ElementTerm(HessianTerm):
    """A term that has a meaning for columns of the matrix only."""

    def check_probes(self, settings: Settings) -> None:
        """Refuse probes other than unit vectors."""
        super().check_probes(settings)
        if not settings.unit_vectors:
            raise ConfigError(not_elements(str(self)))

    def update(self, preds: Data, target: Data) -> None:
        """Take in a batch.

        Raises:
            ConfigError: the probes are not unit vectors.
        """
        require_unit_vectors(target, str(self))
        super().update(preds, target)


class HessianMeanAbsoluteErrorTerm(_ElementTerm):
    """Mean absolute error of a Hessian element, eV/angstrom^2, over geometries; modes full and columns."""

    def error(self, residual: torch.Tensor) -> torch.Tensor:
        """Absolute values, (N, 3K)."""
        return residual.abs()

    def __str__(self) -> str:
        return "hessian_mae"


class HessianHuber(_ElementTerm):
    """Mean Huber error of a Hessian element over geometries, eV^2/angstrom^4; modes full and columns.

    r^2/2 up to |r| = delta, delta (|r| - delta/2) beyond (Huber, Ann. Math. Statist. 1964, 35, 73).

    Args:
        delta: eV/angstrom^2
        **kwargs: as for `HessianTerm`
    """

    def __init__(self, delta: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(delta, int | float) or isinstance(delta, bool) or not delta > 0:
            raise ConfigError(f"huber_delta: expected a number above 0 in eV/angstrom^2, found {delta!r}")
        self.delta = float(delta)

    def error(self, residual: torch.Tensor) -> torch.Tensor:
        """Huber errors, (N, 3K)."""
        return torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=self.delta)

    def __str__(self) -> str:
        return "hessian_huber"


def _check_species(type_names: list[str], target: Data) -> None:
    """Hold atomic numbers of a batch against the types they came as, where type names are chemical symbols."""
    types, numbers = target.get(AtomicDataDict.ATOM_TYPE_KEY), target.get(AtomicDataDict.ATOMIC_NUMBERS_KEY)
    if not type_names or types is None or numbers is None:
        return
    pairs = torch.unique(torch.stack([types.view(-1), numbers.view(-1).to(types.dtype)]), dim=1).T.tolist()
    for kind, number in pairs:
        name = type_names[kind] if kind < len(type_names) else "none"
        if name in chemical_symbols and name != chemical_symbols[number]:
            raise ConfigError(
                f"the data hand out {chemical_symbols[number]} as type {kind}, which is the model's {name}: give "
                f"ChemicalSpeciesToAtomTypeMapper model_type_names: [{', '.join(type_names)}], the model's own order"
            )


def _type_weights(coeffs: Mapping[str, float], type_names: list[str] | None) -> list[float]:
    if type_names is None or set(coeffs) != set(type_names):
        known = "the model's type names" if type_names is None else ", ".join(type_names)
        raise ConfigError(
            f"per_type_hessian_coeffs: expected one weight for each of {known}; found {', '.join(map(str, coeffs))}"
        )
    for name, value in coeffs.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise ConfigError(f"per_type_hessian_coeffs: {name} must be above 0, found {value!r}")
    return [float(coeffs[name]) for name in type_names]
