"""One self-contained HTML page on a store: no script, nothing from the network, plots inside."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np

from nequip_hessian.errors import StoreError
from nequip_hessian.places import beside
from nequip_hessian.store.files import location
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.summary import largest_forces, summarise

MOST_ROWS: Final = 200
_STYLE: Final = """
body { margin: 0; background: #f6f7f9; color: #1f2937; font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 26px 22px 50px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0 0 10px; }
section { background: #fff; border: 1px solid #e5e7eb; border-radius: 9px; padding: 16px 20px; margin-top: 16px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 18px 3px 0; border-bottom: 1px solid #f0f1f3; vertical-align: top; }
td.n { text-align: right; } .dim { color: #6b7280; font-size: 13px; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 14px; }
.plots img { max-width: 100%; height: auto; }
"""


def write_page(path: str | Path, output: str | Path) -> None:
    """Write the page, in one step.

    Args:
        path: the store
        output: the HTML file; replaced if it is there

    Raises:
        StoreError: no readable store, or the file cannot be written.
    """
    target = Path(output)
    new = beside(target, ".new", prefix=".")
    text = page(path)
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, target)
    except OSError as exc:
        new.unlink(missing_ok=True)
        raise StoreError(f"{target}: cannot be written: {exc.strerror or exc}") from exc


def page(path: str | Path) -> str:
    """Return the page as text."""
    facts, store = summarise(path), HessianStore(path)
    title = str(facts["title"] or location(path).name)
    body = [
        f"<h1>{escape(title)}</h1><p class=dim>{escape(str(path))}, hessian_zarr {escape(facts['version'])}</p>",
        _section("What is in it", _pairs(_overview(facts, store))),
        _section("Levels of theory", _levels(facts)),
        _section("Distributions", f'<div class="plots">{"".join(_plots(facts, store))}</div>'),
    ]
    if facts["splits"]:
        splits = {scheme: _counted(parts) for scheme, parts in facts["splits"].items()}
        body.append(_section("Splits", _pairs(splits)))
    if facts["reactions"]:
        body.append(_section("Reactions", _reactions(facts["reactions"])))
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body><main>{''.join(body)}</main></body></html>\n"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _pairs(found: Mapping[str, str]) -> str:
    rows = (f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in found.items())
    return f"<table>{''.join(rows)}</table>"


def _counted(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in found.items()) or "none"


def _overview(facts: dict[str, Any], store: HessianStore) -> dict[str, str]:
    counts, own = facts["counts"], store.attributes
    found = {
        "description": str(own.get("description") or ""),
        "licence": str(facts["license"] or "none"),
        "DOI": ", ".join(map(str, facts["doi"] or [])),
        "geometries": f"{counts['geometries']} ({facts['periodic']} periodic), {counts['atoms']} atoms",
        "groups": str(counts["groups"]),
        "Hessians": f"{counts['hessians']}, {facts['hessian_dtype']}, {counts['hessian_elements']} elements",
        "bytes": "" if facts["bytes"] is None else f"{facts['bytes']:,}",  # None behind a network
        "elements": _counted(facts["elements"]),
        "charges": _counted(facts["charges"]),
        "kinds": _counted(facts["kinds"]),
        "roles": _counted(facts["roles"]),
        "labels": _counted({name: count for name, count in {**facts["labels"], **facts["further"]}.items() if count}),
    }
    return {key: value for key, value in found.items() if value}


def _levels(facts: dict[str, Any]) -> str:
    keys = ("name", "dispersion", "solvation", "program", "program_version", "hessian", "displacement", "geometries")
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in keys)
    rows = [
        "".join(f"<td>{escape('' if level[key] is None else str(level[key]))}</td>" for key in keys)
        for level in facts["levels_of_theory"][:MOST_ROWS]
    ]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _reactions(reactions: list[dict[str, Any]]) -> str:
    rows = ["<tr><th>reaction</th><th>barrier / eV</th><th>energy / eV</th><th>path points</th></tr>"]
    for one in reactions[:MOST_ROWS]:
        values = ["" if one[key] is None else f"{one[key]:.3f}" for key in ("barrier", "reaction_energy")]
        cells = "".join(f'<td class="n">{value}</td>' for value in (*values, str(one["path_points"])))
        rows.append(f"<tr><td>{escape(str(one['label'] or one['group']))}</td>{cells}</tr>")
    more = len(reactions) - MOST_ROWS
    return f"<table>{''.join(rows)}</table>" + (f"<p class=dim>and {more} more</p>" if more > 0 else "")


def _plots(facts: dict[str, Any], store: HessianStore) -> list[str]:
    """Return the plots as `img` elements; text in them comes from this page alone, never from a label."""
    sizes = {int(size): count for size, count in facts["atoms_per_geometry"].items()}
    forces, asymmetry = largest_forces(store), np.asarray(store.asymmetry, dtype=np.float64)
    barriers = [one["barrier"] for one in facts["reactions"] if one["barrier"] is not None]
    return [
        _plot("atoms a geometry", "geometries", lambda axes: axes.bar(list(sizes), list(sizes.values()))),
        _plot("element", "atoms", lambda axes: axes.bar(list(facts["elements"]), list(facts["elements"].values()))),
        _logarithmic("largest force component, eV/Å", forces),
        _logarithmic("asymmetry max|H − Hᵀ|, eV/Å²", asymmetry),
        _plot("barrier, eV", "reactions", lambda axes: axes.hist(barriers, bins=20)) if len(barriers) > 1 else "",
    ]


def _logarithmic(title: str, values: np.ndarray) -> str:
    known = values[np.isfinite(values) & (values > 0)]
    if len(known) < 2 or known.min() == known.max():
        return ""
    edges = np.geomspace(known.min(), known.max(), 25)

    def draw(axes: Any) -> None:
        axes.hist(known, bins=edges)
        axes.set_xscale("log")

    return _plot(title, "geometries", draw)


def _plot(x: str, y: str, draw: Callable[[Any], Any]) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=110, metadata={"Software": None})
    code = base64.b64encode(raw.getvalue()).decode("ascii")
    return f'<img alt="{escape(x)}" src="data:image/png;base64,{code}">'
