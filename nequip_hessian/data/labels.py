"""The Hessian label of one geometry as it comes in: a matrix in any customary shape, or stored products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from nequip.data import AtomicDataDict

from nequip_hessian import _keys
from nequip_hessian.checks import ASYMMETRY_REFUSAL, ASYMMETRY_WARNING
from nequip_hessian.curvature import as_square, pack, packed_size, symmetrise
from nequip_hessian.errors import HessianDataError
from nequip_hessian.identities import translation_residual
from nequip_hessian.limits import largest_translation

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


def describe(data: dict[str, Any]) -> str:
    """Say which geometry the data are of: index in its store where known, formula, and where its first atom is."""
    positions = np.asarray(data[AtomicDataDict.POSITIONS_KEY]).reshape(-1, 3)
    numbers = data.get(AtomicDataDict.ATOMIC_NUMBERS_KEY)
    name = f"of {len(positions)} atoms"
    if numbers is not None:
        name = Atoms(numbers=np.asarray(numbers).ravel()).get_chemical_formula()
    index = data.get(_keys.HESSIAN_GEOMETRY_KEY)
    if index is not None:
        return f"geometry {int(np.asarray(index).ravel()[0])} ({name})"
    place = ", ".join(f"{x:.6g}" for x in positions[0]) if len(positions) else ""
    return f"geometry {name} (first atom at {place} angstrom)"


def no_label(data: dict[str, Any], *, stored: bool) -> str:
    """Say why a geometry has no label although each was said to have one.

    Args:
        data: one geometry, before its label is taken
        stored: whether stored products are looked for
    """
    wanted = (_keys.HESSIAN_PROBE_KEY, _keys.HESSIAN_PRODUCT_KEY) if stored else (_keys.HESSIAN_KEY,)
    what = " and ".join(f"`{name}`" for name in wanted)
    return (
        f"{describe(data)}: expected the field {what}, found the fields {', '.join(sorted(data))}. Is it misspelt in "
        f"the file, or missing from include_keys: [{', '.join(wanted)}] of the dataset (key_mapping renames a field)? "
        "Where only a share of the geometries has one, set labelled_fraction of the transform to that share"
    )


def unsound(matrix: npt.NDArray[Any], n_atoms: int, *, partial: bool) -> tuple[bool, str] | None:
    """Hold a raw matrix against its symmetry and the translational sum rule, with the limits of `convert`.

    Args:
        matrix: of any customary shape, eV/angstrom^2
        n_atoms: number of atoms that it covers
        partial: its surroundings are held fixed, so that it has no sum rule

    Returns:
        whether the matrix is no Hessian, and why; None where it is sound, or of a shape that is refused elsewhere.
    """
    try:
        square = as_square(np.asarray(matrix, dtype=np.float64), n_atoms)
    except ValueError:
        return None
    size = float(np.max(np.abs(square), initial=0.0))
    asymmetry = symmetrise(square)[1]
    if asymmetry > ASYMMETRY_REFUSAL * size:
        return True, f"max|H - H^T| is {asymmetry:.3g} eV/angstrom^2 at elements up to {size:.3g}: it is not symmetric"
    if asymmetry > ASYMMETRY_WARNING:
        return False, f"its asymmetry is {asymmetry:.2g} eV/angstrom^2; the symmetric part is taken"
    residual = 0.0 if partial or n_atoms < 2 else translation_residual(square)
    if residual > largest_translation(square):
        return False, (
            f"its block columns do not sum to zero ({residual:.3g} eV/angstrom^2 at elements up to {size:.3g}): atoms "
            "in another order, mass-weighted, or partial (then give hessian_active)?"
        )
    return None


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
