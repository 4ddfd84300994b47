"""Inputs cut and mutated: what comes out is the sound record, or is refused or warned of; the rest is silent.

A change that nothing contradicts cannot be found: the last digits of a number printed once, below the noise of
the identities. How large such changes get is what is measured.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from watch import TIME_LIMIT, Hang, time_limit

from nequip_hessian.checks import Checks, check
from nequip_hessian.errors import HessianDataError
from nequip_hessian.formats import formats, matches_any, read
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.record import LabelledGeometry

TESTS = Path(__file__).resolve().parents[1]
DATA = TESTS / "formats" / "data"
Result = dict[str, int | float | str]
Change = Callable[[bytes, random.Random], bytes]
Checked = tuple[LabelledGeometry, Checks]

ROUNDING = 1e-4
"""Of the largest element: a change of the Hessian below it is less than what most programs print."""


@dataclass(frozen=True)
class Input:
    """One sound input.

    Attributes:
        root: folder whose files belong to it
        changed: the file that is changed, below `root`
        read: the file that is then read, below `root`
        deep: folders below `root` belong to it too
    """

    root: Path
    changed: str
    read: str
    deep: bool = False

    @classmethod
    def of(cls, path: Path) -> Input:
        """An input of one file that is read, with what lies beside it."""
        return cls(path.parent, path.name, path.name)

    def copy(self, folder: Path) -> Input:
        """Copy it into a new folder, below a folder of the same name: some readers look at that."""
        shutil.rmtree(folder, ignore_errors=True)
        root = folder / self.root.name
        root.mkdir(parents=True)
        for path in sorted(self.root.rglob("*") if self.deep else self.root.iterdir()):
            if path.is_file():
                target = root / path.relative_to(self.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        return replace(self, root=root)


def sound(folder: Path) -> list[Input]:
    """Write one sound input of each format, each in a folder of its own with its companions."""
    for place in (TESTS, TESTS / "formats"):
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))
    import emitters
    import sound_files

    isotopic, average = emitters.made(), emitters.made(average=True)
    made: dict[str, dict[str, str]] = {
        "fchk": {"a.fchk": emitters.fchk(isotopic)},
        "gaussian": {"a.log": emitters.gaussian_log(isotopic)},
        "orca": {"a.hess": emitters.orca_hess(average), "a.out": emitters.orca_out(average)},
        "qchem": {"a.out": emitters.qchem_out(isotopic)},
        **sound_files.each_format(),
    }
    for name, files in made.items():
        for file, text in files.items():
            emitters.write(folder / name / file, text)
    (folder / "extxyz").mkdir()
    write_extxyz(folder / "extxyz" / "a.xyz", [isotopic])
    for path in DATA.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
    (folder / "pyscf").mkdir()
    shutil.copy(DATA / "water_hf_pyscf.json", folder / "pyscf")
    texts = convertible(sorted(path for path in folder.rglob("*") if path.is_file()))
    return [*map(Input.of, texts), *_datasets(folder / "datasets")]


def _datasets(folder: Path) -> list[Input]:
    import sound_datasets

    folder.mkdir()
    sound_datasets.write_datasets(folder)
    found = []
    for name, kind in sound_datasets.FIXTURES.items():
        path = folder / name
        deep = path.parent != folder
        if not deep:  # into a folder of its own
            path = folder / kind / name
            path.parent.mkdir()
            (folder / name).rename(path)
        root = folder / Path(name).parts[0] if deep else path.parent
        read_ = sound_datasets.read_of(path).relative_to(root)
        found.append(Input(root, str(path.relative_to(root)), str(read_), deep))
    return found


def convertible(paths: Iterable[Path], largest: int = 300_000) -> list[Path]:
    """Return the inputs that hold sound Hessians, of at most `largest` bytes."""
    kept = []
    for path in paths:
        if path.stat().st_size > largest or not matches_any(path):
            continue
        try:
            found = _checked(path, None)
        except (HessianDataError, ValueError):
            continue
        if found and all(record.hessian is not None for record, _ in found):
            kept.append(path)
    return kept


# -- changes ----------------------------------------------------------------------------------


def cut(raw: bytes, rng: random.Random) -> bytes:
    """Cut at a random length."""
    return raw[: rng.randrange(len(raw))]


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """Change one to five random bytes."""
    damaged = bytearray(raw)
    for _ in range(rng.randrange(1, 6)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def exchange_digit(raw: bytes, rng: random.Random) -> bytes:
    """Put another digit in the place of one digit of a number with a decimal point."""
    numbers = list(re.finditer(rb"\d+\.\d+", raw))
    if not numbers:  # a binary file
        return mutate(raw, rng)
    number = rng.choice(numbers)
    places = [place for place in range(*number.span()) if raw[place : place + 1] != b"."]
    place = rng.choice(places)
    digit = rng.choice([one for one in b"0123456789" if one != raw[place]])
    return raw[:place] + bytes([digit]) + raw[place + 1 :]


# -- what comes of them -----------------------------------------------------------------------


def measured(inputs: Iterable[Input], change: Change, each: int, folder: Path, seed: int = 0) -> Result:
    """Change each input `each` times and count what comes of it.

    Returns:
        `tried`; `unchanged`: the same atoms, positions (1e-4 angstrom) and Hessian (ROUNDING) of each record;
        `refused`; `warned`: another record, with a warning that the sound one does not have; `silent`: another one and
        nothing said, or another number of records; the largest silent change of a Hessian and of a position;
        `failed`: anything but records or an error of ours, within the time limit.
    """
    found: Counter[str] = Counter()
    largest, rng = np.zeros(3), random.Random(seed)
    for entry in inputs:
        clean = _checked(entry.root / entry.read, None)
        name = str(clean[0][0].provenance["format"])
        raw, copy = (entry.root / entry.changed).read_bytes(), entry.copy(folder / "copy")
        for _ in range(each):
            (copy.root / copy.changed).write_bytes(change(raw, rng))
            what, size = outcome(copy.root / copy.read, name, clean)
            found[what] += 1
            found["tried"] += 1
            found["other atoms"] += int(size[2])
            largest = np.maximum(largest, size)
    counts = {key: found[key] for key in ("tried", "unchanged", "refused", "warned", "silent")}
    return {**counts, "of these with other atoms": found["other atoms"],
            "largest silent change of a Hessian in %": round(100 * float(largest[0]), 2),
            "of a position in angstrom": round(float(largest[1]), 3),
            "failed": found["traceback"] + found["hang"]}  # fmt: skip


def _checked(path: Path, name: str | None) -> list[Checked]:
    return [check(record) for record in read(path, name)]


NOTHING = np.zeros(3)


def outcome(path: Path, name: str, clean: list[Checked], seconds: int = TIME_LIMIT) -> tuple[str, np.ndarray]:
    """Say what comes of a changed input, and the size of a silent change as of `difference`.

    Args:
        path: the file to read
        name: of its format
        clean: what comes of the sound input
        seconds: time limit
    """
    try:
        with time_limit(seconds):
            records = _checked(path, name if name in formats() else None)
    except HessianDataError:
        return "refused", NOTHING
    except Hang:
        return "hang", NOTHING
    except Exception:  # what must not happen
        return "traceback", NOTHING
    if not records:
        return "refused", NOTHING
    if len(records) != len(clean):
        return "silent", np.ones(3)
    sizes = [difference(record, original) for (record, _), (original, _) in zip(records, clean, strict=True)]
    changed = [index for index, size in enumerate(sizes) if not np.all(size <= ROUNDING)]
    if not changed:
        return "unchanged", NOTHING
    if all(_kinds(records[index][1]) - _kinds(clean[index][1]) for index in changed):
        return "warned", NOTHING
    return "silent", np.max(sizes, axis=0)


def _kinds(found: Checks) -> set[str]:
    return {re.sub(r"[\d.]+(?:e[-+]?\d+)?", "#", text) for text in found.warnings}


def difference(record: LabelledGeometry, original: LabelledGeometry) -> np.ndarray:
    """Largest change of the Hessian over its largest element, of a position (angstrom), and 1 for other atoms."""
    same = record.numbers.tolist() == original.numbers.tolist()
    if len(record) != len(original) or record.hessian is None or original.hessian is None:
        return np.ones(3)
    if record.hessian.shape != original.hessian.shape:
        return np.ones(3)
    hessian = np.max(np.abs(record.hessian - original.hessian)) / (np.max(np.abs(original.hessian)) or 1.0)
    moved = record.positions - original.positions
    if np.any(original.pbc):  # by a lattice vector is not at all
        fractions = moved @ np.linalg.inv(original.cell)
        moved = (fractions - np.round(fractions)) @ original.cell
    return np.array([float(hessian), float(np.max(np.abs(moved))), 0.0 if same else 1.0])
