"""An energy-force model improved by few Hessians, and what it forgets without co-training; numbers from one run.

    python benchmarks/fine_tuning.py datasets/reactions-xtb/small.zarr.zip --work out/fine-tuning
                                     [--write docs/training.md]

The groups of the store are divided: 70 % for training, 10 % for validation, 20 % for the test. A small model is
trained on energies and forces of all training geometries. Then Hessians of a few reactants, transition states and
products arrive, and the packaged model is fine-tuned (configs/finetune.yaml) three times for the same number of
steps:

    few Hessians alone          on those geometries and nothing else
    few Hessians, co-training   on those and on the energies and forces of the first training
    energies and forces only    on the first training's data for as long, which tells what more training alone does

The test geometries are in none of these: stationary points, like those of the few Hessians, and points of paths and
displaced ones, which only the first training showed. Figures are those of the last checkpoint, so no test or validation
Hessian has chosen anything.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
from measuring import add_write_option, machine, write_block
from tqdm import tqdm

from nequip_hessian.store import HessianStore, StoreWriter

SCRIPT = "benchmarks/fine_tuning.py"
ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
# nothing is chosen by validation; it must come after each epoch, because a checkpoint holds the averaged weights then
SHORT_VALIDATION = "++trainer.limit_val_batches=1"
RUNS = {
    "before": None,
    "few Hessians alone": "few",
    "few Hessians, co-training": "both",
    "energies and forces only": "first",
}


def divide(store: HessianStore, seed: int) -> np.ndarray:
    """(G,) part of each geometry, 0 train, 1 val, 2 test, by whole groups."""
    group = np.arange(len(store)) if store.group is None else np.asarray(store.group)
    names = np.unique(group)
    np.random.default_rng(seed).shuffle(names)
    cuts = [int(0.7 * len(names)), int(0.8 * len(names))]
    part = np.full(len(store), 2, dtype=np.int8)
    part[np.isin(group, names[: cuts[1]])] = 1
    part[np.isin(group, names[: cuts[0]])] = 0
    return part


def write(path: Path, store: HessianStore, chosen: np.ndarray, part: np.ndarray, hessians: np.ndarray) -> None:
    """A store of the chosen geometries, with Hessians where `hessians` (G,) says so, and the split `parts`."""
    with StoreWriter(path, overwrite=True) as writer:
        for index in tqdm(chosen, file=sys.stderr, disable=None, desc=path.name):
            record = store[int(index)]
            writer.append(record if hessians[index] else dataclasses.replace(record, hessian=None, asymmetry=None))
        writer.set_split("parts", ["train", "val", "test", "off"], part[chosen])


def stationary(store: HessianStore) -> np.ndarray:
    """(G,) boolean: forces below 0.05 eV/angstrom everywhere."""
    largest = np.abs(np.asarray(store.force)).max(axis=1)
    return np.maximum.reduceat(largest, np.asarray(store.atom_offset[:-1])) < 0.05


def command(name: str, *arguments: object, log: Path) -> None:
    """Run a command of the environment; its output goes to a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        done = subprocess.run(
            [str(SCRIPTS / name), *map(str, arguments)], env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise SystemExit(f"{name} failed; see {log}")


def train(config: str, store: Path, folder: Path, *overrides: str) -> None:
    """One run of nequip-train; its output is in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command(
        "nequip-train",
        *("-cp", ROOT / "configs", "-cn", config, f"store={store.resolve()}", f"hydra.run.dir={folder.resolve()}"),
        *("data.split=parts", "++trainer.enable_progress_bar=false", *overrides),
        log=folder.with_suffix(".log"),
    )


def tested(folder: Path, number: int) -> dict[str, float]:
    """Figures of a test set of a run, from Lightning's log."""
    (log,) = folder.glob("lightning_logs/version_*/metrics.csv")
    figures: dict[str, float] = {}
    with log.open() as file:
        for row in csv.DictReader(file):
            figures |= {k.split("/")[1]: float(v) for k, v in row.items() if k.startswith(f"test{number}_epoch/") and v}
    return figures


def make_stores(store: HessianStore, work: Path, hessians: int, tests: int) -> dict[str, int]:
    """Write the three stores; return how many geometries there are of each kind."""
    part, still = divide(store, 0), stationary(store)
    labelled = (part == 0) & still & np.asarray(store.has_hessian)
    rng = np.random.default_rng(1)
    if hessians > labelled.sum():
        raise SystemExit(f"{hessians} Hessians asked for, {labelled.sum()} stationary points in the training part")
    few = rng.choice(np.flatnonzero(labelled), hessians, replace=False)
    part[(part == 2) & ~still] = 3
    for code in (2, 3):  # what is too many for the tests is left out
        held = np.flatnonzero((part == code) & np.asarray(store.has_hessian))
        part[part == code] = 4
        part[rng.permutation(held)[:tests]] = code
    first, held = np.flatnonzero(part == 0), np.flatnonzero((part > 0) & (part < 4))
    known = part > 0
    few_known = known.copy()
    few_known[few] = True
    for name, chosen, mask in (("first", first, known), ("few", few, few_known), ("both", first, few_known)):
        write(work / f"{name}.zarr", store, np.sort(np.concatenate([chosen, held])), part, mask)
    counts = {"first": len(first), "few": len(few), "both": len(first)}
    return {**counts, "stationary": int((part == 2).sum()), "elsewhere": int((part == 3).sum())}


def first_training(work: Path, epochs: int) -> Path:
    """Train on energies and forces and package the model."""
    folder, package = work / "base", (work / "base.nequip.zip").resolve()
    model = "training_module.model"
    size = [
        f"{model}.num_features=16",
        f"{model}.num_layers=2",
        f"{model}.model_dtype=float64",
        "run=[train]",
        SHORT_VALIDATION,
    ]
    train(
        "demo_energy_forces",
        work / "first.zarr",
        folder,
        "cutoff_radius=5.0",
        f"trainer.max_epochs={epochs}",
        *size,
    )
    package.unlink(missing_ok=True)
    command("nequip-package", "build", folder / "last.ckpt", package, log=work / "package.log")
    return package


def fine_tune(source: str, work: Path, folder: Path, package: Path, epochs: int) -> Path:
    """Fine-tune on one of the stores; return the last checkpoint."""
    options = [f"package={package}", f"trainer.max_epochs={epochs}", "run=[train]"]
    options.append(SHORT_VALIDATION)
    if source == "first":
        options += ["data.hessian=null", "training_module.loss._target_=nequip.train.EnergyForceLoss"]
        options += ["~training_module.loss.coeffs.hessian"]
        options += ["training_module.val_metrics._target_=nequip.train.EnergyForceMetrics"]
    train("finetune", work / f"{source}.zarr", folder, *options)
    return (folder / "last.ckpt").resolve()


def figures(
    source: str | None, folder: Path, args: argparse.Namespace, package: Path, counts: dict[str, int]
) -> list[str]:
    """Fine-tune, unless `source` is None, and return the cells of the table."""
    options = [f"package={package}", "run=[test]", "+data.val_hessian={mode: full}"]
    if source is not None:
        epochs = math.ceil(args.steps / math.ceil(counts[source] / 8))
        last = fine_tune(source, args.work, folder, package, epochs)
        inner = "training_module.model.model"
        options += [f"{inner}._target_=nequip.model.ModelFromCheckpoint", f"~{inner}.package_path"]
        options += [f"+{inner}.checkpoint_path={last}"]
    check = folder.with_name(f"{folder.name}-test")
    train("finetune", args.work / "both.zarr", check, *options)
    return [f"{tested(check, number)[key]:.3f}" for number in (0, 1) for key in ("forces_rmse", "hessian_rmse")]


def main() -> None:
    """Train, fine-tune three times, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a Hessian store of reactions of H, C, N, O")
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--epochs", type=int, default=40, help="of the first training (default 40)")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each fine-tuning (default 400)")
    parser.add_argument("--hessians", type=int, default=24, help="stationary points with Hessians (default 24)")
    parser.add_argument("--test", type=int, default=60, help="geometries of each of the two tests (default 60)")
    add_write_option(parser)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    counts = make_stores(HessianStore(args.store), args.work, args.hessians, args.test)
    package = first_training(args.work, args.epochs)
    lines = [
        "| model | forces at stationary points, eV/Å | Hessian there, eV/Å² | forces elsewhere | Hessian there |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, source in tqdm(RUNS.items(), file=sys.stderr, disable=None, desc="fine-tuning"):
        folder = args.work / name.replace(" ", "-").replace(",", "")
        lines.append(f"| {name} | {' | '.join(figures(source, folder, args, package, counts))} |")
    head = (
        f"{machine()}. NequIP of 2 layers, l = 1, 16 features, float64; {args.store.name}: {counts['first']} training "
        f"geometries, {counts['few']} Hessians, {args.epochs} epochs, then {args.steps} steps; root mean square errors "
        f"of {counts['stationary']} stationary points and {counts['elsewhere']} other geometries."
    )
    text = "\n".join([head, "", *lines])
    print(text)
    if args.write is not None:
        write_block(args.write, SCRIPT, text)


if __name__ == "__main__":
    main()
