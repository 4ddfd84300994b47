"""What is in a store, in numbers: the facts behind `nequip-hessian info`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.record import KINDS, ROLES, LevelOfTheory
from nequip_hessian.store.layout import QUALITY_GROUP, UNKNOWN_CHARGE, UNKNOWN_MULTIPLICITY
from nequip_hessian.store.quality import quality
from nequip_hessian.store.reactions import Reaction
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.remote import as_url

MOST_BINS: Final = 10
Histogram = list[tuple[str, int]]


def summarise(path: str | Path) -> dict[str, Any]:
    """Summarise a store; reads the small arrays, no Hessian.

    Args:
        path: store directory or zip file

    Returns:
        JSON-able: `path`, `version`, `title`, `license`, `counts`, `bytes`, `elements` (symbol -> atoms),
        `atoms_per_geometry`, `charges`, `levels_of_theory` (with the number of geometries), `kinds`, `roles`,
        `labels` and `further` (label -> geometries that have it; the second ones are not on a card), `splits`,
        `reactions` (energies in eV relative to the reactant), `largest_force` (eV/angstrom) and `asymmetry`
        (eV/angstrom^2): quantiles over geometries;
        `quality`: the same of the residuals below `extra/quality`, none where the store has none.

    Raises:
        StoreError: no readable store.
    """
    from ase.data import chemical_symbols

    store = HessianStore(path)
    numbers, per_element = np.unique(store.number, return_counts=True)
    sizes, per_size = np.unique(np.diff(store.atom_offset), return_counts=True)
    names = level_names(store.levels)
    levels = [
        {
            "index": index,
            "name": names[index],
            **level.as_dict(),
            "geometries": int(np.count_nonzero(store.level == index)),
        }
        for index, level in enumerate(store.levels)
    ]
    attributes = store.attributes
    return {
        "path": str(path),
        **{key: attributes.get(key) for key in ("version", "id", "title", "license", "doi", "counts")},
        "bytes": None if as_url(path) else _bytes(Path(path)),
        "hessian_dtype": str(store.packed(0).dtype.name),
        "elements": {
            chemical_symbols[n]: int(count) for n, count in zip(numbers.tolist(), per_element.tolist(), strict=True)
        },
        "atoms_per_geometry": {str(n): int(count) for n, count in zip(sizes, per_size, strict=True)},
        "periodic": int(np.count_nonzero(store.pbc.any(axis=1))),
        "charges": _charges(store),
        "levels_of_theory": levels,
        "kinds": _codes(store.kind, KINDS),
        "roles": _codes(store.role, ROLES),
        "labels": _labels(store),
        "further": _further(store),
        "largest_force": _quantiles(largest_forces(store)),
        "asymmetry": _quantiles(store.asymmetry),
        "quality": _quality(store),
        "splits": {scheme: _split(store, scheme) for scheme in store.split_schemes},
        "reactions": [_energies(store, reaction) for reaction in store.reactions()],
    }


def level_names(levels: Sequence[LevelOfTheory]) -> list[str]:
    """Name levels of theory, e.g. `B3LYP/def2-SVP`; names that would be the same say in what they differ."""
    names = ["/".join(part for part in (level.method, level.basis) if part) for level in levels]
    values: dict[str, dict[str, set[Any]]] = {}
    for name, level in zip(names, levels, strict=True):
        for key, value in level.as_dict().items():
            values.setdefault(name, {}).setdefault(key, set()).add(value)
    found = []
    for name, level in zip(names, levels, strict=True):
        apart = {key: value for key, value in level.as_dict().items() if len(values[name][key]) > 1}
        texts = [f"{key.replace('_', ' ')} {'unknown' if value is None else value}" for key, value in apart.items()]
        found.append(f"{name} ({', '.join(texts)})" if texts else name)
    return found


def largest_forces(store: HessianStore) -> npt.NDArray[np.float64]:
    """Return the largest force component of each geometry (G,), eV/angstrom, NaN where one is missing."""
    rows = np.abs(np.asarray(store.force, dtype=np.float64)).max(axis=1)
    return np.maximum.reduceat(rows, store.atom_offset[:-1])


def _quantiles(values: npt.ArrayLike) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if not len(array):
        return {}
    found = np.quantile(array, [0.0, 0.5, 0.95, 1.0])
    return dict(zip(("least", "median", "95 %", "most"), found.tolist(), strict=True))


def _quality(store: HessianStore) -> dict[str, dict[str, float]]:
    found = {path.removeprefix(f"{QUALITY_GROUP}/"): _quantiles(values) for path, values in quality(store).items()}
    return {name: quantiles for name, quantiles in found.items() if quantiles}


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _codes(values: npt.NDArray[np.int8], names: tuple[str, ...]) -> dict[str, int]:
    found = {name: int(np.count_nonzero(values == code)) for code, name in enumerate(names)}
    found["none"] = int(np.count_nonzero(values < 0))
    return {name: count for name, count in found.items() if count}


def _charges(store: HessianStore) -> dict[str, int]:
    if store.charge is None:
        return {"unknown": len(store)}
    values, counts = np.unique(store.charge, return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    return {
        "unknown" if value == UNKNOWN_CHARGE else f"{value:+d}" if value else "0": int(count) for value, count in pairs
    }


def _labels(store: HessianStore) -> dict[str, int]:
    starts = store.atom_offset[:-1]
    forces = np.logical_and.reduceat(~np.isnan(store.force).any(axis=1), starts)
    found = {
        "energy": int(np.count_nonzero(~np.isnan(store.energy))),
        "forces": int(np.count_nonzero(forces)),
        "hessian": int(np.count_nonzero(store.has_hessian)),
    }
    for name, offset in (
        ("partial hessian", "hessian/active_offset"),
        ("hessian products", "product/row_offset"),
        ("dipole derivatives", "dipole/offset"),
        ("printed frequencies", "frequency/offset"),
        ("name", "geometry/label_offset"),
    ):
        values = store.array(offset)
        found[name] = 0 if values is None else int(np.count_nonzero(np.diff(values)))
    return found


def _further(store: HessianStore) -> dict[str, int]:
    """Count the geometries that have what is neither a label of a card nor in every store, zeros left out."""
    starts = store.atom_offset[:-1]
    found = {}
    for name, path, missing in (
        ("multiplicity", "geometry/multiplicity", UNKNOWN_MULTIPLICITY),
        ("path coordinate", "geometry/path_coordinate", None),
        ("masses", "atom/mass", None),
        ("born charges", "atom/born_charge", None),
        ("supercell matrix", "phonon/supercell_matrix", 0),
        ("primitive matrix", "phonon/primitive_matrix", None),
        ("dielectric tensor", "phonon/dielectric", None),
    ):
        values = store.array(path)
        if values is None:
            continue
        known = ~np.isnan(values) if missing is None else values != missing
        known = known.any(axis=tuple(range(1, known.ndim)))
        known = np.logical_or.reduceat(known, starts) if path.startswith("atom/") else known
        found[name] = int(np.count_nonzero(known))
    return {name: count for name, count in found.items() if count}


def _split(store: HessianStore, scheme: str) -> dict[str, int]:
    codes, parts = store.split(scheme)
    found = {part: int(np.count_nonzero(codes == code)) for code, part in enumerate(parts)}
    unused = int(np.count_nonzero(codes < 0))
    return {**found, "unused": unused} if unused else found


def _energies(store: HessianStore, reaction: Reaction) -> dict[str, Any]:
    start = None if reaction.reactant is None else float(store.energy[reaction.reactant])

    def relative(geometry: int | None) -> float | None:
        if geometry is None or start is None:
            return None
        value = float(store.energy[geometry]) - start
        return None if np.isnan(value) else value

    return {
        "group": reaction.group,
        "label": reaction.label,
        "reactant": reaction.reactant,
        "transition_state": reaction.transition_state,
        "product": reaction.product,
        "path_points": len(reaction.path),
        "barrier": relative(reaction.transition_state),
        "reaction_energy": relative(reaction.product),
    }


def histogram(values: npt.ArrayLike, unit: str = "", bins: int = MOST_BINS) -> Histogram:
    """Count values in bins of one width; integers with few distinct values get a bin each.

    Args:
        values: (n,) numbers; NaN are left out
        unit: written behind the edges
        bins: at most so many bins; fewer where there are few values

    Returns:
        (label, count) pairs in ascending order.
    """
    array = np.asarray(values)
    array = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    if len(array) == 0:
        return []
    bins = min(bins, math.ceil(math.log2(len(array))) + 1)  # Sturges
    distinct, counts = np.unique(array, return_counts=True)
    if array.dtype.kind in "iu" and len(distinct) <= MOST_BINS:
        return [(f"{value}{unit}", int(count)) for value, count in zip(distinct, counts, strict=True)]
    if array.dtype.kind in "iu":
        return _of_integers(array, unit, bins)
    if len(distinct) == 1:
        return [(f"{distinct[0]:.4g}{unit}", int(counts[0]))]
    counts, edges = np.histogram(array, bins=bins)
    return [
        (f"{low:.4g} to {high:.4g}{unit}", int(count))
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _of_integers(array: npt.NDArray[Any], unit: str, bins: int) -> Histogram:
    """Count integers in at most so many bins, each of the same number of integers, named by its first and last."""
    low, high = int(array.min()), int(array.max())
    width = -(-(high - low + 1) // bins)
    counts = np.bincount((array - low) // width)
    firsts = [low + width * k for k in range(len(counts))]
    names = [f"{first} to {min(first + width - 1, high)}" if width > 1 else f"{first}" for first in firsts]
    return [(f"{name}{unit}", int(count)) for name, count in zip(names, counts, strict=True)]
