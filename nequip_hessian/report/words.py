"""The summary at the top of the page: what differs between models, in words and numbers."""

from __future__ import annotations

from collections import Counter
from typing import Final

from nequip_hessian.analysis.results import Evaluation, ModelResult
from nequip_hessian.analysis.summary import Figure
from nequip_hessian.report.display import cell, change

_KINDS: Final[dict[str | None, tuple[str, str]]] = {
    None: ("of unknown kind", "of unknown kind"),
    "minimum": ("minimum", "minima"),
    "transition_state": ("transition state", "transition states"),
    "path": ("path point", "path points"),
    "displaced": ("displaced geometry", "displaced geometries"),
    "higher_saddle": ("saddle point of higher order", "saddle points of higher order"),
    "other": ("other geometry", "other geometries"),
}

_SENTENCES: Final = (
    ("shifted_energy_per_atom_mae", "energies (composition shift removed)", "geometries"),
    ("force_mae", "forces", "components"),
    ("hessian_mae", "Hessian elements", "geometries"),
    ("frequency_mae", "harmonic frequencies at stationary points", "modes"),
    ("single_point_barrier_mae", "barriers at the reference geometries", "barriers"),
    ("barrier_mae", "barriers from NEB", "barriers"),
)


def describe_data(evaluation: Evaluation) -> str:
    """Say what was evaluated, with numbers."""
    geometries = evaluation.geometries
    counts = Counter(geometry.kind for geometry in geometries)
    listed = ", ".join(f"{count} {_kind(kind, count)}" for kind, count in counts.items())
    with_hessian = sum(geometry.has_hessian for geometry in geometries)
    reactions = len(evaluation.references)
    return (
        f"{len(geometries)} geometries ({listed}), {with_hessian} of them with a Hessian, "
        f"{reactions} complete reaction{'' if reactions == 1 else 's'}."
    )


def _kind(kind: str | None, count: int) -> str:
    one, several = _KINDS.get(kind, (str(kind).replace("_", " "),) * 2)
    return one if count == 1 else several


def compare(evaluation: Evaluation, model: ModelResult) -> list[str]:
    """Say how one model differs from the first one, a sentence a question, over the cases both answered."""
    baseline = evaluation.models[0]
    before, after = evaluation.paired_figures(baseline, model)
    intervals = evaluation.intervals(baseline, model)
    sentences = []
    for name, what, cases in _SENTENCES:
        first, second = before[name], after[name]
        interval = intervals.get(name)
        text, verdict = change(name, first, second, interval)
        if not text:
            continue
        mean = f"mean absolute error of {what} {cell(name, second)} against {cell(name, first)}"
        equal = "As good" if interval is None else "Not told apart"
        few = ", on too few reactions or molecules to be sure" if interval is None else ""
        start = {"better": f"Better{few}", "worse": f"Worse{few}", "same": equal}[verdict]
        sentences.append(f"{start}: {mean} ({text}; {second.n} {cases}).")
    sentences += _curvature(before, after) + _failures(model.name, before, after)
    return sentences


def _curvature(before: dict[str, Figure], after: dict[str, Figure]) -> list[str]:
    first, second = before["imaginary_agreement"], after["imaginary_agreement"]
    if first.value is None or second.value is None:
        return []
    text = (
        f"The number of imaginary modes is right for {round(second.value * second.n)} of {second.n} geometries, "
        f"against {round(first.value * first.n)} of {first.n}"
    )
    cosines = before["projected_cosine_1"], after["projected_cosine_1"]
    if cosines[0].value is not None and cosines[1].value is not None:
        text += f"; |cos| of the lowest normal mode with the reference's {cosines[1].value:.2f} against "
        text += f"{cosines[0].value:.2f} (n = {cosines[1].n})"
    return [f"{text}."]


def _failures(name: str, before: dict[str, Figure], after: dict[str, Figure]) -> list[str]:
    found = []
    for key, what in (
        ("failure_rate", "predictions"),
        ("relaxed_failure_rate", "minimisations"),
        ("neb_failure_rate", "NEBs"),
    ):
        first, second = before[key], after[key]
        if not (first.value or second.value):
            continue
        counts = [f"{round((f.value or 0.0) * f.n)} of {f.n}" for f in (second, first)]
        found.append(f"Failed {what}: {counts[0]} of {name}'s, {counts[1]} of the baseline's.")
    return found


def describe_alone(evaluation: Evaluation, model: ModelResult) -> list[str]:
    """Say how good the only model is."""
    figures = evaluation.all_figures(model)
    sentences = [
        f"Mean absolute error of {what}: {cell(name, figures[name])} ({figures[name].n} {cases})."
        for name, what, cases in _SENTENCES
        if figures[name].value is not None
    ]
    agreement = figures["imaginary_agreement"]
    if agreement.value is not None:
        right = round(agreement.value * agreement.n)
        sentences.append(f"The number of imaginary modes is right for {right} of {agreement.n} geometries.")
    failures = figures["failure_rate"]
    sentences.append(f"Failed predictions: {round((failures.value or 0.0) * failures.n)} of {failures.n}.")
    return sentences
