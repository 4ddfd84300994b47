"""The unfinished store: flat files that only grow, and a journal that says how much of them counts.

Each array is one file of little-endian C-order rows. Rows are buffered and
written in batches; after each batch the journal is replaced in one step, so
that a kill at any moment loses the rows since the last batch and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import StoreError, StoreWriteError
from nequip_hessian.places import beside
from nequip_hessian.store.layout import WRITTEN, ArraySpec, numpy_dtype

AnyArray = npt.NDArray[Any]
BATCH_BYTES: Final = 16 * 2**20
BATCH_SECONDS: Final = 30.0
BLOCK_BYTES: Final = 8 * 2**20
JOURNAL: Final = "journal.json"


def lock(folder: Path) -> IO[str]:
    """Lock a folder against other writers for as long as the returned file is open.

    Raises:
        StoreError: another process holds it.
    """
    return _locked(folder / "lock", folder)


def _locked(path: Path, what: Path) -> IO[str]:
    file = open(path, "w")  # noqa: SIM115 - held as long as the caller wants
    try:
        import fcntl
    except ImportError:  # a system without it: two writers of one store are not told apart
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        raise StoreError(f"{what}: another process is writing this store; wait for it or end it") from exc
    return file


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Be the only process that works for a store, from the look at what is there to the clearing up.

    The lock is a hidden empty file beside the store; folders that were made for it go again if they stay empty.

    Raises:
        StoreError: another process is at it. StoreWriteError: the folder cannot be made or written to.
    """
    path = beside(target.absolute(), ".lock", prefix=".")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _locked(path, target)
        while not _stands(held, path):  # the one before removed it between our opening and our locking
            held.close()
            held = _locked(path, target)
    except OSError as exc:
        raise StoreWriteError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    try:
        with held:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def _stands(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def discard(folder: Path) -> None:
    """Delete an unfinished store.

    Raises:
        StoreError: another process is writing it.
    """
    with lock(folder):
        shutil.rmtree(folder)


class Spool:
    """The growing arrays of one unfinished store in a directory of its own; one process at a time.

    Attributes:
        state: JSON-able facts the writer wants back after an interruption
        broken: a batch was interrupted; only the last journal counts
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(exist_ok=True)
            self._lock = lock(folder)
        except OSError as exc:
            raise StoreWriteError(f"{folder}: cannot be written: {exc.strerror}") from exc
        self.folder = folder
        self.broken = False
        self._dtypes: dict[str, str] = {}
        self._rows: dict[str, int] = {}
        self._buffers: dict[str, list[AnyArray]] = {}
        self._buffered: dict[str, int] = {}
        self._pending, self._flushed = 0, time.monotonic()
        self.state: dict[str, Any] = {}
        self._load()

    def _load(self) -> None:
        journal = self.folder / JOURNAL
        if not journal.exists():
            return
        try:
            saved = json.loads(journal.read_text())
            self._dtypes, self._rows, self.state = dict(saved["dtypes"]), dict(saved["rows"]), dict(saved["state"])
        except (ValueError, KeyError, TypeError) as exc:
            self.close()
            raise StoreError(f"{journal}: unreadable ({exc}); start again with overwrite=True") from exc
        for path in self._rows:  # drop what was written after the last journal
            size = self._rows[path] * self._row_bytes(path)
            file = self._file(path)
            if not file.exists() or file.stat().st_size < size:
                self.close()
                raise StoreError(f"{file}: shorter than the journal says; start again with overwrite=True")
            os.truncate(file, size)

    def _file(self, path: str) -> Path:
        return self.folder / f"{path.replace('/', '.')}.{self._dtypes[path]}.bin"

    def _row_bytes(self, path: str) -> int:
        return int(np.dtype(self._dtypes[path]).itemsize * np.prod(WRITTEN[path].row_shape, dtype=int))

    def started(self, path: str) -> bool:
        """Whether an array has been begun."""
        return path in self._dtypes

    def paths(self) -> list[str]:
        """All arrays begun."""
        return list(self._dtypes)

    def rows(self, path: str) -> int:
        """Rows appended so far, buffered ones included."""
        return self._rows.get(path, 0) + self._buffered.get(path, 0)

    def dtype(self, path: str) -> str:
        """Zarr data type name of an array begun."""
        return self._dtypes[path]

    def start(self, spec: ArraySpec, dtype: str, filled_rows: int) -> None:
        """Begin an array whose first `filled_rows` rows hold its fill value."""
        self._dtypes[spec.path], self._rows[spec.path] = dtype, 0
        with open(self._file(spec.path), "wb") as file:
            block = max(1, BLOCK_BYTES // max(1, self._row_bytes(spec.path)))
            for begin in range(0, filled_rows, block):
                count = min(block, filled_rows - begin)
                file.write(np.full((count, *spec.row_shape), spec.fill, dtype=numpy_dtype(dtype)).tobytes())
        self._rows[spec.path] = filled_rows

    def promote(self, spec: ArraySpec, dtype: str) -> None:
        """Turn what is there of an array into a wider data type."""
        self.flush()
        old, rows = self._file(spec.path), self._rows[spec.path]
        source = numpy_dtype(self._dtypes[spec.path])
        self._dtypes[spec.path] = dtype
        with open(old, "rb") as reading, open(self._file(spec.path), "wb") as writing:
            while block := reading.read(BLOCK_BYTES):  # a multiple of every item size
                writing.write(np.frombuffer(block, dtype=source).astype(numpy_dtype(dtype)).tobytes())
        self._rows[spec.path] = rows
        self.flush()
        old.unlink()

    def append(self, path: str, rows: AnyArray) -> None:
        """Append rows to an array begun; converted to its data type."""
        block = np.array(rows, dtype=numpy_dtype(self._dtypes[path]), order="C")
        self._buffers.setdefault(path, []).append(block)
        self._buffered[path] = self._buffered.get(path, 0) + len(block)
        self._pending += block.nbytes

    def flush_if_full(self) -> None:
        """Write the buffers once they hold a batch or have waited long enough; call it between records only."""
        if self._pending >= BATCH_BYTES or time.monotonic() - self._flushed > BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the buffers, then the journal, in this order.

        Raises:
            StoreError: the disk is full or refuses.
        """
        self.broken = True
        try:
            self._write_buffers()
            self._write_journal()
        except OSError as exc:
            raise StoreWriteError(f"{self.folder}: cannot be written: {exc.strerror}") from exc
        self.broken = False

    def _write_buffers(self) -> None:
        for path, blocks in self._buffers.items():
            with open(self._file(path), "ab") as file:
                for block in blocks:
                    file.write(block.tobytes())
                    self._rows[path] += len(block)
                file.flush()
                os.fsync(file.fileno())
        self._buffers.clear()
        self._buffered.clear()
        self._pending, self._flushed = 0, time.monotonic()

    def _write_journal(self) -> None:
        journal = self.folder / JOURNAL
        temporary = journal.with_suffix(".new")
        with open(temporary, "w") as file:
            json.dump({"dtypes": self._dtypes, "rows": self._rows, "state": self.state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, journal)

    def read(self, path: str, start: int, stop: int) -> AnyArray:
        """Read rows of an array (flushed ones)."""
        row = self._row_bytes(path)
        with open(self._file(path), "rb") as file:
            file.seek(start * row)
            raw = file.read((stop - start) * row)
        return np.frombuffer(raw, dtype=numpy_dtype(self._dtypes[path])).reshape(stop - start, *WRITTEN[path].row_shape)

    def close(self) -> None:
        """Let go of the lock; the files stay."""
        self._lock.close()
