"""Section of docs/results.md on the ways to supervise a Hessian: error against the time of training."""

from __future__ import annotations

from pathlib import Path

from pictures import plt, save
from plan import ESTIMATORS
from reading import Result

PART = "test_displaced"
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
        cells += [f"{scale * result['figures'][PART][name]['value']:.3g}" for name, _, scale in COLUMNS]
        cells.append(f"{result['stationary']['frequency_mae']['value']:.0f}")
        lines.append(f"| {result['run']['arm']} | " + " | ".join(cells) + " |")
    _figure(baseline, ways, output / "estimators.svg")
    names = ", ".join(f"`{r['file'].removesuffix('.json')}`" for r in (baseline, *ways))
    return [*lines, "", "![error against time of training](figures/estimators.svg)", "", f"From: {names}.", ""]


def _ratio(result: Result, baseline: Result, name: str) -> float:
    return float(result["training"][name] / baseline["training"][name])


def _figure(baseline: Result, ways: list[Result], path: Path) -> None:
    """Hessian and force error against time, each way a labelled point."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, (name, title, scale) in zip(axes, COLUMNS, strict=True):
        for result in (baseline, *ways):
            time, value = _ratio(result, baseline, "cpu_seconds"), scale * result["figures"][PART][name]["value"]
            axis.plot(time, value, "o", color="0.55" if result is baseline else "black", markersize=4)
            axis.annotate(result["run"]["arm"], (time, value), fontsize=7, textcoords="offset points", xytext=(4, 3))
        axis.set(xscale="log", xlabel="time of training / that of E-F", ylabel=title)
        axis.margins(x=0.15)
    save(figure, path)
