"""What `nequip-hessian md` prints and writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas

from nequip_hessian.analysis.md import Dynamics, RampSettings
from nequip_hessian.report import html
from nequip_hessian.report.display import number
from nequip_hessian.report.figures import FAINT, colour, line, new_canvas
from nequip_hessian.report.single import align
from nequip_hessian.report.tables import jsonable, versions, write_csv


def md_rows(found: Sequence[Dynamics]) -> list[list[str]]:
    """One row a molecule under the head."""
    rows = [["molecule", "formula", "failed at / K", "ps", "drift / meV/atom/ps", "fluctuation / meV/atom", "NVE / K"]]
    for one in found:
        at = "–" if one.temperature is None else f"{'> ' if one.survived else ''}{one.temperature:g}"
        milli = ["–" if v is None else number(1000 * v) for v in (one.drift, one.fluctuation)]
        mean = "–" if one.nve_temperature is None else f"{one.nve_temperature:.0f}"
        rows.append([one.label, one.formula, at, f"{one.time:g}", *milli, mean])
    return rows


def md_table(found: Sequence[Dynamics]) -> str:
    """The table that the command prints."""
    return align(md_rows(found))


def _drift_plot(found: Sequence[Dynamics]) -> Canvas:
    canvas, (axis,) = new_canvas(7.2, 3.0, 1, 1)
    for index, one in enumerate(found):
        axis.plot(
            one.nve_time,
            [1000 * e for e in one.nve_energy],
            lw=1.1,
            label=one.label,
            color=colour(index),
            ls=line(index),
        )
    axis.set_xlabel("time / ps", fontsize=9)
    axis.set_ylabel("total energy / meV/atom", fontsize=9)
    axis.grid(color=FAINT, lw=0.4)
    axis.legend(fontsize=8, frameon=False, ncols=3)
    return canvas


def write_md(out: Path, found: Sequence[Dynamics], settings: RampSettings, origin: Mapping[str, Any]) -> Path:
    """Write `report.html`, `md.json`, `md.csv`; returns the page.

    Args:
        out: folder
        found: what the molecules did; settings: of the runs
        origin: what the page says on where the numbers come from
    """
    document = {"versions": versions(), **origin, "settings": asdict(settings), "molecules": [asdict(d) for d in found]}
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(jsonable(document), indent=1, allow_nan=False, ensure_ascii=False)
    (out / "md.json").write_text(text, encoding="utf-8")
    flat = [{name: value for name, value in asdict(d).items() if not isinstance(value, list)} for d in found]
    write_csv(out / "md.csv", flat)
    whole = sum(one.survived for one in found)
    good = whole == len(found)
    last = settings.temperatures[-1]
    parts = [
        html.verdict(f"{whole} of {len(found)} molecules are whole at {last:g} K", good),
        html.table(md_rows(found)),
    ]
    parts += [html.note(f"{d.label}: {d.failure or d.reason}.") for d in found if d.failure or d.reason]
    sections = [html.section("Temperature ramp", *parts)]
    drifting = [one for one in found if one.nve_time]
    if drifting:
        caption = f"Total energy at constant energy, about {settings.nve_temperature:g} K."
        sections.append(html.section("Energy drift", html.image(_drift_plot(drifting), caption)))
    sections.append(html.provenance({**origin, **asdict(settings)}))
    html.write_page(out / "report.html", "Molecular dynamics", "md", sections)
    return out / "report.html"
