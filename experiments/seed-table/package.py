"""Package the best model of the experiment: `python experiments/seed-table/package.py --work WORK`.

That is the run of the plan `release` (run.py --plan release), not one chosen by its test errors. Writes
models/reactions-xtb.nequip.zip and models/README.md, its card; without --work the card alone, of the package there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import yaml
from reading import (
    ERRORS,
    HERE,
    PAIRED,
    PARTS,
    REACTIONS,
    ROOT,
    STATIONARY,
    STORE,
    Result,
    baseline,
    converged,
    figure_of,
    of_plan,
    read_results,
    shown,
    unchanged,
    values,
)

from nequip_hessian.store import HessianStore

NAME = "reactions-xtb.nequip.zip"


def best(results: list[Result]) -> Result:
    """The run to package; raises ValueError where there is none."""
    runs = of_plan(results, "release")
    if not runs:
        raise ValueError("no result of the plan `release`; run.py --plan release makes it")
    return runs[0]


def made_of(result: Result, reactions: int) -> str:
    """Architecture and training set of the model."""
    run = result["run"]
    config = yaml.safe_load((HERE / "train.yaml").read_text())
    model = config["training_module"]["model"]
    return (
        f"NequIP with {model['num_layers']} layers, l = {model['l_max']}, {run['features']} features, cutoff "
        f"{config['cutoff_radius']:g} Å, {model['model_dtype']}; trained on all points (stationary, path, displaced), "
        f"with their Hessians, of the {reactions} training reactions of the split `reaction_all`, {run['updates']} "
        f"updates of {run['batch']} geometries."
    )


def training_reactions(store: HessianStore) -> int:
    """Reactions in the training part of `reaction_all`."""
    codes, parts = store.split("reaction_all")
    return len(np.unique(store.group[codes == parts.index("train")]))


def card(result: Result, size: int, reactions: int, nothing: list[Result]) -> str:
    """The model card, in Markdown."""
    name = result["file"].removesuffix(".json")
    lines = [
        "# A model to start with",
        "",
        f"`{NAME}` ({size / 1e6:.1f} MB): NequIP, trained on energies, forces and Hessians of "
        "[reactions-xtb](../datasets/reactions-xtb/README.md) (GFN2-xTB; H, C, N, O; gas phase, closed shell). "
        f"It is the run `{name}` of [the experiment](../experiments/seed-table/README.md), and all figures below are "
        f"from its result file. {made_of(result, reactions)} Training took "
        f"{result['training']['cpu_seconds'] / 3600:.1f} CPU hours on one core ({result['processor']}, "
        f"{result['date']}).",
        "",
        "```bash",
        "ase build H2CO out/formaldehyde.xyz",
        f"nequip-hessian vibrations models/{NAME} out/formaldehyde.xyz --optimise",
        "```",
        "",
        "| held-out reactions | " + " | ".join(PARTS.values()) + " |",
        "|---|" + "---:|" * len(PARTS),
    ]
    for metric, (title, unit, scale) in ERRORS.items():
        cells = [shown([v] if (v := figure_of(result, part, metric)) is not None else [], scale) for part in PARTS]
        lines.append(f"| {title}, {unit} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Energies after the [composition shift](../docs/metrics.md). {without_it(nothing)}",
        "",
        "| at stationary points and on reactions | |",
        "|---|---:|",
    ]
    for where, metrics in (("stationary", STATIONARY), ("reactions", REACTIONS)):
        for metric, (title, unit, scale) in metrics.items():
            value = figure_of(result, where, metric)
            of = f", {CONVERGED}" if metric in PAIRED else ""
            lines.append(
                f"| {title.split(' (')[0]}{', ' + unit if unit else ''}{of.format(*band_counts(result))} | "
                f"{shown([] if value is None else [value], scale)} |"
            )
    names = [band["name"] for band in result["reaction_list"]]
    lines += ["", f"{unchanged(names)} of the {len(names)} reactions with a band change no bonds."] if names else []
    soft = figure_of(result, "stationary", "frequency_low_mae")
    torsions = (
        []
        if soft is None
        else [
            f"- Torsions and other soft modes: below 400 cm⁻¹ its frequencies are off by {shown([soft], 1)} cm⁻¹ on "
            "average, so that one may come out imaginary at a minimum (the turn of the methyl group of methanol does); "
            "entropies and Gibbs energies inherit that."
        ]
    )
    return "\n".join([*lines, "", *ADVICE, *torsions, ""])


def without_it(nothing: list[Result]) -> str:
    """What predicting zero forces costs."""
    cells = [shown(values(nothing, part, "force_mae"), 1000) for part in PARTS]
    return f"Zero forces instead of the model's have force MAEs of {', '.join(cells[:-1])} and {cells[-1]} meV/Å."


CONVERGED = "the {} of {} bands that converged"


def band_counts(result: Result) -> tuple[int, int]:
    """How many bands converged, of how many."""
    return len(converged(result)), len(result["reaction_list"])


ADVICE = [
    "## What it is for",
    "",
    "Trying out this package: frequencies, transition-state searches and reaction paths of small organic molecules "
    "with an exact Hessian, and a start for fine-tuning on labels of a better level of theory.",
    "",
    "## What it is not for",
    "",
    "- Numbers to publish: it imitates GFN2-xTB, and the table says how closely.",
    "- Other elements (refused), ions, radicals, excited states; molecules with more than seven heavy atoms, "
    "condensed phases, and intermolecular forces beyond 5 Å: untested, expect it to be wrong without a warning.",
    "- Tests on reactions it was trained on: evaluate it with `--split reaction` or `reaction_all`, no other scheme.",
    "- Energies of different compositions against each other: only differences at one composition were tested.",
]


def packaged(checkpoint: Path, target: Path) -> bool:
    """Package a checkpoint; says why where that fails."""
    if not checkpoint.is_file():
        print(f"package.py: error: {checkpoint}: no such file; run.py --plan release makes it", file=sys.stderr)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    command = [str(Path(sysconfig.get_path("scripts")) / "nequip-package"), "build", str(checkpoint), str(target)]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="the folder that run.py worked in (default: only the card)")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder of results (default: beside this)"
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "models", help="folder to write (default: models)")
    parser.add_argument("--store", type=Path, default=STORE, help="the data set (default: as shipped)")
    args = parser.parse_args()
    try:
        result = best(read_results(args.results))
    except ValueError as exc:
        print(f"package.py: error: {exc}", file=sys.stderr)
        return 1
    target = args.output / NAME
    if args.work is not None and not packaged(args.work / result["file"].removesuffix(".json") / "last.ckpt", target):
        return 1
    if not target.is_file():
        print(f"package.py: error: {target}: no such file; --work makes it", file=sys.stderr)
        return 1
    reactions = training_reactions(HessianStore(args.store))
    (args.output / "README.md").write_text(card(result, target.stat().st_size, reactions, baseline(args.results)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
