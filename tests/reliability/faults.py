"""Faults, one function each: what is done to a store or a conversion, and what must come of it.

Each returns counts, `failed` among them: cases in which anything but the right
store or one clear message came of it. `measure.py` runs them at length and
writes docs/reliability.md, the tests run them briefly.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nequip_hessian.curvature import pack
from nequip_hessian.errors import HessianDataError
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate

ROOT = Path(__file__).resolve().parents[2]
RICH = ROOT / "tests" / "conformance" / "valid" / "rich.zarr.zip"
Result = dict[str, int | float | str]


@dataclass
class Ended:
    """How a command ended."""

    returncode: int
    stderr: str


def start(*arguments: object, limit: int | None = None) -> tuple[int, int]:
    """Start a command of the package in a child that has everything imported.

    A kill then lands in its work, not in its imports.

    Args:
        arguments: of the command line
        limit: largest size, bytes, of a file it may write

    Returns:
        Process id, and a descriptor to read its error stream from.
    """
    from nequip_hessian.cli import main

    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 99
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((0, null), (1, null), (2, writing)):
            os.dup2(target, descriptor)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - to the end
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        status = main([str(one) for one in arguments])
        sys.stderr.flush()
    except BaseException:  # what a user would see as a traceback
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def finish(started: tuple[int, int]) -> Ended:
    """Wait for a child."""
    with open(started[1]) as stream:
        text = stream.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(started[0], 0)[1]), text)


def run(*arguments: object, limit: int | None = None) -> Ended:
    """Run a command of the package to its end."""
    return finish(start(*arguments, limit=limit))


def springs(atoms: int, seed: int, scale: float = 1.0) -> LabelledGeometry:
    """A geometry of springs between neighbours in a row: an exact Hessian at any size."""
    rng = np.random.default_rng(seed)
    positions = np.arange(atoms)[:, None] * np.array([1.4, 0.1, 0.0]) + rng.normal(scale=0.05, size=(atoms, 3))
    hessian = np.zeros((atoms, 3, atoms, 3))
    for i in range(atoms - 1):
        bond = positions[i + 1] - positions[i]
        block = 30.0 * scale * np.outer(bond, bond) / (bond @ bond)
        for a, b, sign in ((i, i, 1), (i + 1, i + 1, 1), (i, i + 1, -1), (i + 1, i, -1)):
            hessian[a, :, b, :] += sign * block
    return LabelledGeometry(
        numbers=np.full(atoms, 6),
        positions=positions,
        energy=-float(atoms),
        forces=np.zeros((atoms, 3)),
        hessian=hessian.reshape(3 * atoms, 3 * atoms),
        label=f"springs {atoms} {seed}",
        group=f"g{seed % 7}",
    )


def write_inputs(folder: Path, files: int, frames: int) -> None:
    """Extended XYZ files for a conversion."""
    folder.mkdir()
    for i in range(files):
        write_extxyz(folder / f"f{i:03}.xyz", [springs(6, i * frames + j) for j in range(frames)])


# -- kills ----------------------------------------------------------------------------------


WAYS = {
    "alone": [("--resume",)],
    "workers": [("--resume", "--workers", "2")],
    "shares": [("--rank", "0", "--world", "2"), ("--rank", "1", "--world", "2"), ("--finalize", "--resume")],
}
"""The commands of a conversion, one after the other, by who reads the inputs."""


def killed_conversions(folder: Path, kills: int, seed: int = 0, files: int = 60, way: str = "alone") -> Result:
    """SIGKILL at random moments of a conversion, then the same again to the end; the store must be the undisturbed one.

    Args:
        folder: where to work
        kills: that have to land
        seed: of the moments
        files: inputs of the conversion
        way: of WAYS, who reads the inputs
    """
    write_inputs(folder / "in", files, 5)
    if run("convert", folder / "in", "-o", folder / "whole.zarr").returncode:
        raise RuntimeError("the undisturbed conversion failed")
    took = [_seconds(folder, *more) for more in WAYS[way]]
    rng, failed, landed, half, late = random.Random(seed), 0, 0, 0, 0
    number = 0
    while landed < kills:
        number += 1
        target = folder / f"s{number}.zarr"
        for more, seconds in zip(WAYS[way], took, strict=True):
            command = ("convert", folder / "in", "-o", target, *more)
            ended = False
            for _ in range(3):  # up to three kills in a row, then to the end
                child = start(*command)
                time.sleep(rng.uniform(0.0, 1.0) * seconds)
                os.kill(child[0], signal.SIGKILL)
                ended = finish(child).returncode != -signal.SIGKILL
                landed += not ended
                half += target.exists() and not validate(target, 3).valid
                if ended:
                    break
            if not (ended or target.exists()):
                run(*command)
        if not Path(f"{target}.report.json").exists():  # killed between the store and its report
            late += 1
            Path(f"{target}.report.json").touch()
            shutil.rmtree(f"{target}.parts", ignore_errors=True)
        good = target.exists() and not differences(target, folder / "whole.zarr")
        good = good and sorted(_names(folder, target)) == ["", ".report.json"]
        failed += not good
        for path in folder.glob(f"s{number}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {"kills": landed, "conversions": number, "stores that open with half a record": half,
            "killed after the store, before its report": late, "failed": failed + half}  # fmt: skip


def _seconds(folder: Path, *more: str) -> float:
    begun = time.perf_counter()
    run("convert", folder / "in", "-o", folder / "timed.zarr", *more)
    return time.perf_counter() - begun


def _names(folder: Path, target: Path) -> Iterable[str]:
    return (path.name.removeprefix(target.name) for path in folder.iterdir() if path.name.startswith(target.name))


# -- disks ----------------------------------------------------------------------------------


def full_disk(folder: Path, steps: int) -> Result:
    """Conversions whose files may not grow beyond a limit, from none to enough: one line and nothing, or the store."""
    write_inputs(folder / "in", 4, 3)
    run("convert", folder / "in", "-o", folder / "whole.zarr")
    failed = finished = 0
    for limit in np.geomspace(64, 200_000, steps).astype(int).tolist():
        target = folder / f"l{limit}.zarr"
        done = run("convert", folder / "in", "-o", target, limit=limit)
        if done.returncode == 0:
            finished += 1
            failed += bool(differences(target, folder / "whole.zarr"))
        else:
            lines = done.stderr.strip().splitlines()
            clean = len(lines) == 1 and "cannot be written" in lines[0]
            if "the store is complete" in done.stderr:  # the limit met the report
                clean = clean and not differences(target, folder / "whole.zarr")
            else:
                clean = clean and not list(folder.glob(f"l{limit}.*"))
            failed += not clean
    return {"limits": steps, "finished": finished, "failed": failed}


def read_only_target(folder: Path) -> Result:
    """Each verb that writes, into a folder that cannot be written to: one line, status 1."""
    write_inputs(folder / "in", 1, 2)
    run("convert", folder / "in", "-o", folder / "a.zarr")
    places = {"a read-only file system": Path("/proc/sys"), "a file for a folder": folder / "in" / "f000.xyz"}
    failed = tried = 0
    for place in places.values():
        for arguments in (
            ("convert", folder / "in", "-o", place / "x.zarr"),
            ("merge", folder / "a.zarr", RICH, "--license", "CC0-1.0", "-o", place / "x.zarr"),
            ("repack", folder / "a.zarr", "-o", place / "x.zarr"),
            ("info", folder / "a.zarr", "--html", place / "x.html"),
        ):
            done = run(*arguments)
            tried += 1
            failed += done.returncode != 1 or len(done.stderr.strip().splitlines()) != 1
    return {"commands": tried, "failed": failed}


def two_writers(folder: Path, rounds: int) -> Result:
    """Two conversions to one target at the same time: one store that is whole, one clear refusal."""
    write_inputs(folder / "in", 30, 4)
    run("convert", folder / "in", "-o", folder / "whole.zarr")
    failed = 0
    for number in range(rounds):
        target = folder / f"w{number}.zarr"
        both = [start("convert", folder / "in", "-o", target) for _ in range(2)]
        ends = [finish(child) for child in both]
        refused = [end for end in ends if end.returncode == 1 and len(end.stderr.strip().splitlines()) == 1]
        whole = target.exists() and not differences(target, folder / "whole.zarr")
        failed += not (whole and len(refused) == 1 and sum(end.returncode == 0 for end in ends) == 1)
    return {"rounds": rounds, "failed": failed}


# -- damage ---------------------------------------------------------------------------------


def flipped_bytes(folder: Path, flips: int, seed: int = 0) -> Result:
    """One byte changed at random in a chunk's values or in metadata: validation to level 3 must find it.

    A change that changes nothing (padding behind the last row, a blank for another, a fill value, the
    order of members) is counted apart: both stores then compare as the same.
    """
    whole, store = folder / "whole.zarr", folder / "flipped.zarr"
    _rich_directory(whole)
    shutil.copytree(whole, store)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    weights = [path.stat().st_size for path in files]
    rng = random.Random(seed)
    missed = same = 0
    for number in range(flips):
        pool = [path for path in files if (path.name == "zarr.json") == bool(number % 2)]
        path = rng.choices(pool, [weights[files.index(one)] for one in pool])[0]
        raw = path.read_bytes()
        place = rng.randrange(len(raw))
        damaged = bytearray(raw)
        damaged[place] ^= rng.randrange(1, 256)
        path.write_bytes(bytes(damaged))
        if validate(store, 3).valid:
            equal = _same(store, whole)
            same += equal
            missed += not equal
        path.write_bytes(raw)
    return {"flips": flips, "found": flips - same - missed, "changed nothing": same, "failed": missed}


def _rich_directory(path: Path) -> None:
    from nequip_hessian.store.repack import repack

    repack(RICH, path)


def _same(one: Path, other: Path) -> bool:
    """Whether two stores say the same: all values, and all metadata that mean something."""
    try:
        if differences(one, other):
            return False
        roots = [json.loads((path / "zarr.json").read_text())["attributes"] for path in (one, other)]
    except (HessianDataError, ValueError, KeyError):
        return False
    return roots[0] == roots[1]


def hostile_zips(folder: Path) -> Result:
    """Zip files with keys that lead out of the store: refused, and nothing appears outside."""
    failed, place = 0, folder / "deep" / "place"
    place.mkdir(parents=True)
    cases = ("../escape/c", f"{folder}/escape", "split/../../x", "extra/../../../x", "a\\..\\b")
    for number, key in enumerate(cases):
        path = place / f"h{number}.zip"
        shutil.copyfile(RICH, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(key, b"escaped")
        before = set(folder.rglob("*"))
        failed += validate(path).as_dict()["rule"] != "HZ-2.11"
        for verb in (["repack", path, "-o", place / f"o{number}.zarr"], ["split", path, "--fractions", "train=1"]):
            done = run(*verb)
            failed += done.returncode != 1 or len(done.stderr.strip().splitlines()) != 1
        failed += set(folder.rglob("*")) != before
    return {"zip files": len(cases), "failed": failed}


# -- size -----------------------------------------------------------------------------------


def large_geometry(folder: Path, atoms: int) -> Result:
    """One geometry of many atoms through writer, validator (values) and reader."""
    record = springs(atoms, 1)
    begun = time.perf_counter()
    with StoreWriter(folder / "large.zarr", attributes={"license": "CC0-1.0"}) as writer:
        writer.append(record)
    written = time.perf_counter() - begun
    report = validate(folder / "large.zarr", 3)
    packed = HessianStore(folder / "large.zarr").packed(0)
    same = bool(np.array_equal(packed, pack(np.asarray(record.hessian))))
    return {"atoms": atoms, "elements": len(packed), "seconds to write": round(written, 1),
            "failed": int(not (report.valid and same))}  # fmt: skip


def many_offsets(folder: Path, geometries: int) -> Result:
    """A store of very many geometries: opened and read at random without reading the data."""
    from nequip_hessian.store.build import Builder
    from nequip_hessian.store.layout import ARRAYS, VERSION

    path, size = folder / "many.zarr", {"G": geometries, "A": geometries, "M": 6 * geometries}
    builder = Builder(path, "local")
    step = 2**20
    for spec in ARRAYS:
        if not spec.required:
            continue
        symbol = str(spec.shape[0])
        rows = size[symbol.removesuffix("+1")] + symbol.endswith("+1")
        unit = 6 if spec.path == "hessian/offset" else 1
        edges = [*range(0, rows, step), rows]
        blocks = (_block(spec.path, first, end, unit, spec.row_shape) for first, end in itertools.pairwise(edges))
        builder.add_blocks(spec.path, rows, spec.dtypes[0], blocks)
    counts = {"geometries": geometries, "atoms": geometries, "hessians": geometries,
              "hessian_elements": 6 * geometries, "groups": 0}  # fmt: skip
    provenance = [{"creator": "reliability", "version": "1"}]
    levels = [{"method": "none"}]
    builder.finish({"version": VERSION, "counts": counts, "levels_of_theory": levels, "provenance": provenance})
    code = (
        "import sys, time, resource, random; from nequip_hessian.store import HessianStore; t = time.perf_counter(); "
        "s = HessianStore(sys.argv[1]); n = len(s); a = time.perf_counter() - t; t = time.perf_counter(); "
        "ok = all(float(s.packed(i)[0]) == i % 97 for i in random.Random(0).sample(range(n), 1000)); "
        "b = time.perf_counter() - t; "
        "print(n, ok, a, b, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    number, good, opened, read_, memory = done.stdout.split() if done.returncode == 0 else ("0", "False", "0", "0", "0")
    shutil.rmtree(path)
    return {"geometries": geometries, "seconds to open": round(float(opened), 2),
            "ms a random Hessian": round(float(read_), 3), "MiB of memory": round(float(memory)),
            "failed": int(good != "True" or int(number) != geometries)}  # fmt: skip


def _block(path: str, first: int, end: int, unit: int, row: tuple[int, ...]) -> np.ndarray:
    if path.endswith("offset"):
        return np.arange(first, end, dtype=np.int64) * unit
    if path == "hessian/data":
        return ((np.arange(first, end) // 6) % 97).astype(np.float64)
    if path == "atom/number":
        return np.ones(end - first, dtype=np.uint8)
    return np.zeros((end - first, *row))
