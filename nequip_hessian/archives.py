"""Zip and tar archives, unpacked without trust: nothing is written outside, no link is made, no bomb fills the disk.

An archive is data from somewhere else. Its members are copied one by one, as
plain files under names that cannot lead out; links, devices and what cannot be
a file here are left out and named. What comes out is counted while it comes
out, headers included, so that what an archive says of its own size is of no
consequence.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import functools
import gzip
import hashlib
import io
import json
import lzma
import os
import platform
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from tqdm import tqdm

from nequip_hessian.errors import FormatError, StoreWriteError

ENDINGS: Final = (
    ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.lzma", ".tgz", ".tbz2", ".tbz", ".txz", ".tlz", ".tar", ".zip",
)  # fmt: skip
LEAST_LIMIT: Final = 4 * 2**30
RATIO: Final = 200
"""An archive may unpack to RATIO times its size, or to LEAST_LIMIT bytes where that is more."""
MOST_MEMBERS: Final = 1_000_000
LARGEST_OTHER: Final = 100_000_000
"""Bytes of a member that is unpacked though its name is of no format, as a companion may be anything."""

_BLOCK: Final = 2**20
_LARGEST_READ: Final = 16 * _BLOCK  # of a header; what is copied comes in single blocks
_FACTS: Final = "archive.json"
_DAMAGE: Final = (
    OSError, EOFError, ValueError, LookupError, RuntimeError, NotImplementedError, MemoryError, zlib.error,
    lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip
_NO_SUCH_NAME: Final = (
    errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ,
)  # fmt: skip


Opener = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class Unpacked:
    """An archive that has been unpacked.

    Attributes:
        root: the folder with its members
        size: bytes of the archive
        sha256: of the archive
        left_out: member -> why it was not unpacked; only those that `wanted` names
    """

    root: Path
    size: int
    sha256: str
    left_out: dict[str, str]


@dataclass(frozen=True)
class _Member:
    """A member: its name as it is written there, the bytes it says it has, how to open it or why not."""

    name: str
    size: int
    opened: Opener | None
    reason: str = ""


def is_archive(path: Path) -> bool:
    """Say whether a file has the name of an archive that `unpack` unpacks."""
    return path.name.lower().endswith(ENDINGS)


def is_zipped_store(path: Path) -> bool:
    """Say whether a file is a Hessian store in a zip file."""
    if path.suffix.lower() != ".zip":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "zarr.json" in archive.namelist()
    except _DAMAGE:
        return False


def unpack(path: Path, folder: Path, wanted: Callable[[Path], bool], progress: bool | None = None) -> Unpacked:
    """Unpack an archive into a folder of its own, once: a second call finds what the first has unpacked.

    The files have the time of the archive, so that an archive that changed is seen as such.

    Args:
        path: the archive
        folder: where; the folder of one archive is named by its path, size and time, and appears in one step
        wanted: says of a member's name whether it is to be read; others of more than LARGEST_OTHER bytes stay
            in the archive
        progress: show a progress bar; default: on a terminal, after a few seconds

    Raises:
        FormatError: no such archive, damaged, encrypted, a member's name leads out of it, or it unpacks to
            more than it may.
        StoreWriteError: the disk refuses.
    """
    try:
        facts = path.stat()
    except OSError as exc:
        raise FormatError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    key = hashlib.sha256(repr((os.path.abspath(path), facts.st_size, facts.st_mtime_ns)).encode()).hexdigest()[:12]
    final = folder / key
    if not (final / _FACTS).is_file():
        aside = folder / f"{key}.{platform.node()}.{os.getpid()}.new"
        try:
            left_out = _fill(path, facts, aside / _plain(path), wanted, progress)
            with _writing(aside):
                (aside / _FACTS).write_text(json.dumps({"sha256": _sha256(path), "left_out": left_out}))
                _put(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    found = json.loads((final / _FACTS).read_text())
    return Unpacked(final / _plain(path), facts.st_size, found["sha256"], found["left_out"])


def _plain(path: Path) -> str:
    name = path.name
    ending = next(ending for ending in ENDINGS if name.lower().endswith(ending))
    return name[: -len(ending)] or "archive"


def _put(aside: Path, final: Path) -> None:
    """Rename, unless another process was faster."""
    try:
        os.rename(aside, final)
    except OSError:
        if not (final / _FACTS).is_file():
            raise


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreWriteError(f"{folder}: cannot be written: {exc.strerror or exc}") from exc


def _fill(
    path: Path, facts: os.stat_result, root: Path, wanted: Callable[[Path], bool], progress: bool | None
) -> dict[str, str]:
    """Copy the members of an archive into a folder; returns those that were wanted and left out."""
    allowed = max(LEAST_LIMIT, RATIO * facts.st_size)
    left_out: dict[str, str] = {}
    with _writing(root):
        root.mkdir(parents=True)
    written = 0
    disable = None if progress is None else not progress
    try:
        bar = tqdm(desc=f"unpack {path.name}", unit="file", disable=disable, delay=3)
        with closing(bar), closing(_members(path, allowed)) as members:
            for member in members:
                bar.update()
                name = _inside(member.name, path)
                if name is None or not (wanted(name) or (member.opened and member.size <= LARGEST_OTHER)):
                    continue
                reason = member.reason
                if member.opened is not None:
                    size, reason = _copied(member.opened, root / name, allowed - written, facts.st_mtime_ns)
                    written += size
                    _require(written, allowed, path)
                if reason and wanted(name):
                    left_out[name.as_posix()] = reason
    except (FormatError, StoreWriteError):
        raise
    except _DAMAGE as exc:
        text = str(exc) or type(exc).__name__
        raise FormatError(f"{path}: a damaged archive, or none ({text}); fetch it again, or unpack it") from exc
    return left_out


def _require(size: int, allowed: int, path: Path) -> None:
    if size > allowed:
        raise FormatError(
            f"{path}: unpacks to more than {allowed / 2**30:.1f} GiB, the larger of {RATIO} times its size and "
            f"{LEAST_LIMIT >> 30} GiB; unpack it yourself if that is right"
        )


def _inside(name: str, path: Path) -> Path | None:
    """Return the name of a member below the folder; None for the folder itself.

    Raises:
        FormatError: it leads out of the folder.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise FormatError(f"{path}: the member {name[:80]!r} leads out of the archive; nothing of it was read")
    return Path(*parts) if parts else None


def _copied(opened: Opener, target: Path, allowed: int, time: int) -> tuple[int, str]:
    """Copy one member; returns its bytes (more than are allowed: stopped there) and why it cannot be a file here."""
    size = 0
    with opened() as member:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = open(target, "wb")  # noqa: SIM115 - closed below
        except OSError as exc:
            if exc.errno in _NO_SUCH_NAME:
                return 0, f"this member cannot be a file here: {exc.strerror}"
            raise StoreWriteError(f"{target.parent}: cannot be written: {exc.strerror or exc}") from exc
        with file:
            while size <= allowed and (block := member.read(_BLOCK)):
                size += len(block)
                with _writing(target):
                    file.write(block)
            with _writing(target):
                file.flush()
    os.utime(target, ns=(time, time))
    return size, ""


def _members(path: Path, allowed: int) -> Generator[_Member, None, None]:
    members = _of_zip if path.suffix.lower() == ".zip" else _of_tar
    for number, member in enumerate(members(path, allowed)):
        if number >= MOST_MEMBERS:
            raise FormatError(f"{path}: more than {MOST_MEMBERS} members; unpack it if that is right")
        yield member


def _of_zip(path: Path, allowed: int) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _require(sum(entry.file_size for entry in entries), allowed, path)
        for entry in entries:
            if entry.flag_bits & 1:
                raise FormatError(f"{path}: the archive is encrypted; unpack it")
            kind = stat.S_IFMT(entry.external_attr >> 16)
            name = entry.filename.replace("\\", "/")
            if entry.is_dir() or name.endswith("/"):
                continue
            if kind not in (0, stat.S_IFREG):
                yield _Member(name, 0, None, "a link or a device, which is not taken from an archive")
            else:
                yield _Member(name, entry.file_size, functools.partial(archive.open, entry))


def _of_tar(path: Path, allowed: int) -> Iterator[_Member]:
    with _decompressed(path) as raw:
        counted = _Counted(raw, path, allowed)
        with tarfile.open(fileobj=cast(IO[bytes], counted), mode="r:") as archive:
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # they would all be kept
                content = archive.extractfile(entry) if entry.isfile() and not entry.issparse() else None
                if content is not None:
                    yield _Member(entry.name, entry.size, functools.partial(contextlib.closing, content))
                elif not entry.isdir():
                    reason = "a sparse file" if entry.issparse() else "a link or a device"
                    yield _Member(entry.name, 0, None, f"{reason}, which is not taken from an archive")
            counted.seek(archive.offset)
            if counted.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile is silent about that
                raise FormatError(f"{path}: a cut or damaged archive: its end mark is missing; fetch it again")
            while counted.read(_BLOCK):  # the checksum of a compressed file is at its end
                pass


def _decompressed(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if head.startswith(b"BZh"):
        return bz2.open(path)
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        return cast(IO[bytes], lzma.open(path))
    return open(path, "rb")


class _Counted:
    """A decompressed stream that refuses to go on beyond a number of bytes, or to read a header of absurd size."""

    def __init__(self, raw: IO[bytes], path: Path, allowed: int) -> None:
        self._raw, self._path, self._allowed = raw, path, allowed

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        _require(offset, self._allowed, self._path)
        return self._raw.seek(offset, whence)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LARGEST_READ:
            raise FormatError(f"{self._path}: a damaged archive: a header of {count} bytes")
        _require(self._raw.tell(), self._allowed, self._path)
        return self._raw.read(count)
