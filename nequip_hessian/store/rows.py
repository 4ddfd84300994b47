"""One labelled geometry as rows of the store's arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import pack
from nequip_hessian.errors import StoreError
from nequip_hessian.record import KINDS, ROLES, LabelledGeometry
from nequip_hessian.store.layout import QUALITY, QUALITY_GROUP

AnyArray = npt.NDArray[Any]

GEOMETRY: Final = "geometry"
ATOM: Final = "atom"


def utf8(text: str) -> npt.NDArray[np.uint8]:
    """Return the UTF-8 bytes of a text."""
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _one(value: Any, dtype: Any) -> AnyArray | None:
    return None if value is None else np.array([value], dtype=dtype)


def _row(value: AnyArray | None) -> AnyArray | None:
    return None if value is None else value[None]


def _row_or_nan(value: AnyArray | None) -> AnyArray:
    return np.full((1, 3, 3), np.nan) if value is None else value[None]


def rows_of(record: LabelledGeometry) -> dict[str, AnyArray | None]:
    """Return the rows a record adds to each array, `None` where it has no such label.

    Offsets, `geometry/level` and `geometry/group` are the writer's, who knows what came before.
    """
    return {
        "geometry/energy": _one(record.energy, np.float64),
        "geometry/charge": _one(record.charge, np.int16),
        "geometry/multiplicity": _one(record.multiplicity, np.int16),
        "geometry/cell": np.asarray(record.cell)[None],
        "geometry/pbc": np.asarray(record.pbc)[None],
        "geometry/kind": _one(None if record.kind is None else KINDS.index(record.kind), np.int8),
        "geometry/role": _one(None if record.role is None else ROLES.index(record.role), np.int8),
        "geometry/path_coordinate": _one(record.path_coordinate, np.float64),
        "geometry/label_data": None if record.label is None else utf8(record.label),
        "atom/number": record.numbers,
        "atom/position": record.positions,
        "atom/force": record.forces,
        "atom/mass": record.masses,
        "atom/born_charge": record.born_charges,
        "phonon/supercell_matrix": _row(record.supercell_matrix),
        "phonon/primitive_matrix": None if record.supercell_matrix is None else _row_or_nan(record.primitive_matrix),
        "phonon/dielectric": _row(record.dielectric),
        "hessian/data": None if record.hessian is None else pack(record.hessian),
        "hessian/asymmetry": _one(record.asymmetry, np.float32),
        "hessian/active_atom": record.active,
        "product/probe": None if record.probes is None else record.probes.reshape(-1, 3),
        "product/value": None if record.products is None else record.products.reshape(-1, 3),
        "dipole/derivative": record.dipole_derivatives,
        "frequency/value": record.frequencies,
    }


def quality_rows(quality: Mapping[str, float | None]) -> dict[str, AnyArray | None]:
    """Return the rows that the residuals of a label add below `extra/quality`, `None` where one is not known.

    Raises:
        StoreError: a name that the layout does not have.
    """
    known = {spec.path.removeprefix(f"{QUALITY_GROUP}/"): spec.path for spec in QUALITY}
    unknown = sorted(set(quality) - set(known))
    if unknown:
        raise StoreError(f"quality: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return {path: _one(quality.get(name), np.float32) for name, path in known.items()}
