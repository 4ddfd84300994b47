"""Plots of single jobs: reaction coordinate, band, levels of a reaction, infrared spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure as Canvas

from nequip_hessian.analysis.irc import ReactionCoordinate
from nequip_hessian.analysis.irc_side import Side
from nequip_hessian.analysis.path import ReactionPath, path_length
from nequip_hessian.analysis.superpose import superpose
from nequip_hessian.report.figures import COLOURS, FAINT, INK, new_canvas
from nequip_hessian.units import KCAL_PER_MOL

Array = npt.NDArray[np.floating[Any]]


def irc_plot(path: ReactionCoordinate, names: tuple[str, str]) -> Canvas:
    """Energy and largest force along a reaction coordinate, and the minima found from its ends.

    A minimum stands at its straight mass-weighted distance from the end of the path, joined to it by a dotted line.

    Args:
        path: both sides
        names: of what the reverse and the forward side lead to
    """
    canvas, (upper, lower) = new_canvas(7.2, 4.6, 2, 1, sharex=True, height_ratios=(2.4, 1))
    energies = (path.energies - path.energy) / KCAL_PER_MOL
    upper.axvline(0, color=FAINT, lw=0.8)
    upper.plot(path.arc, energies, color=COLOURS[1], lw=1.6, marker="o", ms=2.6)
    upper.scatter([0], [0], s=34, color=INK, zorder=4)
    upper.annotate("transition state", (0, 0), (6, 4), textcoords="offset points", fontsize=8, color=INK)
    for name, side, sign, align in ((names[0], path.reverse, -1, "left"), (names[1], path.forward, 1, "right")):
        place = (0.0, 0.0) if not len(side) else (float(side.arc[-1]), (side.energies[-1] - path.energy) / KCAL_PER_MOL)
        if (minimum := _minimum(path, side, sign)) is not None:
            upper.plot(*zip(place, minimum, strict=True), color=INK, lw=1.0, ls=":")
            upper.scatter(*minimum, s=34, facecolors="white", edgecolors=INK, zorder=4)
            place = minimum
        upper.annotate(name, place, (0, 8), textcoords="offset points", fontsize=8, color=INK, ha=align)
    upper.set_ylabel("energy / kcal/mol", fontsize=9)
    upper.margins(y=0.12)
    largest = np.linalg.norm(path.all_forces, axis=2).max(axis=1)
    lower.semilogy(path.arc, np.maximum(largest, 1e-6), color=COLOURS[2], lw=1.3, marker=".", ms=3)
    lower.set_ylabel("largest force / eV/Å", fontsize=8)
    lower.set_xlabel("arc length / u$^{1/2}$ Å", fontsize=9)
    for axis in (upper, lower):
        axis.grid(axis="y", color=FAINT, lw=0.4)
        axis.set_axisbelow(True)
    return canvas


def _minimum(path: ReactionCoordinate, side: Side, sign: int) -> tuple[float, float] | None:
    """Where a side's minimum stands in the plot, u^(1/2) angstrom and kcal/mol above the transition state."""
    if side.minimum is None or side.fall is None:
        return None
    moved = superpose(side.minimum.atoms.positions, side.positions[-1]) - side.positions[-1]
    distance = np.sqrt(np.sum(path.transition_state.get_masses()[:, None] * moved**2))
    return float(side.arc[-1] + sign * distance), float((side.minimum.energy - path.energy) / KCAL_PER_MOL)


def band_plot(path: ReactionPath) -> Canvas:
    """Energy along a band, kcal/mol above the reactant, against the distance along it."""
    canvas, (axis,) = new_canvas(7.2, 3.2, 1, 1)
    s, energies = path_length(path.positions), (path.energies - path.energies[0]) / KCAL_PER_MOL
    axis.plot(s, energies, color=COLOURS[1], lw=1.6, marker="o", ms=4)
    top = path.highest
    axis.scatter([s[top]], [energies[top]], s=50, facecolors="none", edgecolors=INK, zorder=4)
    axis.annotate(
        f"{energies[top]:.1f}", (s[top], energies[top]), (0, 7), textcoords="offset points", fontsize=8.5, ha="center"
    )
    axis.set_xlabel("distance along the band / Å", fontsize=9)
    axis.set_ylabel("energy / kcal/mol", fontsize=9)
    axis.margins(y=0.15)
    axis.grid(axis="y", color=FAINT, lw=0.4)
    return canvas


def level_plot(names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]) -> Canvas:
    """Levels of stationary points above the first, kcal/mol, one colour a kind of energy.

    Args:
        names: of the stationary points, in the order of the reaction
        series: (name, energies in eV) of each kind of energy
    """
    canvas, (axis,) = new_canvas(7.2, 3.4, 1, 1)
    styles = ("-", "--", "-.", ":")
    for k, (label, values) in enumerate(series):
        heights = (np.asarray(values) - values[0]) / KCAL_PER_MOL
        for x, height in enumerate(heights):
            axis.plot([x - 0.22, x + 0.22], [height] * 2, color=COLOURS[k + 1], lw=2.8, label=label if x == 0 else None)
            if x:
                place = (x + 0.25, height)
                axis.annotate(
                    f"{height:.1f}",
                    place,
                    (0, 5 - 10 * k),
                    textcoords="offset points",
                    fontsize=8.5,
                    va="center",
                    color=COLOURS[k + 1],
                )
        for x in range(len(heights) - 1):
            axis.plot([x + 0.22, x + 0.78], heights[x : x + 2], color=COLOURS[k + 1], lw=0.9, ls=styles[(k + 1) % 4])
    axis.set_xticks(range(len(names)), names, fontsize=9)
    axis.set_ylabel("kcal/mol", fontsize=9)
    axis.set_xlim(-0.4, len(names) - 0.4)
    axis.margins(y=0.15)
    axis.grid(axis="y", color=FAINT, lw=0.4)
    axis.set_axisbelow(True)
    axis.legend(frameon=False, fontsize=8.5, loc="best")
    return canvas


def spectrum_plot(grid: Array, absorption: Array, wavenumbers: Array, intensities: Array) -> Canvas:
    """Broadened infrared spectrum over the sticks, 4000 to 0 cm^-1 from left to right.

    Args:
        grid: (g,), cm^-1; absorption: (g,), km/mol per cm^-1
        wavenumbers: (m,), cm^-1; intensities: (m,), km/mol; imaginary modes are not drawn
    """
    canvas, (axis,) = new_canvas(7.2, 3.2, 1, 1)
    axis.plot(grid, absorption, color=COLOURS[1], lw=1.4)
    axis.fill_between(grid, absorption, color=COLOURS[1], alpha=0.12, lw=0)
    axis.set_xlabel("wavenumber / cm⁻¹", fontsize=9)
    axis.set_ylabel("absorption / km/mol per cm⁻¹", fontsize=9)
    axis.set_xlim(max(4000.0, float(grid[-1])), 0)
    axis.set_ylim(bottom=0)
    sticks = axis.twinx()
    sticks.spines[["top", "left", "bottom"]].set_visible(False)
    real = np.asarray(wavenumbers) > 0
    sticks.vlines(np.asarray(wavenumbers)[real], 0, np.asarray(intensities)[real], color=COLOURS[2], lw=1.6)
    sticks.set_ylabel("intensity / km/mol", fontsize=9, color=COLOURS[2])
    sticks.tick_params(labelsize=8.5, colors=COLOURS[2])
    sticks.set_ylim(bottom=0)
    return canvas
