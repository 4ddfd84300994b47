"""Sections of the evaluation page on searches, reaction coordinates, dynamics, and on the names others use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nequip_hessian.analysis.results import Evaluation
from nequip_hessian.analysis.summary import Figure
from nequip_hessian.report.display import number
from nequip_hessian.report.html_table import table
from nequip_hessian.units import HARTREE_PER_BOHR2, KCAL_PER_MOL

_Entry = tuple[str, str, float]  # our name, unit, what our figure is divided by

FIELD_NAMES: Final[tuple[tuple[str, _Entry, _Entry], ...]] = (
    ("Hessian MAE", ("hessian_mae", "eV/Å²", 1.0), ("hessian_mae", "eV/Å²", 1.0)),
    ("relative Hessian error", ("hessian_relative", "1", 1.0), ("hessian_relative", "1", 1.0)),
    (
        "eigenvalue MAE",
        ("eigenvalue_mae", "Eh/a0²", HARTREE_PER_BOHR2),
        ("eigenvalue_mae", "eV/Å²", 1.0),
    ),
    (
        "eigenvalue MAE, mass-weighted, Eckart",
        ("", "", 1.0),
        ("projected_eigenvalue_mae", "eV/(Å² u)", 1.0),
    ),
    (
        "lowest eigenvalue MAE",
        ("eigenvalue_1_mae", "Eh/a0²", HARTREE_PER_BOHR2),
        ("eigenvalue_1_mae", "eV/Å²", 1.0),
    ),
    ("lowest eigenvalue MAE, Eckart", ("", "", 1.0), ("projected_eigenvalue_1_mae", "eV/(Å² u)", 1.0)),
    ("|cos| of the lowest eigenvector", ("cosine_1", "1", 1.0), ("cosine_1", "1", 1.0)),
    ("|cos| of the lowest mode, Eckart", ("", "", 1.0), ("projected_cosine_1", "1", 1.0)),
    ("same number of negative eigenvalues", ("", "", 1.0), ("negative_agreement", "1", 1.0)),
)
"""What it is, as HORM has it, as HIP has it."""


def field_rows(evaluation: Evaluation) -> list[list[str]]:
    """HORM's and HIP's figures side by side, each in its own unit, under the head."""
    rows = [["", *(f"{m.name}, {source}" for m in evaluation.models for source in ("HORM", "HIP"))]]
    columns = [evaluation.all_figures(model) for model in evaluation.models]
    for title, *entries in FIELD_NAMES:
        cells = [_field_cell(figures, entry) for figures in columns for entry in entries]
        if any(text != "–" for text in cells):
            rows.append([title, *cells])
    return rows


def _field_cell(figures: Mapping[str, Figure], entry: _Entry) -> str:
    name, unit, divisor = entry
    value = figures[name].value if name else None
    return "–" if value is None else f"{number(value / divisor)} {unit}".removesuffix(" 1")


def _length(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _kcal(value: float | None) -> str:
    return "–" if value is None else f"{value / KCAL_PER_MOL:+.2f}"


def saddle_rows(evaluation: Evaluation) -> list[list[str]]:
    """One row a search and model under the head."""
    head = ["reaction", "start", "model", "found", "RMSD / Å", "barrier error → / kcal/mol", "←", "steps"]
    rows = [[*head, "force calls", "Hessians", "steps without", "force calls without"]]
    for errors in zip(*(model.saddles for model in evaluation.models), strict=True):
        for model, error in zip(evaluation.models, errors, strict=True):
            found = "yes" if error.failure is None else "NO"
            plain = [str(error.plain_steps), str(error.plain_gradient_calls)]
            if error.plain_failure or not error.plain_steps:
                plain = ["failed" if error.plain_failure else "–", "–"]
            counts = [str(error.steps), str(error.gradient_calls), str(error.hessian_calls), *plain]
            errors_ = [_kcal(error.forward_error), _kcal(error.reverse_error)]
            rows.append([error.name, error.start, model.name, found, _length(error.rmsd), *errors_, *counts])
    return rows


def irc_rows(evaluation: Evaluation) -> list[list[str]]:
    """One row a reaction coordinate and model under the head."""
    rows = [["reaction", "model", "connects", "TS RMSD / Å", "barrier error → / kcal/mol", "←", "profile / kcal/mol"]]
    rows[0].append("path RMSD / Å")
    for errors in zip(*(model.ircs for model in evaluation.models), strict=True):
        for model, e in zip(evaluation.models, errors, strict=True):
            profile = "–" if e.profile_mae is None else f"{e.profile_mae / KCAL_PER_MOL:.2f}"
            cells = [_length(e.ts_rmsd), _kcal(e.forward_error), _kcal(e.reverse_error), profile, _length(e.path_rmsd)]
            rows.append([e.name, model.name, "yes" if e.failure is None else "NO", *cells])
    return rows


def dynamics_rows(evaluation: Evaluation) -> list[list[str]]:
    """One row a molecule and model under the head."""
    rows = [["molecule", "model", "failed at / K", "drift / meV/atom/ps", "fluctuation / meV/atom", "how"]]
    for found in zip(*(model.dynamics for model in evaluation.models), strict=True):
        for model, one in zip(evaluation.models, found, strict=True):
            temperature = "–" if one.temperature is None else f"{'> ' if one.survived else ''}{one.temperature:g}"
            milli = ["–" if v is None else number(1000 * v) for v in (one.drift, one.fluctuation)]
            how = one.failure or one.reason or "whole"
            rows.append([f"{one.label} ({one.formula})", model.name, temperature, *milli, how])
    return rows


def outcome_sections(evaluation: Evaluation) -> str:
    """Tables of everything that was searched, followed or run; empty where nothing was."""
    parts: list[tuple[str, list[list[str]], Sequence[int], str]] = []
    if any(model.saddles for model in evaluation.models):
        note = (
            "found: converged, one imaginary mode, and its reaction coordinate ends in the reactant and the product. "
            "Force calls inside a Hessian by differences are not counted."
        )
        parts.append(("Transition-state searches", saddle_rows(evaluation), (1, 2), note))
    if any(model.ircs for model in evaluation.models):
        note = "profile: mean |difference| of the labelled geometries' energies, measured from the transition state."
        parts.append(("Intrinsic reaction coordinates", irc_rows(evaluation), (1,), note))
    if any(model.dynamics for model in evaluation.models):
        note = "failed at: temperature of the bath; > means that the molecule was whole at the end of the ramp."
        parts.append(("Molecular dynamics", dynamics_rows(evaluation), (1, 5), note))
    return "".join(
        f'<section><h2>{title}</h2>{table(rows, text)}<p class="note">{note}</p></section>'
        for title, rows, text, note in parts
    )


def field_section(evaluation: Evaluation) -> str:
    """The table of other people's names; empty without a Hessian."""
    rows = field_rows(evaluation)
    if len(rows) == 1:
        return ""
    note = (
        "HORM: Cui et al., arXiv 2505.12447 (raw Hessian, atomic units for eigenvalues). HIP: Burger et al., "
        "arXiv 2509.21624 (eV/Å², and mass-weighted without rigid motions). Means over geometries."
    )
    return f'<section><h2>In the units of HORM and HIP</h2>{table(rows)}<p class="note">{note}</p></section>'


def failure_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Every failure of a search, path, gas or molecule: model, what, why."""
    rows = []
    for model in evaluation.models:
        rows += [
            (model.name, f"thermochemistry of geometry {index}", error.failure)
            for index, error in model.gases.items()
            if error.failure
        ]
        rows += [(model.name, f"saddle {e.name}, {e.start}", e.failure) for e in model.saddles if e.failure]
        rows += [(model.name, f"irc {e.name}", e.failure) for e in model.ircs if e.failure]
        rows += [(model.name, f"md {d.label}", d.failure) for d in model.dynamics if d.failure]
    return rows
