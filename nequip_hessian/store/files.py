"""Where the bytes of a store lie: a local directory or zip file, an address (`remote`), a Zarr store object (`handle`).

All answer the same three questions: the bytes of a key, a read-only map of
the bytes of a key (only of what is stored as it is), and the keys there are.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import StoreError
from nequip_hessian.store.handle import Handle, HandleFiles, as_handle
from nequip_hessian.store.remote import RemoteFiles, Url, as_url

if TYPE_CHECKING:
    from zarr.abc.store import Store

    Place = str | Path | Store

Bytes = npt.NDArray[np.uint8]


class DirectoryFiles:
    """A store that is a directory."""

    aligned = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a key, `None` where there is none."""
        try:
            return (self.path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as exc:
            raise StoreError(f"{self.path / key}: cannot be read: {exc.strerror}") from exc

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        return (self.path / key).is_file()

    def map(self, key: str) -> Bytes | None:
        """Return a read-only memory map of a key, `None` where there is none."""
        file = self.path / key
        try:
            return np.memmap(file, dtype=np.uint8, mode="r")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:  # an empty file cannot be mapped
            return np.empty(0, dtype=np.uint8)
        except OSError as exc:
            raise StoreError(f"{file}: cannot be read: {exc.strerror}") from exc

    def names(self) -> Iterator[str]:
        """Yield all keys (files), `/`-separated, in no particular order."""
        for folder, _, names in os.walk(self.path):
            relative = Path(folder).relative_to(self.path)
            yield from ((relative / name).as_posix() for name in names)

    def odd_names(self) -> list[str]:
        """Return keys that are no plain relative paths; a directory has none."""
        return []

    def zarr_store(self) -> Store:
        """Return a read-only Zarr store of the same bytes."""
        from zarr.storage import LocalStore

        return LocalStore(self.path, read_only=True)


class ZipFiles:
    """A store that is a zip file, its `zarr.json` at the top level."""

    aligned = False

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError, struct.error) as exc:
            raise StoreError(
                f"{path}: neither a store directory nor a readable zip file ({exc}); if it was downloaded, "
                "compare its size and fetch it again"
            ) from exc
        self._entries = {info.filename: info for info in infos if not info.is_dir()}
        self._map: mmap.mmap | None = None
        self._names = [info.filename for info in infos if not info.is_dir()]

    def odd_names(self) -> list[str]:
        """Return keys that are no plain relative paths, or stand there twice: readers would not agree on them."""
        repeated = [name for name, count in Counter(self._names).items() if count > 1]
        odd = [name for name in self._entries if "\\" in name or name.startswith("/") or ".." in name.split("/")]
        return sorted({*repeated, *odd})

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a key, `None` where there is none."""
        if key not in self._entries:
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(key)
        except Exception as exc:  # a damaged entry fails in zipfile, zlib or struct
            raise StoreError(f"{self.path}: entry {key} cannot be read: {exc}") from exc

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        return key in self._entries

    def map(self, key: str) -> Bytes | None:
        """Return a read-only, unaligned map of a stored key; `None` where there is none.

        Raises:
            StoreError: the entry is compressed or damaged.
        """
        info = self._entries.get(key)
        if info is None:
            return None
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise StoreError(f"{self.path}: entry {key} is compressed or encrypted and cannot be mapped")
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = info.header_offset
        header = self._map[start : start + 30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise StoreError(
                f"{self.path}: entry {key} has no zip header where the directory says; the file is damaged"
            )
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        begin = start + 30 + name_length + extra_length
        if begin + info.file_size > len(self._map):
            raise StoreError(f"{self.path}: entry {key} reaches beyond the end of the file; the file is cut short")
        return np.frombuffer(self._map, dtype=np.uint8, count=info.file_size, offset=begin)

    def stored(self, prefix: str) -> bool:
        """Whether all entries below a prefix are stored as they are."""
        return all(
            info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 0x1
            for name, info in self._entries.items()
            if name.startswith(prefix)
        )

    def names(self) -> Iterator[str]:
        """Yield all keys in the order of the zip directory."""
        return iter(self._entries)

    def zarr_store(self) -> Store:
        """Return a read-only Zarr store of the same bytes."""
        from zarr.storage import ZipStore

        return ZipStore(self.path, mode="r", read_only=True)


Files = DirectoryFiles | ZipFiles | RemoteFiles | HandleFiles


def location(path: Place) -> Path | Url | Handle:
    """Return an absolute path, or the address or Zarr store object as it is.

    Raises:
        StoreError: an address of a kind that cannot be read.
    """
    handle = as_handle(path)
    if handle is not None:
        return handle
    written = cast("str | Path", path)
    return as_url(written) or Path(os.path.abspath(written))


def open_files(path: Place) -> Files:
    """Open the bytes of a store.

    Args:
        path: directory, zip file, Zarr store object, or an address: `s3://bucket/store.zarr`,
            `https://host/store.zarr`, `gs://`, `az://`

    Raises:
        StoreError: nothing there, or neither a directory nor a zip file.
        MissingExtraError: an address without the extra `s3`.
    """
    place = location(path)
    if isinstance(place, Handle):
        return HandleFiles(place)
    if isinstance(place, Url):
        return RemoteFiles(place)
    path = Path(cast("str | Path", path))  # as it was written, for messages
    if path.is_dir():
        return DirectoryFiles(path)
    if not path.exists():
        raise StoreError(f"{path}: expected a Hessian store, found nothing there{_hint(path)}")
    if not path.is_file():  # it would be waited for without end
        raise StoreError(f"{path}: expected a store directory or zip file, found a pipe, socket or device")
    return ZipFiles(path)


def array_attributes(files: Files, path: str) -> dict[str, Any]:
    """Return the attributes of an array, none where there is no such array or they are damaged."""
    attributes = (read_metadata(files, path) or {}).get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _hint(path: Path) -> str:
    unfinished, old = (path.with_name(path.name + suffix) for suffix in (".unfinished", ".old"))
    hints = []
    if unfinished.exists():
        hints.append(f"an unfinished one is at {unfinished}, write it again with resume=True")
    if old.exists():  # killed between two renames: nothing is lost
        hints.append(f"the one that was being replaced is at {old}, rename it back")
    return "".join(f"; {hint}" for hint in hints)


def why_no_metadata(path: Place) -> str:
    """Say what a directory, zip file, address or Zarr store object without a root `zarr.json` is."""
    place = location(path)
    if isinstance(place, Handle):
        return "no zarr.json at its top, so it holds no Zarr v3 store"
    if isinstance(place, Url):
        return "no zarr.json there, so it is no Zarr v3 store, or the address is wrong"
    if (place / "journal.json").exists():
        return f"an unfinished store; go on writing {str(path).removesuffix('.unfinished')} with resume=True"
    return "no zarr.json at its top, so it is no Zarr v3 store (or its copying was interrupted)"


def read_metadata(files: Files, path: str = "") -> dict[str, Any] | None:
    """Read the `zarr.json` of a node, `None` where there is none.

    Raises:
        StoreError: it is no JSON object.
    """
    key = f"{path}/zarr.json" if path else "zarr.json"
    raw = files.read(key)
    if raw is None:
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise StoreError(f"{files.path}: {key} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise StoreError(f"{files.path}: {key}: expected a JSON object, found {type(value).__name__}")
    return value
