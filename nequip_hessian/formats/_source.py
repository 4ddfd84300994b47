"""What all format modules share: reading a file once, saying where it is damaged, and its provenance."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import io
import lzma
import tokenize
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats._endings import ENDINGS, ended, missing_end
from nequip_hessian.misprints import lone_asymmetry
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import BOHR, CODATA_YEAR, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2

HEAD: Final = 100_000
"""Characters at the beginning of a text in which a program names itself, behind what a queue may have printed."""

FloatArray = npt.NDArray[np.float64]
Reader = Callable[[str | Path], Iterator[LabelledGeometry]]

ATOMIC_UNITS: Final[dict[str, tuple[str, float]]] = {
    "positions": ("a0", BOHR),
    "energy": ("Eh", HARTREE),
    "forces": ("-Eh/a0", -HARTREE_PER_BOHR),
    "hessian": ("Eh/a0^2", HARTREE_PER_BOHR2),
}
"""Field -> (unit in the source, factor to ours); a source's gradient is the negative of our forces."""

OPENERS: Final[dict[str, Callable[[IO[bytes]], IO[bytes]]]] = {
    ".gz": lambda raw: cast(IO[bytes], gzip.GzipFile(fileobj=raw)),
    ".xz": lambda raw: cast(IO[bytes], lzma.LZMAFile(raw)),  # noqa: SIM115 - closed with the file it reads
    ".lzma": lambda raw: cast(IO[bytes], lzma.LZMAFile(raw)),  # noqa: SIM115
    ".bz2": lambda raw: cast(IO[bytes], bz2.BZ2File(raw)),
}
"""Ending of a compressed file -> what reads it."""
DAMAGED: Final = (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError)
"""What reading a damaged compressed file raises."""

LARGEST_TEXT: Final = 2**31
"""Bytes of a decompressed file; one that grows beyond them is refused before it fills the memory."""


_BINARY: Final = {
    b"\x93NUMPY": "a NumPy array, which holds no geometry",
    b"\x89HDF": "an HDF5 file of no layout known here",
    b"PK\x03\x04": "a zip archive (nequip-hessian convert unpacks it)",
    b"SQLite": "an SQLite database",
}


@dataclass(frozen=True)
class Source:
    """A text file read once.

    Attributes:
        path: where it was read from
        text: decoded contents, line ends as `\\n`, decompressed where the name ends in .gz, .xz, .lzma or .bz2
        size: bytes on disk
        sha256: of the bytes on disk
    """

    path: Path
    text: str
    size: int
    sha256: str

    @functools.cached_property
    def lines(self) -> list[str]:
        """The lines without their ends."""
        return self.text.split("\n")

    def line_of(self, offset: int) -> int:
        """Return the 1-based line number of a character offset."""
        return self.text.count("\n", 0, offset) + 1

    def error(self, message: str, line: int | None = None, kind: type[FormatError] = FormatError) -> FormatError:
        """Make an error that names this file and, where known, the 1-based line."""
        where = f"{self.path}" if line is None else f"{self.path}, line {line}"
        return kind(f"{where}: {message}")

    def facts(self) -> dict[str, Any]:
        """Return name, size and sha256 for the provenance."""
        return {"source": readable(self.path.name), "size": self.size, "sha256": self.sha256}


def read_source(path: str | Path) -> Source:
    """Read a text file, compressed or not, whatever its line ends and encoding (UTF-8, else Latin-1).

    Raises:
        FormatError: no such file, a folder, empty, binary, or damaged compression.
    """
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path}: expected a file, found a folder")
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise FormatError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    data = raw
    opener = OPENERS.get(path.suffix.lower())
    if opener is not None:
        try:
            data = opener(io.BytesIO(raw)).read(LARGEST_TEXT + 1)
        except DAMAGED as exc:
            raise damaged_compression(path, exc) from exc
    if len(data) > LARGEST_TEXT:
        raise FormatError(f"{path}: more than {LARGEST_TEXT >> 30} GiB when decompressed; unpack it if that is right")
    if not data.strip():
        raise FormatError(f"{path}: the file is empty")
    refuse_binary(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Source(path, text, len(raw), hashlib.sha256(raw).hexdigest())


def refuse_binary(path: Path, data: bytes) -> None:
    """Refuse a file whose first bytes are no text.

    Raises:
        FormatError: they are not.
    """
    if b"\0" in data[:65536]:
        kind = next((name for magic, name in _BINARY.items() if data.startswith(magic)), "a binary file")
        raise FormatError(f"{path}: cannot read this: looks like {kind}; expected a text file of a supported format")


def damaged_compression(path: Path, exc: BaseException) -> FormatError:
    """Make the error for a file that cannot be decompressed."""
    return FormatError(f"{path}: damaged {path.suffix} compression ({exc}); fetch the file again")


def read_output(path: str | Path) -> Source:
    """Read the output of a program, without its last line where that has no end: the numbers in it may be cut.

    Raises:
        FormatError: as `read_source`, or there is no line end in the whole file.
    """
    source = read_source(path)
    if source.text.endswith("\n"):
        return source
    end = source.text.rfind("\n") + 1
    if not end:
        raise source.error("a single line without an end is no output of a program; is the file cut?")
    return replace(source, text=source.text[:end])


def require_line_end(source: Source) -> None:
    """Refuse a file whose last line has no end, of a format where only that shows that its last number is whole."""
    if not source.text.endswith("\n"):
        raise source.error(
            "the last line has no line end: is the file cut? Add an empty line if it is whole", len(source.lines)
        )


def provenance(
    source: Source,
    format_name: str,
    fields: dict[str, tuple[str, float]],
    *,
    hessian: FloatArray | None = None,
    line: int | None = None,
    warnings: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Describe where a record came from; every conversion is invertible (value = factor * source value).

    Args:
        source: the file
        format_name: name of the format module
        fields: field -> (unit in the source, factor to the unit of the package)
        hessian: (n, n) as printed, both triangles, eV/angstrom^2: two elements that should be one are a warning
        line: 1-based line of the Hessian; behind it the end mark of the program is looked for
        warnings: what else `checks.check` shall warn of
        more: further JSON-able facts; those that are None are left out

    Returns:
        The facts; what `checks.check` shall warn of is under `warnings`.
    """
    conversions = {
        name: {"from": unit, "factor": factor, "codata": CODATA_YEAR} for name, (unit, factor) in fields.items()
    }
    facts = {**source.facts(), "format": format_name, "conversions": conversions}
    warnings = list(warnings)
    if format_name in ENDINGS and not ended(format_name, "\n".join(source.lines[(line or 1) - 1 :])):
        warnings.append(missing_end(format_name))
    lone = None if hessian is None else lone_asymmetry(hessian)
    if lone is not None:
        warnings.append(lone)
    more = {"line": line, "warnings": warnings or None, **more}
    return facts | {key: value for key, value in more.items() if value is not None}


def atomic_conversions(*, energy: bool = True, forces: bool = True) -> dict[str, tuple[str, float]]:
    """Return ATOMIC_UNITS without the labels that a file does not hold."""
    missing = {name for name, there in (("energy", energy), ("forces", forces)) if not there}
    return {name: pair for name, pair in ATOMIC_UNITS.items() if name not in missing}


def stem(path: Path) -> str:
    """Return the file name without the endings of format and compression, for use as a label."""
    name = plain_name(path)
    return readable(Path(name).stem or name)


def plain_name(path: Path) -> str:
    """Return the name of a file without the ending of its compression."""
    name = path.name
    for suffix in OPENERS:
        name = name.removesuffix(suffix)
    return name


def readable(name: str) -> str:
    """Return a file name with `_` for what cannot stand in a label: control characters and bytes of no text."""
    return "".join("_" if unicodedata.category(one) in ("Cc", "Cs") else one for one in name)


def numbers(text: str, source: Source, line: int, expected: int | None = None, what: str = "numbers") -> FloatArray:
    """Parse blank- or comma-separated numbers; Fortran D exponents are understood.

    Args:
        text: the characters to parse
        source, line: for the message; `line` is where `text` starts, 1-based
        expected: how many there must be
        what: their name, for the message

    Raises:
        FormatError: something is no number, or there are too few or too many.
    """
    tokens = text.replace(",", " ").split()
    try:
        values = np.array([float(t) for t in tokens], dtype=np.float64)
    except ValueError:
        values = np.array([_number(t, source, line, what) for t in tokens], dtype=np.float64)
    if expected is not None and len(values) != expected:
        message = f"{what}: expected {expected} numbers, found {len(values)}; the file is cut or damaged"
        raise source.error(message, line)
    return values


def _number(token: str, source: Source, line: int, what: str) -> float:
    try:
        return float(token.replace("D", "E").replace("d", "e"))
    except ValueError:
        raise source.error(f"{what}: {token[:30]!r} is no number; the file is damaged", line) from None


def column_blocks(source: Source, start: int, order: int, what: str) -> tuple[FloatArray, int]:
    """Read a full square matrix printed in blocks of columns, each row led by its index.

    Args:
        source: the file
        start: 0-based index of the line with the first block's column indices
        order: rows and columns of the matrix
        what: its name, for messages

    Returns:
        The (order, order) matrix in the unit of the source, and the 0-based index of the line after it.

    Raises:
        FormatError: a line is missing or does not hold as many numbers as there are columns.
    """
    matrix = np.empty((order, order))
    lines, at, column = source.lines, start, 0
    while column < order:
        header = lines[at].split() if at < len(lines) else []
        width = len(header)
        if not width or not all(token.isdigit() for token in header) or column + width > order:
            raise source.error(
                f"{what}: expected the indices of columns {column + 1} to at most {order}, found "
                f"{' '.join(header)[:40]!r}; the file is cut or damaged",
                at + 1,
            )
        for row in range(order):
            at += 1
            tokens = lines[at].split() if at < len(lines) else []
            if not tokens or not tokens[0].isdigit():
                raise source.error(f"{what}: expected row {row + 1} of {order}; the file is cut or damaged", at + 1)
            values = numbers(" ".join(tokens[1:]), source, at + 1, width, f"{what}, row {row + 1}")
            matrix[row, column : column + width] = values
        at += 1
        column += width
    return matrix, at


DAMAGE: Final = (
    ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError, MemoryError, OSError,
    SyntaxError, tokenize.TokenError,
)  # fmt: skip
"""What parsers raise at damage nobody foresaw; the last two NumPy, at the head of a .npy file."""


def guarded(format_name: str) -> Callable[[Reader], Reader]:
    """Turn whatever damage makes a parser stumble over into a FormatError that names the file.

    The parsers check what they expect; this is the net under them for files damaged in ways
    nobody foresaw, so that one file cannot end a conversion of thousands.
    """

    def decorate(reader: Reader) -> Reader:
        @functools.wraps(reader)
        def read(path: str | Path) -> Iterator[LabelledGeometry]:
            try:
                yield from reader(path)
            except HessianDataError as exc:
                if Path(path).name in str(exc):
                    raise
                raise type(exc)(f"{path}: {exc}") from exc
            except DAMAGE as exc:
                what = format_name if format_name.endswith("file") else f"{format_name} file"
                raise FormatError(f"{path}: damaged or unusual {what} ({exc})") from exc

        return read

    return decorate
