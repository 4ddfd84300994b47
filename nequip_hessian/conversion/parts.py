"""What a worker read of one input, on disk until the conversion takes it into the store: a file an input, no pickles.

A part is named by what decides its content: the file with its size and time,
how it is read, and the version of this package. So a part of an earlier run is
as good as a new one, and one of a file that has changed since is never found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from nequip_hessian import __version__
from nequip_hessian.checks import Checks
from nequip_hessian.conversion.journal import stamp
from nequip_hessian.conversion.read import Outcome, Reading
from nequip_hessian.curvature import pack, unpack
from nequip_hessian.errors import StoreError, StoreWriteError
from nequip_hessian.record import FIELD_NAMES, LabelledGeometry, LevelOfTheory

_MAGIC: Final = b"nequip-hessian part 2\n"
_LENGTH: Final = struct.Struct("<Q")
_SCALARS: Final = ("format", "index", "label", "formula", "reason")


class Parts:
    """The folder of the parts of one conversion.

    Args:
        folder: made when the first part is put in
        reading: how the inputs are read
    """

    def __init__(self, folder: Path, reading: Reading) -> None:
        self.folder, self.reading = folder, reading

    def path(self, source: Path) -> Path:
        """Return where the part of an input is, or will be."""
        facts = [os.path.abspath(source), stamp(source), asdict(self.reading), __version__]
        return self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.part"

    def has(self, source: Path) -> bool:
        """Whether an input has been read."""
        return self.path(source).is_file()

    def outcomes(self, source: Path) -> Iterator[Outcome]:
        """Yield the outcomes of an input that has been read.

        Raises:
            StoreError: its part is not there or damaged.
        """
        path = self.path(source)
        try:
            with open(path, "rb") as file:
                yield from _frames(file)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as exc:
            raise StoreError(f"{path}: what was read of {source} cannot be used ({exc}); remove it and repeat") from exc

    def drop(self, source: Path) -> None:
        """Remove the part of an input."""
        self.path(source).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the parts, and the folder if nothing else is in it."""
        for pattern in ("*.part", "*.new"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


@dataclass(frozen=True)
class ReadPart:
    """Reads one input into its part; it pickles, so that it runs anywhere that sees the same files.

    Attributes:
        folder: of the parts
        reading: how the inputs are read
    """

    folder: str
    reading: Reading

    def __call__(self, source: str) -> None:
        """Read one input; the part appears in one step.

        Raises:
            StoreWriteError: the disk refuses.
        """
        parts, path = Parts(Path(self.folder), self.reading), Path(source)
        target = parts.path(path)  # of the file as it is before it is read
        aside = target.with_suffix(f".{platform.node()}.{os.getpid()}.new")
        try:
            parts.folder.mkdir(parents=True, exist_ok=True)
            try:
                with open(aside, "wb") as file:
                    _write(file, self.reading.outcomes(path))
                os.replace(aside, target)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
        except OSError as exc:
            raise StoreWriteError(f"{parts.folder}: cannot be written: {exc.strerror or exc}") from exc


def lost_part(parts: Parts, source: Path, reason: str) -> None:
    """Note in a part that an input could not be read because the process that read it died."""
    parts.folder.mkdir(parents=True, exist_ok=True)
    with open(parts.path(source), "wb") as file:
        _write(file, [Outcome(None, reason=reason)])


def _write(file: IO[bytes], outcomes: Iterable[Outcome]) -> None:
    file.write(_MAGIC)
    count = 0
    for outcome in outcomes:
        header, arrays = _encoded(outcome)
        content = b"".join(array.tobytes() for array in arrays)
        _write_header(file, {**header, "crc32": zlib.crc32(content)})
        file.write(content)
        count += 1
    _write_header(file, {"end": count})


def _write_header(file: IO[bytes], header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    file.write(_LENGTH.pack(len(text)) + text)


def _encoded(outcome: Outcome) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    header: dict[str, Any] = {name: getattr(outcome, name) for name in _SCALARS}
    header["notes"] = list(outcome.notes)
    header["checks"] = None if outcome.checks is None else vars(outcome.checks)
    if outcome.record is None:
        return header, []
    plain: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    arrays = []
    for name in FIELD_NAMES:
        value = getattr(outcome.record, name)
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(pack(value) if name == "hessian" else value)
            shapes[name] = [value.dtype.str, list(value.shape)]
            arrays.append(value)
        elif value is not None:
            plain[name] = value.as_dict() if isinstance(value, LevelOfTheory) else value
    return {**header, "record": plain, "arrays": shapes}, arrays


def _frames(file: IO[bytes]) -> Iterator[Outcome]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("no part of a conversion")
    count = 0
    while True:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        header = json.loads(file.read(length))
        if "end" in header:
            if header["end"] != count:
                raise ValueError("cut short")
            return
        yield _decoded(header, file)
        count += 1


def _decoded(header: dict[str, Any], file: IO[bytes]) -> Outcome:
    checks = header["checks"]
    if checks is not None:
        checks = Checks(**{**checks, "warnings": tuple(checks["warnings"])})
    record = None
    if "record" in header:
        found: dict[str, Any] = {**header["record"], "level": LevelOfTheory(**header["record"]["level"])}
        kinds = {name: (np.dtype(kind), shape) for name, (kind, shape) in header["arrays"].items()}
        sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in kinds.values()]
        content = file.read(sum(sizes))
        if len(content) != sum(sizes) or zlib.crc32(content) != header["crc32"]:
            raise ValueError("damaged")
        start = 0
        for (name, (dtype, shape)), size in zip(kinds.items(), sizes, strict=True):
            array = np.frombuffer(content, dtype=dtype, count=math.prod(shape), offset=start).reshape(shape)
            found[name] = unpack(array) if name == "hessian" else array
            start += size
        record = LabelledGeometry.restored(found)  # it was checked where it was read
    plain = {name: header[name] for name in _SCALARS}
    return Outcome(**plain, record=record, checks=checks, notes=tuple(header["notes"]))
