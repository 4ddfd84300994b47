"""The store of a conversion, begun with the first record that is taken."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nequip_hessian.conversion.journal import Journal
from nequip_hessian.errors import StoreError, StoreWriteError
from nequip_hessian.places import beside
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import StoreWriter


class Target:
    """The store of a conversion, opened with the first record, so that nothing is written when there is none.

    Attributes:
        finished: all is written and in its place

    Args:
        path: the store
        resume: go on with an unfinished one, and keep it when interrupted
        options: further arguments of `StoreWriter`
        journal: of the conversion; it is opened with the store
    """

    def __init__(self, path: Path, journal: Journal, *, resume: bool, **options: Any) -> None:
        self._path, self._journal = path, journal
        self._arguments = {"resume": resume, **options}
        self.finished = False
        self._stack = contextlib.ExitStack()
        self._writer: StoreWriter | None = None

    @property
    def opened(self) -> bool:
        """Whether the store has been begun."""
        return self._writer is not None

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        self._stack.__exit__(kind, *details)
        self.finished = kind is None

    def begin(self) -> StoreWriter:
        """Open the store, new or unfinished."""
        unfinished = unfinished_folder(self._path)
        mine = not unfinished.exists()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stack.callback(self._journal.close)
            self._writer = self._stack.enter_context(StoreWriter(self._path, **self._arguments))
        except OSError as exc:
            raise StoreWriteError(f"{self._path}: cannot be written: {exc.strerror or exc}") from exc
        except BaseException as exc:  # an interrupt before the writer can clean up after itself
            if mine and not isinstance(exc, StoreError):  # refused: another one began it a moment ago, and it is theirs
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return self._writer

    def append(self, record: LabelledGeometry, quality: Mapping[str, float | None] | None) -> None:
        """Append a record with its residuals, see `StoreWriter.append`."""
        if self._writer is None:
            self.begin()
            self._journal.open(unfinished_folder(self._path))
        if self._writer is not None:
            self._writer.append(record, quality)

    def finish(self, provenance: dict[str, Any]) -> None:
        """Say where the records come from; the store is finished on a clean exit."""
        if self._writer is not None:
            self._writer.add_provenance(provenance)


def unfinished_folder(target: Path) -> Path:
    """Return where the store grows."""
    return beside(target, ".unfinished")
