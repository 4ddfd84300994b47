"""LMDB files read in plain Python: every offset is checked, so that damage is an error and not the end of the process.

The C library maps the file and follows its page numbers; in a file that is cut it
runs into unmapped memory. What is needed of the format (data version 1, 64 bit,
little-endian) is small: two meta pages, branch, leaf and overflow pages of a B+ tree.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._binary import NUMPY, binary_source, first_bytes
from nequip_hessian.formats._source import Source

_MAGIC: Final = b"\xde\xc0\xef\xbe"  # 0xBEEFC0DE at byte 16, after the header of the first page
_HEADER: Final = 16
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIG: Final = 1  # of a node: its value is on overflow pages
_DEPTH: Final = 32
_NO_PAGE: Final = 2**64 - 1
_BLOCK: Final = 2**16


def is_lmdb(path: Path) -> bool:
    """Say whether a file is an LMDB environment."""
    return first_bytes(path)[16:20] == _MAGIC


class _Content:
    """The bytes of an open file by slices, a few of its blocks kept: a map of the file would count as memory in use."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        self._block = functools.lru_cache(maxsize=64)(self._read_block)

    def __len__(self) -> int:
        return self._size

    def _read_block(self, number: int) -> bytes:
        self._file.seek(number * _BLOCK)
        return self._file.read(_BLOCK)

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        first, last = start // _BLOCK, max(stop - 1, start) // _BLOCK
        if last - first > 1:
            self._file.seek(start)
            return self._file.read(stop - start)
        joined = self._block(first) if first == last else self._block(first) + self._block(last)
        return joined[start - first * _BLOCK : stop - first * _BLOCK]


class Tree:
    """The unnamed database of an LMDB file.

    Args:
        content: the bytes of the file
        name: its path, for messages

    Raises:
        FormatError: cut or damaged.
    """

    def __init__(self, content: _Content, name: str) -> None:
        self._content, self._name = content, name
        self._size, _, _ = self._read_meta(0)
        if not 512 <= self._size <= 65536 or self._size & (self._size - 1):
            raise self._error(f"page size {self._size}")
        metas = [self._read_meta(offset) for offset in (0, self._size)]
        size, last, (_, self.entries, self._root) = max(metas, key=lambda meta: meta[2][0])
        if size != self._size or (last + 1) * size > len(content):
            raise self._error(f"expected {(last + 1) * size} bytes or more, found {len(content)}: the file is cut")

    def _error(self, what: str) -> FormatError:
        return FormatError(f"{self._name}: damaged LMDB file ({what}); fetch it again")

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        end = offset + struct.calcsize(form)
        if offset < 0 or end > len(self._content):
            raise self._error(f"it points to byte {offset} of {len(self._content)}")
        return struct.unpack(form, self._content[offset:end])

    def _read_meta(self, offset: int) -> tuple[int, int, tuple[int, int, int]]:
        """Return page size, last page, and (transaction, entries, root) of a meta page."""
        (flags,) = self._unpack("<H", offset + 10)
        if not flags & _META or self._content[offset + 16 : offset + 20] != _MAGIC:
            raise self._error(f"no meta page at byte {offset}")
        (version,) = self._unpack("<I", offset + 20)
        if version != 1:
            raise self._error(f"data version {version}, expected 1")
        (size,) = self._unpack("<I", offset + 40)
        entries, root, last, transaction = self._unpack("<4Q", offset + 120)
        return size, last, (transaction, entries, root)

    def _page(self, number: int) -> tuple[int, int, list[int]]:
        """Return the offset of a page, its kind and the offsets of its nodes."""
        offset = number * self._size
        flags, lower = self._unpack("<2H", offset + 10)
        count, kind = (lower - _HEADER) // 2, flags & (_BRANCH | _LEAF)
        if kind not in (_BRANCH, _LEAF) or not 0 <= count <= self._size // 2:
            raise self._error(f"page {number} is neither branch nor leaf")
        pointers = self._unpack(f"<{count}H", offset + _HEADER)
        if any(pointer + 8 > self._size for pointer in pointers):
            raise self._error(f"page {number} points outside itself")
        return offset, kind, [offset + pointer for pointer in pointers]

    def _node(self, offset: int) -> tuple[int, int, int, bytes, int]:
        low, high, flags, length = self._unpack("<4H", offset)
        key = self._content[offset + 8 : offset + 8 + length]
        return low | high << 16, low | high << 16 | flags << 32, flags, key, offset + 8 + length

    def _value(self, size: int, flags: int, at: int) -> bytes:
        if flags & _BIG:
            (number,) = self._unpack("<Q", at)
            at = number * self._size
            (kind,) = self._unpack("<H", at + 10)
            if kind & _OVERFLOW != _OVERFLOW:
                raise self._error(f"page {number} is no overflow page")
            at += _HEADER
        elif flags:
            raise self._error("a sub-database or a key with several values, which is not read")
        value = self._content[at : at + size]
        if len(value) != size:
            raise self._error(f"a value of {size} bytes reaches behind the end of the file")
        return value

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None where there is none."""
        page = self._root
        if page == _NO_PAGE:
            return None
        for _ in range(_DEPTH):
            _, kind, nodes = self._page(page)
            low, high = (1 if kind == _BRANCH else 0), len(nodes)
            while low < high:  # the first node whose key is greater; a branch's first key counts as the smallest
                middle = (low + high) // 2
                if self._node(nodes[middle])[3] <= key:
                    low = middle + 1
                else:
                    high = middle
            if low == 0:
                return None
            size, child, flags, found, at = self._node(nodes[low - 1])
            if kind == _LEAF:
                return self._value(size, flags, at) if found == key else None
            page = child
        raise self._error("the tree of pages has no end")

    def keys(self) -> Iterator[bytes]:
        """Yield all keys, in the order of their bytes."""
        if self._root != _NO_PAGE:
            yield from self._keys_below(self._root, 0)

    def _keys_below(self, page: int, depth: int) -> Iterator[bytes]:
        if depth >= _DEPTH:
            raise self._error("the tree of pages has no end")
        _, kind, nodes = self._page(page)
        for offset in nodes:
            _, child, _, key, _ = self._node(offset)
            if kind == _LEAF:
                yield key
            else:
                yield from self._keys_below(child, depth + 1)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[Tree]:
    with open(path, "rb") as file:
        yield Tree(_Content(file), str(path))


@contextlib.contextmanager
def open_lmdb(path: str | Path) -> Iterator[tuple[Source, Tree]]:
    """Open an LMDB file for reading; nothing is written, no lock file either.

    Yields:
        Its facts, and its tree of entries.

    Raises:
        FormatError: no LMDB file, cut or damaged.
    """
    path = Path(path)
    source = binary_source(path, "an LMDB file")
    if not is_lmdb(path):
        head = first_bytes(path)
        kind = "a NumPy array" if head.startswith(NUMPY) else "a binary file" if b"\0" in head else "a text file"
        raise source.error(f"cannot read this: looks like {kind}; expected an LMDB file")
    with _mapped(path) as tree:
        yield source, tree


def first_value(path: Path) -> bytes:
    """Return the value of the first numbered entry, none where the file is no LMDB file or has none."""
    if not is_lmdb(path):
        return b""
    try:
        with _mapped(path) as tree:
            key = next((key for key in tree.keys() if key.isdigit()), b"")  # noqa: SIM118 - no mapping
            return (tree.get(key) if key else None) or b""
    except FormatError:
        return b""


def numbered(source: Source, tree: Tree, keys: range | None) -> Iterator[tuple[int, bytes]]:
    """Yield the entries whose keys are numbers, in the order of the numbers.

    Args:
        source: for messages
        tree: as of `open_lmdb`
        keys: the numbers, where the file says so; else they are looked for

    Raises:
        FormatError: an entry that the file counts is missing.
    """
    found = sorted(int(key) for key in tree.keys() if key.isdigit()) if keys is None else keys  # noqa: SIM118
    if not len(found):
        raise source.error("no numbered entries; expected one a geometry")
    for key in found:
        value = tree.get(str(key).encode())
        if value is None:
            raise source.error(f"entry {key} of {len(found)} is missing; the file is cut or damaged")
        yield key, value
