"""Trains every arm and seed and writes the comparison: `run.py --work out/crystals --write docs/phonons.md`.

A training that is done is not done again; one that was stopped begins anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from report import RESULTS, measured, table, write_section

from nequip_hessian.errors import HessianDataError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ARMS = {"E-F": "energy_forces", "E-F-H": "energy_forces_hessians"}
"""Name in the table -> configuration."""
SEEDS = (1, 2, 3)


def make_store(work: Path) -> Path:
    """The data set as a store in the folder `work`.

    Raises:
        subprocess.CalledProcessError: it could not be made.
    """
    store = work / "crystals.zarr"
    if not store.exists():
        subprocess.run([sys.executable, str(ROOT / "datasets/crystals/build.py"), "-o", str(store)], check=True)
    return store


def train(configuration: str, seed: int, store: Path, work: Path) -> Path:
    """Train one model unless it is there; returns its checkpoint.

    Raises:
        subprocess.CalledProcessError: nequip-train failed; what it printed is on the terminal.
    """
    target = work / f"{configuration}_seed{seed}"
    if not target.exists():
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [str(Path(sys.executable).parent / "nequip-train"), "-cp", str(HERE), "-cn", configuration]
        settings = [f"store={store}", f"seed={seed}", f"hydra.run.dir={part}"]
        subprocess.run([*command, *settings, "trainer.enable_progress_bar=false"], check=True)
        os.replace(part, target)
    return target / "last.ckpt"


def main() -> int:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the store and the models")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder for the figure and results.json")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page with a marked section for the table")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        store = make_store(work)
        models = [
            f"{name}={train(configuration, seed, store, work)}"
            for name, configuration in ARMS.items()
            for seed in SEEDS
        ]
        text = table(measured(store, models, args.output))
        print(text)
        if args.write is not None:
            write_section(args.write, text)
    except (HessianDataError, OSError, subprocess.CalledProcessError) as exc:
        parser.exit(1, f"{exc}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
