"""Learning curves: validation errors and losses against the epoch, a panel for each quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from nequip_hessian.report.figures import FAINT, colour, line, marker, new_canvas, plain_log

Row = Mapping[str, float | None]
"""Figures of one validation by the names that NequIP logs them under, with `epoch`, `step` and `seconds`."""

_PANELS: Final = {
    "energy": ("Energy", "eV or eV/atom"),
    "forces": ("Forces", "eV/Å"),
    "stress": ("Stress", "eV/Å³"),
    "hessian": ("Hessian", "eV/Å²"),
}
_LOSS: Final = "train_loss_epoch/weighted_sum"


def learning_plot(rows: Sequence[Row]) -> Canvas | None:
    """Draw the curves of one training; None where fewer than two validations have a figure to show.

    Args:
        rows: one a validation, in the order of the training
    """
    panels = {title: (unit, names) for token, (title, unit) in _PANELS.items() if (names := _names(rows, token))}
    if _LOSS in _columns(rows):
        panels["Training loss"] = ("weighted sum", [_LOSS])
    panels = {title: panel for title, panel in panels.items() if any(_points(rows, name) for name in panel[1])}
    if not panels:
        return None
    columns = min(len(panels), 3)
    height = -(-len(panels) // columns)
    canvas, axes = new_canvas(0.6 + 3.1 * columns, 2.7 * height, height, columns)
    for axis, (title, (unit, names)) in zip(axes, panels.items(), strict=False):
        _draw(axis, rows, names)
        axis.set_title(title, fontsize=9.5)
        axis.set_ylabel(unit, fontsize=8.5)
        axis.set_xlabel("epoch", fontsize=8.5)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return canvas


def _draw(axis: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    least = float("inf")
    for position, name in enumerate(names):
        points = _points(rows, name)
        if not points:
            continue
        least = min(least, *(value for _, value in points))
        label = "" if name == _LOSS else _label(name)
        style = {"marker": marker(position), "ms": 3 if len(points) < 60 else 0, "lw": 1.3, "ls": line(position)}
        axis.plot(*zip(*points, strict=True), color=colour(position + 1), label=label, **style)
    if least > 0:
        axis.set_yscale("log")
        plain_log(axis)
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(nbins=6, integer=True))
    axis.grid(color=FAINT, lw=0.4, which="both")
    axis.set_axisbelow(True)
    if names != [_LOSS]:
        axis.legend(fontsize=7, frameon=False)


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _names(rows: Sequence[Row], token: str) -> list[str]:
    """Validation errors of a quantity."""
    found = [name for name in _columns(rows) if name.startswith("val") and name.endswith(("_rmse", "_mae"))]
    return [name for name in found if token in name.rpartition("/")[2].split("_")]


def _label(name: str) -> str:
    """`val0_epoch/forces_rmse` as `forces rmse`; of a further validation set with its number."""
    source, _, figure = name.rpartition("/")
    which = source.partition("_")[0].removeprefix("val")
    return figure.replace("_", " ") + ("" if which in ("", "0") else f" ({which})")


def _points(rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """(epoch, value) of what is finite; none where it is one point only."""
    found = [(float(row["epoch"] or 0), row.get(name)) for row in rows]
    points = [(epoch, float(value)) for epoch, value in found if value is not None and np.isfinite(value)]
    return points if len(points) > 1 else []
