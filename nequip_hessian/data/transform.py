"""The transform that turns a reference Hessian into probes and reference products.

A matrix cannot be batched with others of another size; its products with k
vectors can. The transform takes the matrix out of the data and puts in two
per-atom fields of constant width, `hessian_probe` and `hessian_product`, and
the geometry's weight in the loss. It works in our own dataset and in the list
of transforms of NequIP's datasets alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from nequip.data import AtomicDataDict

from nequip_hessian import _keys
from nequip_hessian.curvature import as_square, packed_product, packed_size, symmetrise
from nequip_hessian.data.probes import ProbeSettings, draw, geometry_rng
from nequip_hessian.data.stream import ProbeStream
from nequip_hessian.errors import ConfigError, HessianDataError


class HessianProbes:
    """Draw probes for one geometry and multiply its reference Hessian with them.

    Takes `hessian` out of the data (and `hessian_active`, the atoms of a partial one): packed
    (n(n+1)/2,) or of any customary shape, eV/angstrom^2; a raw matrix is symmetrised. A geometry
    without one gets zero probes and NaN products: NaN marks a missing label in products only,
    because a NaN probe would leave the loss finite and make every gradient NaN.

    Args:
        mode: `full`, `columns` or `random`
        k: probes a geometry, for `columns` and `random` (default 1)
        distribution: `rademacher` or `sphere`, for `random`
        max_atoms: largest number of atoms in the dataset; needed for `full` only
        seed: seed of the probes
        fixed: the same probes for the same geometry each time (validation and test)
        labelled_fraction: share of the dataset's geometries that have a Hessian; it keeps the
            loss at its scale where labels are sparse

    Raises:
        ConfigError: options that do not fit together.
    """

    def __init__(
        self,
        mode: str = "random",
        k: int | None = None,
        distribution: str = "rademacher",
        max_atoms: int | None = None,
        seed: int = 0,
        fixed: bool = False,
        labelled_fraction: float = 1.0,
    ) -> None:
        self.settings = ProbeSettings(mode, k, distribution)
        if mode == "full" and max_atoms is None:
            raise ConfigError("hessian mode `full`: give max_atoms, the largest number of atoms in the dataset")
        if not 0.0 < labelled_fraction <= 1.0:
            raise ConfigError(f"labelled_fraction: expected a share above 0 and up to 1, found {labelled_fraction}")
        self.max_atoms = max_atoms
        self.seed = int(seed)
        self.fixed = fixed
        self.labelled_fraction = labelled_fraction
        self.stream = ProbeStream(self.seed)
        self._width = self.settings.width(max_atoms or 0)

    def __call__(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        """Return the data of one geometry with `hessian_probe` and `hessian_product` (N, 3K) and `hessian_weight`.

        Raises:
            HessianDataError: a Hessian of a shape that does not fit the geometry, or one with NaN.
            ConfigError: an unlabelled geometry while `labelled_fraction` is 1, or more atoms than `max_atoms`.
        """
        data = dict(data)
        label: Any = data.pop(_keys.HESSIAN_KEY, None)
        active: Any = data.pop(_keys.HESSIAN_ACTIVE_KEY, None)
        positions = data[AtomicDataDict.POSITIONS_KEY]
        n_atoms = len(positions)
        if self.max_atoms is not None and n_atoms > self.max_atoms:
            raise ConfigError(f"max_atoms: {self.max_atoms} was given, but a geometry has {n_atoms} atoms")
        probes = np.zeros((self._width, n_atoms, 3))
        products = np.full((self._width, n_atoms, 3), np.nan)
        if label is not None and len(label):
            atoms = np.arange(n_atoms) if active is None else np.asarray(active)
            vectors = draw(self.settings, 3 * len(atoms), self._rng(data))
            values = _multiply(np.asarray(label), vectors, len(atoms))
            count = len(vectors)
            probes[:count, atoms] = vectors.reshape(count, -1, 3)
            products[:count, atoms] = values.reshape(count, -1, 3)
        elif self.labelled_fraction == 1.0:
            raise ConfigError(
                "a geometry has no Hessian, but labelled_fraction is 1: set it to the share of geometries that have "
                "one (our own dataset does so by itself)"
            )
        weight = 1.0 / self.labelled_fraction if label is not None and len(label) else 0.0
        dtype = positions.dtype
        data[_keys.HESSIAN_PROBE_KEY] = _as_columns(probes, dtype)
        data[_keys.HESSIAN_PRODUCT_KEY] = _as_columns(products, dtype)
        data[_keys.HESSIAN_WEIGHT_KEY] = torch.full((1, 1), weight, dtype=dtype)
        return data

    def _rng(self, data: AtomicDataDict.Type) -> np.random.Generator:
        if not self.fixed:
            return self.stream.rng()
        kind = data.get(AtomicDataDict.ATOMIC_NUMBERS_KEY, data.get(AtomicDataDict.ATOM_TYPE_KEY))
        numbers = np.zeros(0) if kind is None else kind.numpy().ravel()
        return geometry_rng(numbers, data[AtomicDataDict.POSITIONS_KEY].numpy(), self.seed)


def _as_columns(rows: np.ndarray[Any, Any], dtype: torch.dtype) -> torch.Tensor:
    """(K, N, 3) -> (N, 3K), probe c in columns 3c to 3c + 2; unit unchanged."""
    columns = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(rows.shape[1], -1)
    return torch.from_numpy(columns).to(dtype)


def _multiply(
    label: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any], n_atoms: int
) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """Multiply a packed or full Hessian with (k, n) vectors: (k, n), eV/angstrom^2."""
    n = 3 * n_atoms
    if label.ndim == 1 and len(label) == packed_size(n):
        packed = label if label.dtype in (np.float32, np.float64) else label.astype(np.float64)
        return packed_product(packed, vectors.astype(packed.dtype, copy=False))
    try:
        square, _ = symmetrise(as_square(label.astype(np.float64), n_atoms))
    except ValueError as exc:
        raise HessianDataError(str(exc)) from exc
    if not np.all(np.isfinite(square)):
        raise HessianDataError(
            "hessian: expected finite numbers, found NaN or infinity; leave it out where it is missing"
        )
    return vectors @ square
