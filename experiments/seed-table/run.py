"""Run the experiment: `python experiments/seed-table/run.py --store reactions-xtb.zarr --work WORK`.

Each run trains with nequip-train and is evaluated with nequip_hessian's own evaluation; its result is one JSON file in
results/. Runs that have one are not done again; a training that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from plan import PLANS, Run
from stores import make_stores
from tqdm import tqdm

from nequip_hessian.cli._numbers import whole
from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore
from nequip_hessian.store.checksum import content_checksum

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
ALLEGRO = {
    "_target_": "nequip_hessian.model.AllegroModel",
    "num_layers": 2,
    "l_max": 1,
    "num_scalar_features": 32,
    "num_tensor_features": 16,
    "allegro_mlp_hidden_layers_width": 64,
    "readout_mlp_hidden_layers_width": 32,
    "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed"},
    "radial_chemical_embed_dim": 32,
    "scalar_embed_mlp_hidden_layers_width": 32,
}
CHECKPOINT = {  # that of train.yaml, for runs with further callbacks
    "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
    "filename": "last",
    "every_n_train_steps": 250,
    "enable_version_counter": False,
}
NEQUIP_ONLY = ("num_features", "radial_mlp_width")


def hydra(value: Any) -> str:
    """A value in Hydra's override syntax."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{hydra(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(hydra(v) for v in value) + "]"
    return "null" if value is None else str(value)


def training_store(run: Run, stores: Path) -> Path:
    """The store that a run is trained on."""
    return stores / ("all.zarr" if run.data == "all" else "train.zarr")


def overrides(run: Run, stores: Path, folder: Path) -> list[str]:
    """Everything that tells one run from another."""
    values: dict[str, Any] = {
        "store": training_store(run, stores),
        "split": run.scheme,
        "hessian": run.hessian,
        "updates": run.updates,
        "seed": run.seed,
        "batch_size": run.batch,
        "hydra.run.dir": folder,
        **run.settings,
    }
    words = [f"{name}={hydra(value)}" for name, value in values.items()]
    words += ["~training_module.loss", f"+training_module.loss={hydra(run.loss)}"]
    if run.callbacks:
        words.append(f"trainer.callbacks={hydra([{**CHECKPOINT, 'dirpath': folder}, *run.callbacks])}")
    if run.hessian and run.hessian.get("mode") == "modes":
        words.append("+data.val_hessian={mode:random,k:1}")  # modes validate nothing; no figure of it is used
    if run.features != Run.features:
        words.append(f"training_module.model.num_features={run.features}")
    if run.model == "allegro":
        words += [f"~training_module.model.{name}" for name in NEQUIP_ONLY]
        words += [f"++training_module.model.{name}={hydra(value)}" for name, value in ALLEGRO.items()]
    return words


def train(run: Run, stores: Path, folder: Path, extra: list[str]) -> dict[str, float]:
    """Train; returns CPU seconds and peak memory, summed over and largest of the pieces of an interrupted run, and how
    many pieces were killed with this process before their cost was known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    costs = folder / "cost.json"
    cost = {"cpu_seconds": 0.0, "peak_memory_mb": 0.0, "pieces_of_unknown_cost": 0}
    cost |= json.loads(costs.read_text()) if costs.exists() else {}
    if (folder / "trained").exists():
        return cost
    command = [str(SCRIPTS / "nequip-train"), "-cp", str(HERE), "-cn", "train", *overrides(run, stores, folder), *extra]
    if (folder / "last.ckpt").exists():
        command.append(f"++ckpt_path={folder / 'last.ckpt'}")
    costs.write_text(json.dumps(cost | {"pieces_of_unknown_cost": cost["pieces_of_unknown_cost"] + 1}))
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    cost["cpu_seconds"] += used.ru_utime + used.ru_stime
    cost["peak_memory_mb"] = max(cost["peak_memory_mb"], used.ru_maxrss / 1024)
    costs.write_text(json.dumps(cost))
    if process.returncode:
        raise RuntimeError(f"{run.name}: nequip-train ended with status {process.returncode}; see {folder / 'log.txt'}")
    (folder / "trained").touch()
    return cost


def environment() -> dict[str, str]:
    """One thread each: runs go side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def do(run: Run, stores: Path, work: Path, results: Path, extra: list[str]) -> str:
    """Train and evaluate one run, and write its result."""
    folder = work / run.name
    cost = train(run, stores, folder, extra)
    command = [sys.executable, str(HERE / "figures.py"), str(folder), str(stores)]
    command += ["--paths"] if run.searches_paths else []
    with (folder / "evaluate.log").open("wb") as log:
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment(), check=False).returncode:
            raise RuntimeError(f"{run.name}: the evaluation failed; see {folder / 'evaluate.log'}")
    found = json.loads((folder / "figures.json").read_text())
    source = training_store(run, stores)
    found["stores"][source.name] = content_checksum(HessianStore(source).attributes)
    result = {
        "run": run.as_dict(),
        "settings": run.settings,
        "loss": run.loss,
        "hessian": run.hessian,
        "overrides": extra,
        "training": cost,
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
        **found,
    }
    target = results / f"{run.name}.json"
    aside = target.with_suffix(".tmp")
    aside.write_text(json.dumps(result, indent=1) + "\n")
    aside.replace(target)
    return run.name


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> int:
    """Do all runs that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="the built data set reactions-xtb")
    parser.add_argument("--work", type=Path, help="folder for derived stores, logs and checkpoints")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder of results (default: beside this)"
    )
    parser.add_argument("--plan", choices=PLANS, default="seed-table", help="which experiment (default: seed-table)")
    parser.add_argument("--only", default="", help="only runs whose name contains this text")
    parser.add_argument(
        "--processes", type=whole, default=os.cpu_count() or 1, help="runs side by side; default: all cores"
    )
    parser.add_argument("--list", action="store_true", help="print the runs and whether they are done")
    parser.add_argument(
        "overrides", nargs="*", help="further overrides for nequip-train, for trials; stored in the result"
    )
    args = parser.parse_args()
    runs = [run for run in PLANS[args.plan]() if args.only in run.name]
    if not runs:
        parser.error(f"--only {args.only}: no run of the plan {args.plan} has this in its name; see --list")
    missing = [run for run in runs if not (args.results / f"{run.name}.json").exists()]
    if args.list:
        print("\n".join(f"{'to do' if run in missing else 'done ':6}{run.name}" for run in runs))
        return 0
    if args.store is None or args.work is None:
        parser.error("--store and --work are needed to run anything")
    stores = args.work.resolve() / "stores"
    try:
        make_stores(args.store, stores)
    except StoreError as exc:
        parser.error(f"--store: {exc}")
    args.results.mkdir(parents=True, exist_ok=True)
    failed = 0
    with ThreadPoolExecutor(args.processes) as pool, tqdm(total=len(runs), initial=len(runs) - len(missing)) as bar:
        for future in [
            pool.submit(do, run, stores, args.work.resolve(), args.results, args.overrides) for run in missing
        ]:
            try:
                bar.set_postfix_str(future.result())
            except RuntimeError as exc:
                failed += 1
                tqdm.write(f"run.py: error: {exc}", file=sys.stderr)
            bar.update()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
