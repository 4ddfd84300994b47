"""One self-contained HTML page: no script, no network, images inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from nequip_hessian.analysis.bootstrap import Interval
from nequip_hessian.analysis.results import Evaluation, ModelResult
from nequip_hessian.analysis.summary import Figure
from nequip_hessian.report.display import (
    ALL_METRICS,
    INTERVALS,
    KEY_METRICS,
    NO_CONTEST,
    SECTIONS,
    cell,
    change,
    counted,
    number,
)
from nequip_hessian.report.figures import colour
from nequip_hessian.report.outcomes import failure_rows, field_section, outcome_sections
from nequip_hessian.report.tables import versions
from nequip_hessian.report.words import compare, describe_alone, describe_data
from nequip_hessian.units import KCAL_PER_MOL

_Figures = Mapping[str, Figure]

STYLE: Final = """
:root { --ink: #1f2937; --dim: #6b7280; --line: #e5e7eb; --good: #047857; --bad: #b91c1c; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: var(--ink);
       font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p.meta, .dim, figcaption, .note { color: var(--dim); font-size: 13px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px; margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr)); gap: 10px; margin: 12px 0 14px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
.card .what { font-size: 12px; color: var(--dim); line-height: 1.3; min-height: 2.6em; }
.card .value { font-size: 19px; font-weight: 650; white-space: nowrap; }
.card .value small { font-size: 12px; font-weight: 500; }
.card .was { font-size: 12px; color: var(--dim); }
.better { color: var(--good); } .worse { color: var(--bad); } .same { color: var(--dim); }
ul { margin: 6px 0 4px; padding-left: 20px; } li { margin: 2px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; padding: 5px 10px; vertical-align: bottom;
     border-bottom: 2px solid var(--line); }
td { text-align: right; padding: 4px 10px; border-bottom: 1px solid #f0f1f3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
td .n { color: #9ca3af; font-size: 11.5px; margin-left: 6px; }
td .diff { font-size: 11.5px; margin-left: 6px; }
td.text, th.text { text-align: left; white-space: normal; }
td.best { font-weight: 650; } td .n, td .diff { font-weight: 400; }
tr.head td { font-weight: 600; color: var(--dim); padding-top: 12px; border-bottom: 1px solid var(--line); }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 6px; }
figure { margin: 10px 0 18px; } figure img { max-width: 100%; height: auto; display: block; }
code { font: 12.5px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; font-size: 13.5px; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  main { padding: 16px 8px 40px; } section { padding: 14px 12px; } h1 { font-size: 21px; }
  th, td { padding: 4px 6px; white-space: normal; } th:first-child, td:first-child { min-width: 8.5em; }
  td .n, td .diff { display: block; margin-left: 0; }
  figure { overflow-x: auto; } figure img { max-width: none; width: 100%; min-width: 560px; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
}
@media print { body { background: #fff; } section { break-inside: avoid; border: none; padding: 8px 0; } }
"""

_CAPTIONS: Final = {
    "errors_by_kind": "Errors by kind of geometry. * composition shift removed.",
    "parity_energy": "Energies relative to a composition fit of the reference; each model's composition shift removed.",
    "parity_force": "Force components.",
    "parity_hessian": "Hessian elements (lower triangle; at most 1000 elements a geometry, drawn at random).",
    "parity_frequency": "Harmonic frequencies at stationary points, imaginary ones negative, modes matched by overlap.",
    "spectra": "Density of harmonic frequencies over all stationary points, broadened by 20 cm⁻¹.",
    "learning_curves": "Errors on the validation set, and the loss of each epoch, in this training.",
    "frequency_errors": "Frequency error of each matched mode.",
    "saddle_order": "Number of imaginary modes (below −20 cm⁻¹, mass-weighted and projected) at stationary points.",
    "errors_by_distance": "Errors of geometries that are no stationary points, against their RMSD from the nearest.",
    "saddle_calls": "Searches from the same start with and without the model's Hessian; below the line it costs more.",
    "irc_profiles": "Intrinsic reaction coordinates of each model (coloured) against the labelled geometries (black).",
    "dynamics": "Left: temperature at which a bond fails. Right: total energy at constant energy.",
    "reaction_profiles": "NEB on each model's surface (coloured) against the labelled geometries (black).",
}

_ORDER: Final = {
    "Errors by kind": ("errors_by_kind", "errors_by_distance"),
    "Reactions": ("reaction_profiles", "irc_profiles", "saddle_calls"),
    "Dynamics": ("dynamics",),
    "Curvature": ("parity_hessian", "saddle_order"),
    "Vibrations": ("parity_frequency", "frequency_errors", "spectra"),
    "Energies and forces": ("parity_force", "parity_energy"),
    "Training": ("learning_curves",),
}


def _dot(position: int) -> str:
    return f'<span class="dot" style="background:{colour(position)}"></span>'


def _models_head(evaluation: Evaluation, first: str = "") -> str:
    heads = "".join(f"<th>{_dot(i)}{escape(m.name)}</th>" for i, m in enumerate(evaluation.models))
    return f"<tr><th>{escape(first)}</th>{heads}</tr>"


def _figure_row(
    name: str,
    columns: Sequence[Mapping[str, Figure]],
    pairs: Sequence[tuple[_Figures, _Figures]],
    intervals: Sequence[Mapping[str, Interval]] = (),
) -> str:
    values = [column[name].value for column in columns]
    known = [value for value in values if value is not None]
    if not known:
        return ""
    best = (max if ALL_METRICS[name].better == "higher" else min)(known)
    comparable = len({column[name].n for column in columns}) == 1 and known.count(best) < len(known)
    comparable = comparable and name not in NO_CONTEST
    cells = []
    for position, column in enumerate(columns):
        text = escape(cell(name, column[name]))
        if position and column[name].value is not None:
            before, after = pairs[position][0][name], pairs[position][1][name]
            interval = intervals[position].get(name) if intervals else None
            difference, verdict = change(name, before, after, interval)
            shared = f" on {after.n} shared" if difference and after.n != column[name].n else ""
            text += f'<span class="diff {verdict}">{escape(difference + shared)}</span>' if difference else ""
        text += f'<span class="n" title="{counted(name)}">n={column[name].n}</span>'
        is_best = comparable and values[position] == best
        cells.append(f'<td class="best">{text}</td>' if is_best else f"<td>{text}</td>")
    return f"<tr><td>{escape(ALL_METRICS[name].title)}</td>{''.join(cells)}</tr>"


def figures_table(evaluation: Evaluation) -> str:
    """All figures over everything that was evaluated, by section."""
    columns = [evaluation.all_figures(model) for model in evaluation.models]
    pairs = [evaluation.paired_figures(evaluation.models[0], model) for model in evaluation.models]
    intervals = [evaluation.intervals(evaluation.models[0], model) for model in evaluation.models]
    rows = [_models_head(evaluation)]
    for section, names in SECTIONS.items():
        body = "".join(_figure_row(name, columns, pairs, intervals) for name in names)
        if body:
            rows.append(f'<tr class="head"><td colspan="{len(columns) + 1}">{escape(section)}</td></tr>{body}')
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def subset_table(evaluation: Evaluation, tables: Sequence[Mapping[str, Mapping[str, Figure]]]) -> str:
    """Key figures by subset (kind or split part), the subsets one below the other."""
    rows = [_models_head(evaluation)]
    for subset in tables[0]:
        columns = [table[subset] for table in tables]
        pairs = [(columns[0], column) for column in columns]
        body = "".join(_figure_row(name, columns, pairs) for name in KEY_METRICS if name in columns[0])
        title = escape(subset.replace("_", " "))
        rows.append(f'<tr class="head"><td colspan="{len(columns) + 1}">{title}</td></tr>{body}')
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _card(name: str, before: Figure | None, after: Figure, interval: Interval | None = None) -> str:
    value, _, rest = cell(name, after).partition(" ")
    unit = rest.partition(" (")[0]
    difference, verdict = change(name, before, after, interval) if before else ("", "same")
    was = f"baseline {escape(cell(name, before).partition(' (')[0])}<br>" if before else ""
    return (
        f'<div class="card"><div class="what">{escape(ALL_METRICS[name].title)}</div>'
        f'<div class="value">{escape(value)} <small>{escape(unit)}</small></div>'
        f'<div class="was">{was}<b class="{verdict}">{escape(difference)}</b> '
        f'<span class="dim" title="{counted(name)}">n={after.n}</span></div></div>'
    )


def summary_section(evaluation: Evaluation) -> str:
    """What differs, in cards and sentences; the first model is the baseline."""
    baseline = evaluation.models[0]
    parts = [f"<section><h2>Summary</h2><p>{escape(describe_data(evaluation))}</p>"]
    if len(evaluation.models) == 1:
        figures = evaluation.all_figures(baseline)
        cards = "".join(_card(name, None, figures[name]) for name in KEY_METRICS if figures[name].value is not None)
        sentences = "".join(f"<li>{escape(text)}</li>" for text in describe_alone(evaluation, baseline))
        parts.append(f'<div class="cards">{cards}</div><ul>{sentences}</ul>')
    for position, model in enumerate(evaluation.models[1:], start=1):
        before, after = evaluation.paired_figures(baseline, model)
        intervals = evaluation.intervals(baseline, model)
        cards = "".join(
            _card(name, before[name], after[name], intervals.get(name))
            for name in KEY_METRICS
            if after[name].value is not None
        )
        sentences = "".join(f"<li>{escape(text)}</li>" for text in compare(evaluation, model))
        title = f"{_dot(position)}{escape(model.name)} against {_dot(0)}{escape(baseline.name)} (baseline)"
        parts.append(f'<h3>{title}</h3><div class="cards">{cards}</div><ul>{sentences}</ul>')
    notes = [*evaluation.notes, *(f"{m.name}: {note}" for m in evaluation.models for note in m.notes)]
    parts.append("".join(f'<p class="note">{escape(note[:1].upper() + note[1:])}.</p>' for note in notes))
    return "".join(parts) + "</section>"


def reactions_table(evaluation: Evaluation) -> str:
    """Barriers of each reaction, reference and models, kcal/mol and eV."""

    def both(value: float | None) -> str:
        return "–" if value is None else f"{number(value / KCAL_PER_MOL)} ({value:.3f})"

    head = ["Reaction, barriers in kcal/mol (eV)", "reference →", "reference ←"]
    head += [f"{m.name} {arrow}" for m in evaluation.models for arrow in "→←"]
    rows = ["<tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>"]
    for errors in zip(*(model.reactions for model in evaluation.models), strict=True):
        first = errors[0]
        cells = [escape(first.name), both(first.reference_forward), both(first.reference_reverse)]
        for error in errors:
            if error.failure is not None:
                cells += ['<span class="worse">failed</span>', ""]
            else:
                cells += [both(error.forward), both(error.reverse)]
        rows.append("<tr>" + "".join(f"<td>{text}</td>" for text in cells) + "</tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def failures_section(evaluation: Evaluation) -> str:
    """Every failure with its reason; empty where nothing failed."""
    rows = []
    for model in evaluation.models:
        for geometry, error in zip(evaluation.geometries, model.errors, strict=True):
            if error.failure:
                rows.append((model.name, f"geometry {geometry.index} {geometry.label or ''}", error.failure))
        for index, relaxed in model.relaxed.items():
            if relaxed.failure:
                rows.append((model.name, f"minimum of geometry {index}", relaxed.failure))
        rows += [(model.name, f"NEB {error.name}", error.failure) for error in model.reactions if error.failure]
    rows += failure_rows(evaluation)
    if not rows:
        return ""
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows[:200])
    more = f'<p class="note">{len(rows) - 200} more in report.json</p>' if len(rows) > 200 else ""
    head = "<tr><th>Model</th><th>What</th><th>Why</th></tr>"
    return f'<section><h2>Failures</h2><div class="scroll"><table>{head}{body}</table></div>{more}</section>'


def _provenance(evaluation: Evaluation, models: Sequence[ModelResult]) -> str:
    attributes = evaluation.attributes
    entries = [("Store", f"{evaluation.store}"), ("Store sha256", evaluation.store_checksum)]
    for key in ("title", "id", "doi", "license"):
        if attributes.get(key):
            entries.append((f"Store {key}", str(attributes[key])))
    entries += [(f"Model {m.name}", f"{m.path or 'in memory'}  sha256 {m.checksum or 'unknown'}") for m in models]
    entries += [(key.replace("_", " "), str(value)) for key, value in evaluation.settings.items()]
    entries.append(("Versions", ", ".join(f"{name} {number_}" for name, number_ in versions().items())))
    body = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in entries)
    return f"<section><h2>Where the numbers come from</h2><dl>{body}</dl></section>"


def _plots(plots: Mapping[str, bytes]) -> str:
    parts = []
    for title, names in _ORDER.items():
        figures = "".join(
            f'<figure><img alt="{escape(_CAPTIONS[name])}" src="data:image/svg+xml;base64,'
            f'{base64.b64encode(plots[name]).decode("ascii")}"><figcaption>{escape(_CAPTIONS[name])}</figcaption></figure>'
            for name in names
            if name in plots
        )
        if figures:
            parts.append(f"<section><h2>{escape(title)}</h2>{figures}</section>")
    return "".join(parts)


def render_page(evaluation: Evaluation, plots: Mapping[str, bytes]) -> str:
    """Return the whole page.

    Args:
        evaluation: results
        plots: SVG by name, as `report.figures.all_plots` names them
    """
    names = " and ".join(model.name for model in evaluation.models)
    title = str(evaluation.attributes.get("title") or evaluation.store.rstrip("/").rsplit("/", 1)[-1])
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f"<h1>{escape(names)} on {escape(title)}</h1>",
        f'<p class="meta">nequip-hessian evaluate · {created}</p>',
        summary_section(evaluation),
        f"<section><h2>All figures</h2>{figures_table(evaluation)}"
        '<p class="note">n: number of cases: geometries, or modes (frequencies), force components, matrix elements '
        "(RMSE of Hessians), barriers, reactions, searches, molecules; point at one to see which. "
        "A change against the baseline is over the cases both models answered; "
        f"rates are over all cases. {INTERVALS if len(evaluation.models) > 1 else ''}"
        "Definitions: docs/metrics.md of nequip-hessian.</p></section>",
        _plots(plots),
    ]
    if any(error.searched for model in evaluation.models for error in model.reactions):
        parts.append(f"<section><h2>Barriers</h2>{reactions_table(evaluation)}</section>")
    parts += [outcome_sections(evaluation), field_section(evaluation)]
    kinds = [evaluation.by_kind(model) for model in evaluation.models]
    parts.append(f"<section><h2>By kind of geometry</h2>{subset_table(evaluation, kinds)}</section>")
    split = [evaluation.by_part(model) for model in evaluation.models]
    if len(split[0]) > 1:
        parts.append(f"<section><h2>By split part</h2>{subset_table(evaluation, split)}</section>")
    for heading, tables in (
        ("By distance from the nearest stationary point", [evaluation.by_distance(m) for m in evaluation.models]),
        ("By size", [evaluation.by_size(m) for m in evaluation.models]),
    ):
        if len(tables[0]) > 1:
            parts.append(f"<section><h2>{heading}</h2>{subset_table(evaluation, tables)}</section>")
    parts += [failures_section(evaluation), _provenance(evaluation, evaluation.models)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(names)} on {escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
