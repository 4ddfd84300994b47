"""The small arrays of a store under the names they have on disk; read when first asked for, then kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import StoreError
from nequip_hessian.store.arrays import CachedRows, RowReader, ZarrRows, open_rows, read_all
from nequip_hessian.store.files import Files
from nequip_hessian.store.layout import spec_of

AnyArray = npt.NDArray[Any]
KEPT_BYTES: Final = 64 * 2**20


class Columns:
    """Arrays of one store by path; a missing optional array is `None`.

    Args:
        files: the bytes of the store
        mapped: allow the memory-mapped path
        counts: sizes G, A, M and K that arrays must have, by symbol of the layout; a damaged shape is
            then found before anything is read
    """

    def __init__(self, files: Files, *, mapped: bool = True, counts: Mapping[str, int] | None = None) -> None:
        self.files = files
        self._counts = counts or {}
        self._mapped = mapped
        self._rows: dict[str, RowReader | None] = {}
        self._whole: dict[str, AnyArray | None] = {}

    def rows(self, path: str) -> RowReader | None:
        """Return the row reader of an array, opened once."""
        if path not in self._rows:
            rows = open_rows(self.files, path, mapped=self._mapped)
            self._check_size(path, rows)
            self._rows[path] = rows
        return self._rows[path]

    def _check_size(self, path: str, rows: RowReader | None) -> None:
        spec = spec_of(path)
        if rows is None or spec is None:
            return
        symbol = str(spec.shape[0])
        count = self._counts.get(symbol.removesuffix("+1"))
        wanted = None if count is None else count + symbol.endswith("+1")
        if rows.shape[1:] != spec.row_shape or (wanted is not None and rows.shape[0] != wanted):
            shape = ("any" if wanted is None else wanted, *spec.row_shape)
            raise StoreError(f"{self.files.path}: {path}: expected shape {shape}, found {rows.shape}")

    def part(self, path: str, start: int, stop: int) -> AnyArray | None:
        """Return rows start to stop - 1 of an array; behind a codec a small one is read whole, once."""
        whole = self._whole.get(path)
        if whole is not None:
            return whole[start:stop]
        rows = self.rows(path)
        if rows is None:
            return None
        if isinstance(rows, ZarrRows | CachedRows) and math.prod(rows.shape) * rows.dtype.itemsize <= KEPT_BYTES:
            return self.required(path)[start:stop]
        return rows.rows(start, stop)

    def whole(self, path: str) -> AnyArray | None:
        """Return a whole array, read-only, kept from then on."""
        if path not in self._whole:
            rows = self.rows(path)
            self._whole[path] = None if rows is None else read_all(rows)
        return self._whole[path]

    def required(self, path: str) -> AnyArray:
        """Return a whole array that each store has.

        Raises:
            StoreError: this one has not.
        """
        value = self.whole(path)
        if value is None:
            raise StoreError(
                f"{self.files.path}: the array {path} is missing; see what else is wrong: "
                f"nequip-hessian validate {self.files.path}"
            )
        return value

    def text(self, stem: str, index: int) -> str | None:
        """Return a text of a ragged UTF-8 array pair (`stem_offset`, `stem_data`), `None` where it is empty."""
        offset, data = self.whole(f"{stem}_offset"), self.whole(f"{stem}_data")
        if offset is None or data is None or offset[index] == offset[index + 1]:
            return None
        try:
            return bytes(np.asarray(data[offset[index] : offset[index + 1]])).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise StoreError(f"{self.files.path}: {stem}_data: text {index} is not UTF-8: {exc}") from exc
