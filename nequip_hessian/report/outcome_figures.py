"""Plots of an evaluation's searches, reaction coordinates and trajectories, and of errors against distance.

Models differ by colour and by marker, so that the plots read in grey too.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from nequip_hessian.analysis.results import Evaluation
from nequip_hessian.report.figures import (
    FAINT,
    INK,
    add_legend,
    colour,
    line,
    marker,
    new_canvas,
    plain_log,
    profile_canvas,
)
from nequip_hessian.units import KCAL_PER_MOL


def _grid(axis: Axes) -> None:
    axis.grid(color=FAINT, lw=0.4)
    axis.set_axisbelow(True)


def distance_plot(evaluation: Evaluation) -> Canvas | None:
    """Force and Hessian error of each geometry against its distance from the nearest stationary point."""
    panels = []
    for title, unit, value in (
        ("Force MAE", "meV/Å", lambda e: None if e.force_mae is None else 1000 * e.force_mae),
        ("Hessian MAE", "eV/Å²", lambda e: None if e.hessian is None else e.hessian.mae),
    ):
        samples = []
        for model in evaluation.models:
            pairs = [
                (g.distance, value(e))
                for g, e in zip(evaluation.geometries, model.errors, strict=True)
                if g.distance and value(e)
            ]
            samples.append(np.array(pairs).reshape(-1, 2))
        if sum(len(sample) for sample in samples) > 2:
            panels.append((title, unit, samples))
    if not panels:
        return None
    canvas, axes = new_canvas(4.6 * len(panels), 3.2, 1, len(panels))
    for axis, (title, unit, samples) in zip(axes, panels, strict=True):
        for position, sample in enumerate(samples):
            axis.scatter(
                sample[:, 0],
                sample[:, 1],
                s=15,
                marker=marker(position),
                color=colour(position),
                alpha=0.7,
                linewidths=0,
            )
        plain_log(axis)
        axis.set_title(title, fontsize=9.5, color=INK)
        axis.set_xlabel("distance from the nearest stationary point / Å", fontsize=8.5)
        axis.set_ylabel(unit, fontsize=9)
        _grid(axis)
    add_legend(canvas, evaluation)
    return canvas


def irc_plot(evaluation: Evaluation, limit: int = 12) -> Canvas | None:
    """Reaction coordinates of up to `limit` reactions against the labelled geometries; None without one."""
    paths = [{error.name: error for error in model.ircs} for model in evaluation.models]
    shown = [r for r in evaluation.references if any(r.name in found for found in paths)][:limit]
    if not shown:
        return None
    canvas, axes = profile_canvas(len(shown))
    for axis, reference in zip(axes, shown, strict=False):
        axis.plot(reference.distance, reference.energies / KCAL_PER_MOL, color=INK, lw=1.0, marker=".", ms=6)
        failed = []
        for position, (model, found) in enumerate(zip(evaluation.models, paths, strict=True)):
            error = found.get(reference.name)
            if error is None or error.failure is not None:
                failed.append(model.name)
                continue
            energies = np.array(error.energies) / KCAL_PER_MOL
            axis.plot(error.distance, energies, color=colour(position), lw=1.6, ls=line(position))
            step = max(1, len(energies) // 8)
            axis.plot(
                error.distance[::step], energies[::step], ls="", marker=marker(position), ms=4, color=colour(position)
            )
        axis.set_title(reference.name, fontsize=9.5, color=INK, pad=16 if failed else 6)
        axis.set_xlabel("distance from the transition state / Å", fontsize=8)
        axis.set_ylabel("energy / kcal/mol", fontsize=8)
        _grid(axis)
        if failed:
            note = f"failed: {', '.join(failed)}"
            axis.text(0.5, 1.02, note, transform=axis.transAxes, ha="center", fontsize=7.5, color="#be123c")
    add_legend(canvas, evaluation, reference=True)
    return canvas


def saddle_plot(evaluation: Evaluation) -> Canvas | None:
    """Force calls of each search without the model's Hessian against those with it; None without a pair."""
    samples = []
    for model in evaluation.models:
        both = [e for e in model.saddles if e.n_imaginary == 1 and e.plain_failure is None and e.plain_steps]
        samples.append(np.array([(e.gradient_calls, e.plain_gradient_calls) for e in both]).reshape(-1, 2))
    if not sum(len(sample) for sample in samples):
        return None
    canvas, (axis,) = new_canvas(4.6, 3.9, 1, 1)
    largest = 1.1 * max(float(sample.max()) for sample in samples if len(sample))
    axis.plot([0, largest], [0, largest], color=INK, lw=0.8, alpha=0.6)
    for position, sample in enumerate(samples):
        axis.scatter(
            sample[:, 0], sample[:, 1], s=26, marker=marker(position), color=colour(position), alpha=0.75, linewidths=0
        )
    axis.set(xlim=(0, largest), ylim=(0, largest))
    axis.set_xlabel("force calls with the model's Hessian", fontsize=9)
    axis.set_ylabel("force calls without it", fontsize=9)
    _grid(axis)
    add_legend(canvas, evaluation)
    return canvas


def dynamics_plot(evaluation: Evaluation) -> Canvas | None:
    """Failure temperatures molecule by molecule, and the total energy at constant energy; None without dynamics."""
    if not any(d.temperature is not None for model in evaluation.models for d in model.dynamics):
        return None
    names = [found.label for found in evaluation.models[0].dynamics]
    canvas, (left, right) = new_canvas(9.6, 0.32 * len(names) + 2.4, 1, 2)
    for position, model in enumerate(evaluation.models):
        shift = 0.5 * ((position + 0.5) / len(evaluation.models) - 0.5)  # equal temperatures stay visible
        for row, found in enumerate(model.dynamics):
            if found.temperature is not None:
                face = "none" if found.survived else colour(position)
                left.scatter(
                    found.temperature,
                    row + shift,
                    s=38,
                    marker=marker(position),
                    facecolors=face,
                    edgecolors=colour(position),
                )
            if found.nve_time:
                energy = 1000 * np.array(found.nve_energy)
                right.plot(found.nve_time, energy, lw=0.9, ls=line(position), color=colour(position), alpha=0.7)
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    left.set_xlim(left=0)
    left.set_xlabel("temperature of failure / K (open: survived)", fontsize=9)
    right.set_xlabel("time / ps", fontsize=9)
    right.set_ylabel("total energy / meV/atom", fontsize=9)
    for axis in (left, right):
        _grid(axis)
    add_legend(canvas, evaluation)
    return canvas


def outcome_plots(evaluation: Evaluation) -> dict[str, Canvas]:
    """Return every plot that has something to show, by file name without ending."""
    found = {
        "errors_by_distance": distance_plot(evaluation),
        "saddle_calls": saddle_plot(evaluation),
        "irc_profiles": irc_plot(evaluation),
        "dynamics": dynamics_plot(evaluation),
    }
    return {name: plot for name, plot in found.items() if plot is not None}
