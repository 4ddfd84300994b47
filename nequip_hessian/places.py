"""Names of what is written, and names beside them for what is not finished."""

from __future__ import annotations

from pathlib import Path

from nequip_hessian.errors import OptionError


def require_name(path: str | Path) -> Path:
    """Return the path of something to write.

    Raises:
        OptionError: a folder without a name of its own, such as `.`, `..` or `/`.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise OptionError(
            f"output {path}: expected the name of what is to be written, found a folder without one; "
            f"say e.g. {path / 'new'}"
        )
    return path


def beside(path: str | Path, suffix: str = "", prefix: str = "") -> Path:
    """Return `<prefix><name><suffix>` in the same folder.

    Raises:
        OptionError: as `require_name`.
    """
    path = require_name(path)
    return path.with_name(f"{prefix}{path.name}{suffix}")
