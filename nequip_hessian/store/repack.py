"""The same store on disk in another way: profile, precision of Hessians, present form of the metadata."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nequip_hessian.errors import StoreError
from nequip_hessian.store.attributes import provenance_entry
from nequip_hessian.store.build import Builder
from nequip_hessian.store.check_values import refuse_damaged
from nequip_hessian.store.compose import Composer, group_names, whole
from nequip_hessian.store.files import Files, array_attributes, open_files, read_metadata
from nequip_hessian.store.layout import EXTRA_GROUP, FLOATS, NAME, UUID, VERSION
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.remote import RemoteFiles
from nequip_hessian.store.target import Target

DERIVED = ("version", "counts", "levels_of_theory", "provenance", "checksums", "metadata_checksum")


def repack(
    path: str | Path,
    output: str | Path,
    *,
    profile: str = "local",
    dtype: str | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a store anew; with the same `dtype` every value and every checksum stays as it is.

    Args:
        path: the store
        output: the new store; may be the same path with `overwrite`
        profile: `local`, `remote` or `publish` (a zip file), see `StoreWriter`
        dtype: `float32` or `float64` of Hessian data and stored products; `None`: as they are
        overwrite: replace a store at `output`

    Returns:
        Paths of the arrays whose checksum changed.

    Raises:
        StoreError: no readable store, one whose values are not those of its checksums, or something is at `output`.
    """
    if dtype not in (None, *FLOATS):
        raise StoreError(f"dtype: expected None, 'float32' or 'float64', found {dtype!r}")
    store, files = HessianStore(path), open_files(path)
    target = Target(output, profile=profile, overwrite=overwrite)
    old = store.attributes
    refuse_damaged(files, old)
    with target.workshop() as built:
        builder = Builder(built, profile)
        composer = Composer([whole(store)], group_names(store), dtype)
        counts = composer.write(builder, target.path.name)
        for scheme in store.split_schemes:
            codes, parts = store.split(scheme)
            extra = array_attributes(files, f"split/{scheme}").get("extra")
            builder.add_split(scheme, parts, codes, extra if isinstance(extra, dict) else None)
        if isinstance(files, RemoteFiles) and not files.lists:  # what is below `extra` is found by its name alone
            composer.write_quality(builder)
        else:
            copy_extra(files, built)
        entries = list(old["provenance"])
        if dtype is not None and dtype != str(store.packed(0).dtype.name):
            entries.append(provenance_entry({"routine": "repack", "options": {"dtype": dtype}}))
        written = provenance_entry({"routine": "store", "options": {"dtype": dtype, "profile": profile}})
        attributes = {
            "version": VERSION,
            **{key: value for key, value in old.items() if key not in DERIVED},
            "counts": counts,
            "levels_of_theory": old["levels_of_theory"],
            "provenance": [*entries, written],
        }
        builder.finish(attributes, other_attributes(files))
    return sorted(p for p, value in builder.checksums.items() if old["checksums"].get(p) != value)


def other_attributes(files: Files) -> dict[str, Any]:
    """Return the root attributes of other conventions, with their entries of `zarr_conventions`."""
    found = (read_metadata(files) or {}).get("attributes") or {}
    conventions = [entry for entry in found.get("zarr_conventions", []) if entry.get("uuid") != UUID]
    return {**{key: value for key, value in found.items() if key != NAME}, "zarr_conventions": conventions}


def copy_extra(files: Files, folder: Path) -> None:
    """Copy what the author put below `extra/`, as it is.

    Raises:
        StoreError: a key that leads out of the store.
    """
    if files.odd_names():
        raise StoreError(f"{files.path}: holds keys that are no plain paths: {', '.join(files.odd_names()[:3])}")
    for key in files.names():
        if key.split("/")[0] != EXTRA_GROUP:
            continue
        place = folder / key
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(files.path, Path) and files.path.is_dir():
            shutil.copyfile(files.path / key, place)
        else:
            place.write_bytes(files.read(key) or b"")
