"""The Hessian label of one geometry as it comes in: a matrix in any customary shape, or stored products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian import _keys
from nequip_hessian.curvature import as_square, pack, packed_size, symmetrise
from nequip_hessian.errors import HessianDataError

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Label:
    """What a geometry holds about its Hessian; one of `matrix` and `products` is there.

    Attributes:
        matrix: packed (n(n+1)/2,) or of any customary shape, eV/angstrom^2
        probes, products: (k, N, 3); of any norm, eV/angstrom^2 per unit of the probe
        active: indices of the atoms of a partial Hessian; None: all
        masses: (N,), u, NaN where unknown; None: unknown
    """

    matrix: npt.NDArray[Any] | None
    probes: npt.NDArray[Any] | None
    products: npt.NDArray[Any] | None
    active: npt.NDArray[np.integer[Any]] | None
    masses: Float64 | None

    def atoms(self, n_atoms: int) -> npt.NDArray[np.integer[Any]]:
        """Indices of the atoms that the label covers."""
        return np.arange(n_atoms) if self.active is None else self.active

    def packed(self, n_atoms: int) -> npt.NDArray[np.floating[Any]]:
        """Return the packed matrix (n(n+1)/2,), eV/angstrom^2, of n_atoms atoms.

        Raises:
            HessianDataError: a shape that does not fit, or NaN.
        """
        matrix = np.asarray(self.matrix)
        if matrix.ndim == 1 and len(matrix) == packed_size(3 * n_atoms):
            packed = matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64)
        else:
            try:
                packed = pack(symmetrise(as_square(matrix.astype(np.float64), n_atoms))[0])
            except ValueError as exc:
                raise HessianDataError(str(exc)) from exc
        if not np.all(np.isfinite(packed)):
            raise HessianDataError(
                "hessian: expected finite numbers, found NaN or infinity; leave it out where it is missing"
            )
        return packed

    def stored(self, k: int | None, rng: np.random.Generator) -> tuple[Float64, Float64]:
        """Return up to k stored probes of norm 1 and their products, (k', 3n) over the atoms of the label.

        Probe and product are divided by the probe's norm. More than k are drawn from without replacement.

        Raises:
            HessianDataError: probes and products that do not fit together, or a probe of no length.
        """
        probes, products = np.asarray(self.probes, dtype=np.float64), np.asarray(self.products, dtype=np.float64)
        if probes.shape != products.shape or probes.ndim != 3:
            raise HessianDataError(
                f"stored products: expected probes and products of the same shape (k, N, 3), found {probes.shape} and "
                f"{products.shape}"
            )
        if self.active is not None:
            probes, products = probes[:, self.active], products[:, self.active]
        probes, products = probes.reshape(len(probes), -1), products.reshape(len(products), -1)
        if k is not None and k < len(probes):
            chosen = np.sort(rng.choice(len(probes), size=k, replace=False))
            probes, products = probes[chosen], products[chosen]
        norms = np.linalg.norm(probes, axis=1, keepdims=True)
        if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
            raise HessianDataError("stored products: expected finite probes above length 0, found NaN or a zero vector")
        return probes / norms, products / norms


def take_label(data: dict[str, Any], *, stored: bool) -> Label | None:
    """Take the label of a geometry out of its data.

    Args:
        data: one geometry; `hessian`, `hessian_active` and `hessian_mass` are removed
        stored: take the fields `hessian_probe` and `hessian_product` (N, 3k) instead of `hessian`

    Returns:
        The label, None where there is none.
    """
    matrix, active, masses = (
        data.pop(key, None) for key in (_keys.HESSIAN_KEY, _keys.HESSIAN_ACTIVE_KEY, _keys.HESSIAN_MASS_KEY)
    )
    active = None if active is None else np.asarray(active)
    masses = None if masses is None else np.asarray(masses, dtype=np.float64).ravel()
    if not stored:
        if matrix is None or not len(matrix):
            return None
        return Label(np.asarray(matrix), None, None, active, masses)
    probes, products = (_as_rows(data.pop(key, None)) for key in (_keys.HESSIAN_PROBE_KEY, _keys.HESSIAN_PRODUCT_KEY))
    if probes is None or products is None:
        return None
    # padding with zero probes or NaN products, as files of fixed width have it, is no label
    there = np.isfinite(products).any(axis=(1, 2)) & (probes != 0).any(axis=(1, 2))
    if not there.any():
        return None
    return Label(None, probes[there], products[there], active, masses)


def _as_rows(columns: Any) -> npt.NDArray[Any] | None:
    """(N, 3k) -> (k, N, 3)."""
    if columns is None:
        return None
    array = np.asarray(columns)
    if array.ndim != 2 or array.shape[1] % 3:
        raise HessianDataError(f"stored products: expected (N, 3k) numbers, found shape {array.shape}")
    return array.reshape(len(array), -1, 3).transpose(1, 0, 2)
