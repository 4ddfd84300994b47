"""Plots, made with bare matplotlib figures: no pyplot state, no change of global settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from nequip_hessian.analysis.path import path_length
from nequip_hessian.analysis.results import Evaluation
from nequip_hessian.report.display import ALL_METRICS, number, shown
from nequip_hessian.report.tables import confused

Array = npt.NDArray[np.floating[Any]]

COLOURS: Final = ("#7c8798", "#0e7490", "#d97706", "#7c3aed", "#be123c", "#4d7c0f")
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
LINES: Final = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
HATCHES: Final = ("", "////", "....", "xxxx", "----", "oo")
"""Models differ by these too, so that the plots read in grey."""
INK: Final = "#1f2937"
FAINT: Final = "#d1d5db"

BROADENING: Final = 20.0
"""Standard deviation of the lines in the density of frequencies, cm^-1."""

_PARITY: Final = {
    "energy": ("Energy", "eV"),
    "force": ("Force component", "eV/Å"),
    "hessian": ("Hessian element", "eV/Å²"),
    "frequency": ("Frequency", "cm⁻¹"),
}


def colour(position: int) -> str:
    """Colour of the model at `position`; the first one, the baseline, is grey."""
    return COLOURS[position % len(COLOURS)]


def marker(position: int) -> str:
    """Marker of the model at `position`."""
    return MARKERS[position % len(MARKERS)]


def line(position: int) -> Any:
    """Style of the line of the model at `position`."""
    return LINES[position % len(LINES)]


def new_canvas(width: float, height: float, rows: int, columns: int, **kwargs: Any) -> tuple[Canvas, list[Axes]]:
    """A figure of `rows` x `columns` axes in the house style; width and height in inches."""
    canvas = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = np.atleast_1d(canvas.subplots(rows, columns, **kwargs)).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#9ca3af")
        axis.tick_params(colors=INK, labelsize=8.5, color="#9ca3af")
    return canvas, axes


def _limits(samples: Sequence[tuple[Array, Array]]) -> tuple[float, float]:
    values = np.concatenate([part for pair in samples for part in pair])
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def parity_plot(evaluation: Evaluation, quantity: str) -> Canvas | None:
    """Model against reference, one panel a model, hexagons coloured by the number of points.

    Args:
        evaluation: results
        quantity: `energy`, `force`, `hessian` or `frequency`

    Returns:
        The plot, None where no model has a sample.
    """
    samples = [model.parity.get(quantity, (np.zeros(0), np.zeros(0))) for model in evaluation.models]
    filled = [pair for pair in samples if len(pair[0])]
    if not filled:
        return None
    title, unit = _PARITY[quantity]
    low, high = _limits(filled)
    count = len(samples)
    canvas, axes = new_canvas(3.5 * count + 0.7, 3.5, 1, count, sharex=True, sharey=True)
    few = max(len(pair[0]) for pair in filled) < 150
    drawn, norm = None, LogNorm(1, 10)
    for position, (axis, (reference, model)) in enumerate(zip(axes, samples, strict=True)):
        axis.plot([low, high], [low, high], color=INK, lw=0.8, zorder=3, alpha=0.6)
        if quantity in ("hessian", "frequency") and low < 0 < high:
            axis.axhline(0, color=FAINT, lw=0.8, zorder=0)
            axis.axvline(0, color=FAINT, lw=0.8, zorder=0)
        if len(reference) and few:
            axis.scatter(reference, model, s=16, color=colour(position), alpha=0.7, linewidths=0, zorder=2)
        elif len(reference):
            drawn = axis.hexbin(
                reference,
                model,
                gridsize=60,
                extent=(low, high, low, high),
                mincnt=1,
                cmap="viridis_r",
                norm=norm,
                linewidths=0.1,
                zorder=2,
                rasterized=True,
            )
            norm.vmax = max(float(norm.vmax or 10), float(np.max(np.asarray(drawn.get_array()))))
        axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.yaxis.set_major_locator(MaxNLocator(6))
        axis.set_title(evaluation.models[position].name, fontsize=10, color=INK, fontweight="bold")
        axis.set_xlabel(f"reference / {unit}", fontsize=9)
        axis.text(
            0.04,
            0.96,
            _corner(evaluation, position, quantity),
            transform=axis.transAxes,
            va="top",
            fontsize=8,
            color=INK,
        )
    axes[0].set_ylabel(f"model / {unit}", fontsize=9)
    if drawn is not None:
        _density_bar(canvas, drawn, axes)
    canvas.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    return canvas


def plain_log(axis: Axes) -> None:
    """Make the vertical axis logarithmic, with numbers such as 20 and 0.5 rather than powers of ten."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _density_bar(canvas: Canvas, drawn: Any, axes: list[Axes]) -> None:
    bar = canvas.colorbar(drawn, ax=axes, shrink=0.85, aspect=30, pad=0.01)
    bar.set_label("points", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _corner(evaluation: Evaluation, position: int, quantity: str) -> str:
    reference, guess = evaluation.models[position].parity[quantity]
    if not len(reference):
        return "no prediction"
    # the numbers of the tables, over everything, not those of the sample that is drawn
    figures = evaluation.all_figures(evaluation.models[position])
    prefix = {"energy": "shifted_energy"}.get(quantity, quantity)
    unit = _PARITY[quantity][1]
    lines = []
    for name, title in ((f"{prefix}_mae", "MAE"), (f"{prefix}_rmse", "RMSE")):
        figure = figures.get(name)
        if figure is not None and figure.value is not None:
            lines.append(f"{title} {number(figure.value)} {unit}")
    lines.append(f"{len(reference)} points")
    spread = float(np.sum((reference - reference.mean()) ** 2))
    if len(reference) > 2 and spread:
        lines.append(f"R² {1 - float(np.sum((guess - reference) ** 2)) / spread:.4f}")
    return "\n".join(lines)


def confusion_plot(evaluation: Evaluation) -> Canvas | None:
    """Number of imaginary modes, reference against model, one panel a model; None without a Hessian."""
    tables = [np.array(confused(evaluation, position)) for position in range(len(evaluation.models))]
    if not any(table.sum() for table in tables):
        return None
    canvas, axes = new_canvas(3.2 * len(tables) + 0.3, 2.9, 1, len(tables))
    for position, (axis, table) in enumerate(zip(axes, tables, strict=True)):
        shown_table = table if table[:, -1].any() else table[:, :-1]
        share = shown_table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
        for row, column in np.ndindex(*shown_table.shape):
            strong = share[row, column] > 0.6
            axis.text(
                column,
                row,
                str(shown_table[row, column]),
                ha="center",
                va="center",
                fontsize=11,
                color="white" if strong else INK,
            )
        labels = ["0", "1", "2 or more", "failed"]
        axis.set_xticks(range(shown_table.shape[1]), labels[: shown_table.shape[1]])
        axis.set_yticks(range(3), labels[:3])
        axis.set_xlabel("imaginary modes, model", fontsize=9)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set_title(evaluation.models[position].name, fontsize=10, color=INK, fontweight="bold")
    axes[0].set_ylabel("imaginary modes, reference", fontsize=9)
    return canvas


def by_kind_plot(
    evaluation: Evaluation, names: Sequence[str] = ("shifted_energy_per_atom_mae", "force_mae", "hessian_mae")
) -> Canvas | None:
    """Bars of a few figures by kind of geometry, models side by side; None where there is nothing to show."""
    tables = [evaluation.by_kind(model) for model in evaluation.models]
    kinds = list(tables[0])
    used = [n for n in names if any(t[k][n].value is not None for t in tables for k in kinds)]
    if not used:
        return None
    canvas, axes = new_canvas(3.6 * len(used), 3.0, 1, len(used))
    width = 0.8 / len(tables)
    for axis, name in zip(axes, used, strict=True):
        unit = ""
        for position, table in enumerate(tables):
            for place, kind in enumerate(kinds):
                value = table[kind][name].value
                if value is None:
                    continue
                height, unit = shown(name, value)
                left = place + (position - (len(tables) - 1) / 2) * width
                axis.bar(left, height, 0.92 * width, **bar_style(position))
        counts = [max(table[kind][name].n for table in tables) for kind in kinds]
        labels = [f"{kind.replace('_', chr(10))}\nn={count}" for kind, count in zip(kinds, counts, strict=True)]
        axis.set_xticks(range(len(kinds)), labels, fontsize=8)
        axis.set_title(ALL_METRICS[name].title.replace(", composition shift removed", "*"), fontsize=9.5, color=INK)
        axis.set_ylabel(unit, fontsize=9)
        axis.grid(axis="y", color=FAINT, lw=0.5)
        axis.set_axisbelow(True)
    add_bar_legend(canvas, evaluation)
    return canvas


def bar_style(position: int) -> dict[str, Any]:
    """Colour and hatch of the bars of the model at `position`."""
    return {"facecolor": colour(position), "hatch": HATCHES[position % len(HATCHES)], "edgecolor": "white", "lw": 0}


def add_bar_legend(canvas: Canvas, evaluation: Evaluation) -> None:
    """A legend above axes with bars: the models."""
    from matplotlib.patches import Patch

    handles = [Patch(label=model.name, **bar_style(i)) for i, model in enumerate(evaluation.models)]
    canvas.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9)


def add_legend(canvas: Canvas, evaluation: Evaluation, reference: bool = False) -> None:
    """A legend above the axes: the models, and before them the reference where it is drawn."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=INK, lw=1.4, marker=".", ms=7, label="reference")] if reference else []
    for i, model in enumerate(evaluation.models):
        handles.append(Line2D([], [], color=colour(i), lw=1.8, ls=line(i), marker=marker(i), ms=4.5, label=model.name))
    canvas.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9)


def profile_canvas(count: int) -> tuple[Canvas, list[Axes]]:
    """Canvas of `count` small plots, three a row, and their axes."""
    columns = min(3, count)
    rows = math.ceil(count / columns)
    canvas, axes = new_canvas(3.6 * columns, 2.7 * rows + 0.4, rows, columns)
    for axis in axes[count:]:
        axis.set_visible(False)
    return canvas, axes


def profile_plot(evaluation: Evaluation, limit: int = 12) -> Canvas | None:
    """NEB profiles of up to `limit` reactions against the reference; None without a path."""
    shown_reactions = [r for r in evaluation.references if any(r.name in m.paths for m in evaluation.models)][:limit]
    if not shown_reactions:
        return None
    canvas, axes = profile_canvas(len(shown_reactions))
    for axis, reference in zip(axes, shown_reactions, strict=False):
        axis.plot(reference.distance, reference.energies, color=INK, lw=1.4, zorder=1, alpha=0.8)
        ends = np.array([role != "path" for role in reference.roles])
        axis.scatter(reference.distance[ends], reference.energies[ends], s=22, color=INK, zorder=4)
        failed = []
        for position, model in enumerate(evaluation.models):
            path = model.paths.get(reference.name)
            if path is None:
                continue
            reasons = {error.name: error.failure for error in model.reactions}
            if path.failure is not None or reasons.get(reference.name) is not None:
                failed.append(model.name)
                continue
            s = path_length(path.positions)
            axis.plot(
                s - s[path.highest],
                path.energies - path.energies[0],
                color=colour(position),
                lw=1.8,
                ls=line(position),
                marker=marker(position),
                ms=3.6,
                zorder=3,
            )
        axis.set_title(reference.name, fontsize=9.5, color=INK, pad=16 if failed else 6)
        axis.set_xlabel("distance from the highest point / Å", fontsize=8)
        axis.set_ylabel("energy / eV", fontsize=8)
        axis.grid(color=FAINT, lw=0.4)
        if failed:
            note = f"failed: {', '.join(failed)}"
            axis.text(0.5, 1.02, note, transform=axis.transAxes, ha="center", fontsize=7.5, color="#be123c")
    add_legend(canvas, evaluation, reference=True)
    return canvas


def frequency_error_plot(evaluation: Evaluation) -> Canvas | None:
    """Error of each matched mode against its reference frequency, all models in one panel; None without modes."""
    samples = [model.parity.get("frequency", (np.zeros(0), np.zeros(0))) for model in evaluation.models]
    if not any(len(pair[0]) for pair in samples):
        return None
    canvas, (axis,) = new_canvas(7.2, 3.0, 1, 1)
    axis.axhline(0, color=INK, lw=0.8, alpha=0.6)
    axis.axvline(0, color=FAINT, lw=0.8)
    for position, (reference, model) in enumerate(samples):
        axis.scatter(
            reference,
            model - reference,
            s=15,
            marker=marker(position),
            color=colour(position),
            alpha=0.65,
            linewidths=0,
        )
    axis.set_xlabel("reference frequency / cm⁻¹ (imaginary as negative)", fontsize=9)
    axis.set_ylabel("model − reference / cm⁻¹", fontsize=9)
    axis.grid(color=FAINT, lw=0.4)
    axis.set_axisbelow(True)
    add_legend(canvas, evaluation)
    return canvas


def spectra_plot(evaluation: Evaluation) -> Canvas | None:
    """Density of the frequencies of all stationary points, reference and models; None without modes."""
    samples = [model.parity.get("frequency", (np.zeros(0), np.zeros(0))) for model in evaluation.models]
    longest = max((pair[0] for pair in samples), key=len, default=np.zeros(0))
    if not len(longest):
        return None
    everything = np.concatenate([longest, *(pair[1] for pair in samples)])
    low, high = (float(f(everything)) for f in (np.min, np.max))
    grid = np.linspace(max(low, -3000.0) - 4 * BROADENING, min(high, 6000.0) + 4 * BROADENING, 2000)
    canvas, (axis,) = new_canvas(7.2, 3.0, 1, 1)
    axis.fill_between(grid, broadened(longest, grid), color=FAINT, lw=0, label="reference")
    for position, (model, (_, found)) in enumerate(zip(evaluation.models, samples, strict=True)):
        if len(found):
            density = broadened(found, grid)
            axis.plot(grid, density, color=colour(position), ls=line(position), lw=1.2, label=model.name)
    axis.set_xlim(grid[0], grid[-1])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("frequency / cm⁻¹ (imaginary as negative)", fontsize=9)
    axis.set_ylabel("modes per cm⁻¹", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    return canvas


def broadened(frequencies: Array, grid: Array) -> Array:
    """Sum of normalised Gaussians of width `BROADENING` at frequencies (M,), cm^-1, on a grid (K,), cm^-1: (K,), cm."""
    apart = (grid[:, None] - frequencies[None, :]) / BROADENING
    return np.asarray(np.exp(-0.5 * apart**2).sum(axis=1) / (BROADENING * np.sqrt(2 * np.pi)))


def all_plots(evaluation: Evaluation) -> dict[str, Canvas]:
    """Return every plot that has something to show, by file name without ending."""
    found: dict[str, Canvas | None] = {f"parity_{quantity}": parity_plot(evaluation, quantity) for quantity in _PARITY}
    found["frequency_errors"] = frequency_error_plot(evaluation)
    found["spectra"] = spectra_plot(evaluation)
    found["saddle_order"] = confusion_plot(evaluation)
    found["errors_by_kind"] = by_kind_plot(evaluation)
    found["reaction_profiles"] = profile_plot(evaluation)
    return {name: plot for name, plot in found.items() if plot is not None}
