"""Stores out of stores, array by array: what `merge` and `repack` share. No record is made on the way.

A new store is a sequence of runs of geometries of old ones. Values are copied
bit by bit, except where a number means something else in the new store:
offsets, levels of theory and groups are counted anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.store.append import FOLLOWS_DTYPE
from nequip_hessian.store.build import BLOCK_BYTES, Builder
from nequip_hessian.store.columns import Columns
from nequip_hessian.store.files import array_attributes, open_files
from nequip_hessian.store.layout import ARRAYS, QUALITY, RAGGED, ArraySpec, numpy_dtype
from nequip_hessian.store.quality import quality
from nequip_hessian.store.reader import HessianStore

AnyArray = npt.NDArray[Any]
_OWNER: Final = {data: offset for offset, cut in RAGGED.items() for data in cut}
_GROUP_NAMES: Final = ("geometry/group_label_offset", "geometry/group_label_data")


@dataclass(frozen=True, eq=False)
class Source:
    """What a new store takes from an old one.

    Attributes:
        store: the old store
        runs: (first, end) geometries that are taken, in order
        levels: (L,) new index of each level of theory
        groups: (K,) new number of each group, -1 where none of it is taken
    """

    store: HessianStore
    runs: tuple[tuple[int, int], ...]
    levels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    @property
    def geometries(self) -> int:
        """How many geometries are taken."""
        return sum(end - first for first, end in self.runs)


class Composer:
    """Writes the arrays of a new store from sources.

    Args:
        sources: in the order of the new store
        names: name of each new group, `None` where it has none
        dtype: `float32` or `float64` for Hessian data and stored products; `None`: float64 if any source
            has values in float64
    """

    def __init__(self, sources: Sequence[Source], names: Sequence[str | None], dtype: str | None) -> None:
        self._sources, self._dtype = sources, dtype
        self._columns = [Columns(open_files(source.store.path)) for source in sources]
        texts = [(name or "").encode("utf-8") for name in names]
        self._names = b"".join(texts)
        self._name_ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)

    def write(self, builder: Builder, title: str) -> dict[str, int]:
        """Write all arrays; return the counts of the new store.

        Args:
            builder: of the new store
            title: in front of the progress bar
        """
        plan = [(spec, self._rows(spec), self._dtype_of(spec)) for spec in ARRAYS if self._present(spec)]
        size = {spec.path: rows * numpy_dtype(kind).itemsize * math.prod(spec.row_shape) for spec, rows, kind in plan}
        with tqdm(total=sum(size.values()), unit="B", unit_scale=True, desc=title, disable=None, delay=3) as bar:
            for spec, rows, kind in plan:
                more = {"projected": self._projected()} if spec.path == "frequency/value" else {}
                builder.add_blocks(spec.path, rows, kind, self._blocks(spec), bar, **more)
        found = {spec.path: rows for spec, rows, _ in plan}
        return {
            "geometries": found["geometry/kind"],
            "atoms": found["atom/number"],
            "hessians": sum(int(np.count_nonzero(part)) for part in self._lengths("hessian/offset")),
            "hessian_elements": found["hessian/data"],
            "groups": len(self._name_ends) - 1,
        }

    def write_quality(self, builder: Builder) -> None:
        """Write the residuals below `extra/quality` that any of the sources has; NaN for geometries of the others."""
        known = [quality(source.store) for source in self._sources]
        for spec in QUALITY:
            if any(spec.path in found for found in known):
                blocks = (
                    found[spec.path][first:end] if spec.path in found else np.full(end - first, np.nan, np.float32)
                    for found, source in zip(known, self._sources, strict=True)
                    for first, end in source.runs
                )
                builder.add_blocks(spec.path, self._rows(spec), spec.dtypes[0], blocks)

    def _present(self, spec: ArraySpec) -> bool:
        if spec.path in _GROUP_NAMES:
            return bool(self._names)
        return any(columns.rows(spec.path) is not None for columns in self._columns)

    def _dtype_of(self, spec: ArraySpec) -> str:
        if len(spec.dtypes) == 1:
            return spec.dtypes[0]
        if self._dtype is not None and spec.path in FOLLOWS_DTYPE:
            return self._dtype
        readers = [columns.rows(spec.path) for columns in self._columns]
        kinds = {str(rows.dtype.name) for rows in readers if rows is not None and rows.shape[0]}
        return "float32" if kinds == {"float32"} else "float64"

    def _projected(self) -> bool | None:
        values = {array_attributes(columns.files, "frequency/value").get("projected") for columns in self._columns
                  if columns.rows("frequency/value") is not None}  # fmt: skip
        return values.pop() if len(values) == 1 else None

    def _ends(self, index: int, spec: ArraySpec, run: tuple[int, int]) -> tuple[int, int]:
        """Rows of an array that belong to a run of geometries; none where the store has no such array."""
        symbol = str(spec.shape[0])
        if symbol == "G":
            return run
        offset = self._columns[index].whole(_OWNER[spec.path])
        return (0, 0) if offset is None else (int(offset[run[0]]), int(offset[run[1]]))

    def _rows(self, spec: ArraySpec) -> int:
        if spec.path in _GROUP_NAMES:
            return len(self._name_ends) if spec.path.endswith("offset") else len(self._names)
        if spec.path in RAGGED:
            return 1 + sum(source.geometries for source in self._sources)
        parts = (self._ends(i, spec, run) for i, source in enumerate(self._sources) for run in source.runs)
        return sum(end - first for first, end in parts)

    def _lengths(self, offset: str) -> Iterator[npt.NDArray[np.int64]]:
        for columns, source in zip(self._columns, self._sources, strict=True):
            values = columns.whole(offset)
            for first, end in source.runs:
                yield np.zeros(end - first, dtype=np.int64) if values is None else np.diff(values[first : end + 1])

    def _blocks(self, spec: ArraySpec) -> Iterator[AnyArray]:
        if spec.path in _GROUP_NAMES:
            yield self._name_ends if spec.path.endswith("offset") else np.frombuffer(self._names, dtype=np.uint8)
        elif spec.path in RAGGED:
            end = 0
            yield np.zeros(1, dtype=np.int64)
            for lengths in self._lengths(spec.path):
                yield end + np.cumsum(lengths)
                end += int(lengths.sum())
        else:
            for index, source in enumerate(self._sources):
                for run in source.runs:
                    yield from self._copied(index, source, spec, *self._ends(index, spec, run))

    def _copied(self, index: int, source: Source, spec: ArraySpec, first: int, end: int) -> Iterator[AnyArray]:
        rows = self._columns[index].rows(spec.path)
        step = max(1, BLOCK_BYTES // (8 * max(1, math.prod(spec.row_shape))))
        for start in range(first, end, step):
            stop = min(start + step, end)
            if rows is None:
                yield np.full((stop - start, *spec.row_shape), spec.fill, dtype=numpy_dtype(spec.dtypes[0]))
            elif spec.path == "geometry/level":
                yield source.levels[rows.rows(start, stop)]
            elif spec.path == "geometry/group":
                values = rows.rows(start, stop)
                yield np.where(values < 0, -1, source.groups[np.maximum(values, 0)] if len(source.groups) else -1)
            else:
                yield rows.rows(start, stop)


def whole(store: HessianStore) -> Source:
    """Return the source that takes all of a store, levels and groups as they are."""
    groups = store.attributes["counts"]["groups"]
    return Source(store, ((0, len(store)),), np.arange(len(store.levels)), np.arange(groups))


def group_names(store: HessianStore) -> list[str | None]:
    """Return the names of the groups of a store, `None` where a group has none."""
    return [store.group_label(group) for group in range(store.attributes["counts"]["groups"])]
