"""A split scheme for a finished store. The store is not changed but replaced, in one step, by one that has it.

Files whose bytes stay the same are linked, not copied, where the file system can.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import ConfigError, OptionError, StoreError
from nequip_hessian.places import refuse_address
from nequip_hessian.store.attributes import SCHEME, provenance_entry
from nequip_hessian.store.build import Builder
from nequip_hessian.store.files import DirectoryFiles, Files, open_files
from nequip_hessian.store.layout import SPLIT_PREFIX, VERSION
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.repack import DERIVED, other_attributes
from nequip_hessian.store.splitting import assign, clusters
from nequip_hessian.store.target import Target


def split(
    path: str | Path,
    scheme: str,
    fractions: Mapping[str, float],
    *,
    rule: str = "group",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, int]:
    """Make a split scheme that leaks nothing, and store it.

    Args:
        path: the store; it is replaced by one that has the scheme
        scheme: its name
        fractions: part -> share of the geometries, see `splitting.assign`
        rule: what stays together, see `splitting.clusters`
        seed: of the order in which clusters are taken
        overwrite: replace a scheme of this name

    Returns:
        Geometries in each part, and the `unused` ones if there are any.

    Raises:
        ConfigError: wrong shares or names, or a scheme that is there already.
        StoreError: no readable store, or the disk refuses.
    """
    refuse_address(path)
    if not SCHEME.fullmatch(scheme):
        raise OptionError(f"split: expected a name of letters, digits, '_', '-' and '.', found {scheme!r}")
    store = HessianStore(path)
    if scheme in store.split_schemes and not overwrite:
        raise ConfigError(f"split: {path} has a scheme {scheme!r}; choose another name or say --overwrite")
    codes = assign(clusters(store, rule), fractions, seed)
    recipe = {"rule": rule, "seed": seed, "fractions": dict(fractions)}
    add_split(path, scheme, list(fractions), codes, recipe)
    found = {name: int(np.count_nonzero(codes == index)) for index, name in enumerate(fractions)}
    unused = int(np.count_nonzero(codes < 0))
    return {**found, "unused": unused} if unused else found


def add_split(
    path: str | Path, scheme: str, parts: Sequence[str], codes: npt.NDArray[np.int8], recipe: Mapping[str, Any]
) -> None:
    """Put a split scheme into a store, in place of one of this name.

    Args:
        path: the store
        scheme: its name
        parts: names of the parts
        codes: (G,) index into them, -1 unused
        recipe: how it was made, JSON-able; kept with the scheme and in the provenance
    """
    refuse_address(path)
    store, files = HessianStore(path), open_files(path)
    if len(codes) != len(store):
        raise StoreError(f"split {scheme}: expected {len(store)} codes, one a geometry, found {len(codes)}")
    profile = "local" if isinstance(files, DirectoryFiles) else "publish"
    own = store.attributes
    with Target(path, profile=profile, overwrite=True).workshop() as built:
        _bring(files, built, f"{SPLIT_PREFIX}{scheme}")
        builder = Builder(built, profile, checksums=own["checksums"])
        builder.add_split(scheme, parts, codes, {"recipe": dict(recipe)})
        entry = provenance_entry({"routine": "split", "options": {"scheme": scheme, **recipe}})
        attributes = {
            "version": VERSION,
            **{key: value for key, value in own.items() if key not in DERIVED},
            "counts": own["counts"],
            "levels_of_theory": own["levels_of_theory"],
            "provenance": [*own["provenance"], entry],
        }
        builder.finish(attributes, other_attributes(files))


def _bring(files: Files, folder: Path, without: str) -> None:
    """Link or copy all files of a store but those below one path."""
    if files.odd_names():
        raise StoreError(f"{files.path}: holds keys that are no plain paths: {', '.join(files.odd_names()[:3])}")
    for key in files.names():
        if key.startswith(f"{without}/"):
            continue
        place = folder / key
        place.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(files, DirectoryFiles):
            place.write_bytes(files.read(key) or b"")
        elif key.endswith("zarr.json"):  # may be written to
            shutil.copyfile(files.path / key, place)
        else:
            _link(files.path / key, place)


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, place)
