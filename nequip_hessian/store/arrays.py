"""One array of a store, read by rows: mapped from its chunk files where that is exact, through Zarr otherwise.

`np.memmap` over an uncompressed chunk file gives one geometry's Hessian in some
microseconds, a hundred times sooner than any general Zarr reader; it is taken
only if the bytes on disk are the numbers (see `is_plain`). The numbers are the
same on each path.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import StoreError
from nequip_hessian.store.files import DirectoryFiles, Files, ZipFiles, read_metadata
from nequip_hessian.store.remote import RemoteFiles, reason_of

AnyArray = npt.NDArray[Any]
CACHED_BYTES = 256 * 2**20  # of one array that is compressed or behind a network
MAX_MAPS = 16384  # open maps of one array; the system allows 65530 a process


class RowReader(Protocol):
    """What both ways of reading offer."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def rows(self, start: int, stop: int) -> AnyArray:
        """Return rows start to stop - 1 as a read-only array."""
        ...


def _sizes(value: Any, least: int) -> list[int] | None:
    """Return a list of whole numbers from `least` up, `None` where it is something else."""
    good = isinstance(value, list) and all(type(size) is int and least <= size < 2**62 for size in value)
    return value if good and value else None


def _configuration(node: Any, name: str) -> dict[str, Any] | None:
    """Return the configuration of a named Zarr extension point, `None` where it is another one or damaged."""
    if not isinstance(node, dict) or node.get("name") != name:
        return None
    configuration = node.get("configuration", {})
    return configuration if isinstance(configuration, dict) else None


def is_plain(metadata: dict[str, Any]) -> bool:
    """Say whether the chunk files of an array hold its numbers as they are.

    True only for: a regular chunk grid cut along the first axis alone, the default chunk key
    encoding with `/`, a codec chain that is exactly `bytes`, little-endian, and no storage transformer.
    """
    grid = _configuration(metadata.get("chunk_grid"), "regular")
    keys = _configuration(metadata.get("chunk_key_encoding"), "default")
    codecs = metadata.get("codecs")
    if grid is None or keys is None or not isinstance(codecs, list) or len(codecs) != 1:
        return False
    shape, chunk = _sizes(metadata.get("shape"), 0), _sizes(grid.get("chunk_shape"), 1)
    if shape is None or chunk is None or shape[1:] != chunk[1:]:
        return False
    if keys.get("separator", "/") != "/" or metadata.get("storage_transformers"):
        return False
    codec = _configuration(codecs[0], "bytes")
    one_byte = metadata.get("data_type") in ("bool", "int8", "uint8")
    return codec is not None and (codec.get("endian") == "little" or (one_byte and codec.get("endian") is None))


def _absent(files: Files, key: str) -> StoreError:
    return StoreError(
        f"{files.path}: chunk {key} is not there, so the store is incomplete (a copy that was interrupted?); "
        "take it from its source again"
    )


class MappedRows:
    """Rows of an array whose chunk files hold its numbers as they are."""

    def __init__(self, files: DirectoryFiles | ZipFiles, path: str, metadata: dict[str, Any]) -> None:
        self._files = files
        self._path = path
        self.shape = tuple(int(size) for size in metadata["shape"])
        self.dtype = np.dtype(str(metadata["data_type"])).newbyteorder("<")
        self._chunk = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._suffix = "/0" * (len(self.shape) - 1)
        self._row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        self._maps: dict[int, AnyArray] = {}

    def _open(self, index: int) -> AnyArray:
        key = f"{self._path}/c/{index}{self._suffix}"
        raw = self._files.map(key)
        shape = (self._chunk, *self.shape[1:])
        if raw is None:  # every chunk of a store is written: one that is not there is lost, not empty
            raise _absent(self._files, key)
        if raw.nbytes != self._chunk * self._row_bytes:
            raise StoreError(
                f"{self._files.path}: chunk {key}: expected {self._chunk * self._row_bytes} bytes, found {raw.nbytes}; "
                "the file is cut short or overwritten, take the store from its source again"
            )
        chunk: AnyArray = raw.view(np.ndarray)
        chunk = (chunk.view(self.dtype) if self._files.aligned else _unaligned(chunk, self.dtype)).reshape(shape)
        chunk.setflags(write=False)
        if len(self._maps) >= MAX_MAPS:
            self._maps.clear()
        self._maps[index] = chunk
        return chunk

    def rows(self, start: int, stop: int) -> AnyArray:
        """Return rows start to stop - 1, read-only: a view of the map, or a copy of a zip or across two chunks."""
        if stop <= start:
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        first, offset = divmod(start, self._chunk)
        last = (stop - 1) // self._chunk
        chunk = self._maps.get(first)
        if chunk is None:
            chunk = self._open(first)
        if first == last:
            part = chunk[offset : offset + stop - start]
            return part if self._files.aligned else _frozen(part.copy())
        out = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        for index in range(first, last + 1):
            begin, end = max(start, index * self._chunk), min(stop, (index + 1) * self._chunk)
            chunk = self._maps[index] if index in self._maps else self._open(index)
            out[begin - start : end - start] = chunk[begin - index * self._chunk : end - index * self._chunk]
        return _frozen(out)


def _unaligned(raw: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    return np.frombuffer(raw.data, dtype=dtype)


def _frozen(array: AnyArray) -> AnyArray:
    array.setflags(write=False)
    return array


class ZarrRows:
    """Rows of an array read through zarr-python: any codec, any chunk grid."""

    def __init__(self, files: Files, path: str) -> None:
        import zarr

        self._where = f"{files.path}: {path}"
        try:
            array = zarr.open_array(files.zarr_store(), path=path, mode="r", zarr_format=3)
        except Exception as exc:  # zarr and its codecs raise whatever they like
            raise StoreError(f"{self._where}: zarr cannot open the array: {exc}") from exc
        self._array, self._files, self._path = array, files, path
        self._checked = isinstance(files, RemoteFiles)  # which raises where a chunk is not there
        self._there: set[int] = set()
        self.shape = tuple(int(size) for size in array.shape)
        self.dtype = np.dtype(array.dtype).newbyteorder("<")
        self.block = int((array.shards or array.chunks)[0])
        """Rows that lie in one file."""

    def rows(self, start: int, stop: int) -> AnyArray:
        """Return rows start to stop - 1 as a read-only copy."""
        if stop <= start:
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        if not self._checked:
            self._check_chunks(start, stop)
        try:
            value = np.asarray(self._array[start:stop])
        except Exception as exc:  # zarr and its codecs raise whatever they like
            reason = reason_of(exc) if self._checked and not isinstance(exc, StoreError) else exc
            raise StoreError(f"{self._where}: rows {start} to {stop - 1} cannot be read: {reason}") from exc
        return _frozen(np.ascontiguousarray(value, dtype=self.dtype))

    def _check_chunks(self, start: int, stop: int) -> None:
        """Refuse a chunk (or shard) that is not there; Zarr itself would give fill values."""
        sizes = self._array.shards or self._array.chunks
        counts = [math.ceil(size / chunk) for size, chunk in zip(self.shape[1:], sizes[1:], strict=True)]
        for first in range(start // sizes[0], (stop - 1) // sizes[0] + 1):
            if first in self._there:
                continue
            for rest in np.ndindex(*counts):
                key = f"{self._path}/{self._array.metadata.encode_chunk_key((first, *rest))}"
                if not self._files.has(key):
                    raise _absent(self._files, key)
            self._there.add(first)


class CachedRows:
    """Rows of an array that is compressed or behind a network: whole blocks (chunks or shards), the latest kept.

    Without that, each geometry of a shuffled training would decompress its block again. A block is fetched where the
    array is small, most of the block is asked for, or the block is asked for a second time running; else only the rows.
    """

    def __init__(self, rows: ZarrRows) -> None:
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
        self._block = rows.block
        self._row_bytes = max(1, self.dtype.itemsize * math.prod(self.shape[1:]))
        self._small = self.shape[0] * self._row_bytes <= CACHED_BYTES
        self._most = max(1, CACHED_BYTES // (self._block * self._row_bytes))
        self._blocks: dict[int, AnyArray] = {}
        self._latest = -1

    def rows(self, start: int, stop: int) -> AnyArray:
        """Return rows start to stop - 1, read-only."""
        if stop <= start:
            return self._rows.rows(start, stop)
        first, last = start // self._block, (stop - 1) // self._block
        wide = 4 * (stop - start) >= self._block * (last - first + 1)
        again, self._latest = self._latest == first, last
        if not (self._small or wide or again or all(k in self._blocks for k in range(first, last + 1))):
            return self._rows.rows(start, stop)
        parts = []
        for k in range(first, last + 1):
            begin = k * self._block
            parts.append(self._get(k)[max(start - begin, 0) : stop - begin])
        return parts[0] if len(parts) == 1 else _frozen(np.concatenate(parts))

    def _get(self, k: int) -> AnyArray:
        if k not in self._blocks:
            if len(self._blocks) >= self._most:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[k] = self._rows.rows(k * self._block, min((k + 1) * self._block, self.shape[0]))
        return self._blocks[k]


def open_rows(files: Files, path: str, *, mapped: bool = True) -> RowReader | None:
    """Open one array of a store for reading by rows.

    Args:
        files: the bytes of the store
        path: path of the array below the root
        mapped: allow the memory-mapped path where its conditions hold

    Returns:
        The reader, or `None` where the store has no such array.

    Raises:
        StoreError: its metadata cannot be read.
    """
    metadata = read_metadata(files, path)
    if metadata is None:
        return None
    if metadata.get("node_type") != "array":
        raise StoreError(f"{files.path}: {path}: expected an array, found node_type {metadata.get('node_type')!r}")
    if _sizes(metadata.get("shape"), 0) is None:
        raise StoreError(f"{files.path}: {path}: expected a shape, found {metadata.get('shape')!r}")
    local = isinstance(files, DirectoryFiles) or (isinstance(files, ZipFiles) and files.stored(f"{path}/c/"))
    if mapped and local and isinstance(files, DirectoryFiles | ZipFiles) and is_plain(metadata):
        try:
            return MappedRows(files, path, metadata)
        except (TypeError, KeyError, ValueError) as exc:
            raise StoreError(f"{files.path}: {path}: damaged array metadata: {exc}") from exc
    return CachedRows(ZarrRows(files, path))


def read_all(rows: RowReader) -> AnyArray:
    """Read a whole array, read-only.

    Raises:
        StoreError: it does not fit into memory.
    """
    try:
        return rows.rows(0, rows.shape[0])
    except MemoryError as exc:
        raise StoreError(f"an array of shape {rows.shape} does not fit into memory") from exc
