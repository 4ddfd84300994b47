"""Plots of phonons: bands beside the density of states, thermal properties; a reference lies under the model."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure as Canvas

from nequip_hessian.analysis.phonons import THZ_TO_CM, Phonons, Segment
from nequip_hessian.report.figures import COLOURS, FAINT, INK, new_canvas

_REFERENCE: Final[dict[str, Any]] = {"color": "#9ca3af", "lw": 3.0, "solid_capstyle": "round", "zorder": 1}
_MODEL: Final[dict[str, Any]] = {"color": COLOURS[1], "lw": 1.2, "zorder": 2}

_THERMAL: Final = (
    ("free_energy", "free energy / kJ/mol"),
    ("entropy", "entropy / J/(K mol)"),
    ("heat_capacity", "heat capacity / J/(K mol)"),
)


def band_plot(model: Phonons, reference: tuple[Phonons, list[Segment]] | None = None) -> Canvas:
    """Bands and density of states, THz on the left and cm^-1 on the right.

    Args:
        model: what to draw
        reference: what to draw under it in broad grey lines, and its bands at the model's wave vectors
    """
    canvas, (bands, dos) = new_canvas(8.2, 4.4, 1, 2, sharey=True, width_ratios=(3.4, 1))
    if reference is not None:
        _draw(bands, [(a, b.frequencies) for a, b in zip(model.bands, reference[1], strict=True)], _REFERENCE)
        dos.plot(reference[0].dos, reference[0].dos_grid, **_REFERENCE, label="reference")
    _draw(bands, [(segment, segment.frequencies) for segment in model.bands], _MODEL)
    dos.plot(model.dos, model.dos_grid, **_MODEL, label="model")
    dos.fill_betweenx(model.dos_grid, 0, model.dos, color=COLOURS[1], alpha=0.12, lw=0)
    mark_special_points(bands, model.bands)
    bands.set_ylabel("frequency / THz", fontsize=9)
    dos.set_xlabel("states / THz⁻¹", fontsize=9)
    dos.set_xlim(left=0)
    for axis in (bands, dos):
        axis.axhline(0, color=INK, lw=0.7, zorder=0)
    drawn = [model, *([] if reference is None else [reference[0]])]
    low = min(min(found.lowest[0] for found in drawn), 0.0)
    high = max(max(float(s.frequencies.max()) for s in found.bands) for found in drawn)
    bands.set_ylim(low - (0.03 * high if low < -0.1 else 0), 1.04 * high)
    right = dos.secondary_yaxis("right", functions=(_to_wavenumber, _to_frequency))
    right.set_ylabel("cm⁻¹", fontsize=9)
    right.tick_params(labelsize=8.5, colors=INK)
    if reference is not None:
        dos.legend(frameon=False, fontsize=8, loc="upper right")
    return canvas


def _to_wavenumber(frequency: Any) -> Any:
    return frequency * THZ_TO_CM


def _to_frequency(wavenumber: Any) -> Any:
    return wavenumber / THZ_TO_CM


def _draw(axis: Any, columns: list[tuple[Segment, Any]], style: dict[str, Any]) -> None:
    for segment, frequencies in columns:
        axis.plot(segment.distance, frequencies, **style)


def mark_special_points(axis: Any, bands: list[Segment]) -> None:
    """Lines and labels at the special points."""
    places, names = [float(bands[0].distance[0])], [bands[0].ends[0]]
    for k, segment in enumerate(bands):
        end, following = segment.ends[1], bands[k + 1] if k + 1 < len(bands) else None
        places.append(float(segment.distance[-1]))
        names.append(end if following is None or following.ends[0] == end else f"{end}|{following.ends[0]}")
    for place in places:
        axis.axvline(place, color=FAINT, lw=0.8, zorder=0)
    axis.set_xticks(places, names, fontsize=9)
    axis.set_xlim(places[0], places[-1])


def thermal_plot(model: Phonons, reference: Phonons | None = None) -> Canvas:
    """Free energy, entropy and heat capacity against temperature, per mole of primitive cells."""
    canvas, axes = new_canvas(8.2, 2.8, 1, 3)
    for axis, (name, title) in zip(axes, _THERMAL, strict=True):
        if reference is not None:
            axis.plot(reference.thermal.temperatures, getattr(reference.thermal, name), **_REFERENCE, label="reference")
        axis.plot(model.thermal.temperatures, getattr(model.thermal, name), **_MODEL, label="model")
        axis.set_title(title, fontsize=9, color=INK)
        axis.set_xlabel("temperature / K", fontsize=9)
        axis.grid(axis="y", color=FAINT, lw=0.4)
        axis.set_axisbelow(True)
    classical = 3 * model.n_atoms * 8.31446261815324
    axes[2].axhline(classical, color=INK, lw=0.8, ls=":")
    axes[2].annotate(
        "Dulong–Petit", (0, classical), (4, 3), textcoords="offset points", fontsize=7.5, color=INK, va="bottom"
    )
    axes[2].set_ylim(0, 1.12 * max(classical, float(np.max(model.thermal.heat_capacity))))
    if reference is not None:
        axes[0].legend(frameon=False, fontsize=8)
    return canvas
