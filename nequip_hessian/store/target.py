"""The place a store is written to: checked first, filled beside itself, put there in one step."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from nequip_hessian.errors import OptionError, StoreError, StoreWriteError
from nequip_hessian.places import beside, require_name
from nequip_hessian.store.build import PROFILES, zip_directory
from nequip_hessian.store.files import open_files, read_metadata
from nequip_hessian.store.layout import NAME
from nequip_hessian.store.spool import JOURNAL, discard, lock


class Target:
    """Where a finished store will stand.

    Attributes:
        path: absolute path of the store
        folder: `<path>.unfinished`, where it grows

    Args:
        path: a directory (profile `publish`: a zip file)
        profile: one of `build.PROFILES`
        overwrite: replace a store at `path`; the old one stays until the new one is finished

    Raises:
        StoreError: something is at `path` already, or nothing can be written there.
    """

    def __init__(self, path: str | Path, *, profile: str = "local", overwrite: bool = False) -> None:
        if profile not in PROFILES:
            raise StoreError(f"profile: expected one of {', '.join(PROFILES)}, found {profile!r}")
        self.path = Path(os.path.abspath(require_name(path)))
        self.profile, self.overwrite = profile, overwrite
        self.folder = beside(self.path, ".unfinished")
        self._check()

    def _check(self) -> None:
        if self.path.suffix == ".zip" and self.profile != "publish":
            raise OptionError(f"{self.path}: a zip file is written by profile 'publish', not {self.profile!r}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreError(f"{self.path}: the folder {self.path.parent} cannot be made: {exc.strerror}") from exc
        if not os.path.lexists(self.path):
            return
        if not self.overwrite:
            raise StoreError(f"{self.path}: exists already; name another path or say --overwrite")
        try:
            attributes = (read_metadata(open_files(self.path)) or {}).get("attributes")
        except StoreError:
            attributes = None
        if not isinstance(attributes, dict) or NAME not in attributes:
            raise StoreError(f"{self.path}: is no Hessian store, so it is not replaced; move it away first")

    @contextlib.contextmanager
    def workshop(self) -> Iterator[Path]:
        """Give a directory to build a store in; on a clean exit it is published, on an exception it is gone.

        For what can be made again from whole stores; records that come one by one have a journal (`Spool`).

        Raises:
            StoreError: an unfinished conversion is there, another process is writing, or the disk refuses.
        """
        self._clear()
        try:
            self.folder.mkdir()
            held = lock(self.folder)
        except OSError as exc:
            raise StoreWriteError(f"{self.folder}: cannot be written: {exc.strerror}") from exc
        try:
            with held:
                built = self.folder / "store"
                yield built
                self.publish(built)
        except OSError as exc:
            raise StoreWriteError(f"{self.folder}: cannot be written: {exc.strerror or exc}") from exc
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _clear(self) -> None:
        if not self.folder.exists():
            return
        if (self.folder / JOURNAL).exists() and not self.overwrite:
            raise StoreError(
                f"{self.folder}: an unfinished store is there; finish it first, or start again with --overwrite"
            )
        discard(self.folder)

    def publish(self, built: Path) -> None:
        """Put a finished store directory (profile `publish`: its zip) at the path, in one step, safely on disk."""
        if self.profile == "publish":
            packed = self.folder / "store.zip"
            zip_directory(built, packed)
            built = packed
        sync_tree(built)
        self.swap(built)

    def swap(self, built: Path) -> None:
        """Rename a finished store to the path; what was there is removed afterwards."""
        old = beside(self.path, ".old")
        if os.path.lexists(self.path):
            if not self.overwrite:
                raise StoreError(f"{self.path}: appeared while the store was written; it is left as it is")
            _remove(old)  # a copy from a replacement that was killed; the store itself is here
            os.rename(self.path, old)
        os.rename(built, self.path)
        sync_folder(self.path.parent)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure, on systems that can."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders, and needs no such call
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make a file, or all files and names below a folder, survive a power failure: before the rename, not after."""
    files = [path] if path.is_file() else [Path(root) / name for root, _, names in os.walk(path) for name in names]
    for file in files:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
    if path.is_dir():
        for root, _, _ in os.walk(path, topdown=False):
            sync_folder(Path(root))
