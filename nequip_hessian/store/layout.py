"""The layout of a `hessian_zarr` store: one table of arrays, and the names around it.

The normative text is `schemas/SPEC.md`, the machine-readable one
`schemas/v0.1/*.schema.json`; a test holds this table against both. Symbols in
a shape: G geometries, A atoms in total, M packed Hessian elements, K groups,
C active atoms, R product rows, D dipole rows, F frequencies, L and B bytes of
geometry and group labels. `X+1` is an offset array: it starts with 0, never
falls and ends with the length of what it cuts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

import numpy as np

from nequip_hessian.record import KINDS, ROLES

NAME: Final = "hessian_zarr"
SCHEMA_FOLDER: Final = "v0.1"
_ROOT_SCHEMA: Final = json.loads((files("nequip_hessian.schemas") / SCHEMA_FOLDER / "root.schema.json").read_text())
VERSION: Final[str] = _ROOT_SCHEMA["$defs"]["hessian_zarr"]["properties"]["version"]["const"]
"""Said in one place, the schema; a release changes that line and nothing else."""
READ_TOO: Final = {"0.1": ("0.1.dev",)}
"""Versions that are read like a later one, as what they say is the same; `repack` writes the later one."""

UUID: Final = "2a1c1ede-fa31-42b1-a1ce-28e9ce30a5ae"
"""Identity of the convention in `zarr_conventions`; fixed for ever."""

DESCRIPTION: Final = "Labelled geometries with symmetric Cartesian Hessians, ragged and packed"
SPLIT_PREFIX: Final = "split/"
EXTRA_GROUP: Final = "extra"
"""Arrays below this group are nobody's business but the author's."""

UNKNOWN_CHARGE: Final = -32768
UNKNOWN_MULTIPLICITY: Final = 0
NONE: Final = -1
FLOATS: Final = ("float64", "float32")


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store.

    Attributes:
        path: its place below the root
        dtypes: Zarr data types that are allowed, the first one is the usual one
        shape: symbols (see the module) and numbers
        units: unit, `None` where there is none
        required: whether each store has it
        fill: value of what is missing, also the Zarr fill value
        constants: further attributes with one allowed value
        free: names of further attributes whose value is the writer's
    """

    path: str
    dtypes: tuple[str, ...]
    shape: tuple[str | int, ...]
    units: str | None = None
    required: bool = False
    fill: float | int | bool = 0
    constants: Mapping[str, Any] = field(default_factory=dict)
    free: tuple[str, ...] = ()

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes each array of this kind carries."""
        return {**({"units": self.units} if self.units else {}), **self.constants}

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row, i.e. without the first axis."""
        return tuple(int(size) for size in self.shape[1:])


_NAN = float("nan")
_INT64 = ("int64",)
_FLOAT64 = ("float64",)
_PACKED = {"packing": "lower_row_major", "sign": "+d2E/dxdx", "order": "atom,xyz"}

ARRAYS: Final = (
    ArraySpec("geometry/atom_offset", _INT64, ("G+1",), required=True),
    ArraySpec("geometry/energy", _FLOAT64, ("G",), "eV", True, _NAN),
    ArraySpec("geometry/charge", ("int16",), ("G",), "e", False, UNKNOWN_CHARGE),
    ArraySpec("geometry/multiplicity", ("int16",), ("G",), None, False, UNKNOWN_MULTIPLICITY),
    ArraySpec("geometry/cell", _FLOAT64, ("G", 3, 3), "angstrom", True, 0.0),
    ArraySpec("geometry/pbc", ("bool",), ("G", 3), None, True, False),
    ArraySpec("geometry/level", ("uint16",), ("G",), None, True, 0),
    ArraySpec("geometry/group", _INT64, ("G",), None, True, NONE),
    ArraySpec("geometry/kind", ("int8",), ("G",), None, True, NONE, {"categories": list(KINDS)}),
    ArraySpec("geometry/role", ("int8",), ("G",), None, True, NONE, {"categories": list(ROLES)}),
    ArraySpec("geometry/path_coordinate", _FLOAT64, ("G",), "u^(1/2) angstrom", False, _NAN),
    ArraySpec("geometry/label_offset", _INT64, ("G+1",)),
    ArraySpec("geometry/label_data", ("uint8",), ("L",), constants={"encoding": "utf-8"}),
    ArraySpec("geometry/group_label_offset", _INT64, ("K+1",)),
    ArraySpec("geometry/group_label_data", ("uint8",), ("B",), constants={"encoding": "utf-8"}),
    ArraySpec("atom/number", ("uint8",), ("A",), required=True),
    ArraySpec("atom/position", _FLOAT64, ("A", 3), "angstrom", True, _NAN),
    ArraySpec("atom/force", FLOATS, ("A", 3), "eV/angstrom", True, _NAN),
    ArraySpec("atom/mass", _FLOAT64, ("A",), "u", False, _NAN),
    ArraySpec("atom/born_charge", _FLOAT64, ("A", 3, 3), "e", False, _NAN),
    ArraySpec("hessian/offset", _INT64, ("G+1",), required=True),
    ArraySpec("hessian/data", FLOATS, ("M",), "eV/angstrom^2", True, _NAN, _PACKED),
    ArraySpec("hessian/asymmetry", ("float32",), ("G",), "eV/angstrom^2", True, _NAN),
    ArraySpec("hessian/active_offset", _INT64, ("G+1",)),
    ArraySpec("hessian/active_atom", ("int32",), ("C",)),
    ArraySpec("product/row_offset", _INT64, ("G+1",)),
    ArraySpec("product/probe", FLOATS, ("R", 3), None, False, _NAN),
    ArraySpec("product/value", FLOATS, ("R", 3), "eV/angstrom^2", False, _NAN, {"sign": "+d2E/dxdx"}),
    ArraySpec("dipole/offset", _INT64, ("G+1",)),
    ArraySpec("dipole/derivative", FLOATS, ("D", 3), "e", False, _NAN, {"order": "atom,xyz"}),
    ArraySpec("frequency/offset", _INT64, ("G+1",)),
    ArraySpec("frequency/value", FLOATS, ("F",), "cm^-1", False, _NAN, {}, ("projected",)),
    ArraySpec("phonon/supercell_matrix", ("int32",), ("G", 3, 3)),
    ArraySpec("phonon/primitive_matrix", _FLOAT64, ("G", 3, 3), None, False, _NAN),
    ArraySpec("phonon/dielectric", _FLOAT64, ("G", 3, 3), None, False, _NAN),
)
BY_PATH: Final = {spec.path: spec for spec in ARRAYS}

QUALITY_GROUP: Final = f"{EXTRA_GROUP}/quality"
QUALITY: Final = (
    ArraySpec(f"{QUALITY_GROUP}/largest", ("float32",), ("G",), "eV/angstrom^2", False, _NAN),
    ArraySpec(f"{QUALITY_GROUP}/translation", ("float32",), ("G",), "eV/angstrom^2", False, _NAN),
    ArraySpec(f"{QUALITY_GROUP}/rotation", ("float32",), ("G",), "eV/angstrom", False, _NAN),
    ArraySpec(f"{QUALITY_GROUP}/frequency", ("float32",), ("G",), "cm^-1", False, _NAN),
)
"""What this package adds to a store on its own account: residuals of each label, see section 16 of the text."""
WRITTEN: Final = {**BY_PATH, **{spec.path: spec for spec in QUALITY}}
"""All arrays that are written a geometry at a time; those of QUALITY are none of the layout, and have no checksum."""
SPLIT: Final = ArraySpec("split/<scheme>", ("int8",), ("G",), None, False, NONE, {}, ("parts",))

PHONON: Final = ("supercell_matrix", "primitive_matrix", "dielectric")
"""Arrays of the group `phonon`, all of them (G, 3, 3)."""

RAGGED: Final = {
    "geometry/atom_offset": ("atom/number", "atom/position", "atom/force", "atom/mass", "atom/born_charge"),
    "geometry/label_offset": ("geometry/label_data",),
    "geometry/group_label_offset": ("geometry/group_label_data",),
    "hessian/offset": ("hessian/data",),
    "hessian/active_offset": ("hessian/active_atom",),
    "product/row_offset": ("product/probe", "product/value"),
    "dipole/offset": ("dipole/derivative",),
    "frequency/offset": ("frequency/value",),
}
"""Which arrays each offset array cuts; an offset array and what it cuts come together."""

_DIMENSIONS: Final = {
    "G": "geometry",
    "G+1": "geometry_boundary",
    "A": "atom",
    "M": "packed_element",
    "K+1": "group_boundary",
    "C": "active_atom",
    "R": "product_row",
    "D": "dipole_row",
    "F": "frequency",
    "L": "label_byte",
    "B": "group_label_byte",
}


def spec_of(path: str) -> ArraySpec | None:
    """Return the table entry of an array path, `None` where the convention knows no such array."""
    if path in BY_PATH:
        return BY_PATH[path]
    name = path.removeprefix(SPLIT_PREFIX)
    return SPLIT if path.startswith(SPLIT_PREFIX) and name and "/" not in name else None


def dimension_names(spec: ArraySpec) -> list[str]:
    """Return the Zarr dimension names of an array, e.g. `["atom", "xyz"]`."""
    rest = {1: ["xyz"], 2: ["vector", "xyz"]}.get(len(spec.shape) - 1, [])
    return [_DIMENSIONS[str(spec.shape[0])], *rest]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the little-endian numpy dtype of a Zarr data type name."""
    return np.dtype(name).newbyteorder("<")
