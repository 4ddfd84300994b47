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
from pathlib import Path

import numpy as np

from nequip_hessian.checks import Checks, check
from nequip_hessian.errors import HessianDataError
from nequip_hessian.formats import formats, matches_any, read
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.record import LabelledGeometry

TESTS = Path(__file__).resolve().parents[1]
DATA = TESTS / "formats" / "data"
Result = dict[str, int | float | str]
Change = Callable[[bytes, random.Random], bytes]

ROUNDING = 1e-4
"""Of the largest element: a change of the Hessian below it is less than what most programs print."""


def sound(folder: Path) -> list[Path]:
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
    return convertible(sorted(path for path in folder.rglob("*") if path.is_file()))


def convertible(paths: Iterable[Path], largest: int = 300_000) -> list[Path]:
    """Return the text inputs that hold one sound Hessian, of at most `largest` bytes."""
    kept = []
    for path in paths:
        if path.stat().st_size > largest or not matches_any(path):
            continue
        try:
            (record,) = read(path)
            check(record)
        except (HessianDataError, ValueError):
            continue
        if record.hessian is not None:
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


def measured(inputs: Iterable[Path], change: Change, each: int, folder: Path, seed: int = 0) -> Result:
    """Change each input `each` times and count what comes of it.

    Returns:
        `tried`; `unchanged`: the same atoms, positions (1e-4 angstrom) and Hessian (ROUNDING); `refused`; `warned`:
        another record, with a warning that the sound one does not have; `silent`: another one and nothing said;
        the largest silent change of a Hessian and of a position; `failed`: anything but a record or an error of ours.
    """
    found: Counter[str] = Counter()
    largest, rng = np.zeros(3), random.Random(seed)
    for path in inputs:
        place = folder / "copy"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for beside in path.parent.iterdir():
            if beside.is_file():
                shutil.copy(beside, place)
        raw, target = path.read_bytes(), place / path.name
        target.chmod(0o644)
        (original, clean), *_ = _checked(path, None)
        name = str(original.provenance["format"])
        for _ in range(each):
            target.write_bytes(change(raw, rng))
            what, size = outcome(target, name, original, clean)
            found[what] += 1
            found["tried"] += 1
            found["other atoms"] += int(size[2])
            largest = np.maximum(largest, size)
    counts = {key: found[key] for key in ("tried", "unchanged", "refused", "warned", "silent")}
    return {**counts, "of these with other atoms": found["other atoms"],
            "largest silent change of a Hessian in %": round(100 * float(largest[0]), 2),
            "of a position in angstrom": round(float(largest[1]), 3), "failed": found["traceback"]}  # fmt: skip


def _checked(path: Path, name: str | None) -> list[tuple[LabelledGeometry, Checks]]:
    return [check(record) for record in read(path, name)]


NOTHING = np.zeros(3)


def outcome(path: Path, name: str, original: LabelledGeometry, clean: Checks) -> tuple[str, np.ndarray]:
    """Say what comes of a changed input, and the size of a silent change as of `difference`."""
    try:
        records = _checked(path, name if name in formats() else None)
    except HessianDataError:
        return "refused", NOTHING
    except Exception:  # what must not happen
        return "traceback", NOTHING
    if not records:
        return "refused", NOTHING
    size = np.max([difference(record, original) for record, _ in records], axis=0)
    if np.all(size <= ROUNDING):
        return "unchanged", NOTHING
    if all(_kinds(found) - _kinds(clean) for _, found in records):
        return "warned", NOTHING
    return "silent", size


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
