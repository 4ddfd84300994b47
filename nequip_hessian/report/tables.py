"""report.json, CSV tables and the table that the command prints."""

from __future__ import annotations

import csv
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nequip_hessian import __version__
from nequip_hessian.analysis.results import Evaluation, ModelResult
from nequip_hessian.analysis.summary import Figure, confusion
from nequip_hessian.report.display import ALL_METRICS, KEY_METRICS, cell, change, counted


def jsonable(value: Any) -> Any:
    """Turn results into what JSON can hold; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _figures(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: asdict(figure) for name, figure in figures.items()}


def _against_first(evaluation: Evaluation, model: ModelResult) -> dict[str, Any]:
    first = evaluation.models[0]
    before, after = evaluation.paired_figures(first, model)
    intervals = {name: asdict(found) for name, found in evaluation.intervals(first, model).items()}
    return {"first": _figures(before), "model": _figures(after), "intervals": intervals}


def versions() -> dict[str, str]:
    """Versions of everything that has a say in the numbers; packages that are not installed are left out."""
    found = {"nequip-hessian": __version__, "python": platform.python_version()}
    for name in ("nequip", "nequip-allegro", "torch", "e3nn", "numpy", "scipy", "ase", "zarr", "geodesic-interpolate"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def confused(evaluation: Evaluation, position: int) -> list[list[int]]:
    """Confusion of the saddle order of one model over stationary points, over everything where there are none."""
    model = evaluation.models[position]
    stationary = [e for e, g in zip(model.errors, evaluation.geometries, strict=True) if g.stationary]
    return confusion(stationary or model.errors)


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything an evaluation found as a JSON-able dictionary; units are beside the numbers."""
    models = []
    for position, model in enumerate(evaluation.models):
        models.append(
            {
                "name": model.name,
                "path": model.path,
                "sha256": model.checksum,
                "notes": model.notes,
                "figures": _figures(evaluation.all_figures(model)),
                "by_kind": {kind: _figures(f) for kind, f in evaluation.by_kind(model).items()},
                "by_part": {part: _figures(f) for part, f in evaluation.by_part(model).items()},
                "by_distance": {name: _figures(f) for name, f in evaluation.by_distance(model).items()},
                "by_size": {name: _figures(f) for name, f in evaluation.by_size(model).items()},
                "consistency": model.consistency,
                "saddle_order_confusion": confused(evaluation, position),
                "reactions": [asdict(error) for error in model.reactions],
                "relaxed": {str(index): asdict(error) for index, error in model.relaxed.items()},
                "thermochemistry": {str(index): asdict(error) for index, error in model.gases.items()},
                "gibbs_barrier_errors_eV": model.gibbs_barriers,
                "saddles": [asdict(error) for error in model.saddles],
                "irc": [asdict(error) for error in model.ircs],
                "md": [asdict(found) for found in model.dynamics],
                "paths": {
                    name: {"energies_eV": path.energies, "positions_angstrom": path.positions, "failure": path.failure}
                    for name, path in model.paths.items()
                },
                "geometries": [asdict(error) for error in model.errors],
                "against_first": _against_first(evaluation, model) if position else None,
            }
        )
    document = {
        "format": "nequip-hessian evaluation",
        "format_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "store": {
            "path": evaluation.store,
            "sha256": evaluation.store_checksum,
            "attributes": dict(evaluation.attributes),
        },
        "settings": dict(evaluation.settings),
        "notes": evaluation.notes,
        "geometries": [asdict(geometry) for geometry in evaluation.geometries],
        "reference_paths": [asdict(reference) for reference in evaluation.references],
        "models": models,
    }
    result: dict[str, Any] = jsonable(document)
    return result


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the union of their keys, in order of first appearance; None is an empty cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def summary_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a model, subset and metric: value, number of cases, unit, what the cases are."""
    rows = []
    for model in evaluation.models:
        subsets = {"all": evaluation.all_figures(model)}
        subsets |= {f"kind:{kind}": figures for kind, figures in evaluation.by_kind(model).items()}
        subsets |= {f"part:{part}": figures for part, figures in evaluation.by_part(model).items()}
        subsets |= {f"distance:{name}": figures for name, figures in evaluation.by_distance(model).items()}
        subsets |= {f"size:{name}": figures for name, figures in evaluation.by_size(model).items()}
        for subset, figures in subsets.items():
            for name, figure in figures.items():
                row = {"model": model.name, "subset": subset, "metric": name, **asdict(figure)}
                rows.append(row | {"n_counts": counted(name)})
    return rows


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    """Nested results as columns; a pair (of the reference, of the model) becomes two of them."""
    if isinstance(value, tuple):
        value = dict(zip(("reference", "predicted"), value, strict=True))
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(f"{prefix}{key}.", item).items()}
    return {prefix.removesuffix("."): value}


def geometry_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a model and geometry, errors as in `analysis.accuracy.GeometryErrors`."""
    return [
        {"model": model.name, **asdict(geometry), **_flat("", asdict(error))}
        for model in evaluation.models
        for geometry, error in zip(evaluation.geometries, model.errors, strict=True)
    ]


def reaction_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a model and reaction, as in `analysis.reactions.ReactionErrors`."""
    return [{"model": model.name, **asdict(error)} for model in evaluation.models for error in model.reactions]


def outcome_rows(evaluation: Evaluation, question: str) -> list[dict[str, Any]]:
    """One row a model and search, reaction or molecule, without positions and profiles.

    Args:
        evaluation: results
        question: `saddles`, `ircs` or `dynamics`, as in `analysis.results.ModelResult`
    """
    return [
        {"model": model.name, **{name: value for name, value in asdict(found).items() if not isinstance(value, list)}}
        for model in evaluation.models
        for found in getattr(model, question)
    ]


PART_METRICS = ("energy_per_atom_mae", "force_mae", "hessian_mae")
"""What the printed table shows part by part."""


def text_table(evaluation: Evaluation) -> str:
    """Return the compact table of the key figures for a terminal, one column a model."""
    rows = _key_rows(evaluation)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * sum(w + 2 for w in widths), *lines[1:]])


def markdown_table(evaluation: Evaluation) -> str:
    """Return the same table in Markdown."""
    lines = [
        "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in _key_rows(evaluation) if any(row)
    ]
    return "\n".join([lines[0], "|---" * (len(evaluation.models) + 1) + "|", *lines[1:]]) + "\n"


def _key_rows(evaluation: Evaluation) -> list[list[str]]:
    """The key figures, one column a model, with the change against the first; names of the models first.

    A change is over the cases that both models answered. Where several parts were evaluated, the
    errors follow part by part, after an empty row.
    """
    columns = [evaluation.all_figures(model) for model in evaluation.models]
    pairs = [evaluation.paired_figures(evaluation.models[0], model) for model in evaluation.models]
    rows = [["", *[model.name for model in evaluation.models]]]
    for name in KEY_METRICS:
        if any(figures[name].value is not None for figures in columns):
            rows.append([ALL_METRICS[name].title, *_cells(name, columns, pairs)])
    split = [evaluation.by_part(model) for model in evaluation.models]
    parts = list(split[0]) if len(split[0]) > 1 else []
    if parts:
        rows.append([""] * len(rows[0]))
    for part in parts:
        figures = [parts_of_model[part] for parts_of_model in split]
        for name in PART_METRICS:
            if any(f[name].value is not None for f in figures):
                same = [(figures[0], f) for f in figures]
                rows.append([f"{part}: {ALL_METRICS[name].title}", *_cells(name, figures, same)])
    return rows


def _cells(
    name: str,
    columns: Sequence[Mapping[str, Figure]],
    pairs: Sequence[tuple[Mapping[str, Figure], Mapping[str, Figure]]],
) -> list[str]:
    """One metric of each model: value, number of cases, and the change against the first over shared cases."""
    cells = []
    for position, figures in enumerate(columns):
        text = f"{cell(name, figures[name])}, n={figures[name].n}"
        first, other = (figures_of[name] for figures_of in pairs[position])
        if position and first.n == other.n:
            difference, _ = change(name, first, other)
            shared = "" if other.n == figures[name].n else f" on {other.n} shared"
            text += f" ({difference}{shared})" if difference else ""
        cells.append(text)
    return cells
