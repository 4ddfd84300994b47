"""Texts and archives that mean harm, and what must come of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nequip_hessian.errors import RecordError
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

TAR = {".tar": bytes, ".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.bz2": bz2.compress,
       ".tar.xz": lzma.compress, ".tar.lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)}  # fmt: skip

MIXED = "\x9b2J\x9b31mred\u202ereversed<script>alert(1)</script>"
PATHS = ("../../x", "/etc/passwd", "..", ".", "~/x", "..\\..\\x", "a/../../b", "-rf", "CON", "x/", "%2e%2e%2fx")
TEXTS = (
    MIXED,
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; </td></table><svg/onload=alert(1)>",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;pwned\x07",
    "\x1b]8;;http://x.example\x1b\\here\x1b]8;;\x1b\\",
    "over\rwritten\b\b\b",
    "two\nlines\n3\n\nO 0 0 0",
    "\x7f\x85\u2028\u2029\u200b\ufeff",
    "a\tb",
    'quote" Lattice="1 0 0',
    "=cmd|' /C calc'!A0",
    "L" * 100_000,
    *PATHS,
)
"""Labels of geometries: for a page, a terminal, a parser and a file system."""


def obeyed(text: str) -> set[str]:
    """What a terminal would obey in a text: its control characters and invisible marks."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {one for one in text if one not in "\n\t" and unicodedata.category(one) in kinds}


def marked_up(page: str, texts: Iterable[str] = TEXTS) -> list[str]:
    """The texts with tags in them that stand as they are in an HTML page."""
    return [text for text in texts if "<" in text and text in page]


def acceptable(text: str) -> bool:
    """Whether a record can have a text for a label."""
    try:
        LabelledGeometry(numbers=[1], positions=[[0.0, 0, 0]], label=text, group=text)
    except RecordError:
        return False
    return True


def records(texts: Iterable[str]) -> list[LabelledGeometry]:
    """One stretched hydrogen molecule a text, which is its label, its group and its method, acceptable or not."""
    made = []
    for index, text in enumerate(texts):
        length, stiff = 0.7 + 0.001 * index, 30.0
        along = np.diag([stiff, 0.0, 0.0])
        level = LevelOfTheory("HF", program_version=str(index))
        record = LabelledGeometry(
            numbers=np.array([1, 1]),
            positions=np.array([[0.0, 0, 0], [length, 0, 0]]),
            energy=-1.0 * index,
            hessian=np.block([[along, -along], [-along, along]]),
            charge=0,
            multiplicity=1,
            level=level,
        )
        for owner, name in ((record, "label"), (record, "group"), (level, "method"), (level, "basis")):
            object.__setattr__(owner, name, text)  # as a program that is not ours would write it
        made.append(record)
    return made


def tarred(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A tar archive of some members, or of links."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = len(content), kind, link
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def zipped(members: dict[str, bytes], **options: int) -> bytes:
    """A zip archive of some members; options are attributes of its entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            for key, value in options.items():
                setattr(entry, key, value)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


LEADING_OUT = ("../x.fchk", "a/../../x.fchk", "r/../../x.fchk", "..\\x.fchk")
"""Names of members; the last one leads out of a zip file only."""

LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)


def linked(good: bytes, target: Path, kind: bytes, below: str = "") -> bytes:
    """A tar archive of a good file, a link or a device, and, with `below`, a file whose path leads through it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("good.fchk")
        entry.size = len(good)
        archive.addfile(entry, io.BytesIO(good))
        entry = tarfile.TarInfo("x" if below else "x.fchk")
        entry.type, entry.linkname = kind, str(target)
        archive.addfile(entry)
        if below:
            entry = tarfile.TarInfo(f"x/{below}")
            entry.size = len(good)
            archive.addfile(entry, io.BytesIO(good))
    return file.getvalue()


def linked_zip(target: Path) -> bytes:
    """A zip archive with nothing but a symbolic link."""
    return zipped({"x.fchk": str(target).encode()}, external_attr=0o120777 << 16, create_system=3)


def absurd_header() -> bytes:
    """A tar archive whose one header says that it has 4 GiB."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 2**32
    return entry.tobuf() + bytes(2**16)


def bomb(ending: str) -> bytes:
    """An archive that unpacks to 8 MiB of zeros."""
    members = {f"{number}.log": b"0" * 2**20 for number in range(8)}
    return zipped(members) if ending == ".zip" else TAR[ending](tarred(members))


def lying_zip() -> bytes:
    """A zip archive that declares 100 bytes and unpacks to 4 MiB."""
    honest = zipped({"x.log": b"0" * 2**22})
    true, declared = (2**22).to_bytes(4, "little"), (100).to_bytes(4, "little")
    if honest.count(true) != 2:
        raise ValueError("expected the size twice")
    return honest.replace(true, declared)


def encrypted(members: dict[str, bytes]) -> bytes:
    """A zip archive that says it is encrypted."""
    made = bytearray(zipped(members))
    made[6] |= 1
    made[made.index(b"PK\x01\x02") + 8] |= 1
    return bytes(made)


def archives(good: bytes, elsewhere: Path) -> dict[str, tuple[bytes, int]]:
    """Archives that mean harm.

    Args:
        good: an output that can be read, as `x.fchk`
        elsewhere: a folder with another one, `secret.fchk`, that must be left alone

    Returns:
        Name of the archive -> its bytes, and how many geometries may come of it.
    """
    secret = elsewhere / "secret.fchk"
    cases: dict[str, tuple[bytes, int]] = {}
    for number, name in enumerate(LEADING_OUT):
        cases[f"out{number}.zip"] = zipped({"a.fchk": good, name: good}), 0
        if "\\" not in name:
            cases[f"out{number}.tar"] = tarred({"a.fchk": good, name: good}), 0
    absolute = {f"{elsewhere}/new/x.fchk": good}
    cases["absolute.zip"], cases["absolute.tar"] = (zipped(absolute), 1), (tarred(absolute), 1)
    for number, kind in enumerate(LINKS):
        cases[f"link{number}.tar"] = linked(good, secret, kind), 1
    cases["through.tar"] = linked(good, elsewhere, tarfile.SYMTYPE, below="planted.fchk"), 2
    cases["link.zip"] = linked_zip(secret), 0
    for ending in (".zip", ".tar.gz", ".tar.xz"):
        cases[f"bomb{ending}"] = bomb(ending), 0
    cases["lying.zip"] = lying_zip(), 0
    cases["header.tar"] = absurd_header(), 0
    cases["nested.zip"] = zipped({"inner.zip": zipped({"x.fchk": good}), "good.fchk": good}), 1
    cases["locked.zip"] = encrypted({"x.fchk": good}), 0
    cases["names.zip"] = zipped({"\x1b[31m\u202e.fchk": good, "n" * 3000 + ".fchk": good}), 2
    return cases
