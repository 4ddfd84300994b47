"""Bytes, writing and reading of a Hessian store beside dense npy, HDF5 and LMDB, in one run on the same geometries.

    python benchmarks/store.py [--geometries 20000] [--atoms 15] [--write docs/store.md]

A geometry has atomic numbers, positions, energy, forces and a float64 Hessian.
The other ways keep the full matrix: `npy`, one memory-mapped array each label;
`HDF5`, a group a geometry; `LMDB, pickle`, a pickled dictionary a geometry;
`LMDB, ASE JSON`, what ASE's LMDB backend keeps, compressed JSON. A read hands
out the Hessian as an array of its own in memory: the packed triangle (`store`)
or the full matrix; `store, matrix` unpacks it. Files are warm. Rates are in
geometries a second, of CPU time for writing and of wall time for reading.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import platform
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.row import AtomsRow
from ase.io.jsonio import decode, encode
from measuring import add_write_option, write_block

from nequip_hessian.curvature import unpack
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter

ROOT = Path(__file__).resolve().parents[1]
Read = Callable[[int], np.ndarray]


def geometries(count: int, atoms: int) -> Iterator[dict[str, Any]]:
    """Geometries of random numbers, the same in each call; numbers compress as badly as Hessians do."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        half = rng.normal(size=(3 * atoms, 3 * atoms))
        yield {
            "numbers": rng.integers(1, 9, atoms).astype(np.uint8),
            "positions": rng.normal(size=(atoms, 3)),
            "energy": float(rng.normal()),
            "forces": rng.normal(size=(atoms, 3)),
            "hessian": half + half.T,
        }


# -- writing --------------------------------------------------------------------------------


def write_store(path: Path, count: int, atoms: int, profile: str = "local") -> None:
    """Write a Hessian store."""
    with StoreWriter(path, profile=profile) as writer:
        for one in geometries(count, atoms):
            writer.append(LabelledGeometry(**one))


def write_npy(path: Path, count: int, atoms: int) -> None:
    """Write one array a label."""
    path.mkdir()
    arrays: dict[str, np.ndarray] = {}
    for index, one in enumerate(geometries(count, atoms)):
        for name, value in one.items():
            part = np.asarray(value)
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    path / f"{name}.npy", mode="w+", dtype=part.dtype, shape=(count, *part.shape)
                )
            arrays[name][index] = part
    for array in arrays.values():
        array.flush()


def write_hdf5(path: Path, count: int, atoms: int) -> None:
    """Write a group a geometry."""
    with h5py.File(path, "w") as file:
        for index, one in enumerate(geometries(count, atoms)):
            group = file.create_group(str(index))
            for name, value in one.items():
                group[name] = value


def write_pickle(path: Path, count: int, atoms: int) -> None:
    """Write pickled dictionaries into an LMDB."""
    _write_lmdb(path, (pickle.dumps(one, protocol=5) for one in geometries(count, atoms)))


def write_ase(path: Path, count: int, atoms: int) -> None:
    """Write rows of ASE's database as compressed JSON into an LMDB, the Hessian among their data."""

    def rows() -> Iterator[bytes]:
        for one in geometries(count, atoms):
            system = Atoms(one["numbers"], one["positions"])
            system.calc = SinglePointCalculator(system, energy=one["energy"], forces=one["forces"])
            row = AtomsRow(system)
            entry = {key: row[key] for key in ("numbers", "positions", "cell", "pbc", "energy", "forces")}
            yield zlib.compress(encode({**entry, "data": {"hessian": one["hessian"]}}).encode())

    _write_lmdb(path, rows())


def _write_lmdb(path: Path, values: Iterator[bytes]) -> None:
    base = lmdb.open(str(path), subdir=False, map_size=2**36, lock=False, meminit=False)
    txn = base.begin(write=True)
    for index, value in enumerate(values):
        txn.put(str(index).encode(), value)
        if index % 1000 == 999:
            txn.commit()
            txn = base.begin(write=True)
    txn.commit()
    base.close()


# -- reading --------------------------------------------------------------------------------


def read_store(path: Path) -> Read:
    """Read the packed triangle."""
    store = HessianStore(path)
    return lambda index: np.array(store.packed(index))


def read_matrix(path: Path) -> Read:
    """Read the packed triangle and unpack it."""
    store = HessianStore(path)
    return lambda index: unpack(store.packed(index))


def read_npy(path: Path) -> Read:
    """Read from the memory map."""
    hessian = np.load(path / "hessian.npy", mmap_mode="r")
    return lambda index: np.array(hessian[index])


def read_hdf5(path: Path) -> Read:
    """Read one data set."""
    file = h5py.File(path, "r")
    return lambda index: file[f"{index}/hessian"][...]


def read_pickle(path: Path) -> Read:
    """Unpickle one dictionary."""
    txn = lmdb.open(str(path), subdir=False, readonly=True, lock=False).begin()
    return lambda index: pickle.loads(txn.get(str(index).encode()))["hessian"]


def read_ase(path: Path) -> Read:
    """Decode one row."""
    txn = lmdb.open(str(path), subdir=False, readonly=True, lock=False).begin()
    return lambda index: decode(zlib.decompress(txn.get(str(index).encode())).decode())["data"]["hessian"]


WAYS: dict[str, tuple[str, Callable[..., None], Callable[[Path], Read]]] = {
    "store": ("a.zarr", write_store, read_store),
    "store, matrix": ("a.zarr", write_store, read_matrix),
    "npy": ("npy", write_npy, read_npy),
    "HDF5": ("a.h5", write_hdf5, read_hdf5),
    "LMDB, pickle": ("p.lmdb", write_pickle, read_pickle),
    "LMDB, ASE JSON": ("j.lmdb", write_ase, read_ase),
}


def size(path: Path) -> int:
    """Bytes on disk; of an LMDB the pages in use."""
    if path.suffix == ".lmdb":
        base = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
        return int(base.info()["last_pgno"] + 1) * int(base.stat()["psize"])
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def seconds(way: str, path: Path, indices: list[int]) -> float:
    """Seconds of the quickest of three passes over the indices, after one to warm up."""
    read, found = WAYS[way][2](path), []
    for _ in range(4):
        start = time.perf_counter()
        for index in indices:
            read(index)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def rate(way: str, path: Path, indices: list[int], workers: int) -> float:
    """Geometries a second of one or several processes, each with its share of the indices."""
    if workers == 1:
        return len(indices) / seconds(way, path, indices)
    shares = [(way, path, indices[rank::workers]) for rank in range(workers)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        times = pool.starmap(seconds, shares, chunksize=1)
    return sum(len(share[2]) / time_ for share, time_ in zip(shares, times, strict=True))


def measure(folder: Path, count: int, atoms: int) -> list[list[str]]:
    """Rows of the table."""
    rng = np.random.default_rng(1)
    random = rng.integers(0, count, min(count, 2000)).tolist()
    row = list(range(min(count, 2000)))
    rows, dense, written = [], 0.0, {}
    for way in WAYS:
        name, write, _ = WAYS[way]
        path = folder / name
        if not path.exists():
            start = time.process_time()
            write(path, count, atoms)
            written[name] = count / (time.process_time() - start)
        each = size(path) / count
        dense = each if way == "npy" else dense
        rates = [rate(way, path, indices, workers) for indices in (random, row) for workers in (1, 2)]
        rows.append([way, f"{each:.0f}", "", f"{written[name]:.0f}", *(f"{value:.0f}" for value in rates)])
        print(*rows[-1], sep="  ", flush=True)
    for one in rows:
        one[2] = f"{float(one[1]) / dense:.3f}"
    return rows


HEADER = ["", "bytes", "of npy", "write", "random, 1", "random, 2", "in order, 1", "in order, 2"]


def table(rows: list[list[str]], count: int, atoms: int) -> str:
    """The table as Markdown, with date and hardware."""
    named = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    machine = f"{named[0] if named else platform.machine()}, {multiprocessing.cpu_count()} cores"
    python = f"Python {platform.python_version()}"
    head = f"{count} geometries of {atoms} atoms, float64. {date.today()}, {machine}, {python}."
    lines = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1), *rows]
    return "\n".join([head, "", *("| " + " | ".join(line) + " |" for line in lines)])


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Write, read, print the table, and put it into a page between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometries", type=int, default=20000)
    parser.add_argument("--atoms", type=int, default=15)
    add_write_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(measure(Path(folder), args.geometries, args.atoms), args.geometries, args.atoms)
    print(text)
    if args.write:
        write_block(args.write, "benchmarks/store.py", text)


if __name__ == "__main__":
    main()
