"""What `nequip-hessian irc` prints and writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from nequip_hessian.analysis.connectivity import Basin, bond_changes, bonds, identify, species
from nequip_hessian.analysis.irc import ReactionCoordinate
from nequip_hessian.analysis.irc_side import Side
from nequip_hessian.analysis.vibrations import format_wavenumber
from nequip_hessian.report import html
from nequip_hessian.report.job_figures import irc_plot
from nequip_hessian.report.single import align, write_frames
from nequip_hessian.report.tables import jsonable, versions, write_csv
from nequip_hessian.units import KCAL_PER_MOL


def sides(path: ReactionCoordinate) -> tuple[tuple[str, Side], tuple[str, Side]]:
    """The two sides by name, reverse first, as the path runs."""
    return ("reverse", path.reverse), ("forward", path.forward)


def side_basin(side: Side, known: Mapping[str, Atoms]) -> Basin | None:
    """Where a side leads; None where it leads nowhere, and without a name where nothing is known to compare with."""
    if side.minimum is None or side.minimum.failure:
        return None
    if known:
        return identify(side.minimum.atoms, known)
    what = species(side.minimum.atoms)
    return Basin(None, None, what, what)


def from_reactant(path: ReactionCoordinate, known: Mapping[str, Atoms]) -> ReactionCoordinate:
    """Return the path with the side of the first known minimum as the reverse one, where that can be told."""
    names = [basin.name if (basin := side_basin(side, known)) else None for _, side in sides(path)]
    wanted = next(iter(known), None)
    turn = wanted is not None and names[1] == wanted and names[0] != wanted
    return path.turned() if turn else path


def irc_failure(path: ReactionCoordinate, known: Mapping[str, Atoms]) -> str | None:
    """Why the path is not what was asked for: a side that failed, or a known minimum that none leads to."""
    if path.failure:
        return path.failure
    reached = {basin.name for _, side in sides(path) if (basin := side_basin(side, known)) is not None}
    missing = [name for name in known if name not in reached]
    return f"no side leads to the {' or the '.join(missing)}" if missing else None


def irc_rows(path: ReactionCoordinate, known: Mapping[str, Atoms]) -> list[list[str]]:
    """One row a side: points, arc length, barrier, how far the minimisation from its end moved, where it leads."""
    head = ["side", "points", "arc / u^1/2 Å", "barrier / kcal/mol", "barrier / eV"]
    head += ["end above minimum / kcal/mol", "RMSD / Å", "leads to", "ended because"]
    rows = [head]
    for name, side in sides(path):
        basin = side_basin(side, known)
        bottom = side.minimum.energy if side.minimum is not None else float("nan")
        barrier = path.energy - bottom
        numbers = [str(len(side)), f"{side.arc[-1]:.3f}" if len(side) else "–"]
        numbers += [f"{barrier / KCAL_PER_MOL:.2f}", f"{barrier:.4f}"] if np.isfinite(barrier) else ["–", "–"]
        numbers.append("–" if side.fall is None else f"{side.fall / KCAL_PER_MOL:.2f}")
        numbers.append("–" if side.shift is None else f"{side.shift:.3f}")
        rows.append([name, *numbers, basin.remark if basin else "nowhere", side.failure or side.ended])
    return rows


def irc_table(path: ReactionCoordinate, known: Mapping[str, Atoms]) -> str:
    """The table that the command prints."""
    lines = [
        f"{path.transition_state.get_chemical_formula()}, transition state at {path.energy:.6f} eV, "
        f"{format_wavenumber(path.wavenumbers[0])} cm⁻¹",
        align(irc_rows(path, known)),
    ]
    changes = bond_story(path)
    return "\n".join([*lines, *([changes] if changes else []), *(f"remark: {text}" for text in path.shortfalls)])


def bond_story(path: ReactionCoordinate) -> str:
    """Bonds formed and broken from the reverse to the forward end; empty where an end is missing."""
    ends = [side.minimum for _, side in sides(path)]
    if any(end is None or end.failure for end in ends):
        return ""
    matrices = [bonds(end.atoms.numbers, end.atoms.positions) for end in ends if end is not None]
    formed, broken = bond_changes(path.transition_state.numbers, *matrices)
    if not formed and not broken:
        return "no bond changes from the reverse to the forward end: a conformational change"
    parts = [f"{word} {', '.join(names)}" for word, names in (("formed", formed), ("broken", broken)) if names]
    return f"from the reverse to the forward end: {'; '.join(parts)} (atoms counted from 0)"


def irc_document(path: ReactionCoordinate, known: Mapping[str, Atoms]) -> dict[str, Any]:
    """Everything as a JSON-able dictionary; units are in the names."""
    found = {}
    for name, side in sides(path):
        basin = side_basin(side, known)
        found[name] = {
            "points": len(side),
            "ended": side.ended,
            "end_above_minimum_eV": side.fall,
            "end_to_minimum_rmsd_angstrom": side.shift,
            "stopped_short": side.stopped_short,
            "failure": side.failure,
            "leads_to": None if basin is None else vars(basin),
            "n_imaginary": side.n_imaginary,
            "minimum_energy_eV": None if side.minimum is None else side.minimum.energy,
            "minimum_positions_angstrom": None if side.minimum is None else side.minimum.atoms.positions,
        }
    result: dict[str, Any] = jsonable(
        {
            "symbols": path.transition_state.get_chemical_symbols(),
            "transition_state_energy_eV": path.energy,
            "wavenumbers_cm": path.wavenumbers,
            "arc_sqrt_u_angstrom": path.arc,
            "energies_eV": path.energies,
            "positions_angstrom": path.positions,
            "sides": found,
        }
    )
    return result


def end_names(path: ReactionCoordinate, known: Mapping[str, Atoms]) -> tuple[str, str]:
    """What the reverse and the forward side lead to, for a plot or a sentence."""
    names = []
    for name, side in sides(path):
        basin = side_basin(side, known)
        names.append((basin.name or basin.species) if basin else f"{name} end")
    return names[0], names[1]


def irc_section(path: ReactionCoordinate, known: Mapping[str, Atoms]) -> str:
    """The section of a page: verdict, plot, table."""
    names, failure = end_names(path, known), irc_failure(path, known)
    if failure:
        text = failure[:1].upper() + failure[1:]
    elif path.shortfalls:
        text = "Minimised from the ends of the path, which stopped short of them: " + " and ".join(names)
    else:
        text = "Both sides end at minima: " + " and ".join(names)
    plot = html.image(
        irc_plot(path, names),
        "Energy and largest force along the reaction coordinate. The rings are the minima; the dotted lines to them "
        "are minimisations, no part of the path.",
    )
    story = bond_story(path)
    rows = html.table(irc_rows(path, known), text_columns=(7, 8))
    remark = html.note(story[:1].upper() + story[1:] + ".") if story else ""
    short = [html.note(f"Remark: {sentence}.") for sentence in path.shortfalls]
    return html.section(
        "Intrinsic reaction coordinate", html.verdict(text, failure is None), plot, rows, remark, *short
    )


def drop_irc(folder: Path) -> None:
    """Remove what `write_irc` wrote for an earlier transition state."""
    if (folder / "irc.json").is_file():
        shutil.rmtree(folder)


def write_irc(folder: Path, path: ReactionCoordinate, known: Mapping[str, Atoms], origin: Mapping[str, Any]) -> None:
    """Write irc.extxyz, irc.csv, irc.json, the minima as .xyz, irc.svg and the page report.html.

    Args:
        folder: made if needed
        path: both sides; known: minima by name; origin: facts on model and settings
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "irc.extxyz", path.frames(), format="extxyz")
    largest = np.linalg.norm(path.all_forces, axis=2).max(axis=1)
    columns = zip(path.arc, path.energies, path.energies - path.energy, largest, strict=True)
    names = ("arc_sqrt_u_angstrom", "energy_eV", "relative_energy_eV", "largest_force_eV_per_angstrom")
    write_csv(folder / "irc.csv", [dict(zip(names, map(float, row), strict=True)) for row in columns])
    for name, side in sides(path):
        if side.minimum is not None and not side.minimum.failure:
            found = side.minimum
            write_frames(folder / f"{name}.xyz", [found.atoms], [(found.energy, found.forces)])
    content = {**irc_document(path, known), **jsonable(dict(origin)), "versions": versions()}
    (folder / "irc.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    formula = path.transition_state.get_chemical_formula()
    canvas = irc_plot(path, end_names(path, known))
    (folder / "irc.svg").write_bytes(html.svg(canvas))
    page = [irc_section(path, known), html.provenance(origin)]
    html.write_page(folder / "report.html", f"Reaction coordinate of {formula}", "irc", page)
