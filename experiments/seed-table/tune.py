"""Short trials for the shared settings: `python experiments/seed-table/tune.py --store STORE --work WORK`.

First the learning rate and the shares of energy and forces for E-F alone, then, with those fixed, the share of the
Hessian for E-F-H, all on the training set `mixed`; last the learning rate on stationary points alone. Judged on
validation reactions. Writes tuning.json and tuning.md beside this file. Trials that are done are not done again. The
choice is then written down in plan.py by hand.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from plan import FORCES_RMS, LOSSES, RATES, SCALES, Run
from run import HERE, hydra, train
from stores import make_stores

from nequip_hessian.cli._numbers import whole
from nequip_hessian.errors import StoreError

UPDATES = 1000
TRIED_RATES = (0.003, 0.01, 0.03, 0.1)
FORCE_SHARE = 10.0
EVEN_RATES = (0.01, 0.03)  # with even shares of energy and forces, or more forces
ENERGY_SHARES = ((10.0, 0.03), (30.0, 0.01), (100.0, 0.03))  # with the learning rate
HESSIAN_SHARES = (0.003, 0.01, 0.03, 0.1)
STATIONARY_RATES = (0.003, 0.01, 0.03)
STAGES = ("E-F", "E-F-H", "stationary")
EVEN = {"total_energy": 1.0, "forces": 1.0}
VALIDATION = {
    "_target_": "nequip_hessian.train.EnergyForceHessianMetrics",
    "coeffs": {"per_atom_energy_rmse": 1.0, "forces_rmse": 1.0, "hessian_rmse": None},
}


def trials(stage: str) -> dict[str, tuple[Run, list[str]]]:
    """Name -> run and overrides."""
    found = {}
    if stage == "E-F":
        for rate in TRIED_RATES:
            found[f"E-F, learning rate {rate:g}"] = _trial("E-F", EVEN, rate)
        for rate in EVEN_RATES:
            coeffs = {"total_energy": 1.0, "forces": FORCE_SHARE}
            found[f"E-F, learning rate {rate:g}, forces {FORCE_SHARE:g}"] = _trial("E-F", coeffs, rate)
        for share, rate in ENERGY_SHARES:
            coeffs = {"total_energy": share, "forces": 1.0}
            found[f"E-F, learning rate {rate:g}, energy {share:g}"] = _trial("E-F", coeffs, rate)
    elif stage == "stationary":
        for arm in ("E-F", "E-F-H"):
            for rate in STATIONARY_RATES:
                name = f"{arm} on stationary points, learning rate {rate:g}, shares as taken"
                found[name] = _trial(arm, LOSSES[arm]["coeffs"], rate, "stationary", FORCES_RMS)
        for arm in ("E-F", "E-F-H"):
            for rate in STATIONARY_RATES[1:]:
                name = f"{arm} on stationary points, learning rate {rate:g}, shares as taken, energy scale 1 eV"
                found[name] = _trial(arm, LOSSES[arm]["coeffs"], rate, "stationary", 1.0)
    else:
        for rate, share in itertools.product(EVEN_RATES, HESSIAN_SHARES[1:]):
            name = f"E-F-H, learning rate {rate:g}, Hessian {share:g}"
            found[name] = _trial("E-F-H", {**EVEN, "hessian": share}, rate)
        rate = RATES["mixed"]
        for share in HESSIAN_SHARES:
            coeffs = {**LOSSES["E-F"]["coeffs"], "hessian": share}
            energy = coeffs["total_energy"]
            name = f"E-F-H, learning rate {rate:g}, energy {energy:g}, Hessian {share:g}"
            found[name] = _trial("E-F-H", coeffs, rate)
    return found


def _trial(
    arm: str, coeffs: Any, rate: float, data: str = "mixed", scale: float | str = FORCES_RMS
) -> tuple[Run, list[str]]:
    words = [f"training_module.optimizer.lr={rate}", f"training_module.model.per_type_energy_scales={scale}"]
    words += [f"++training_module.loss.coeffs.{name}={value}" for name, value in coeffs.items()]
    if arm == "E-F-H":
        words += ["~training_module.val_metrics", f"+training_module.val_metrics={hydra(VALIDATION)}"]
    return Run(arm, data, 1, 1, updates=UPDATES), words


def validated(folder: Path) -> dict[str, float]:
    """Last validation figures of a trial."""
    found: dict[str, float] = {}
    for path in sorted(folder.glob("lightning_logs/version_*/metrics.csv")):
        with path.open() as stream:
            for row in csv.DictReader(stream):
                found |= {k: float(v) for k, v in row.items() if k.startswith("val0_epoch/") and v}
    return {name.removeprefix("val0_epoch/"): value for name, value in found.items()}


def page(results: dict[str, dict[str, float]]) -> str:
    """The trials as a table."""
    lines = [
        "# Settings: what was tried",
        "",
        f"Made by `tune.py`: trials of {UPDATES} updates on the training set `mixed` where not named, seed 1; errors "
        "on points of the validation reactions (the exponential moving average of the weights). Shares of the loss are "
        "1 where not named.",
        "",
        "| trial | energy per atom RMSE, meV | force RMSE, meV/Å | Hessian RMSE (fixed random probes), eV/Å² |",
        "|---|---:|---:|---:|",
    ]
    for name, found in results.items():
        hessian = f"{found['hessian_rmse']:.2f}" if "hessian_rmse" in found else "–"
        energy, force = 1000 * found["per_atom_energy_rmse"], 1000 * found["forces_rmse"]
        lines.append(f"| {name} | {energy:.1f} | {force:.0f} | {hessian} |")
    chosen = LOSSES["E-F-H"]["coeffs"]
    rates = ", ".join(f"{rate:g} on `{data}`" for data, rate in RATES.items())
    scale = SCALES["stationary"]
    lines += [
        "",
        f"Taken for all arms (plan.py): learning rate {rates}; shares of the loss {chosen}; energy scale {scale:g} eV "
        "on `stationary` (whose forces are zero), else the RMS force.",
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    """Run the trials and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="the data set reactions-xtb")
    parser.add_argument("--work", type=Path, required=True, help="folder for derived stores, logs and checkpoints")
    parser.add_argument("--processes", type=whole, default=os.cpu_count() or 1, help="trials side by side")
    parser.add_argument("--stage", choices=STAGES, help="only these trials; default: all")
    args = parser.parse_args()
    stores = args.work.resolve() / "stores"
    try:
        make_stores(args.store, stores)
    except StoreError as exc:
        parser.error(f"--store: {exc}")
    file = HERE / "tuning.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    todo = {}
    for stage in [args.stage] if args.stage else STAGES:
        todo |= {name: trial for name, trial in trials(stage).items() if name not in results}

    def one(name: str) -> tuple[str, dict[str, float]]:
        run, words = todo[name]
        folder = args.work.resolve() / "tuning" / name.replace(", ", "_").replace(" ", "-")
        train(run, stores, folder, words)
        return name, validated(folder)

    with ThreadPoolExecutor(args.processes) as pool:
        for name, found in pool.map(one, todo):
            results[name] = found
            file.write_text(json.dumps(results, indent=1) + "\n")
            (HERE / "tuning.md").write_text(page(results))
            print(name, {k: round(v, 4) for k, v in found.items()}, flush=True)
    (HERE / "tuning.md").write_text(page(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
