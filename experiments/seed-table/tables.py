"""Results -> docs/results.md, results.csv and figures: `python experiments/seed-table/tables.py`.

Every number comes from the JSON files in results/; the page names the files behind each table.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from estimators import section as estimators_section
from figures import NEB_STEPS
from outcomes import section as outcomes_section
from pictures import arms_plot, data_efficiency_plot
from plan import UPDATES
from reading import (
    ARMS,
    BETTER_HIGH,
    DATA,
    ERRORS,
    HERE,
    PARTS,
    REACTIONS,
    ROOT,
    STATIONARY,
    STORE,
    Result,
    baseline,
    gain,
    of_plan,
    read_results,
    select,
    shown,
    timed,
    unchanged,
    values,
    with_common_bands,
)
from stores import training_counts
from summary import at_a_glance, in_short, same_seeds

from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore

SIZED = ("shifted_energy_rmse", "force_rmse", "hessian_rmse")  # errors shown against the number of reactions


def comparison(groups: dict[str, list[Result]], where: str, metrics: dict[str, Any]) -> list[str]:
    """One table: a row a metric, a column an arm, and the change between the last two arms, if there are two."""
    arms = [arm for arm in groups if groups[arm]]
    last = arms[-2:] if len(arms) > 1 else []
    heads = [*arms, *([f"{last[1]} against {last[0]}"] if last else [])]
    lines = ["| | " + " | ".join(heads) + " |", "|---" + "|---:" * len(heads) + "|"]
    for name, (title, unit, scale) in metrics.items():
        cells = [shown(values(groups[arm], where, name), scale) for arm in arms]
        cells += [gain(name, *(values(groups[arm], where, name) for arm in last))] if last else []
        better = " (higher is better)" if name in BETTER_HIGH else ""
        lines.append(f"| {title}{', ' + unit if unit else ''}{better} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main_table(results: list[Result], data: str, nothing: list[Result]) -> list[str]:
    """The seed's table on one training set."""
    chosen = {arm: select(results, data=data, fraction=1, arm=arm, model="nequip") for arm in ARMS}
    if not any(chosen.values()):
        return []
    seeds = ", ".join(f"{arm} {len(found)}" for arm, found in chosen.items())
    lines = [f"## Trained on {DATA[data]}", "", f"Seeds: {seeds}. Mean ± standard deviation over seeds.", ""]
    lines += in_short(results, data, nothing)
    for part, title in PARTS.items():
        count = next(r for found in chosen.values() for r in found)["geometries"][part]
        lines += [f"Held-out reactions, {title} ({count} geometries)", ""]
        lines += comparison({"no model": nothing, **chosen}, part, ERRORS)
    lines += ["Vibrations of the held-out stationary points, at the reference geometries", ""]
    lines += comparison(chosen, "stationary", STATIONARY)
    lines += bands(with_common_bands(chosen))
    return [*lines, sources([r for found in chosen.values() for r in found]), ""]


def bands(searched: dict[str, list[Result]]) -> list[str]:
    """Barriers of the runs that searched bands, with the number of bands behind the means."""
    if not searched:
        return []
    runs = [r for found in searched.values() for r in found]
    seeds = ", ".join(f"{arm} {len(found)}" for arm, found in searched.items())
    counts = [r["reactions"].get("barrier_mae", {}).get("count", 0) for r in next(iter(searched.values()))]
    names = [band["name"] for band in runs[0]["reaction_list"]]
    lines = [
        f"Barriers of {len(names)} held-out reactions, {unchanged(names)} of which change no bonds (seeds: {seeds}; "
        f"bands of 9 images and at most {NEB_STEPS} climbing steps; those that converged in every arm, seed by seed: "
        f"{', '.join(map(str, counts))})",
        "",
    ]
    return lines + comparison(searched, "reactions", REACTIONS)


def sources(results: list[Result]) -> str:
    """Names of the files behind a table."""
    return "From: " + ", ".join(f"`{r['file'].removesuffix('.json')}`" for r in results) + "."


def cost_table(results: list[Result]) -> list[str]:
    """Training cost of each arm."""
    lines = [
        "## Cost of training",
        "",
        "One thread each, two runs side by side on a shared machine; evaluation apart.",
        "",
    ]
    lines += [
        "| training set | model | arm | processor | runs timed | CPU seconds an update | peak memory, MB |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    groups: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        run = result["run"]
        data = f"{run['data']}, 1/{run['fraction']}" if run["fraction"] != "few" else "few"
        groups[data, run["model"], run["arm"], result["processor"]].append(result)
    for key, found in sorted(groups.items()):
        seconds = [time / r["run"]["updates"] for r, time in timed(found)]
        memory = [r["training"]["peak_memory_mb"] for r in found]
        lines.append(f"| {' | '.join(key)} | {len(seconds)} | {shown(seconds, 1)} | {shown(memory, 1)} |")
    dates = sorted({r["date"] for r in results})
    return [*lines, "", f"Times of one processor do not compare with those of another. {dates[0]} to {dates[-1]}.", ""]


def efficiency(results: list[Result], output: Path, store: HessianStore) -> list[str]:
    """Errors against the number of training reactions, and the figure."""
    arms = ("E-F", "E-F-H")
    curves = {
        arm: {f: select(results, data="mixed", fraction=f, arm=arm, model="nequip") for f in (16, 8, 4, 2, 1)}
        for arm in arms
    }
    if sum(bool(found) for found in curves["E-F-H"].values()) < 2:
        return []
    lines = ["## How much data do Hessians replace?", ""]
    lines += [
        f"Training set `mixed`, {UPDATES} updates at every size, so that the smallest set is seen 16 times as often as "
        "the largest: where more reactions no longer help E-F, it is the updates that are short, and `more than` "
        "says no more than that. Errors on displaced points. Both arms learn from the energies and forces of all its "
        "geometries, E-F-H from the Hessians of its stationary points, too.",
        "",
    ]
    head = "| reactions | geometries | of these with Hessian | " + " | ".join(
        f"{ERRORS[m][0]} {arm}" for m in SIZED for arm in arms
    )
    lines += [head + " |", "|---:" * (3 + 2 * len(SIZED)) + "|"]
    for fraction in (16, 8, 4, 2, 1):
        cells = [
            shown(values(curves[arm][fraction], "test_displaced", name), ERRORS[name][2])
            for name in SIZED
            for arm in arms
        ]
        counts = map(str, training_counts(store, fraction))
        lines.append("| " + " | ".join([*counts, *cells]) + " |")
    lines += ["", *worth(curves)]
    data_efficiency_plot(curves, output / "data-efficiency.svg")
    everything = [r for curve in curves.values() for found in curve.values() for r in found]
    return [
        *lines,
        "![errors against the number of training reactions](figures/data-efficiency.svg)",
        "",
        sources(everything),
        "",
    ]


def worth(curves: dict[str, dict[int, list[Result]]]) -> list[str]:
    """How many times the reactions the E-F arm needs for the error that E-F-H has, at each size: a table."""
    lines = [
        "So many times the reactions, with energies and forces only, give the same error (between the sizes of the "
        "table by straight lines of the logarithms):",
        "",
        "| Hessians of the stationary points of | " + " | ".join(ERRORS[name][0] for name in SIZED) + " |",
        "|---|" + "---:|" * len(SIZED),
    ]
    for fraction, found in curves["E-F-H"].items():
        if found and fraction > 1:
            cells = [equivalent(curves, fraction, name) for name in SIZED]
            lines.append(f"| 1/{fraction} of the reactions | {' | '.join(cells)} |")
    return [*lines, ""]


def equivalent(curves: dict[str, dict[int, list[Result]]], fraction: int, name: str) -> str:
    """The factor for one error of E-F-H on 1/fraction of the reactions."""
    goal = mean(values(curves["E-F-H"][fraction], "test_displaced", name))
    points = [(fraction / f, values(found, "test_displaced", name)) for f, found in curves["E-F"].items()]
    known = [(x, mean(v)) for x, v in points if v]
    for (x0, y0), (x1, y1) in itertools.pairwise(known):
        if y1 <= goal < y0:
            return f"{x0 * (x1 / x0) ** (math.log(y0 / goal) / math.log(y0 / y1)):.1f}"
    return f"more than {known[-1][0]:.0f}" if goal < known[-1][1] else f"less than {known[0][0]:.2g}"


def special_tables(results: list[Result]) -> list[str]:
    """The same time for both arms, one probe against the full matrix, and the other architecture."""
    lines: list[str] = []
    groups = same_seeds(results)
    if groups["E-F long"] and groups["E-F-H"]:
        updates = groups["E-F long"][0]["run"]["updates"]
        each = {arm: mean(time for _, time in timed(groups[arm])) / 60 for arm in ("E-F", "E-F-H")}
        stretched = each["E-F"] * updates / groups["E-F"][0]["run"]["updates"]
        lines += ["## At the same cost", ""]
        lines += [
            f"E-F-H takes more time for the same number of updates. `E-F long` is E-F with {updates} updates, the "
            f"learning rate stretched over them. An E-F-H training took {each['E-F-H']:.0f} CPU minutes; so many "
            f"updates of E-F, by its time an update on the same processor, {stretched:.0f}. One seed of each arm, the "
            "same: compare the changes with the spreads over seeds in the tables above. Displaced points, then "
            "stationary points.",
            "",
        ]
        lines += comparison(groups, "test_displaced", ERRORS)
        lines += comparison(groups, "stationary", STATIONARY)
        lines += [sources(groups["E-F long"]), ""]
    few = {arm: select(results, fraction="few", arm=arm) for arm in ("E-F", "E-F-H", "E-F-H full")}
    if few["E-F-H full"] and few["E-F-H"]:
        lines += ["## One random probe against the full matrix", ""]
        lines += [
            f"The same stationary points of at most 50 reactions, {few['E-F-H'][0]['run']['updates']} updates of "
            f"batches of {few['E-F-H'][0]['run']['batch']}; one seed; displaced points.",
            "",
        ]
        lines += comparison(few, "test_displaced", ERRORS)
        lines += [sources([r for found in few.values() for r in found]), ""]
    allegro = {arm: select(results, model="allegro", arm=arm) for arm in ("E-F", "E-F-H")}
    if allegro["E-F"] and allegro["E-F-H"]:
        lines += [
            "## Allegro",
            "",
            "Training set `mixed`, one seed, the settings tuned for NequIP; displaced points.",
            "",
        ]
        lines += comparison(allegro, "test_displaced", ERRORS)
        lines += [sources([r for found in allegro.values() for r in found]), ""]
    return lines


def page(everything: list[Result], folder: Path, figures: Path, store: HessianStore) -> str:
    """The whole page."""
    results = of_plan(everything, "seed-table")
    run = results[0]["run"]
    lines = [
        "# Results: energies, forces and Hessians",
        "",
        "Made by `python experiments/seed-table/tables.py` from the runs in `experiments/seed-table/results/`; what "
        "was run, and how to run it again, is in [experiments/seed-table](../experiments/seed-table/README.md). Data: "
        "[reactions-xtb](../datasets/reactions-xtb/README.md), GFN2-xTB, whole reactions held out, no species of a "
        "test reaction in training (fragments of at most two heavy atoms, such as H2, CO or HCN, do not count). "
        "Energies after a composition shift fitted to the tested geometries ([metrics](metrics.md)). All arms get "
        f"{run['updates']} updates of batches of {run['batch']} geometries where nothing else is said, the same model, "
        "and settings that were tuned for E-F on `mixed`; on `stationary`, where forces are zero, energies are scaled "
        "by 1 eV in all arms, because E-F-H learnt little without ([tuning](../experiments/seed-table/tuning.md)). "
        "E-F-H uses one random probe a geometry and update. The models are small and short of updates: read how the "
        "arms differ, not how good they are. `no model` is a constant energy, zero forces and a zero Hessian, what "
        "predicting nothing costs.",
        "",
    ]
    arms_plot(results, figures / "arms.svg")
    lines += ["![errors of the three arms: a bar for the mean, a mark for each seed](figures/arms.svg)", ""]
    lines += at_a_glance(results)
    nothing = baseline(folder)
    for data in DATA:
        lines += main_table(results, data, nothing)
    lines += [*efficiency(results, figures, store), *special_tables(results)]
    lines += outcomes_section(folder, results)
    lines += estimators_section(of_plan(everything, "estimators"), figures)
    return "\n".join([*lines, *cost_table(results)])


def write_csv(results: list[Result], path: Path) -> None:
    """All figures of all runs, one a line."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["run", "model", "data", "fraction", "arm", "seed", "part", "metric", "value", "unit", "cases"])
        for r in results:
            run = r["run"]
            head = [
                r["file"].removesuffix(".json"),
                run["model"],
                run["data"],
                run["fraction"],
                run["arm"],
                run["seed"],
            ]
            places = {**r["figures"], "stationary": r["stationary"], "reactions": r["reactions"]}
            for part, figures in places.items():
                for name, figure in figures.items():
                    writer.writerow([*head, part, name, f"{figure['value']:.6g}", figure["unit"], figure["count"]])


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder of results (default: beside this)"
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs", help="folder of the page (default: docs)")
    parser.add_argument(
        "--store", type=Path, default=STORE, help="the data set, for sizes of training sets (default: as shipped)"
    )
    args = parser.parse_args()
    results = read_results(args.results)
    if not of_plan(results, "seed-table"):
        parser.error(f"no result in {args.results}; run.py makes them")
    try:
        store = HessianStore(args.store)
        training_counts(store, 1)
    except StoreError as exc:
        parser.error(f"--store: {exc}")
    (args.output / "figures").mkdir(parents=True, exist_ok=True)
    (args.output / "results.md").write_text(page(results, args.results, args.output / "figures", store))
    write_csv(results, args.results / "results.csv")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
