"""The root attributes of a store: what an author may set, provenance entries, versions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nequip_hessian import __version__
from nequip_hessian.errors import RecordError, StoreError
from nequip_hessian.record import UNKNOWN_LEVEL, LevelOfTheory
from nequip_hessian.store.files import Files, read_metadata, why_no_metadata
from nequip_hessian.store.layout import NAME, READ_TOO, VERSION
from nequip_hessian.store.schema import complaints, place

AUTHOR_KEYS: Final = ("id", "title", "description", "dataset_version", "license", "doi", "extra")
PROVENANCE_KEYS: Final = (
    "creator", "version", "routine", "time", "host", "options", "sources", "conversions", "extra",
)  # fmt: skip
SOURCE_KEYS: Final = ("name", "size", "sha256", "extra")
LEVEL_KEYS: Final = tuple(UNKNOWN_LEVEL.as_dict())
SCHEME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def jsonable(value: Any, what: str) -> Any:
    """Return a JSON copy of a value: tuples become lists, numpy numbers numbers, paths text.

    Raises:
        StoreError: it holds something JSON cannot, NaN included.
    """

    def other(item: Any) -> Any:
        if isinstance(item, Path):
            return str(item)
        if hasattr(item, "tolist"):
            return item.tolist()
        raise TypeError(f"{type(item).__name__} is not JSON")

    try:
        return json.loads(json.dumps(value, default=other, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise StoreError(f"{what}: expected something that JSON can hold: {exc}") from exc


def author_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check the attributes an author sets, and bring them into the form of the specification.

    Args:
        attributes: keys of AUTHOR_KEYS, text values; `doi` may be one text or a list; `extra` is open

    Raises:
        StoreError: an unknown key or a value of the wrong kind.
    """
    given = jsonable(dict(attributes or {}), "attributes")
    unknown = sorted(set(given) - set(AUTHOR_KEYS))
    if unknown:
        raise StoreError(
            f"attributes: unknown key {', '.join(unknown)}; known are {', '.join(AUTHOR_KEYS)}; "
            "anything of your own goes below 'extra'"
        )
    if isinstance(given.get("doi"), str):
        given["doi"] = [given["doi"]]
    for key, value in given.items():
        if key == "extra":
            good = isinstance(value, dict)
        elif key == "doi":
            good = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
        else:
            good = isinstance(value, str) and bool(value)
        if not good:
            raise StoreError(f"attributes: {key}: expected text (extra: an object, doi: texts), found {value!r}")
    return dict(given)


def provenance_entry(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a provenance entry: creator, version and time are filled in, unknown keys go below `extra`.

    Args:
        facts: keys of PROVENANCE_KEYS; `sources` is a list of names or of objects with `name`, `size`
            (bytes) and `sha256`

    Raises:
        StoreError: a value of the wrong kind.
    """
    given = jsonable(dict(facts), "provenance")
    unknown = {key: given.pop(key) for key in list(given) if key not in PROVENANCE_KEYS}
    if unknown:
        given["extra"] = {**given.get("extra", {}), **unknown}
    entry = {"creator": "nequip-hessian", "version": __version__, **given}
    entry.setdefault("time", datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z"))
    if isinstance(entry.get("sources"), list):
        entry["sources"] = [_source(source) for source in entry["sources"]]
    for error in complaints(entry, "root", "$defs", "provenance"):
        raise StoreError(f"provenance: {place(error) or 'entry'}: {error.message}")
    return entry


def _source(source: Any) -> Any:
    if isinstance(source, str):
        return {"name": source}
    if not isinstance(source, dict):
        return source
    known = {key: source[key] for key in SOURCE_KEYS if key in source}
    rest = {key: value for key, value in source.items() if key not in SOURCE_KEYS}
    return {**known, "extra": {**known.get("extra", {}), **rest}} if rest else known


def same_provenance(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two provenance entries differ in nothing but when, where and on how many processes."""
    return _core(first) == _core(second)


def _core(entry: Mapping[str, Any]) -> dict[str, Any]:
    core = {key: value for key, value in entry.items() if key not in ("time", "host")}
    if isinstance(core.get("options"), dict):
        core["options"] = {key: value for key, value in core["options"].items() if key != "executor"}
    return core


def level_from_dict(entry: Any, where: str) -> LevelOfTheory:
    """Read one entry of `levels_of_theory`; keys of a later version and `extra` are passed over."""
    if not isinstance(entry, Mapping):
        raise StoreError(f"{where}: level of theory: expected an object, found {entry!r}")
    try:
        return LevelOfTheory(**{key: entry[key] for key in LEVEL_KEYS if key in entry})
    except (TypeError, RecordError) as exc:
        raise StoreError(f"{where}: level of theory {dict(entry)!r}: {exc}") from exc


def check_version(attributes: Mapping[str, Any], where: str) -> None:
    """Refuse a store of another format version, naming both versions and the way out.

    Args:
        attributes: the store's `hessian_zarr` object
        where: the store, for the message

    Raises:
        StoreError: the version is not the one this package reads.
    """
    found = attributes.get("version")
    if found in (VERSION, *READ_TOO.get(VERSION, ())):
        return
    entries = [entry for entry in attributes.get("provenance") or [] if isinstance(entry, Mapping)]
    writers = [f"{entry.get('creator')} {entry.get('version')}" for entry in entries[-1:]]
    by = f" (written by {writers[0]})" if writers else ""
    raise StoreError(
        f"{where}: format version {found!r}{by}, this package reads {NAME} {VERSION!r}; {way_out_of(found)}"
    )


def way_out_of(version: object) -> str:
    """Say what to do with a store of another format version than that of this package."""
    if version in READ_TOO.get(VERSION, ()):
        return "nequip-hessian repack STORE -o STORE --overwrite writes it in the present version"
    numbers = [re.match(r"(\d+)\.(\d+)", str(one)) for one in (version, VERSION)]
    found, own = (tuple(map(int, match.groups())) if match else () for match in numbers)
    if found > own:
        return "it is of a newer version: update the package, pip install -U nequip-hessian"
    return "convert the sources again with this package, or read it with the one that wrote it"


def attributes_of(files: Files) -> dict[str, Any]:
    """Read the `hessian_zarr` attributes of a store of any version.

    Raises:
        StoreError: nothing there, unreadable, or no Hessian store.
    """
    path, metadata = files.path, read_metadata(files)
    if metadata is None:
        raise StoreError(f"{path}: {why_no_metadata(path)}")
    attributes = metadata.get("attributes")
    found = attributes.get(NAME) if isinstance(attributes, dict) else None
    if metadata.get("node_type") != "group" or not isinstance(found, dict):
        raise StoreError(f"{path}: a Zarr store, but without the attribute {NAME!r}, so no Hessian store")
    return found
