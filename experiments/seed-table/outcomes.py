"""What comes out for a chemist: `python experiments/seed-table/outcomes.py --store STORE --work WORK`.

Transition states found, barriers, bands, frequencies, zero-point energies and the temperature at which molecules fall
apart, for the E-F and E-F-H models of the first seed (trained on `mixed`) on 30 held-out reactions, by
`nequip-hessian evaluate`. Models that run.py has not left in WORK are trained first. Hours on two cores; interrupted,
it goes on where it was. Writes results/outcomes.json, the
figures of its report, and the page itself into WORK/outcomes. With `--reactions N` on fewer, a trial, outcomes-N in
both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from plan import Run
from reading import OUTCOMES, Result
from run import HERE, SCRIPTS, environment, train
from stores import make_stores, reactions_store

from nequip_hessian.cli._numbers import whole
from nequip_hessian.errors import StoreError
from nequip_hessian.report.display import number

REACTIONS = 30
NEB_STEPS = 200  # as in the seed table
TASKS = "minima,thermochemistry,neb,saddle,md"
RAMP = {"start": 100, "increment": 100, "hold": 0.5}  # K, K, ps: the default of `evaluate` would take days
ARMS = ("E-F", "E-F-H")
FIGURES = {
    "saddle_success": ("transition states found that connect the right ends", "%", 100),
    "saddle_first_order": ("searches that end in one imaginary mode", "%", 100),
    "saddle_rmsd": ("RMSD of the found transition state", "Å", 1),
    "saddle_barrier_mae": ("barrier MAE at the found transition state", "meV", 1000),
    "saddle_gradients": ("force calls of a search with the model's Hessian", "", 1),
    "saddle_hessians": ("Hessian calls of it", "", 1),
    "saddle_gradients_plain": ("force calls of the same search without", "", 1),
    "neb_failure_rate": ("NEBs that failed", "%", 100),
    "relaxed_failure_rate": ("minima that failed or left the species", "%", 100),
    "barrier_mae": ("NEB barrier MAE (converged)", "meV", 1000),
    "stationary_agreement": ("number of imaginary modes agrees, labelled stationary points", "%", 100),
    "frequency_low_mae": ("frequency MAE below 400 cm⁻¹, reference geometries", "cm⁻¹", 1),
    "frequency_high_mae": ("frequency MAE above 400 cm⁻¹, reference geometries", "cm⁻¹", 1),
    "relaxed_frequency_low_mae": ("frequency MAE below 400 cm⁻¹, the models' own minima", "cm⁻¹", 1),
    "relaxed_frequency_high_mae": ("frequency MAE above 400 cm⁻¹, the models' own minima", "cm⁻¹", 1),
    "zpe_mae": ("zero-point energy MAE", "meV", 1000),
    "gibbs_barrier_mae": ("Gibbs barrier MAE at the reference geometries", "meV", 1000),
    "md_failure_temperature": ("temperature at which a bond fails", "K", 1),
    "md_survival": ("molecules whole at the end of the ramp (2000 K)", "%", 100),
}


def section(results: Path, runs: list[Result] = ()) -> list[str]:
    """Table for docs/results.md; empty where there are no outcomes yet.

    Args:
        results: folder of results
        runs: of the seed table, to tell whether these are their models
    """
    file = results / OUTCOMES
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    names = list(found["models"])
    lines = [
        "## Outcomes: transition states, paths, frequencies, dynamics",
        "",
        f"The models of the first seed trained on `mixed`, on {found['reactions']} held-out reactions, over the cases "
        "that both answered (in brackets how many), rates over all. The change comes with the 95 % interval of a "
        "paired bootstrap over reactions (–: too few for one, or none is made for that figure): where it holds zero "
        "the two models are not told apart. It is for these two models: how much another seed of each arm would change "
        "is not in it (the tables above have that for errors), and of so many rows one or the other lies outside by "
        f"chance. Molecules are warmed by {RAMP['increment']} K each {RAMP['hold']} ps, to 2000 K, one run each; "
        "GFN2-xTB itself was not warmed, so that higher is tougher, not known to be truer. "
        f"{_which(found, runs)}Made by `outcomes.py`.",
        "",
        f"| | {' | '.join(names)} | change |",
        "|---" + "|---:" * (len(names) + 1) + "|",
    ]
    compared = found["models"][names[1]]["against_first"]
    for name, (title, unit, scale) in FIGURES.items():
        pair = [compared[which].get(name) for which in ("first", "model")]
        cells = [_cell(figure, scale) for figure in pair]
        change = _change(pair, compared["intervals"].get(name), unit, scale)
        lines.append(f"| {title}{', ' + unit if unit else ''} | {' | '.join(cells)} | {change} |")
    return [*lines, ""]


def _which(found: dict[str, Any], runs: list[Result]) -> str:
    """Say so where the models are not those of the tables but trained again from the same settings and seed."""
    known = {run["model_sha256"] for run in runs}
    if not known or known & set(found.get("model_sha256", {}).values()):
        return ""
    return (
        "The two were trained again for this, with settings and seed of the first runs of the tables, on another "
        "processor, which rounds in another way: they are models like those, not the same. "
    )


def _cell(figure: dict[str, Any] | None, scale: float) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    return f"{number(scale * figure['value'])} ({figure['n']})"


def _change(pair: list[dict[str, Any] | None], interval: dict[str, Any] | None, unit: str, scale: float) -> str:
    """Shares in points, all else relative to the first model."""
    values = [None if figure is None else figure["value"] for figure in pair]
    if None in values or interval is None:
        return "–"
    if unit == "%" or interval["relative"] is None:
        low, high = (scale * end for end in interval["difference"])
        return f"{scale * (values[1] - values[0]):+.2g} ({low:+.2g} to {high:+.2g})"
    low, high = (100 * end for end in interval["relative"])
    return f"{100 * (values[1] / values[0] - 1):+.0f} % ({low:+.0f} to {high:+.0f})"


def main() -> int:
    """Evaluate, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="the built data set reactions-xtb")
    parser.add_argument("--work", type=Path, required=True, help="the folder that run.py worked in")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder of results (default: beside this)"
    )
    parser.add_argument("--processes", type=whole, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument("--reactions", type=whole, default=REACTIONS, help=f"default: {REACTIONS}")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    work, name = args.work.resolve(), name_of(args.reactions)
    store, page = work / "stores" / f"{name}.zarr", work / name
    try:
        make_stores(args.store, store.parent)
        reactions_store(args.store, store, args.reactions)
        models = trained([Run(arm, "mixed", 1, 1) for arm in ARMS], work, args.processes)
    except StoreError as exc:
        parser.error(f"--store: {exc}")
    except RuntimeError as exc:
        print(f"outcomes.py: error: {exc}", file=sys.stderr)
        return 1
    command = [str(SCRIPTS / "nequip-hessian"), "evaluate", *(f"{arm}={path}" for arm, path in models.items())]
    command += [str(store), "-o", str(page), "--tasks", TASKS, "--neb-steps", str(NEB_STEPS)]
    command += [text for name, value in RAMP.items() for text in (f"--md-{name}", str(value))]
    command += ["--workers", str(args.processes)]
    try:
        if subprocess.run(command, env=environment(), check=False).returncode:
            return 1
    except KeyboardInterrupt:
        print("outcomes.py: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    report = json.loads((page / "report.json").read_text())
    kept = {
        "reactions": len(report["reference_paths"]),
        "settings": report["settings"],
        "versions": report["versions"],
        "store_sha256": report["store"]["sha256"],
        "model_sha256": {model["name"]: model["sha256"] for model in report["models"]},
        "models": {
            model["name"]: {name: model[name] for name in ("figures", "against_first")} for model in report["models"]
        },
    }
    first, second = report["models"]
    for name, model in (("first", first), ("model", second)):
        kept["models"][second["name"]]["against_first"][name]["stationary_agreement"] = _agreement(report, model)
    (args.results / f"{name_of(args.reactions)}.json").write_text(json.dumps(kept, indent=1) + "\n")
    return 0


def trained(runs: list[Run], work: Path, processes: int) -> dict[str, Path]:
    """Checkpoint of each run by its arm; what `work` does not hold is trained, each on one thread.

    Raises RuntimeError where nequip-train fails.
    """
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda run: train(run, work / "stores", work / run.name, []), runs))
    return {run.arm: work / run.name / "last.ckpt" for run in runs}


def name_of(reactions: int) -> str:
    """What a run with so many reactions is called: one on fewer does not replace the result."""
    return "outcomes" if reactions == REACTIONS else f"outcomes-{reactions}"


def _agreement(report: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Share of labelled stationary points at which model and label have the same number of imaginary modes."""
    stationary = [k for k, geometry in enumerate(report["geometries"]) if geometry["stationary"]]
    errors = [model["geometries"][k] for k in stationary]
    alike = [error["hessian"] is not None and len(set(error["hessian"]["imaginary"])) == 1 for error in errors]
    return {"value": sum(alike) / len(alike), "n": len(alike), "unit": "1"}


if __name__ == "__main__":
    sys.exit(main())
