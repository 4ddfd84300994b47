"""One row of an ASE database, of whatever backend, as a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._source import Source, provenance, stem
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

KEYS: Final = ("hessian", "Hessian", "force_constants")
"""Names in a row's `data` under which a Hessian is looked for, in this order."""

_TEXTS: Final = ("kind", "role", "group", "label")
_NUMBERS: Final = ("charge", "multiplicity", "path_coordinate")


def record_of(source: Source, name: str, row: Mapping[str, Any], index: int) -> LabelledGeometry:
    """Make a record of a row.

    Args:
        source: the database
        name: name of the format module
        row: numbers, positions, cell, pbc, energy, forces, masses, key_value_pairs and data, in ASE's units
        index: id of the row

    Raises:
        FormatError: arrays that do not fit; the message names the row.
    """
    pairs, data = row.get("key_value_pairs") or {}, row.get("data") or {}
    if not isinstance(pairs, Mapping) or not isinstance(data, Mapping):
        raise FormatError(f"{source.path}: row {index}: key_value_pairs and data: expected names with values")
    known = {**data, **pairs}
    numbers = np.asarray(row["numbers"])
    matrix = next((data[key] for key in KEYS if data.get(key) is not None), None)
    cell = np.asarray(row.get("cell", np.zeros((3, 3))), dtype=np.float64)
    fields: dict[str, Any] = {key: str(known[key]) for key in _TEXTS if known.get(key) not in (None, "")}
    fields |= {key: known[key] for key in _NUMBERS if known.get(key) is not None}
    fields.setdefault("label", f"{stem(source.path)}-{index}")
    level: dict[str, Any] = {
        key: str(known[key]) for key in ("method", "basis", "dispersion", "solvation", "program") if key in known
    }
    energy, forces = row.get("energy"), row.get("forces")
    forces = None if forces is None else np.asarray(forces)
    if forces is not None and matrix is not None and not np.any(forces):
        forces = None  # written as zeros where there were none: no calculation gives exact zeros
    masses = row.get("masses")
    try:
        return LabelledGeometry(
            numbers=numbers,
            positions=np.asarray(row["positions"], dtype=np.float64),
            cell=cell if cell.any() else None,
            pbc=np.asarray(row.get("pbc", False), dtype=bool),
            energy=None if energy is None else float(np.asarray(energy).ravel()[0]),
            forces=forces,
            hessian=None if matrix is None else np.asarray(matrix),
            masses=None if masses is None else np.asarray(masses, dtype=np.float64),
            active=None if known.get("active") is None else np.asarray(known["active"]).astype(int),
            level=LevelOfTheory(**{"method": "unknown", **level}),
            provenance=provenance(
                source,
                name,
                {
                    "positions": ("angstrom", 1.0),
                    "energy": ("eV", 1.0),
                    "forces": ("eV/angstrom", 1.0),
                    "hessian": ("eV/angstrom^2", 1.0),
                },
                index=index,
            ),
            **fields,
        )
    except (ValueError, TypeError) as exc:
        raise FormatError(f"{source.path}: row {index}: {exc}") from exc
