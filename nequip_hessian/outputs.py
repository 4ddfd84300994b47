"""Where results go: looked at before the calculation, so that no input and nothing of the user's is lost.

A folder of results belongs to one command. A small hidden file says which, so that the same command can go on in it
and another one cannot mix its results with them. Hidden files do not count as content: no result has such a name.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.places import require_name

MARK: Final = ".nequip-hessian.json"
"""Name of the file that says which command made a folder."""


def require_results_folder(folder: str | Path, command: str, inputs: Sequence[str | Path] = ()) -> Path:
    """Make sure that a command may put its results into a folder; nothing is made yet.

    Args:
        folder: new, empty, or made by the same command before (see `claim_folder`)
        command: its name, e.g. `ts`
        inputs: files and folders that are read; what does not exist is passed over

    Raises:
        OptionError: an address, a Zarr store or a place inside one, a folder that holds an input, results of another
            command, or anything else.
        ConfigError: a file of that name, or nothing can be written there.
    """
    place = Path(folder)
    _require_outside_stores(place)
    if place.exists() and not place.is_dir():
        raise ConfigError(f"output {place}: expected a folder, found a file; name another place with -o")
    real = Path(os.path.realpath(place))
    for source in inputs:
        if os.path.exists(source) and Path(os.path.realpath(source)).is_relative_to(real):
            raise OptionError(
                f"output {place}: holds {source}, which is read here and could be lost; name another folder with -o"
            )
    if place.is_dir():
        _require_free(place, command)
    _require_writable(place)
    return place


def _require_outside_stores(place: Path) -> None:
    require_name(place if "://" in os.fspath(place) else os.path.abspath(place))
    if (place / "zarr.json").is_file():
        raise OptionError(f"output {place}: is a Zarr store; name another folder with -o")


def _require_free(place: Path, command: str) -> None:
    try:
        names = sorted(name for name in os.listdir(place) if not name.startswith("."))
    except OSError as exc:
        raise ConfigError(f"output {place}: cannot be read: {exc.strerror or exc}") from exc
    maker = _maker(place)
    if not names or maker == command:
        return
    if maker is not None:
        raise OptionError(
            f"output {place}: holds the results of nequip-hessian {maker}; name another folder with -o, new, empty or "
            f"made by nequip-hessian {command} before"
        )
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise OptionError(
        f"output {place}: expected a folder that is new, empty or made by nequip-hessian {command} before, found "
        f"{', '.join(names[:3])}{more} in it; name another folder with -o"
    )


def _maker(folder: Path) -> str | None:
    """The command that made a folder, None where none says so."""
    try:
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(found["command"]) if isinstance(found, dict) and "command" in found else None


def claim_folder(folder: str | Path, command: str) -> None:
    """Make a folder of results, with its parents, and say in it whose they are, before the first of them is written.

    Args:
        folder: see `require_results_folder`; command: its name, e.g. `ts`

    Raises:
        ConfigError: it cannot be made.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if _maker(place) != command:
            about = f"results of nequip-hessian {command}; the same command may go on here, another one may not"
            (place / MARK).write_text(json.dumps({"command": command, "about": about}) + "\n", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"output {place}: cannot be made: {exc.strerror or exc}; name another place") from exc


def require_output_file(file: str | Path, option: str, inputs: Sequence[str | Path] = ()) -> Path:
    """Make sure that a file of results can be written and is none of the files that are read.

    Args:
        file: its folder may be missing; a file of that name would be replaced
        option: that named it, for messages
        inputs: files and folders that are read; what does not exist is passed over

    Raises:
        OptionError: one of the inputs, an address, or a place inside a Zarr store.
        ConfigError: a folder of that name, or nothing can be written there.
    """
    place = Path(file)
    for source in inputs:
        if os.path.exists(source) and _same(place, source):
            raise OptionError(
                f"output {place}: is the file that is read, which would be lost; name another one with {option}"
            )
    if place.is_dir():
        raise ConfigError(f"output {place}: expected the name of a file, found a folder; name another with {option}")
    _require_outside_stores(place)
    if place.exists():
        if not os.access(place, os.W_OK):
            raise ConfigError(f"output {place}: cannot be replaced: Permission denied; name another with {option}")
        return place
    _require_writable(place)
    return place


def _same(place: Path, source: str | Path) -> bool:
    # a hard link is another name of the same content, and writing to one writes to both
    return os.path.realpath(place) == os.path.realpath(source) or (place.exists() and os.path.samefile(place, source))


def _require_writable(place: Path) -> None:
    """Make a file, gone at once, in the nearest folder that exists: permissions do not tell all that is refused."""
    absolute = Path(os.path.abspath(place))
    nearest = next(folder for folder in (absolute, *absolute.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as exc:
        reason = exc.strerror or exc
        raise ConfigError(f"output {place}: nothing can be written in {nearest}: {reason}; name another place") from exc
