"""Where a verb writes: looked at before the calculation, not after it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nequip_hessian.errors import ConfigError, OptionError


def interrupted(verb: str, *, kept: bool) -> int:
    """Say after Ctrl-C how to go on; returns the exit status."""
    where = "the same command goes on where it was" if kept else "with -o it would go on from there"
    print(f"nequip-hessian {verb}: interrupted; {where}", file=sys.stderr)
    return 130


def folder_to_write(name: str | Path | None) -> Path | None:
    """Make a folder for results, with its parents, and make sure that files can be put there; None stays None.

    Raises:
        ConfigError: a file of that name, or no permission.
    """
    if name is None:
        return None
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder}: expected a folder, found a file; name another place with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"output {folder}: cannot be made: {exc.strerror or exc}") from exc
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"output {folder}: nothing can be written there: Permission denied")
    return folder


def file_to_write(name: str | Path | None, source: str | Path) -> Path | None:
    """Make sure that a file of results is not the one that is read, and no folder; None stays None.

    Raises:
        OptionError: it is the same file; ConfigError: a folder of that name.
    """
    if name is None:
        return None
    file = Path(name)
    if os.path.realpath(file) == os.path.realpath(source):
        raise OptionError(f"output {file}: is the file that is read, which would be lost; name another one with -o")
    if file.is_dir():
        raise ConfigError(f"output {file}: expected the name of a file, found a folder")
    return file
