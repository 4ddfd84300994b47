"""What a user means by INPUT...: files, patterns, folders and lists; and which reaction a file belongs to."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from nequip_hessian.archives import is_archive, is_zipped_store, unpack
from nequip_hessian.errors import FormatError, OptionError
from nequip_hessian.formats import formats, matches_any
from nequip_hessian.formats._endings import ENDINGS, ended
from nequip_hessian.formats._source import HEAD, readable, stem

GROUP_RULES: Final = ("auto", "folder", "file", "formula", "none")

NOTHING_KNOWN: Final = "no file with the name of a known format"

_ROLE_WORDS: Final = {
    "reactant": "reactant",
    "reactants": "reactant",
    "reac": "reactant",
    "product": "product",
    "products": "product",
    "prod": "product",
    "ts": "transition_state",
    "transition_state": "transition_state",
    "transitionstate": "transition_state",
    "saddle": "transition_state",
    "intermediate": "intermediate",
}
_WORDS: Final = "|".join(sorted(_ROLE_WORDS, key=len, reverse=True))
# At the beginning or the end of a name: in "correct_ts_mode" it is part of a phrase, not a role.
_ROLE: Final = re.compile(rf"^({_WORDS})(?=$|[\W_])|(?:(?<=[\W_])|^)({_WORDS})$", re.IGNORECASE)


@dataclass(frozen=True)
class Input:
    """One file to convert.

    Attributes:
        path: where it can be read
        searched: it was found in a folder or an archive, not named
        archive: the archive that it was unpacked from
        root: the folder to which that was unpacked
        archive_facts: size and sha256 of that archive
        reason: why it is not to be read, where that is known already
    """

    path: Path
    searched: bool = False
    archive: Path | None = None
    root: Path | None = None
    archive_facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None

    @property
    def named(self) -> Path:
        """What a user calls it: a member of an archive as if the archive were a folder."""
        if self.archive is None or self.root is None:
            return self.path
        return self.archive / self.path.relative_to(self.root)

    def said(self, text: str) -> str:
        """Return a message with the archive in place of the folder to which it was unpacked."""
        return text if self.root is None else text.replace(str(self.root), str(self.archive))


def gather(inputs: Iterable[str | Path]) -> list[Input]:
    """Expand what a user named into files, each once, in the order named and sorted within folders and patterns.

    Outputs that broke off come last, so that of two files of one calculation the whole one is taken.

    Args:
        inputs: files; patterns with `*`, `?`, `[...]` or `**`; folders, searched to any depth for the
            file names of the known formats (hidden folders and stores left out); zip and tar archives, which
            `unpacked` replaces by what is in them; `@list`, a text file with one such entry a line (`#` starts
            a comment), relative to the folder of the list

    Returns:
        The files. A file that does not exist stays in, so that it is reported as refused.

    Raises:
        ConfigError: nothing was named, or an address on a network.
        FormatError: a list cannot be read or names itself, a pattern matches nothing, or there is no file in any
            folder.
    """
    found: dict[str, Input] = {}
    named = [str(entry) for entry in inputs]
    if not named:
        raise OptionError("expected at least one file, pattern, folder or @list")
    if not all(entry.strip() for entry in named):
        raise OptionError("an input is empty: expected a file, pattern, folder or @list; was a variable not set?")
    for entry in named:
        for item in _expand(entry, Path()):
            found.setdefault(os.path.abspath(item.path), item)
    if not found:
        raise FormatError(
            f"{', '.join(named[:4])}: no file there has the name of a known format (*.log, *.fchk, *.hess, ...); "
            "name the files themselves: then their content decides"
        )
    return _whole_first(found.values())


def _whole_first(files: Iterable[Input]) -> list[Input]:
    """Sort, because of two files of one calculation the first is taken: let that be the one that is whole."""
    return sorted(files, key=lambda item: _broken_off(item.path))


def unpacked(files: Sequence[Input], folder: Path, progress: bool | None = None) -> list[Input]:
    """Replace archives by the files in them that have the name of a known format, like folders.

    An archive that cannot be unpacked, and a member that is no plain file, stay in with the reason.

    Args:
        files: of `gather`
        folder: where to unpack; made if there is an archive
        progress: show a progress bar; default: on a terminal

    Raises:
        StoreWriteError: the disk refuses.
    """
    if not any(_to_unpack(item) for item in files):
        return list(files)
    return _whole_first(
        one for item in files for one in (_members(item, folder, progress) if _to_unpack(item) else [item])
    )


def _to_unpack(item: Input) -> bool:
    return is_archive(item.path) and item.path.is_file()


def _members(item: Input, folder: Path, progress: bool | None) -> list[Input]:
    try:
        found = unpack(item.path, folder, matches_any, progress)
    except FormatError as exc:
        return [replace(item, reason=str(exc).removeprefix(f"{item.path}: "))]
    inside: dict[str, Any] = {"searched": True, "archive": item.path, "root": found.root,
              "archive_facts": {"size": found.size, "sha256": found.sha256}}  # fmt: skip
    files = [
        Input(path, **inside, reason="an archive in an archive; unpack it" if is_archive(path) else None)
        for path in _search(found.root)
    ]
    files += [Input(found.root / name, **inside, reason=reason) for name, reason in found.left_out.items()]
    return files or [replace(item, reason=f"{NOTHING_KNOWN} in this archive")]


def _broken_off(path: Path) -> bool:
    """Say whether a file is the output of a program that ends without that program's end mark."""
    candidates = [name for name in ENDINGS if formats()[name].matches(path)]
    if not candidates or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD).decode("latin-1")
            file.seek(max(0, path.stat().st_size - 2 * HEAD))
            tail = file.read().decode("latin-1")
    except OSError:
        return False
    return any(formats()[name].sniff(head) and not ended(name, tail) for name in candidates)


def _expand(entry: str, base: Path, lists: tuple[str, ...] = ()) -> list[Input]:
    if entry.startswith("@") and not (base / entry).exists():
        return _from_list(base / entry[1:], lists)
    path = base / os.path.expanduser(entry)
    if "://" in entry and not os.path.exists(path):
        raise OptionError(f"{entry}: only local files and folders are converted, found an address; download it first")
    if path.is_dir() and not path.is_symlink() and _is_store(path):
        raise FormatError(f"{path}: this is a Hessian store already; convert reads outputs of programs")
    if path.is_dir():
        return [Input(file, searched=True) for file in _search(path)]
    if is_zipped_store(path):
        raise FormatError(f"{path}: this is a Hessian store already; convert reads outputs of programs")
    if os.path.exists(path) and not path.is_file():
        raise FormatError(f"{path}: expected a file or folder, found a pipe, socket or device")
    if not os.path.exists(path) and glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise FormatError(f"{entry}: no file matches this pattern")
        return [item for match in matches for item in _expand_match(Path(match))]
    return [Input(path)]


def _expand_match(path: Path) -> list[Input]:
    return [Input(file, searched=True) for file in _search(path)] if path.is_dir() else [Input(path)]


def _from_list(path: Path, lists: tuple[str, ...]) -> list[Input]:
    """Expand a list; `lists` are those that led to it."""
    place = os.path.realpath(path)
    if place in lists:
        raise FormatError(f"@{path}: this list names itself, or another list that names it; take that line out")
    if path.exists() and not path.is_file():
        raise FormatError(f"@{path}: expected a text file, found a folder, pipe or device")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise FormatError(f"@{path}: the list cannot be read: {exc}") from exc
    entries = [line.split("#", 1)[0].strip() for line in lines]
    return [item for entry in entries if entry for item in _expand(entry, path.parent, (*lists, place))]


def _search(folder: Path) -> list[Path]:
    files: list[Path] = []
    closed: list[Path] = []  # a folder that cannot be opened stays in as itself, so that it is reported as refused
    for root, folders, names in os.walk(folder, onerror=lambda exc: closed.append(Path(exc.filename))):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _is_store(Path(root) / f))
        known = (n for n in sorted(names) if not n.startswith(".") and (matches_any(Path(n)) or is_archive(Path(n))))
        seen = (Path(root) / n for n in known if not is_zipped_store(Path(root) / n))
        files += [path for path in seen if path.is_file() or path.is_symlink()]  # no pipes and devices: they never end
    return files + closed


def _is_store(folder: Path) -> bool:
    return os.path.exists(folder / "zarr.json")  # False, not an error, where the folder may not be opened


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that contains all files; the working directory where there are none."""
    if not paths:
        return Path.cwd()
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))


def role_of(name: str) -> tuple[str | None, str]:
    """Read a role in a reaction from a file name.

    Args:
        name: file name without its ending, e.g. `rxn12_ts`

    Returns:
        The role (of `record.ROLES`) or None, and what is left of the name without the word.
    """
    match = _ROLE.search(name)
    if match is None:
        return None, name
    rest = name[: match.start()] + name[match.end() :]
    return _ROLE_WORDS[match.group(0).lower()], rest.strip("_-. ")


def group_of(path: Path, name: str, common: Path, rule: str, formula: str) -> tuple[str | None, str | None]:
    """Name the group (reaction, molecule or trajectory) of a file, and its role there.

    Args:
        path: the file
        name: its name without the ending
        common: the deepest folder that contains all files of the conversion
        rule: `folder`: the folder of the file. `file`: each file on its own. `formula`: same
            composition, same group. `none`: no groups. `auto`: the folder, below the common one; for
            files in the common folder itself each file on its own, except that files whose names
            differ only in a role word (reactant, ts, product, ...) are one group
        formula: chemical formula in Hill order

    Returns:
        The group's name and the role, each possibly None; roles come with `auto` and `folder` only.
    """
    folder = Path(os.path.abspath(path.parent))
    below = "" if folder == common else readable(folder.relative_to(common).as_posix())
    last = readable(folder.name)
    role, rest = role_of(name)
    if rule == "none":
        return None, None
    if rule == "formula":
        return formula, None
    if rule == "file":
        return f"{below}/{name}" if below else name, None
    if rule == "folder" or below:
        return below or last or "all", role
    return (rest or last or "all", role) if role else (name, None)


def reaction_groups(files: Sequence[Input], common: Path, rule: str) -> set[str]:
    """Return the groups that are reactions by their file names: two roles or more occur among them.

    A folder with one `ts_*` file is no reaction, and its file name says no more than the Hessian does.

    Args:
        files: all inputs of the conversion
        common: the deepest folder that contains them
        rule: as for `group_of`
    """
    roles: dict[str, set[str]] = {}
    for item in files:
        group, role = group_of(item.named, name_of(item.named), common, rule, "")
        if group is not None and role is not None:
            roles.setdefault(group, set()).add(role)
    return {group for group, found in roles.items() if len(found) > 1}


def name_of(path: Path) -> str:
    """Return what a file is called: its name without endings; an xtb `hessian` is called after its folder."""
    return readable(path.parent.name) if path.name == "hessian" else stem(path)
