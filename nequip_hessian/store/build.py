"""From an unfinished store to a finished one: flat files into Zarr arrays, in blocks, hashed on the way."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from tqdm import tqdm
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore

from nequip_hessian.errors import StoreError
from nequip_hessian.store.checksum import KEY, metadata_checksum, read_logical
from nequip_hessian.store.files import DirectoryFiles
from nequip_hessian.store.layout import (
    DESCRIPTION,
    NAME,
    SPLIT,
    UUID,
    WRITTEN,
    ArraySpec,
    dimension_names,
    numpy_dtype,
    spec_of,
)
from nequip_hessian.store.spool import Spool

PROFILES: Final = ("local", "remote", "publish")
CHUNK_ELEMENTS: Final = 2**19
SHARD_BYTES: Final = 8 * 2**20
INNER_BYTES: Final = 64 * 2**10
BLOCK_BYTES: Final = 8 * 2**20


def _chunking(spec: ArraySpec, rows: int, dtype: np.dtype[Any], profile: str) -> dict[str, Any]:
    """Return the chunk options of `create_array`: whole rows, never a file much larger than its data."""
    row = max(1, math.prod(spec.row_shape))
    if profile != "remote":
        # As many chunks as the limit asks for, but of one size: the last one is padded on disk,
        # and a small store must not carry megabytes of padding.
        pieces = max(1, math.ceil(rows * row / CHUNK_ELEMENTS))
        chunk = max(1, math.ceil(rows / pieces))
        return {"chunks": (chunk, *spec.row_shape), "compressors": None}
    inner = max(1, min(INNER_BYTES // (row * dtype.itemsize), max(rows, 1)))
    shard = inner * max(1, min(SHARD_BYTES // (inner * row * dtype.itemsize), math.ceil(max(rows, 1) / inner)))
    return {
        "chunks": (inner, *spec.row_shape),
        "shards": (shard, *spec.row_shape),
        "compressors": [BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()],
    }


class Builder:
    """Writes the arrays of one store into a directory and remembers their checksums.

    Attributes:
        checksums: array path -> `sha256:...` of its logical little-endian C-order bytes

    Args:
        folder: where to write
        profile: one of PROFILES
        checksums: of the arrays that are in the folder already; `None` for a new store
    """

    def __init__(self, folder: Path, profile: str, *, checksums: Mapping[str, str] | None = None) -> None:
        if checksums is None:
            self._root = zarr.create_group(store=LocalStore(folder), zarr_format=3)
        else:
            self._root = zarr.open_group(store=LocalStore(folder), zarr_format=3, mode="r+")
        self._folder, self._profile = folder, profile
        self.checksums: dict[str, str] = dict(checksums or {})

    def _create(
        self, path: str, spec: ArraySpec, rows: int, dtype: str, attributes: Mapping[str, Any]
    ) -> tuple[zarr.Array[Any], int]:
        kind = numpy_dtype(dtype)
        chunking = _chunking(spec, rows, kind, self._profile)
        array = self._root.create_array(
            path,
            shape=(rows, *spec.row_shape),
            dtype=kind,
            fill_value=spec.fill,
            filters=None,
            dimension_names=dimension_names(spec),
            attributes={**spec.attributes, **attributes},
            config={"write_empty_chunks": True},
            **chunking,
        )
        return array, int((chunking.get("shards") or chunking["chunks"])[0])

    def add(self, path: str, spec: ArraySpec, values: npt.NDArray[Any], **attributes: Any) -> None:
        """Write one small array from memory."""
        values = np.ascontiguousarray(values, dtype=numpy_dtype(spec.dtypes[0]))
        array, _ = self._create(path, spec, len(values), spec.dtypes[0], attributes)
        if len(values):
            array[...] = values
        self.checksums[path] = f"sha256:{hashlib.sha256(values.tobytes()).hexdigest()}"

    def add_spooled(self, path: str, spool: Spool, progress: tqdm[Any], **attributes: Any) -> None:
        """Write one array from the spool, block by block."""
        rows, size = spool.rows(path), spool.dtype(path)
        step = max(1, BLOCK_BYTES // max(1, numpy_dtype(size).itemsize * math.prod(WRITTEN[path].row_shape)))
        blocks = (spool.read(path, start, min(start + step, rows)) for start in range(0, rows, step))
        self.add_blocks(path, rows, size, blocks, progress, **attributes)

    def add_blocks(
        self,
        path: str,
        rows: int,
        dtype: str,
        blocks: Iterable[npt.NDArray[Any]],
        progress: tqdm[Any] | None = None,
        **attributes: Any,
    ) -> None:
        """Write one array from blocks of any length, a whole chunk (or shard) at a time.

        Args:
            path: path of the array, of the layout or one of `layout.QUALITY`
            rows: how many rows the blocks have together
            dtype: Zarr data type; the blocks are converted to it
            blocks: rows in order
            progress: is told the bytes written
            attributes: further attributes of the array

        Raises:
            StoreError: the blocks have another number of rows.
        """
        spec = WRITTEN.get(path) or spec_of(path)
        if spec is None:
            raise StoreError(f"{path}: no array of the layout")
        array, length = self._create(path, spec, rows, dtype, attributes)
        digest, start, filled = hashlib.sha256(), 0, 0
        buffer = np.empty((max(1, min(length, rows)), *spec.row_shape), dtype=numpy_dtype(dtype))
        for block in blocks:
            values = np.ascontiguousarray(block, dtype=buffer.dtype)
            digest.update(values.tobytes())
            while len(values):
                taken = values[: len(buffer) - filled]
                buffer[filled : filled + len(taken)] = taken
                values, filled = values[len(taken) :], filled + len(taken)
                if filled == len(buffer) or start + filled == rows:
                    array[start : start + filled] = buffer[:filled]
                    start, filled = start + filled, 0
            if progress is not None:
                progress.update(block.nbytes)
        if start != rows or filled:
            raise StoreError(f"{path}: expected {rows} rows, found {start + filled}")
        if spec_of(path) is not None:
            self.checksums[path] = f"sha256:{digest.hexdigest()}"

    def add_split(
        self, scheme: str, parts: Sequence[str], codes: npt.NDArray[np.int8], extra: Mapping[str, Any] | None = None
    ) -> None:
        """Write one split scheme; `extra` says how it was made."""
        more = {"extra": dict(extra)} if extra else {}
        self.add(f"split/{scheme}", SPLIT, codes, parts=list(parts), **more)

    def finish(self, attributes: Mapping[str, Any], beside: Mapping[str, Any] | None = None) -> None:
        """Write the root attributes, last of all; both kinds of checksums are filled in.

        Args:
            attributes: the `hessian_zarr` object without checksums
            beside: attributes of other conventions, their entries in `zarr_conventions` included
        """
        others = dict(beside or {})
        convention = {"uuid": UUID, "name": NAME, "description": DESCRIPTION}
        conventions = [convention, *others.pop("zarr_conventions", [])]
        own = {**attributes, "checksums": dict(sorted(self.checksums.items()))}
        root: dict[str, Any] = {**others, "zarr_conventions": conventions, NAME: own}
        sealed = metadata_checksum(root, read_logical(DirectoryFiles(self._folder)))
        root[NAME] = {**root[NAME], KEY: sealed}
        self._root.update_attributes(root)


def zip_directory(folder: Path, target: Path) -> None:
    """Put a directory into a zip file: nothing compressed, sorted names, fixed time, so that equal stores are equal."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in sorted(names, key=lambda key: (key != "zarr.json", key)):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            with open(folder / name, "rb") as source, archive.open(info, "w", force_zip64=False) as entry:
                while block := source.read(2**20):
                    entry.write(block)
