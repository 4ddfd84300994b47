"""HessianStore: read a store, one geometry or one packed Hessian at a time.

Nothing but the root attributes is read when a store is opened; each array is
opened when first asked for, once a process, so that a store can be handed to
data-loader workers, forked or spawned.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import unpack
from nequip_hessian.errors import StoreError
from nequip_hessian.record import KINDS, ROLES, LabelledGeometry, LevelOfTheory
from nequip_hessian.store.arrays import AnyArray, RowReader
from nequip_hessian.store.attributes import attributes_of, check_version, level_from_dict
from nequip_hessian.store.columns import Columns
from nequip_hessian.store.files import Files, array_attributes, location, open_files
from nequip_hessian.store.layout import PHONON, SPLIT_PREFIX, UNKNOWN_CHARGE, UNKNOWN_MULTIPLICITY
from nequip_hessian.store.reactions import Reaction, find_reactions

if TYPE_CHECKING:
    from nequip_hessian.store.files import Place


class HessianStore:
    """A Hessian store for reading; `store[i]` is a LabelledGeometry, `store.packed(i)` its packed Hessian alone.

    Units are those of the package: eV, angstrom, eV/angstrom, eV/angstrom^2, u, e, cm^-1. Arrays come
    read-only. The whole arrays (`store.energy`, `store.position`, ...) carry the names they have on disk
    and are kept once read; a missing optional one is `None`.

    Args:
        path: store directory or zip file, an address (`s3://bucket/store.zarr`, `https://...`), for which
            the extra `s3` is needed, or a Zarr store object (that of an icechunk session, say)
        mapped: read uncompressed local arrays by memory map (the numbers are the same without)

    Raises:
        StoreError: nothing there, no Hessian store, or one of another format version.
    """

    def __init__(self, path: Place, *, mapped: bool = True) -> None:
        self.path = location(path)
        self._mapped = mapped
        files = open_files(self.path)
        self.attributes: dict[str, Any] = attributes_of(files)
        check_version(self.attributes, str(files.path))
        self._files: Files | None = files  # for the first use, in this process
        self._files_pid, self._pid = os.getpid(), -1
        self._columns_now: Columns | None = None
        self._hessian: RowReader | None = None

    @property
    def _counts(self) -> dict[str, int]:
        counts = self.attributes.get("counts")
        names = {"G": "geometries", "A": "atoms", "M": "hessian_elements"}
        if not isinstance(counts, dict) or not all(type(counts.get(name)) is int for name in names.values()):
            raise StoreError(f"{self.path}: its attribute 'counts' is damaged: {counts!r}")
        return {symbol: counts[name] for symbol, name in names.items()}

    # -- processes and pickling --------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_mapped": self._mapped, "attributes": self.attributes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pid, self._columns_now, self._hessian, self._files = -1, None, None, None

    @property
    def _columns(self) -> Columns:
        if self._columns_now is None or self._pid != os.getpid():
            files = self._files if self._files is not None and self._files_pid == os.getpid() else None
            self._columns_now = Columns(files or open_files(self.path), mapped=self._mapped, counts=self._counts)
            self._hessian = self._files = None
            self._pid = os.getpid()
        return self._columns_now

    # -- one geometry ------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.atom_offset) - 1

    def __iter__(self) -> Iterator[LabelledGeometry]:
        return (self._record(i) for i in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> LabelledGeometry: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | AnyArray) -> list[LabelledGeometry]: ...
    def __getitem__(self, index: Any) -> LabelledGeometry | list[LabelledGeometry]:
        """Return one geometry (integer, also negative) or a list of them.

        Args:
            index: integer, slice, sequence or array of integers, boolean mask (G,), or a tensor of those

        Raises:
            IndexError: out of range. TypeError: no kind of index.
        """
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        try:
            one = operator.index(index)
        except TypeError:
            return [self._record(i) for i in self._many(index)]
        if isinstance(index, bool | np.bool_):
            raise TypeError("a single truth value is no index of a store")
        return self._record(self._check(one))

    def _many(self, index: Any) -> list[int]:
        values = np.asarray(index)
        if values.ndim == 1 and values.dtype == np.bool_:
            if len(values) != len(self):
                raise IndexError(f"boolean mask of length {len(values)} for a store of {len(self)} geometries")
            return np.flatnonzero(values).tolist()
        if values.ndim != 1 or (values.dtype.kind not in "iu" and len(values)):
            raise TypeError(
                f"expected an integer, slice, 1-D integers or a boolean mask, found {type(index).__name__} "
                f"of dtype {values.dtype} and shape {values.shape}"
            )
        return [self._check(i) for i in values.tolist()]

    def _check(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"geometry {index} of a store of {count} ({self.path})")
        return index % count

    def packed(self, index: int) -> AnyArray:
        """Return the packed Hessian of one geometry.

        Args:
            index: geometry, negative ones count from the end

        Returns:
            (n(n+1)/2,) read-only, float32 or float64 as on disk, eV/angstrom^2; element
            k = i(i+1)/2 + j for i >= j; a view of the memory map where possible; empty where
            the geometry has no Hessian.
        """
        offset = self.hessian_offset
        index = self._check(operator.index(index))
        if self._hessian is None or self._pid != os.getpid():
            self._hessian = self._columns.rows("hessian/data")
            if self._hessian is None:
                raise StoreError(f"{self.path}: the array hessian/data is missing")
        return self._hessian.rows(int(offset[index]), int(offset[index + 1]))

    def active(self, index: int) -> npt.NDArray[np.int32] | None:
        """Return the atoms of a partial Hessian, strictly increasing; `None` means all atoms."""
        found = self._slice("hessian/active_offset", "hessian/active_atom", self._check(operator.index(index)))
        return None if found is None or len(found) == 0 else found.astype(np.int32, copy=False)

    def label(self, index: int) -> str | None:
        """Return the label of a geometry, `None` where it has none."""
        return self._columns.text("geometry/label", self._check(operator.index(index)))

    def group_label(self, group: int) -> str | None:
        """Return the name of a group, `None` where it has none."""
        offset = self._columns.whole("geometry/group_label_offset")
        known = offset is not None and 0 <= group < len(offset) - 1
        return self._columns.text("geometry/group_label", int(group)) if known else None

    def _slice(self, offset_path: str, data_path: str, index: int) -> AnyArray | None:
        offset = self._columns.whole(offset_path)
        if offset is None:
            return None
        return self._columns.part(data_path, int(offset[index]), int(offset[index + 1]))

    def _atoms(self, path: str, index: int) -> AnyArray | None:
        """Return rows of an atom array, `None` where the array is missing or holds only NaN there."""
        value = self._slice("geometry/atom_offset", path, index)
        return None if value is None or (value.dtype.kind == "f" and bool(np.all(np.isnan(value)))) else value

    def _ragged(self, offset: str, data: str, index: int) -> AnyArray | None:
        value = self._slice(offset, data, index)
        return None if value is None or len(value) == 0 else value

    def _record(self, index: int) -> LabelledGeometry:
        try:
            return LabelledGeometry(**self._labels(index))
        except StoreError:
            raise
        except (ValueError, IndexError, TypeError) as exc:  # arrays that do not fit together, RecordError included
            raise StoreError(
                f"{self.path}: geometry {index}: {exc}; see what else is wrong: nequip-hessian validate {self.path}"
            ) from exc

    def _labels(self, i: int) -> dict[str, Any]:
        number = self._atoms("atom/number", i)
        if number is None:
            raise StoreError(f"{self.path}: the array atom/number is missing")
        packed = self.packed(i)
        probe, value = (self._ragged("product/row_offset", f"product/{name}", i) for name in ("probe", "value"))
        group = int(self.group[i])
        return {
            "numbers": number,
            "positions": self._slice("geometry/atom_offset", "atom/position", i),
            "cell": self.cell[i],
            "pbc": self.pbc[i],
            "charge": _known(self.charge, i, UNKNOWN_CHARGE),
            "multiplicity": _known(self.multiplicity, i, UNKNOWN_MULTIPLICITY),
            "energy": _number(self.energy, i),
            "forces": self._atoms("atom/force", i),
            "hessian": unpack(packed) if len(packed) else None,
            "asymmetry": _number(self.asymmetry, i) if len(packed) else None,
            "active": self.active(i),
            "masses": self._atoms("atom/mass", i),
            "born_charges": self._atoms("atom/born_charge", i),
            **self._phonon(i),
            "probes": None if probe is None else probe.reshape(-1, len(number), 3),
            "products": None if value is None else value.reshape(-1, len(number), 3),
            "dipole_derivatives": self._ragged("dipole/offset", "dipole/derivative", i),
            "frequencies": (printed := self._ragged("frequency/offset", "frequency/value", i)),
            "frequencies_projected": None if printed is None else self._projected,
            "kind": _name(KINDS, int(self.kind[i])),
            "role": _name(ROLES, int(self.role[i])),
            "group": None if group < 0 else self.group_label(group) or str(group),
            "path_coordinate": _number(self.path_coordinate, i),
            "label": self.label(i),
            "level": self.levels[int(self.level[i])],
            "provenance": {"source": str(self.path), "index": i},
        }

    def _phonon(self, index: int) -> dict[str, AnyArray]:
        found = {name: self._columns.part(f"phonon/{name}", index, index + 1) for name in PHONON}
        matrix = found["supercell_matrix"]
        if matrix is None or not np.any(matrix):  # zeros: no supercell of a phonon calculation
            return {}
        return {name: value[0] for name, value in found.items() if value is not None and not np.isnan(value).all()}

    @cached_property
    def _projected(self) -> bool | None:
        value = array_attributes(self._columns.files, "frequency/value").get("projected")
        return value if isinstance(value, bool) else None

    # -- the whole store ---------------------------------------------------------------------

    @cached_property
    def has_hessian(self) -> npt.NDArray[np.bool_]:
        """(G,) bool, which geometries have a Hessian."""
        return np.diff(self.hessian_offset) > 0

    @cached_property
    def levels(self) -> list[LevelOfTheory]:
        """Levels of theory; `store.level` counts them from 0."""
        found = self.attributes.get("levels_of_theory")
        if not isinstance(found, list):
            raise StoreError(f"{self.path}: its attribute 'levels_of_theory' is no list")
        return [level_from_dict(entry, str(self.path)) for entry in found]

    @cached_property
    def split_schemes(self) -> list[str]:
        """Names of the split schemes, sorted."""
        parts = (key.split("/") for key in self._columns.files.names() if key.startswith(SPLIT_PREFIX))
        return sorted(part[1] for part in parts if len(part) == 3 and part[2] == "zarr.json")

    def split(self, scheme: str) -> tuple[npt.NDArray[np.int8], tuple[str, ...]]:
        """Return the codes (G,) int8, -1 unused, and the part names they count from 0, of one split scheme.

        Raises:
            StoreError: no such scheme; the message names those there are.
        """
        codes = self._columns.whole(f"{SPLIT_PREFIX}{scheme}") if scheme in self.split_schemes else None
        if codes is None:
            known = ", ".join(self.split_schemes) or "none"
            raise StoreError(f"{self.path}: no split scheme {scheme!r}; it has: {known}")
        parts = array_attributes(self._columns.files, f"{SPLIT_PREFIX}{scheme}").get("parts")
        if not isinstance(parts, list) or (len(codes) and int(codes.max()) >= len(parts)):
            raise StoreError(f"{self.path}: split {scheme!r}: its attribute 'parts' does not name all its codes")
        return codes, tuple(str(part) for part in parts)

    def reactions(self) -> list[Reaction]:
        """Return the groups that carry roles or a path coordinate, in the order of their group number."""
        return find_reactions(self.group, self.role, self.path_coordinate, self.group_label)

    # -- arrays, names as on disk ------------------------------------------------------------

    def array(self, path: str) -> AnyArray | None:
        """Return a whole array by its path in the layout, e.g. `dipole/offset`; `None` where it is missing."""
        return self._columns.whole(path)

    @property
    def atom_offset(self) -> npt.NDArray[np.int64]:
        """(G+1,) int64."""
        return self._columns.required("geometry/atom_offset")

    @property
    def hessian_offset(self) -> npt.NDArray[np.int64]:
        """(G+1,) int64, in elements of the packed data."""
        return self._columns.required("hessian/offset")

    @property
    def energy(self) -> npt.NDArray[np.float64]:
        """(G,) float64, eV, NaN missing."""
        return self._columns.required("geometry/energy")

    @property
    def charge(self) -> npt.NDArray[np.int16] | None:
        """(G,) int16, e, -32768 unknown."""
        return self._columns.whole("geometry/charge")

    @property
    def multiplicity(self) -> npt.NDArray[np.int16] | None:
        """(G,) int16, 2S + 1, 0 unknown."""
        return self._columns.whole("geometry/multiplicity")

    @property
    def cell(self) -> npt.NDArray[np.float64]:
        """(G, 3, 3) float64, angstrom, rows are the vectors."""
        return self._columns.required("geometry/cell")

    @property
    def pbc(self) -> npt.NDArray[np.bool_]:
        """(G, 3) bool."""
        return self._columns.required("geometry/pbc")

    @property
    def level(self) -> npt.NDArray[np.uint16]:
        """(G,) uint16, index into `levels`."""
        return self._columns.required("geometry/level")

    @property
    def group(self) -> npt.NDArray[np.int64]:
        """(G,) int64, dense from 0, -1 none."""
        return self._columns.required("geometry/group")

    @property
    def kind(self) -> npt.NDArray[np.int8]:
        """(G,) int8, index into `record.KINDS`, -1 unknown."""
        return self._columns.required("geometry/kind")

    @property
    def role(self) -> npt.NDArray[np.int8]:
        """(G,) int8, index into `record.ROLES`, -1 none."""
        return self._columns.required("geometry/role")

    @property
    def path_coordinate(self) -> npt.NDArray[np.float64] | None:
        """(G,) float64, u^(1/2) angstrom, NaN none."""
        return self._columns.whole("geometry/path_coordinate")

    @property
    def number(self) -> npt.NDArray[np.uint8]:
        """(A,) uint8, atomic numbers."""
        return self._columns.required("atom/number")

    @property
    def position(self) -> npt.NDArray[np.float64]:
        """(A, 3) float64, angstrom."""
        return self._columns.required("atom/position")

    @property
    def force(self) -> AnyArray:
        """(A, 3) float32 or float64, eV/angstrom, NaN missing."""
        return self._columns.required("atom/force")

    @property
    def mass(self) -> npt.NDArray[np.float64] | None:
        """(A,) float64, u, NaN missing."""
        return self._columns.whole("atom/mass")

    @property
    def asymmetry(self) -> npt.NDArray[np.float32]:
        """(G,) float32, max|H - H^T| before symmetrising, eV/angstrom^2, NaN unknown."""
        return self._columns.required("hessian/asymmetry")


def _known(values: AnyArray | None, index: int, unknown: int) -> int | None:
    return None if values is None or values[index] == unknown else int(values[index])


def _number(values: AnyArray | None, index: int) -> float | None:
    return None if values is None or np.isnan(values[index]) else float(values[index])


def _name(names: Sequence[str], code: int) -> str | None:
    if code >= len(names):
        raise IndexError(f"code {code} names none of {', '.join(names)}")
    return None if code < 0 else names[code]
