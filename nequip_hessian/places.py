"""Names of what is written, and names beside them for what is not finished."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nequip_hessian.errors import OptionError


def require_name(path: str | Path) -> Path:
    """Return the path of something to write.

    Raises:
        OptionError: a folder without a name of its own, such as `.`, `..` or `/`; an address; a place inside a Zarr
            store.
    """
    refuse_address(path)
    path = Path(path)
    if path.name in ("", ".."):
        raise OptionError(
            f"output {path}: expected the name of what is to be written, found a folder without one; "
            f"say e.g. {path / 'new'}"
        )
    for folder in Path(os.path.abspath(path)).parents:
        if (folder / "zarr.json").is_file():
            raise OptionError(f"output {path}: lies inside the Zarr store {folder}; name a place outside it")
    return path


def refuse_same(output: str | Path, store: str | Path) -> None:
    """Refuse to write over the store that is read.

    Raises:
        OptionError: both are one file or folder.
    """
    if os.path.exists(output) and os.path.exists(store) and os.path.samefile(output, store):
        raise OptionError(f"output {output}: is the store that is read; name another file")


def refuse_address(path: str | Path) -> None:
    """Refuse what is no place on this machine.

    Raises:
        OptionError: an address such as `https://host/store.zarr`.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise OptionError(f"{path}: addresses are for reading; name a place on this machine")


def beside(path: str | Path, suffix: str = "", prefix: str = "") -> Path:
    """Return `<prefix><name><suffix>` in the same folder.

    Raises:
        OptionError: as `require_name`.
    """
    path = require_name(path)
    return path.with_name(f"{prefix}{path.name}{suffix}")
