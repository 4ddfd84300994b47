"""Reading packed Hessians from a local store: memory map against zarr-python, side by side from one run.

    python benchmarks/store.py [--geometries 20000] [--atoms 15]

Each column reads the same geometries of the same data; the ratio is to the
memory map. The store is written to a temporary folder and read warm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter


def write(path: Path, profile: str, geometries: int, atoms: int) -> float:
    """Write random symmetric matrices; return seconds."""
    rng = np.random.default_rng(0)
    record = LabelledGeometry(
        numbers=np.full(atoms, 6),
        positions=rng.normal(size=(atoms, 3)),
        energy=-1.0,
        forces=rng.normal(size=(atoms, 3)),
        hessian=rng.normal(size=(3 * atoms, 3 * atoms)),
    )
    start = time.perf_counter()
    with StoreWriter(path, profile=profile) as writer:
        for _ in range(geometries):
            writer.append(record)
    return time.perf_counter() - start


def microseconds(read: Callable[[int], object], indices: list[int]) -> float:
    """Return the median over five passes of the time a read takes, microseconds."""
    passes = []
    for _ in range(5):
        start = time.perf_counter()
        for index in indices:
            read(index)
        passes.append((time.perf_counter() - start) / len(indices) * 1e6)
    return float(np.median(passes))


def main() -> None:
    """Write the stores, read them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometries", type=int, default=20000)
    parser.add_argument("--atoms", type=int, default=15)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        stores = {}
        for profile, name in (("local", "a.zarr"), ("publish", "a.zip"), ("remote", "b.zarr")):
            seconds = write(Path(folder) / name, profile, args.geometries, args.atoms)
            print(f"{profile:<8} written in {seconds:6.1f} s, {seconds / args.geometries * 1e6:.0f} us a geometry")
            stores[profile] = Path(folder) / name
        readers = {
            "local, memory map": HessianStore(stores["local"]),
            "zip, memory map": HessianStore(stores["publish"]),
            "local, zarr": HessianStore(stores["local"], mapped=False),
            "remote, zarr": HessianStore(stores["remote"]),
        }
        indices = rng.integers(0, args.geometries, 200).tolist()
        for store in readers.values():  # warm
            for index in indices[:50]:
                store.packed(index)
        print(f"\n{'one random Hessian, ' + str(args.atoms) + ' atoms':<34} {'us':>9} {'ratio':>8}")
        base = 0.0
        for name, store in readers.items():
            value = microseconds(store.packed, indices)
            base = base or value
            print(f"{name:<34} {value:9.1f} {value / base:8.1f}")
        value = microseconds(readers["local, memory map"].__getitem__, indices)
        print(f"{'whole record, memory map':<34} {value:9.1f} {value / base:8.1f}")


if __name__ == "__main__":
    main()
