"""Pickles read without executing anything: only plain containers, NumPy arrays and torch tensors come back.

A pickle is a program. The unpickler here resolves a short list of names, all of
them to functions and classes of this module that do nothing but keep what they
are given; any other name is refused, and named. Tensors come back as NumPy
arrays, PyTorch Geometric's `Data` as an inert object with its state.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError

AnyArray = npt.NDArray[Any]

_MAGIC: Final = 0x1950A86A20F9469CFC6C  # torch's stream of a storage begins with it
_PROTOCOL: Final = 1001
_STORAGES: Final = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class Inert:
    """Stands for an object of a known class: it keeps the state that the pickle gives it."""

    def __init__(self, *args: Any) -> None:
        if args:
            raise FormatError("a pickled object with arguments, which is not rebuilt")

    def plain(self) -> dict[str, Any]:
        """Return the innermost mapping of a `Data` object: its fields by name."""
        found: Any = self
        while not isinstance(found, dict) or "_store" in found or "_mapping" in found:
            state = found if isinstance(found, dict) else vars(found)
            inner = next((state[key] for key in ("_store", "_mapping") if key in state), None)
            if inner is None or inner is found:
                return dict(state)
            found = inner
        return dict(found)


class _DType:
    """A pickled `numpy.dtype`: byte order and kind, nothing structured and no objects."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def dtype(self) -> np.dtype[Any]:
        order = "" if self.order in ("|", "=") else self.order
        dtype = np.dtype(order + self.code)
        if dtype.kind not in "biufc":
            raise FormatError(f"a pickled array of {self.code!r}, which is not rebuilt; only numbers are")
        return dtype


class _NumPyArray:
    """A pickled `numpy.ndarray` of numbers."""

    def __init__(self, *_: Any) -> None:
        self.value: AnyArray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
            raise FormatError("a pickled array of objects, which is not rebuilt; only numbers are")
        self.value = np.frombuffer(raw, dtype.dtype()).reshape(shape, order="F" if fortran else "C")


def _from_buffer(raw: Any, dtype: _DType, shape: Any, order: str) -> AnyArray:
    return np.frombuffer(bytes(raw), dtype.dtype()).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _DType, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype.dtype())[0].item()


def _storage(raw: bytes) -> AnyArray:
    """Read a storage as `torch.save` writes it in its older form: four pickles, then sizes and bytes."""
    stream = io.BytesIO(raw)
    if raw[:2] == b"PK":
        raise FormatError("a pickled torch storage in zip form, which is not rebuilt")
    magic, protocol, _, storage, keys = (_Unpickler(stream).load() for _ in range(5))
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(storage, _Pending) or keys != [storage.key]:
        raise FormatError("a pickled torch storage of an unknown form")
    (count,) = struct.unpack("<q", stream.read(8))
    size = count * storage.dtype.itemsize
    data = stream.read(max(size, 0))
    if count != storage.count or len(data) != size:
        raise FormatError(f"a pickled torch storage that is cut: expected {storage.count} numbers")
    return np.frombuffer(data, storage.dtype)


class _Pending:
    """A storage whose bytes follow."""

    def __init__(self, dtype: np.dtype[Any], key: str, count: int) -> None:
        self.dtype, self.key, self.count = dtype, key, count


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> AnyArray:
    if not isinstance(storage, np.ndarray):
        raise FormatError("a pickled tensor without a storage")
    shape, steps = tuple(int(n) for n in size), tuple(int(n) for n in stride)
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if min((offset, *shape, *steps), default=0) < 0 or (0 not in shape and last >= len(storage)):
        raise FormatError("a pickled tensor larger than its storage; the file is damaged")
    width = storage.itemsize
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, tuple(step * width for step in steps))
    return view.copy()


def _codecs_encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise FormatError(f"pickled bytes in the encoding {encoding!r}, which is not rebuilt")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""  # how the older protocols write empty bytes


_NAMES: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _NumPyArray,
    ("_codecs", "encode"): _codecs_encode,
    **{(module, "bytes"): _no_bytes for module in ("__builtin__", "builtins")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _NumPyArray for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{("torch_geometric.data.data", name): Inert for name in ("Data", "DataEdgeAttr", "DataTensorAttr")},
    **{("torch_geometric.data.storage", name): Inert for name in ("GlobalStorage", "BaseStorage", "NodeStorage")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        try:
            return _NAMES[module, name]
        except KeyError:
            raise FormatError(
                f"the pickle asks for {module}.{name}, which is not rebuilt: only plain containers, NumPy arrays and "
                "torch tensors are, so that nothing in a file is executed"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], np.dtype):
            raise FormatError("a pickle with a persistent object of an unknown form, which is not rebuilt")
        return _Pending(pid[1], str(pid[2]), int(pid[4]))


def unpickle(raw: bytes) -> Any:
    """Read one pickle.

    Args:
        raw: its bytes

    Returns:
        Numbers, texts, containers and NumPy arrays; an object of PyTorch Geometric as the dictionary of its fields.

    Raises:
        FormatError: cut or damaged, or it asks for something else, which the message names.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(raw)).load())
    except FormatError:
        raise
    except Exception as exc:  # a damaged pickle can raise anything, and none of it is ours
        raise FormatError(f"a damaged pickle ({type(exc).__name__}: {' '.join(str(exc).split())[:100]})") from exc


def _plain(value: Any) -> Any:
    if isinstance(value, Inert):
        return _plain(value.plain())
    if isinstance(value, _NumPyArray):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if not isinstance(part, Inert)}
    if isinstance(value, list | tuple):
        return type(value)(_plain(part) for part in value)
    return value
