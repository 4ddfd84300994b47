"""The figures of docs/results.md, as SVG that is the same for the same numbers."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "seed-table"
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from reading import ARMS, DATA, ERRORS, STATIONARY, Result, select, values  # noqa: E402

GREYS = {"E": "0.85", "E-F": "0.6", "E-F-H": "0.15"}
MARKERS = {"E": "^", "E-F": "o", "E-F-H": "s"}
SHOWN = (  # where, metric
    ("test_displaced", "shifted_energy_rmse"),
    ("test_displaced", "force_rmse"),
    ("test_displaced", "hessian_rmse"),
    ("stationary", "frequency_mae"),
)


def save(figure: Figure, path: Path) -> None:
    """Write an SVG without a date."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def arms_plot(results: list[Result], path: Path) -> None:
    """Errors of the three arms: a bar for the mean over seeds, a mark for each seed; a row a training set."""
    sets = [data for data in DATA if select(results, data=data, fraction=1, model="nequip")]
    figure, grid = plt.subplots(
        len(sets), len(SHOWN), figsize=(9.5, 2.5 * len(sets) + 0.2), layout="constrained", squeeze=False
    )
    for row, data in zip(grid, sets, strict=True):
        for axis, (where, name) in zip(row, SHOWN, strict=True):
            title, unit, scale = (ERRORS | STATIONARY)[name]
            for place, arm in enumerate(ARMS):
                runs = select(results, data=data, fraction=1, arm=arm, model="nequip")
                found = [scale * v for v in values(runs, where, name)]
                if not found:
                    continue
                axis.bar(place, mean(found), color=GREYS[arm], width=0.7)
                axis.plot([place] * len(found), found, MARKERS[arm], color="tab:orange", ms=4, mec="black", mew=0.5)
            axis.set_xticks(range(len(ARMS)), ARMS)
            axis.set_title(f"{title} / {unit}", fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"trained on\n{'stationary points' if data == 'stationary' else 'mixed points'}")
    save(figure, path)


def data_efficiency_plot(curves: dict[str, dict[int, list[Result]]], path: Path) -> None:
    """Errors on displaced points against the share of the training reactions; curves: arm -> 1/share -> runs."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for axis, name in zip(axes, ("shifted_energy_rmse", "force_rmse", "hessian_rmse"), strict=True):
        title, unit, scale = ERRORS[name]
        for (arm, curve), style in zip(curves.items(), ("o--", "s-"), strict=True):
            points = [(1 / f, values(found, "test_displaced", name)) for f, found in curve.items()]
            points = [(x, v) for x, v in points if v]
            spread = [scale * stdev(v) if len(v) > 1 else 0 for _, v in points]
            color = "0.55" if arm == "E-F" else "black"
            axis.errorbar(
                [x for x, _ in points], [scale * mean(v) for _, v in points], spread, fmt=style, color=color, label=arm
            )
        axis.set(xscale="log", yscale="log", xlabel="share of the training reactions", ylabel=f"{title} / {unit}")
    axes[0].legend(frameon=False)
    save(figure, path)
