"""Labelled geometries into the growing arrays of an unfinished store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from nequip_hessian.curvature import unpack
from nequip_hessian.errors import StoreError
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store.attributes import level_from_dict
from nequip_hessian.store.layout import BY_PATH, NONE, RAGGED, WRITTEN
from nequip_hessian.store.rows import AnyArray, quality_rows, rows_of, utf8
from nequip_hessian.store.spool import Spool

FOLLOWS_DTYPE: Final = ("hessian/data", "product/probe", "product/value")
"""Arrays whose data type a writer's `dtype` sets; forces and dipole derivatives keep their source's."""

_OPTIONAL_OFFSETS: Final = {data[0]: offset for offset, data in RAGGED.items() if not BY_PATH[offset].required}
_ALWAYS: Final = tuple(spec.path for spec in BY_PATH.values() if spec.required)


_GEOMETRY: Final = (
    ("geometry/atom_offset", "atom/number"),
    ("geometry/atom_offset", "atom/position"),
    ("geometry/atom_offset", "atom/force"),
    ("hessian/offset", "hessian/data"),
    ("hessian/active_offset", "hessian/active_atom"),
)


class Appender:
    """Appends records to a spool and keeps count of levels of theory and groups.

    Attributes:
        between: between two records, where what is buffered is consistent
        groups: group name -> number, in the order of appearance

    Args:
        spool: the growing arrays, new or resumed
        dtype: `float32` or `float64` for the arrays of FOLLOWS_DTYPE, `None`: as the sources
    """

    def __init__(self, spool: Spool, dtype: str | None) -> None:
        self._spool, self._dtype = spool, dtype
        self.between = True
        if "geometries" not in spool.state:
            spool.state.update(geometries=0, atoms=0, levels=[], projected=[])
            for path in _ALWAYS:
                if path not in ("hessian/data", "atom/force"):
                    spool.start(BY_PATH[path], BY_PATH[path].dtypes[0], 0)
            for offset in ("geometry/atom_offset", "hessian/offset"):
                spool.append(offset, np.zeros(1, dtype=np.int64))
            spool.flush()
        self._levels = [level_from_dict(entry, str(spool.folder)) for entry in spool.state["levels"]]
        self.groups = {name: i for i, name in enumerate(self.texts("geometry/group_label"))}

    def __len__(self) -> int:
        return int(self._spool.state["geometries"])

    def append(self, record: LabelledGeometry, quality: Mapping[str, float | None] | None = None) -> None:
        """Append one geometry; what it raises, it raises before anything is appended.

        Args:
            record: the geometry
            quality: its residuals, see `StoreWriter.append`
        """
        if not isinstance(record, LabelledGeometry):
            raise StoreError(f"geometry {len(self)}: expected a LabelledGeometry, found {type(record).__name__}")
        if record.level not in self._levels and len(self._levels) == 65536:
            raise StoreError("more than 65536 levels of theory; what differs from record to record is no level")
        rows = {**rows_of(record), **quality_rows(quality or {})}
        self._promote(rows)
        self.between = False
        rows["geometry/level"] = np.array([self._level(record.level)], dtype=np.uint16)
        rows["geometry/group"] = np.array([NONE if record.group is None else self._group(record.group)], dtype=np.int64)
        self._append_rows(rows, len(record))
        projected = self._spool.state["projected"]
        if record.frequencies is not None and record.frequencies_projected not in projected:
            projected.append(record.frequencies_projected)
        self.between = True
        self._spool.flush_if_full()

    def finish(self) -> None:
        """Begin the required arrays that no record began, and write everything out."""
        for path in ("hessian/data", "atom/force"):
            if not self._spool.started(path):
                self._spool.start(BY_PATH[path], self._dtype or "float64", 0)
        self._spool.flush()

    def texts(self, stem: str) -> list[str]:
        """Return all texts of a ragged UTF-8 array pair, as of the last flush."""
        spool = self._spool
        if not spool.started(f"{stem}_offset"):
            return []
        offset = spool.read(f"{stem}_offset", 0, spool.rows(f"{stem}_offset"))
        data = spool.read(f"{stem}_data", 0, int(offset[-1])).tobytes()
        return [data[a:b].decode("utf-8") for a, b in itertools.pairwise(offset)]

    def geometries(self, stop: int) -> Iterator[LabelledGeometry]:
        """Yield the first `stop` geometries as of the last flush: atoms, positions, forces and Hessian alone."""
        spool = self._spool
        offsets = {
            data: spool.read(offset, 0, stop + 1).tolist() if spool.started(data) else [0] * (stop + 1)
            for offset, data in _GEOMETRY
        }
        for i in range(stop):
            rows = {data: spool.read(data, *ends[i : i + 2]) for data, ends in offsets.items() if spool.started(data)}
            hessian, active = rows.get("hessian/data", np.empty(0)), rows.get("hessian/active_atom", np.empty(0))
            forces = rows.get("atom/force")
            yield LabelledGeometry(
                numbers=rows["atom/number"],
                positions=rows["atom/position"],
                forces=None if forces is None or np.isnan(forces).all() else forces,
                hessian=unpack(hessian) if len(hessian) else None,
                active=active if len(active) else None,
            )

    def _promote(self, rows: Mapping[str, AnyArray | None]) -> None:
        """Widen what was float32 so far where float64 arrives and no `dtype` was asked for."""
        for path, value in rows.items():
            forced = self._dtype is not None and path in FOLLOWS_DTYPE
            if value is None or forced or len(WRITTEN[path].dtypes) == 1 or not self._spool.started(path):
                continue
            if self._spool.dtype(path) == "float32" and value.dtype == np.float64:
                self._spool.promote(BY_PATH[path], "float64")

    def _level(self, level: LevelOfTheory) -> int:
        if level not in self._levels:
            self._levels.append(level)
            self._spool.state["levels"].append(level.as_dict())
        return self._levels.index(level)

    def _group(self, name: str) -> int:
        if name not in self.groups:
            self.groups[name] = len(self.groups)
            self._append("geometry/group_label_data", utf8(name), 0)
            self._append_offset("geometry/group_label_offset", "geometry/group_label_data", 0)
        return self.groups[name]

    def _append_rows(self, rows: Mapping[str, AnyArray | None], atoms: int) -> None:
        spool, state = self._spool, self._spool.state
        before = {"G": state["geometries"], "A": state["atoms"]}
        adds = {"G": 1, "A": atoms}
        for path, value in rows.items():
            symbol = str(WRITTEN[path].shape[0])
            if value is not None:
                self._append(path, value, before.get(symbol, 0))
            elif symbol in adds and (spool.started(path) or path in _ALWAYS):
                spec = WRITTEN[path]
                self._append(
                    path, np.full((adds[symbol], *spec.row_shape), spec.fill, dtype=np.float32), before[symbol]
                )
        state["geometries"] += 1
        state["atoms"] += atoms
        self._append_offset("geometry/atom_offset", "atom/number", before["G"])
        self._append_offset("hessian/offset", "hessian/data", before["G"])
        for data, offset in _OPTIONAL_OFFSETS.items():
            if offset != "geometry/group_label_offset" and spool.started(data):
                self._append_offset(offset, data, before["G"])

    def _append(self, path: str, rows: AnyArray, filled: int) -> None:
        """Append rows; an array that begins now is filled up for the geometries before."""
        spool, spec = self._spool, WRITTEN[path]
        free = len(spec.dtypes) > 1
        forced = self._dtype if path in FOLLOWS_DTYPE else None
        wanted = spec.dtypes[0] if not free else forced or str(rows.dtype.name)
        if not spool.started(path):
            spool.start(spec, wanted, filled)
        spool.append(path, rows)

    def _append_offset(self, offset: str, data: str, filled: int) -> None:
        spool = self._spool
        if not spool.started(offset):  # zeros: nothing for the geometries before
            spool.start(BY_PATH[offset], "int64", filled + 1)
        end = spool.rows(data) if spool.started(data) else 0
        spool.append(offset, np.array([end], dtype=np.int64))
