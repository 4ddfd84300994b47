"""Faults, one function each: what is done to a store or a conversion, and what must come of it.

Each returns counts, `failed` among them: cases in which anything but the right
store or one clear message came of it. `measure.py` runs them at length and
writes docs/reliability.md, the tests run them briefly.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import re
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

import hostile
import mutations
import numpy as np
from watch import Hang, measured_apart, time_limit

from nequip_hessian import archives
from nequip_hessian.checks import check
from nequip_hessian.curvature import pack
from nequip_hessian.errors import HessianDataError
from nequip_hessian.export import TARGETS, export
from nequip_hessian.formats import formats as readers
from nequip_hessian.formats import read
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
RICH = TESTS / "conformance" / "valid" / "rich.zarr.zip"
STORES = [*sorted((TESTS / "conformance" / "valid").glob("*.zip")), *sorted((TESTS / "archives").glob("*/*.zip"))]
Result = dict[str, int | float | str]


@dataclass
class Ended:
    """How a command ended; `stderr` has its output too where that was asked for."""

    returncode: int
    stderr: str

    @property
    def refused(self) -> bool:
        """Whether it ended with status 1 and one line."""
        return self.returncode == 1 and len(self.stderr.strip().splitlines()) == 1


def start(*arguments: object, limit: int | None = None, output: bool = False) -> tuple[int, int]:
    """Start a command of the package in a child that has everything imported.

    A kill then lands in its work, not in its imports.

    Args:
        arguments: of the command line
        limit: largest size, bytes, of a file it may write
        output: read what it prints too, not its errors alone

    Returns:
        Process id, and a descriptor to read its error stream from.
    """
    from nequip_hessian.cli import main

    for name in ("convert", "export", "store.merge", "store.page", "store.repack"):
        importlib.import_module(f"nequip_hessian.{name}")
    readers()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 99
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((0, null), (1, writing if output else null), (2, writing)):
            os.dup2(target, descriptor)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - to the end
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        status = main([str(one) for one in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # what a user would see as a traceback
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def finish(started: tuple[int, int]) -> Ended:
    """Wait for a child."""
    with open(started[1], errors="replace") as stream:
        text = stream.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(started[0], 0)[1]), text)


def run(*arguments: object, limit: int | None = None, output: bool = False) -> Ended:
    """Run a command of the package to its end."""
    return finish(start(*arguments, limit=limit, output=output))


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
            for left in ("parts", "unfinished"):
                shutil.rmtree(f"{target}.{left}", ignore_errors=True)
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
    for limit in _limits(steps):
        target = folder / f"l{limit}.zarr"
        done = run("convert", folder / "in", "-o", target, limit=limit)
        if done.returncode == 0:
            finished += 1
            failed += bool(differences(target, folder / "whole.zarr"))
        else:
            clean = done.refused and "cannot be written" in done.stderr
            if "the store is complete" in done.stderr:  # the limit met the report
                clean = clean and not differences(target, folder / "whole.zarr")
            else:
                clean = clean and not list(folder.glob(f"l{limit}.*"))
            failed += not clean
    return {"limits": steps, "finished": finished, "failed": failed}


def _limits(steps: int, most: int = 200_000) -> list[int]:
    return np.geomspace(64, most, steps).astype(int).tolist()


def full_disk_of_verbs(folder: Path, steps: int, formats: tuple[str, ...] = tuple(TARGETS)) -> Result:
    """The same of `merge`, `repack` and `export` to each format: one line and nothing, or all of it."""
    write_inputs(folder / "in", 1, 3)
    run("convert", folder / "in", "-o", folder / "a.zarr")
    _stretched(folder / "labels.zarr", ("a", "b"))
    with StoreWriter(folder / "cell.zarr") as writer:
        writer.append(springs(4, 0).replace(cell=10 * np.eye(3), pbc=True))
    commands: dict[str, tuple[object, ...]] = {
        "merge": ("merge", folder / "a.zarr", folder / "labels.zarr", "--license", "CC0-1.0"),
        "repack": ("repack", RICH),
        "repack to a zip file": ("repack", RICH, "--profile", "publish"),
        **{
            name: ("export", folder / ("cell.zarr" if name == "phonopy" else "a.zarr"), "--format", name)
            for name in formats
        },
    }
    failed = finished = 0
    for number, (name, command) in enumerate(commands.items()):
        ending = ".zip" if "zip" in name else ".zarr" if name in ("merge", "repack") else ""
        place = folder / f"v{number}"
        place.mkdir()
        whole = place / f"whole{ending}"
        if run(*command, "-o", whole).returncode:
            raise RuntimeError(f"{name}: the undisturbed command failed")
        before = set(place.iterdir())
        for limit in _limits(steps):
            target = place / f"limited{ending}"
            done = run(*command, "-o", target, limit=limit)
            if done.returncode == 0:
                finished += 1
                failed += not _alike(target, whole)
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            else:
                failed += not done.refused
            failed += set(place.iterdir()) != before
    return {"commands": len(commands), "limits": steps, "finished": finished, "failed": failed}


def _alike(one: Path, other: Path) -> bool:
    """Whether two stores are the same, or two exports byte by byte."""
    if one.suffix in (".zarr", ".zip"):
        return not differences(one, other)
    found = [{path.relative_to(top): path.read_bytes() for path in [top, *top.rglob("*")] if path.is_file()}
             for top in (one, other)]  # fmt: skip
    return found[0] == found[1]


LABELLING = "import sys; from nequip_hessian.cli import main; sys.exit(main(sys.argv[1:]))"


def full_disk_of_labels(folder: Path, steps: int) -> Result:
    """The same of `label`: one line, and no store but at most the journal, from which it goes on; or the store."""
    water = "3\n\nO 0 0 0.12\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n"
    (folder / "water.xyz").write_text(water)

    def command(target: Path, limit: int | None = None) -> Ended:  # apart: an engine with threads may not be forked
        def limited() -> None:
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        words = ["label", str(folder / "water.xyz"), "-o", str(target), "--engine", "tblite"]
        done = subprocess.run(
            [sys.executable, "-c", LABELLING, *words], capture_output=True, text=True, check=False, preexec_fn=limited,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if line.startswith(("nequip-hessian", "Traceback"))]
        return Ended(done.returncode, "\n".join(lines))

    whole = folder / "whole.zarr"
    if command(whole).returncode:
        raise RuntimeError("the undisturbed labelling failed")
    failed = finished = 0
    for limit in _limits(steps, 20_000):
        target = folder / f"l{limit}.zarr"
        done = command(target, limit)
        if done.returncode == 0:
            finished += 1
        else:
            failed += not done.refused or bool(set(_names(folder, target)) - {".journal"})
            failed += command(target).returncode != 0  # the same again, with room
        failed += list(_names(folder, target)) != [""] or bool(differences(target, whole))
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
            tried += 1
            failed += not run(*arguments).refused
    return {"commands": tried, "failed": failed}


def two_writers(folder: Path, rounds: int, seed: int = 0) -> Result:
    """Two conversions to one target at about the same time: one store that is whole, one clear refusal.

    By turns of a folder, of an archive, and of a folder by two workers: what both unpack and read lies in one place.
    """
    write_inputs(folder / "in", 6, 4)
    shutil.make_archive(str(folder / "packed"), "zip", folder / "in")
    ways = [(folder / "in",), (folder / "packed.zip",), (folder / "in", "--workers", "2")]
    for number, way in enumerate(ways):
        run("convert", *way, "-o", folder / f"whole{number}.zarr")
    rng, failed = random.Random(seed), 0
    for number in range(rounds):
        target, way = folder / f"w{number}.zarr", number % len(ways)
        first = start("convert", *ways[way], "-o", target)
        time.sleep(rng.random() * rng.choice((0.02, 0.2)))
        ends = [finish(child) for child in (first, start("convert", *ways[way], "-o", target))]
        refused = [end for end in ends if end.refused]
        whole = target.exists() and not differences(target, folder / f"whole{way}.zarr")
        clean = sorted(_names(folder, target)) == ["", ".report.json"] and not list(folder.glob(".*"))
        failed += not (whole and clean and len(refused) == 1 and sum(end.returncode == 0 for end in ends) == 1)
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
            failed += not run(*verb).refused
        failed += set(folder.rglob("*")) != before
    return {"zip files": len(cases), "failed": failed}


def changed_stores(folder: Path, each: int, change: mutations.Change, seed: int = 0) -> Result:
    """Zipped stores, cut or with bytes changed: invalid in words, or the same store; never a traceback or a hang."""
    rng, path = random.Random(seed), folder / "changed.zip"
    found = same = failed = 0
    for whole in STORES:
        raw = whole.read_bytes()
        for _ in range(each):
            path.write_bytes(change(raw, rng))
            try:
                with time_limit():
                    valid = validate(path, 3).valid
                    equal = valid and not differences(path, whole)
            except (Hang, Exception):
                failed += 1
                continue
            found += not valid
            same += equal
            failed += valid and not equal
    tried = each * len(STORES)
    return {"stores": len(STORES), "tried": tried, "found": found, "changed nothing": same, "failed": failed}


# -- what means harm ------------------------------------------------------------------------


def _stretched(path: Path, texts: Iterable[str], **attributes: str) -> None:
    with StoreWriter(path, attributes={"license": "CC0-1.0", **attributes}) as writer:
        writer.extend(hostile.records(texts))


def _below(folder: Path, but: Path) -> dict[Path, int]:
    """Every file below a folder, links not followed, with its size; without what is at or below `but`."""
    found = (path for path in folder.rglob("*") if path != but and but not in path.parents)
    return {path: path.lstat().st_size if path.is_file() else 0 for path in found}


MOLECULAR = tuple(name for name in TARGETS if name != "phonopy")


def hostile_labels(folder: Path, formats: Iterable[str] = MOLECULAR) -> Result:
    """Labels that mean harm, shown and exported: no escape, no tag comes out, and no file but where it belongs.

    One store has what our own writer lets through, the other all of them, as another program could write it.
    """
    texts = [*hostile.TEXTS, f"{folder}/absolute"]
    accepted = [text for text in texts if hostile.acceptable(text)]
    failed = tried = 0
    for name, chosen in (("ours", accepted), ("planted", texts)):
        place = folder / "deep" / name
        place.mkdir(parents=True)
        store, page = place / "s.zarr", place / "s.html"
        _stretched(store, chosen, title=hostile.MIXED, description=hostile.TEXTS[2])
        commands: list[tuple[tuple[object, ...], Path]] = [
            (("info", store), page),
            (("info", store, "--html", page), page),
            (("validate", store), page),
            *((("export", store, "--format", one, "-o", place / f"x-{one}"), place / f"x-{one}") for one in formats),
        ]
        for command, target in commands:
            before = _below(folder, target)
            done = run(*command, output=True)
            tried += 1
            good = done.returncode == 0 if name == "ours" else done.returncode == 0 or done.returncode == 1
            good = good and not hostile.obeyed(done.stderr) and "Traceback" not in done.stderr
            good = good and (not target.is_dir() or _harmless_names(target))
            failed += not (good and _below(folder, target) == before)
        failed += page.exists() and bool(hostile.marked_up(page.read_text(), texts))
        failed += name == "ours" and not page.exists()
    if "extxyz" in formats:  # what a label says is no line of its own
        failed += len(list(read(folder / "deep" / "ours" / "x-extxyz", "extxyz"))) != len(accepted)
    return {"labels": len(texts), "commands": tried, "failed": failed}


def _harmless_names(folder: Path) -> bool:
    paths = list(folder.rglob("*"))
    plain = all(re.fullmatch(r"[A-Za-z0-9+\-._]{1,100}", path.name) for path in paths)
    return plain and not any(path.is_symlink() or path.name.startswith("-") for path in paths)


def hostile_archives(folder: Path) -> Result:
    """Archives of outputs that mean harm: refused in words, or what is sound in them taken and nothing else done."""
    place, elsewhere = folder / "deep" / "place", folder / "elsewhere"
    place.mkdir(parents=True)
    elsewhere.mkdir()
    _stretched(folder / "one.zarr", ["secret"])
    export(folder / "one.zarr", elsewhere / "secret.fchk", "fchk", select=["0"])
    _stretched(folder / "two.zarr", ["other", "good"])
    export(folder / "two.zarr", folder / "good.fchk", "fchk", select=["1"])
    cases = hostile.archives((folder / "good.fchk").read_bytes(), elsewhere)
    failed = refused = 0
    limit, archives.LEAST_LIMIT = archives.LEAST_LIMIT, 2**21  # type: ignore[misc] # bombs of megabytes, not gigabytes
    try:
        for name, (raw, most) in cases.items():
            path, target = place / name, place / "s.zarr"
            path.write_bytes(raw)
            before = _below(folder, target)
            done = run("convert", path, "-o", target, output=True)
            taken = len(HessianStore(target)) if target.exists() else 0
            refused += not taken
            shutil.rmtree(target, ignore_errors=True)
            Path(f"{target}.report.json").unlink(missing_ok=True)
            good = done.returncode in ((0, 3) if taken else (1,)) and taken <= most
            failed += not (good and not hostile.obeyed(done.stderr) and _below(folder, target) == before)
            failed += "Traceback" in done.stderr
    finally:
        archives.LEAST_LIMIT = limit  # type: ignore[misc]
    return {"archives": len(cases), "refused": refused, "failed": failed}


# -- size -----------------------------------------------------------------------------------


def large_geometry(folder: Path, atoms: int) -> Result:
    """One geometry of many atoms checked as `convert` does, written, validated, read and exported, each on its own."""
    record, path = springs(atoms, 1), folder / "large.zarr"
    packed = pack(np.asarray(record.hessian))
    known, found = check(springs(5, 1))[0].kind, {}

    def checked() -> bool:
        return check(record)[0].kind == known

    def written() -> bool:
        with StoreWriter(path, attributes={"license": "CC0-1.0"}) as writer:
            writer.append(record.replace(kind=known))
        return True

    def validated() -> bool:
        return validate(path, 4).valid

    def taken() -> bool:
        return bool(np.array_equal(HessianStore(path).packed(0), packed))

    def exported() -> bool:
        return len(export(path, folder / "large", "deepmd-npy").places) == 1

    failed = 0
    steps = {"check": checked, "write": written, "validate": validated, "read": taken, "export": exported}
    for name, step in steps.items():
        good, seconds, memory = measured_apart(step)
        failed += not good
        found[f"seconds to {name}"] = f"{seconds:.1f} ({memory / 2**20:.0f} MiB)"
    values = np.load(next((folder / "large").rglob("hessian.npy")), mmap_mode="r")
    failed += not np.array_equal(pack(values.reshape(3 * atoms, 3 * atoms)), packed)
    return {"atoms": atoms, "elements": len(packed), **found, "failed": failed}


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
        "import sys, time, random; from nequip_hessian.store import HessianStore; t = time.perf_counter(); "
        "s = HessianStore(sys.argv[1]); n = len(s); a = time.perf_counter() - t; t = time.perf_counter(); "
        "ok = all(float(s.packed(i)[0]) == i % 97 for i in random.Random(0).sample(range(n), 1000)); "
        "b = time.perf_counter() - t; "
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')); "
        "print(n, ok, a, b, int(peak.split()[1]) / 1024)"
    )  # ru_maxrss would be that of the parent before the exec
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
