"""What `nequip-hessian ts` prints and writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from nequip_hessian.analysis.saddle import SaddleSearch, SaddleVerdict, distinct
from nequip_hessian.analysis.vibrations import format_wavenumber
from nequip_hessian.report import html
from nequip_hessian.report.single import align
from nequip_hessian.report.tables import jsonable, versions, write_csv

_HEAD = ["start", "energy / eV", "imaginary", "next / cm⁻¹", "steps", "forces", "Hessians", "seconds", "found"]


def _name(searches: Sequence[SaddleSearch], index: int) -> str:
    number = distinct(searches)[index]
    return f"ts {number}" if number is not None else "NO"


def saddle_rows(searches: Sequence[SaddleSearch]) -> list[list[str]]:
    """One row a search under the head; equal transition states have equal numbers."""
    rows = [_HEAD]
    for index, search in enumerate(searches):
        waves = [] if search.modes is None else [format_wavenumber(v) for v in search.modes.wavenumbers[:2]]
        imaginary, following = [*waves, "–", "–"][:2]
        calls = [str(search.steps), str(search.gradient_calls), str(search.hessian_calls), f"{search.seconds:.1f}"]
        rows.append([str(index), f"{search.energy:.6f}", imaginary, following, *calls, _name(searches, index)])
    return rows


def saddle_table(searches: Sequence[SaddleSearch]) -> str:
    """The table that the command prints."""
    return align(saddle_rows(searches))


def comparison_rows(pairs: Sequence[tuple[SaddleSearch, SaddleSearch]]) -> list[list[str]]:
    """With and without the model's Hessian, start by start, then summed over the starts where both succeeded."""
    rows = [["start", "Hessian", "found", "steps", "forces", "Hessians", "seconds"]]
    for index, pair in enumerate(pairs):
        for search, name in zip(pair, ("with", "without"), strict=True):
            found = "yes" if search.failure is None else "NO"
            rows.append([str(index), name, found, *_counts([search])])
    both = [pair for pair in pairs if all(search.failure is None for search in pair)]
    for position, name in enumerate(("with", "without")):
        ours = [pair[position] for pair in pairs]
        found = f"{sum(s.failure is None for s in ours)} of {len(ours)}"
        rows.append([f"all {len(both)} both found", name, found, *_counts([pair[position] for pair in both])])
    return rows


def _counts(searches: Sequence[SaddleSearch]) -> list[str]:
    names = ("steps", "gradient_calls", "hessian_calls")
    return [
        *(str(sum(getattr(s, name) for s in searches)) for name in names),
        f"{sum(s.seconds for s in searches):.1f}",
    ]


def verdict_lines(verdict: SaddleVerdict) -> list[str]:
    """What was judged, in sentences."""
    lines = [
        f"{name} side: {b.remark}" for name, b in (("forward", verdict.forward), ("reverse", verdict.reverse)) if b
    ]
    if verdict.rmsd is not None:
        lines.append(f"RMSD to the reference transition state {verdict.rmsd:.3f} Å")
    if verdict.barrier_error is not None:
        lines.append(f"barrier minus reference {verdict.barrier_error:+.4f} eV")
    return lines


def _frame(search: SaddleSearch) -> Any:
    atoms = search.atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=search.energy, forces=search.forces)
    return atoms


def saddle_facts(search: SaddleSearch) -> dict[str, Any]:
    """One search as a JSON-able dictionary; units are in the names."""
    result: dict[str, Any] = jsonable(
        {
            "symbols": search.atoms.get_chemical_symbols(),
            "positions_angstrom": search.atoms.positions,
            "energy_eV": search.energy,
            "largest_force_eV_per_angstrom": search.largest_force,
            "wavenumbers_cm": None if search.modes is None else search.modes.wavenumbers,
            "converged": search.converged,
            "steps": search.steps,
            "gradient_calls": search.gradient_calls,
            "hessian_calls": search.hessian_calls,
            "seconds": search.seconds,
            "with_hessian": search.with_hessian,
            "failure": search.failure,
        }
    )
    return result


def saddle_section(searches: Sequence[SaddleSearch]) -> str:
    """The section of a page: verdict, table, reasons of the failures."""
    found = len({number for number in distinct(searches) if number is not None})
    count = len(searches)
    good = sum(search.failure is None for search in searches)
    text = f"{good} of {count} searches found a transition state" if count > 1 else "Transition state found"
    if found > 1:
        text += f", {found} different ones"
    if not good:
        text = "No transition state found"
    notes = [html.note(f"Start {i}: {s.failure}.") for i, s in enumerate(searches) if s.failure]
    legend = "forces, Hessians: evaluations of the model; found: equal numbers are the same transition state."
    rows = html.table(saddle_rows(searches))
    return html.section("Transition-state search", html.verdict(text, good > 0), rows, html.note(legend), *notes)


def write_saddles(
    folder: Path,
    searches: Sequence[SaddleSearch],
    pairs: Sequence[tuple[SaddleSearch, SaddleSearch]],
    origin: Mapping[str, Any],
    more: Sequence[str] = (),
) -> None:
    """Write the transition states as .xyz, searches.csv, ts.json and the page report.html.

    Args:
        folder: made if needed
        searches: all of them; pairs: with and without the Hessian, where that was compared
        origin: facts on model and settings; more: further sections of the page
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = distinct(searches)
    for number in sorted({n for n in numbers if n is not None}):
        name = "ts.xyz" if max(n for n in numbers if n is not None) == 0 else f"ts_{number}.xyz"
        write(folder / name, _frame(searches[numbers.index(number)]), format="extxyz")
    if any(number is None for number in numbers):
        failed = [_frame(s) for s, number in zip(searches, numbers, strict=True) if number is None]
        write(folder / "failed.extxyz", failed, format="extxyz")
    rows = [saddle_facts(search) for search in searches]
    table = [{"start": i, "ts": numbers[i], **_flat(row)} for i, row in enumerate(rows)]
    write_csv(folder / "searches.csv", table)
    compared = [[saddle_facts(search) for search in pair] for pair in pairs]
    content = {"searches": rows, "distinct": numbers, "compared": compared, **jsonable(dict(origin))}
    content["versions"] = versions()
    (folder / "ts.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    sections = [saddle_section(searches)]
    if pairs:
        legend = "Sums over the starts from which both found a transition state."
        sections.append(
            html.section("With and without the model's Hessian", html.table(comparison_rows(pairs)), html.note(legend))
        )
    formula = searches[0].atoms.get_chemical_formula()
    html.write_page(
        folder / "report.html", f"Transition state of {formula}", "ts", [*sections, *more, html.provenance(origin)]
    )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    waves = row["wavenumbers_cm"] or [None]
    kept = {key: value for key, value in row.items() if not isinstance(value, list)}
    return {**kept, "lowest_wavenumber_cm": waves[0]}
