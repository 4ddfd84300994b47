"""Section of docs/results.md on the ways to supervise a Hessian: error against the time of training."""

from __future__ import annotations

from pathlib import Path

from matplotlib.ticker import FixedLocator, NullLocator
from pictures import plt, save
from plan import ESTIMATORS
from reading import Result, shown

PART = "test_displaced"
ALIKE = 0.05
FAMILIES = {  # marker and grey
    "E-F": ("o", "1.0"),
    "random": ("o", "0.0"),
    "sphere": ("D", "0.5"),
    "columns": ("s", "0.5"),
    "fraction": ("v", "0.8"),
    "every": ("<", "0.8"),
    "every 4 compensated": ("<", "0.3"),
    "finite difference": ("x", "0.3"),
    "taylor": ("*", "0.8"),
    "modes": ("P", "0.8"),
    "full": ("X", "0.5"),
}
COLUMNS = (("force_rmse", "force RMSE, meV/Å", 1000), ("hessian_rmse", "Hessian RMSE, eV/Å²", 1))


def section(results: list[Result], output: Path) -> list[str]:
    """Table and figure; empty without the energy-force run or any other."""
    by_arm = {r["run"]["arm"]: r for r in results}
    baseline = by_arm.get("E-F")
    ways = [by_arm[name] for name in ESTIMATORS if name in by_arm]
    if baseline is None or not ways:
        return []
    run = baseline["run"]
    lines = [
        "## What each way to supervise buys for its time",
        "",
        f"Stationary points of all training reactions, {run['updates']} updates of {run['batch']} geometries, one "
        "seed; errors on displaced points, frequencies at stationary points. Time and memory: of the whole training, "
        "over those of E-F. The ways are those of [training](training.md); a number behind the name is k, the "
        "fraction, n or the displacement.",
        "",
        "| way | time | memory | " + " | ".join(title for _, title, _ in COLUMNS) + " | frequency MAE, cm⁻¹ |",
        "|---" + "|---:" * (len(COLUMNS) + 3) + "|",
    ]
    for result in (baseline, *ways):
        cells = [f"{_ratio(result, baseline, name):.1f}" for name in ("cpu_seconds", "peak_memory_mb")]
        cells += [shown([_error(result, name)], scale) for name, _, scale in COLUMNS]
        cells.append(f"{result['stationary']['frequency_mae']['value']:.0f}")
        lines.append(f"| {result['run']['arm']} | " + " | ".join(cells) + " |")
    _figure(baseline, ways, output / "estimators.svg")
    names = ", ".join(f"`{r['file'].removesuffix('.json')}`" for r in (baseline, *ways))
    figure = "![error against time of training](figures/estimators.svg)"
    return [*lines, "", *_in_words(baseline, ways), figure, "", f"From: {names}.", ""]


def _ratio(result: Result, baseline: Result, name: str) -> float:
    return float(result["training"][name] / baseline["training"][name])


def _in_words(baseline: Result, ways: list[Result]) -> list[str]:
    """Which ways are as good as the full matrix, the cheapest first."""
    full = next((r for r in ways if r["run"]["arm"] == "full"), None)
    if full is None:
        return []
    errors = {r["run"]["arm"]: max(_error(r, name) / _error(full, name) for name, _, _ in COLUMNS) for r in ways}
    times = {r["run"]["arm"]: _ratio(r, baseline, "cpu_seconds") for r in ways}
    as_good = sorted((times[arm], arm) for arm, error in errors.items() if error < 1 + ALIKE and arm != "full")
    worse = [arm for arm, error in errors.items() if error >= 1 + ALIKE]
    told = ", ".join(f"{arm} ({time:.1f})" for time, arm in as_good)
    return [
        f"Both errors within {ALIKE:.0%} of those with the full matrix, in times the time of E-F: {told}; the full "
        f"matrix takes {times['full']:.1f}. Not so: {', '.join(worse) or 'none'}. All had the weights of the loss that "
        "were tuned for `random 1`: `modes` measures another error on another scale, for which they may be wrong. "
        "`taylor` labels displaced copies of the stationary points, so that it also trains energies and forces off "
        "equilibrium themselves.",
        "",
    ]


def _error(result: Result, name: str) -> float:
    return float(result["figures"][PART][name]["value"])


def _figure(baseline: Result, ways: list[Result], path: Path) -> None:
    """Hessian and force error against time; what is far above the others is written above."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    for axis, (name, title, scale) in zip(axes, COLUMNS, strict=True):
        points = {
            r["run"]["arm"]: (_ratio(r, baseline, "cpu_seconds"), scale * _error(r, name)) for r in (baseline, *ways)
        }
        errors = sorted(value for _, value in points.values())
        high = 1.12 * errors[len(errors) // 2]
        beyond = [f"{arm} {shown([value], 1)}" for arm, (_, value) in points.items() if value > high]
        for family, (marker, grey) in FAMILIES.items():
            members = [arm for arm in points if arm.rstrip("0123456789. ") == family and points[arm][1] <= high]
            if not members:
                continue
            style = {"color": grey, "mec": "black", "ms": 6, "ls": ":", "lw": 0.8}
            axis.plot(*zip(*(points[arm] for arm in members), strict=True), marker, label=family, **style)
            for arm in members:
                axis.annotate(
                    arm.removeprefix(family), points[arm], fontsize=7, textcoords="offset points", xytext=(4, 4)
                )
        axis.set_title(f"higher, at {', '.join(beyond)}" if beyond else "", fontsize=8)
        axis.set(xscale="log", xlabel="time of training / that of E-F", ylabel=title)
        axis.xaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 10, 20]))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.margins(x=0.12, y=0.12)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    save(figure, path)
