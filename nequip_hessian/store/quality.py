"""Residuals of each label below `extra/quality`, which `convert` writes and `info` and `merge` read.

What stands below `extra` is its author's: only arrays of exactly the form this package writes are taken for these.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import StoreError
from nequip_hessian.store.arrays import open_rows, read_all
from nequip_hessian.store.files import array_attributes, open_files
from nequip_hessian.store.layout import EXTRA_GROUP, QUALITY, QUALITY_GROUP
from nequip_hessian.store.reader import HessianStore

_GROUPS: Final = (f"{EXTRA_GROUP}/zarr.json", f"{QUALITY_GROUP}/zarr.json")


def quality(store: HessianStore) -> dict[str, npt.NDArray[np.float32]]:
    """Return the residuals that a store has, by path of the array, (G,) each, NaN where one is not known."""
    files = open_files(store.path)
    found: dict[str, npt.NDArray[np.float32]] = {}
    if files.read(_GROUPS[1]) is None:
        return found
    for spec in QUALITY:
        try:
            rows = open_rows(files, spec.path)
            ours = rows is not None and array_attributes(files, spec.path) == spec.attributes
            if rows is not None and ours and rows.shape == (len(store),) and rows.dtype == np.float32:
                found[spec.path] = read_all(rows)
        except StoreError:  # damaged or of another kind: nobody vouches for what is below `extra`
            continue
    return found


def has_other_extra(store: HessianStore) -> bool:
    """Whether anything but these residuals stands below `extra`."""
    ours: tuple[str, ...] = tuple(f"{path}/" for path in quality(store))
    names: Any = (key for key in open_files(store.path).names() if key.startswith(f"{EXTRA_GROUP}/"))
    return any(key not in _GROUPS and not key.startswith(ours) for key in names)
