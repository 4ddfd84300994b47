"""Write everything an evaluation found into a folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from nequip_hessian.analysis.cache import file_name
from nequip_hessian.analysis.results import Evaluation
from nequip_hessian.report.figures import all_plots
from nequip_hessian.report.learning import Row, learning_plot
from nequip_hessian.report.outcome_figures import outcome_plots
from nequip_hessian.report.page import render_page
from nequip_hessian.report.tables import (
    as_dict,
    geometry_rows,
    markdown_table,
    outcome_rows,
    reaction_rows,
    summary_rows,
    write_csv,
)


def write_report(evaluation: Evaluation, out: Path, learning: Sequence[Row] = ()) -> Path:
    """Write report.json, report.html, CSV and Markdown tables, plots and paths.

    Args:
        evaluation: results of `nequip_hessian.evaluate.evaluate`
        out: folder, made if needed; files of an earlier report are replaced
        learning: validations of the training that the page belongs to, for its learning curves

    Returns:
        The HTML page.
    """
    (out / "plots").mkdir(parents=True, exist_ok=True)
    drawn: dict[str, bytes] = {}
    curves = learning_plot(learning)
    training = {} if curves is None else {"learning_curves": curves}
    for name, canvas in (all_plots(evaluation) | outcome_plots(evaluation) | training).items():
        canvas.savefig(out / "plots" / f"{name}.png", dpi=200)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
        drawn[name] = buffer.getvalue()
        (out / "plots" / f"{name}.svg").write_bytes(drawn[name])
    text = json.dumps(as_dict(evaluation), indent=1, allow_nan=False, ensure_ascii=False)
    (out / "report.json").write_text(text, encoding="utf-8")
    write_csv(out / "summary.csv", summary_rows(evaluation))
    (out / "summary.md").write_text(markdown_table(evaluation), encoding="utf-8")
    write_csv(out / "geometries.csv", geometry_rows(evaluation))
    write_csv(out / "reactions.csv", reaction_rows(evaluation))
    for question, name in (("saddles", "saddles"), ("ircs", "irc"), ("dynamics", "md")):
        if rows := outcome_rows(evaluation, question):
            write_csv(out / f"{name}.csv", rows)
    if learning:
        names = dict.fromkeys(name for row in learning for name in row)
        write_csv(out / "learning.csv", [{name: row.get(name) for name in names} for row in learning])
    _write_paths(evaluation, out / "paths")
    page = out / "report.html"
    page.write_text(render_page(evaluation, drawn), encoding="utf-8")
    return page


def _write_paths(evaluation: Evaluation, folder: Path) -> None:
    from ase.io import write

    numbers = {reference.name: reference.numbers for reference in evaluation.references}
    for model in evaluation.models:
        for name, path in model.paths.items():
            if not len(path.energies):
                continue
            place = folder / file_name(model.name)
            place.mkdir(parents=True, exist_ok=True)
            write(place / f"{file_name(name)}.extxyz", path.images(numbers[name]), format="extxyz")
