"""Checksums that do not depend on how a store lies on disk: of its logical metadata, and of its content as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from nequip_hessian.store.files import Files, read_metadata
from nequip_hessian.store.layout import NAME, UUID, spec_of

KEY: Final = "metadata_checksum"
_LOGICAL: Final = ("shape", "data_type", "attributes", "dimension_names")
"""What of an array's metadata means something; chunks, codecs and fill value only say how it lies on disk."""


def canonical(value: Any) -> str:
    """Return the one JSON text of a value (RFC 8785): sorted keys, no blanks, shortest numbers.

    Args:
        value: what `json.loads` returns; whole numbers are written in full

    Raises:
        ValueError: it holds NaN or infinity.
    """
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: str(key).encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("NaN and infinity have no JSON form")
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + int(exponent)
    if len(text) <= point <= 21:
        body = text + "0" * (point - len(text))
    elif 0 < point <= 21:
        body = f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        body = f"0.{'0' * -point}{text}"
    else:
        body = f"{text[0]}{'.' if len(text) > 1 else ''}{text[1:]}e{point - 1:+d}"
    return f"-{body}" if sign else body


def digest(value: Any) -> str:
    """Return `sha256:` and the SHA-256 of the canonical JSON of a value."""
    return f"sha256:{hashlib.sha256(canonical(value).encode('utf-8', 'surrogatepass')).hexdigest()}"


def metadata_checksum(root: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the checksum of a store's logical metadata (section 2 of the specification).

    Args:
        root: attributes of the root group, both `zarr_conventions` and `hessian_zarr`
        arrays: `zarr.json` of each array of the layout, by path

    Returns:
        `sha256:` and 64 hexadecimal digits; independent of chunks, codecs, blanks and key order.
    """
    entries = root.get("zarr_conventions") or []
    ours = [entry for entry in entries if isinstance(entry, Mapping) and entry.get("uuid") == UUID]
    own = {key: value for key, value in root[NAME].items() if key != KEY}
    logical = {path: {key: node[key] for key in _LOGICAL if key in node} for path, node in arrays.items()}
    return digest({"zarr_conventions": ours, NAME: own, "arrays": logical})


def read_logical(files: Files) -> dict[str, dict[str, Any]]:
    """Return the `zarr.json` of each array of the layout that is there, by path."""
    found = {}
    for key in files.names():
        path = key.removesuffix("/zarr.json")
        if path != key and spec_of(path) is not None:
            found[path] = read_metadata(files, path) or {}
    return found


def content_checksum(attributes: Mapping[str, Any]) -> str:
    """Return one checksum of all values of a store: that of its `checksums`, which name every array.

    Args:
        attributes: the store's `hessian_zarr` object
    """
    return digest(attributes["checksums"])
