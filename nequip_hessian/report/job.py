"""What `nequip-hessian reaction` and `nequip-hessian neb` print and write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.io import write

from nequip_hessian.analysis.connectivity import species
from nequip_hessian.analysis.job import ReactionJob
from nequip_hessian.analysis.path import ReactionPath, path_length
from nequip_hessian.analysis.thermochemistry import Thermochemistry
from nequip_hessian.analysis.vibrations import format_wavenumber
from nequip_hessian.report import html
from nequip_hessian.report.irc import irc_document, irc_section, write_irc
from nequip_hessian.report.job_figures import band_plot, level_plot
from nequip_hessian.report.saddle import saddle_facts, saddle_section
from nequip_hessian.report.single import align, vibration_rows, write_frames, write_vibrations
from nequip_hessian.report.tables import jsonable, versions, write_csv
from nequip_hessian.report.thermochemistry import conditions, thermochemistry_facts
from nequip_hessian.units import KCAL_PER_MOL

ORDER: Final = ("reactant", "transition_state", "product")
_ENERGIES: Final = (
    ("electronic energy", "electronic_energy"),
    ("with zero-point energy", "zero"),
    ("enthalpy", "enthalpy"),
    ("Gibbs energy", "gibbs"),
)


def _value(found: Thermochemistry, name: str) -> float:
    if name == "zero":
        return found.electronic_energy + found.zero_point_energy
    return float(getattr(found, name))


def _present(gases: Mapping[str, Thermochemistry]) -> list[str]:
    return [name for name in ORDER if name in gases]


def energy_rows(gases: Mapping[str, Thermochemistry]) -> list[list[str]]:
    """Barriers and reaction energy of each kind of energy, kcal/mol and eV, under the head."""
    rows = [["", "barrier forward", "barrier reverse", "reaction"]]
    pairs = (("reactant", "transition_state"), ("product", "transition_state"), ("reactant", "product"))
    for title, name in _ENERGIES:
        row = [title]
        for first, second in pairs:
            if first in gases and second in gases:
                change = _value(gases[second], name) - _value(gases[first], name)
                row.append(f"{change / KCAL_PER_MOL:.2f} kcal/mol ({change:.4f} eV)")
            else:
                row.append("–")
        rows.append(row)
    return rows


def verdict_text(job: ReactionJob) -> str:
    """How the job ended, in one sentence."""
    if job.failed:
        return f"Failed at the stage {job.failed.replace('_', ' ')}: {job.reason}"
    return "Transition state found; its two sides lead to the reactant and the product given"


def job_table(job: ReactionJob, gases: Mapping[str, Thermochemistry]) -> str:
    """What the command prints."""
    lines = [verdict_text(job), *(f"remark: {remark}" for remark in job.remarks)]
    points = [["", "species", "energy / eV", "lowest / cm⁻¹", "imaginary", "largest force / eV/Å"]]
    for name in _present(gases):
        found = job.points[name]
        lowest = format_wavenumber(found.result.wavenumbers[0]) if len(found.result) else "–"
        count = [str(found.result.n_imaginary), f"{found.largest_force:.4f}"]
        points.append([name.replace("_", " "), species(found.atoms), f"{found.energy:.6f}", lowest, *count])
    if len(points) > 1:
        lines += ["", align(points)]
    if "transition_state" in gases:
        lines += ["", align(energy_rows(gases)), f"at {conditions(*(gases[name] for name in _present(gases)))}"]
    return "\n".join(lines)


def _energies_section(gases: Mapping[str, Thermochemistry]) -> str:
    names = _present(gases)
    series = [(title, [_value(gases[n], name) for n in names]) for title, name in (_ENERGIES[0], _ENERGIES[3])]
    labels = [name.replace("_", " ") for name in names]
    parts = [html.image(level_plot(labels, series), "Levels above the reactant, kcal/mol.")]
    parts.append(html.table(energy_rows(gases)))
    for name in names:
        left = gases[name].n_left_out
        imaginary = f"; {left} imaginary mode left out" if left else ""
        parts.append(html.note(f"{name.replace('_', ' ').capitalize()}: {conditions(gases[name])}{imaginary}."))
    return html.section("Energies", *parts)


def band_section(path: ReactionPath) -> str:
    """The section of a page on a band."""
    if not len(path.energies):
        return html.section("Band", html.verdict(path.failure or "", False))
    text = path.failure or f"Converged in {path.steps} steps, largest NEB force {path.residual:.3f} eV/Å"
    rows = [["image", "distance / Å", "energy / kcal/mol", "energy / eV"]]
    for k, (s, e) in enumerate(zip(path_length(path.positions), path.energies - path.energies[0], strict=True)):
        rows.append([str(k), f"{s:.3f}", f"{e / KCAL_PER_MOL:.2f}", f"{e:.4f}"])
    plot = html.image(band_plot(path), "Energy of the images above the reactant; the ring marks the highest.")
    remark = html.note(f"First guess: {path.guess}; improved tangents, climbing image.")
    return html.section("Band", html.verdict(text, path.failure is None), plot, html.table(rows), remark)


def _points_sections(job: ReactionJob) -> list[str]:
    sections = []
    for name in (name for name in ORDER if name in job.points):
        found = job.points[name]
        title = f"Vibrations of the {name.replace('_', ' ')}"
        text = f"{species(found.atoms)}, energy {found.energy:.6f} eV, largest force {found.largest_force:.4f} eV/Å."
        sections.append(html.section(title, html.note(text), html.table(vibration_rows(found))))
    return sections


def write_job(folder: Path, job: ReactionJob, gases: Mapping[str, Thermochemistry], origin: Mapping[str, Any]) -> None:
    """Write report.html, reaction.json, energies.csv, the geometries, the band, the modes and irc/.

    Args:
        folder: made if needed
        job: as far as it went; gases: thermochemistry by stationary point; origin: facts on model and settings
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in job.points.items():
        write_frames(folder / f"{name}.xyz", [found.atoms], [(found.energy, found.forces)])
        write_vibrations(folder / "vibrations" / name, found)
    if job.path is not None:
        write_band(folder, job.path, next(iter(job.points.values())).atoms)
    if job.irc is not None:
        write_irc(folder / "irc", job.irc, job.ends, origin)
    if gases:
        rows = [{"point": name, **thermochemistry_facts(gases[name])} for name in _present(gases)]
        write_csv(folder / "energies.csv", rows)
    document = {
        "failed": job.failed,
        "reason": job.reason,
        "remarks": job.remarks,
        "thermochemistry": {name: thermochemistry_facts(found) for name, found in gases.items()},
        "wavenumbers_cm": {name: found.result.wavenumbers for name, found in job.points.items()},
        "positions_angstrom": {name: found.atoms.positions for name, found in job.points.items()},
        "search": None if job.search is None else saddle_facts(job.search),
        "irc": None if job.irc is None else irc_document(job.irc, job.ends),
        "origin": dict(origin),
        "versions": versions(),
    }
    (folder / "reaction.json").write_text(json.dumps(jsonable(document), indent=1, allow_nan=False), encoding="utf-8")
    html.write_page(folder / "report.html", _title(job, origin), "reaction", _page(job, gases, origin))


def _title(job: ReactionJob, origin: Mapping[str, Any]) -> str:
    files = " → ".join(Path(str(origin[name])).stem for name in ("reactant", "product") if name in origin)
    ends = [species(job.points[name].atoms) for name in ("reactant", "product") if name in job.points]
    formulas = " → ".join(dict.fromkeys(ends))  # isomers have one formula
    return f"Reaction {files}" + (f" ({formulas})" if formulas else "")


def _page(job: ReactionJob, gases: Mapping[str, Thermochemistry], origin: Mapping[str, Any]) -> list[str]:
    top = [html.verdict(verdict_text(job), job.failed is None)]
    if {"reactant", "transition_state"} <= set(gases):
        start, top_of = gases["reactant"], gases["transition_state"]
        barrier, free = (_value(top_of, n) - _value(start, n) for n in ("electronic_energy", "gibbs"))
        mode = job.points["transition_state"].result.wavenumbers[0]
        entries = [
            ("barrier, electronic", f"{barrier / KCAL_PER_MOL:.2f} kcal/mol", f"{barrier:.4f} eV"),
            ("barrier, Gibbs energy", f"{free / KCAL_PER_MOL:.2f} kcal/mol", f"{free:.4f} eV"),
            ("imaginary mode", f"{format_wavenumber(mode)} cm⁻¹", ""),
        ]
        if "product" in gases:
            energy = _value(gases["product"], "electronic_energy") - _value(start, "electronic_energy")
            entries.append(("reaction energy", f"{energy / KCAL_PER_MOL:.2f} kcal/mol", f"{energy:.4f} eV"))
        top.append(html.cards(entries))
    top += [html.note(f"Remark: {remark}.") for remark in job.remarks]
    sections = [html.section("Summary", *top)]
    if gases:
        sections.append(_energies_section(gases))
    if job.irc is not None:
        sections.append(irc_section(job.irc, job.ends))
    if job.search is not None:
        sections.append(saddle_section([job.search]))
    if job.path is not None:
        sections.append(band_section(job.path))
    return [*sections, *_points_sections(job), html.provenance(origin)]


def band_table(path: ReactionPath) -> str:
    """The table that `neb` prints."""
    if not len(path.energies):
        return f"no path: {path.failure}"
    rows = [["image", "distance / Å", "energy / eV", "relative / eV", "kcal/mol"]]
    for k, (s, e) in enumerate(zip(path_length(path.positions), path.energies, strict=True)):
        relative = e - path.energies[0]
        mark = " <" if k == path.highest else "  "
        rows.append([str(k), f"{s:.3f}", f"{e:.6f}", f"{relative:.4f}", f"{relative / KCAL_PER_MOL:.2f}{mark}"])
    text = f"barrier forward {path.barrier_forward / KCAL_PER_MOL:.2f} kcal/mol ({path.barrier_forward:.4f} eV), "
    text += f"reverse {path.barrier_reverse / KCAL_PER_MOL:.2f} kcal/mol ({path.barrier_reverse:.4f} eV)"
    imaginary = "" if path.n_imaginary is None else f"; imaginary modes of the highest image: {path.n_imaginary}"
    return "\n".join([align(rows), text + imaginary])


def write_band(folder: Path, path: ReactionPath, template: Atoms) -> None:
    """Write band.extxyz and band.csv; nothing where there is no image."""
    folder.mkdir(parents=True, exist_ok=True)
    if not len(path.energies):
        return
    write(folder / "band.extxyz", path.images(template.numbers), format="extxyz")
    columns = zip(path_length(path.positions), path.energies, path.energies - path.energies[0], strict=True)
    names = ("distance_angstrom", "energy_eV", "relative_energy_eV")
    write_csv(folder / "band.csv", [dict(zip(names, map(float, row), strict=True)) for row in columns])


def write_neb(folder: Path, path: ReactionPath, template: Atoms, origin: Mapping[str, Any]) -> None:
    """Write the band, its highest image as ts_guess.xyz, neb.json and the page report.html."""
    write_band(folder, path, template)
    if len(path.energies):
        write(folder / "ts_guess.xyz", path.images(template.numbers)[path.highest], format="extxyz")
    document = {
        "failure": path.failure,
        "converged": path.converged,
        "steps": path.steps,
        "residual_eV_per_angstrom": path.residual,
        "guess": path.guess,
        "n_imaginary": path.n_imaginary,
        "energies_eV": path.energies,
        "positions_angstrom": path.positions,
        "symbols": template.get_chemical_symbols(),
        "origin": dict(origin),
        "versions": versions(),
    }
    if len(path.energies):
        document |= {"barrier_forward_eV": path.barrier_forward, "barrier_reverse_eV": path.barrier_reverse}
    document["distance_angstrom"] = path_length(path.positions) if len(path.energies) else np.zeros(0)
    (folder / "neb.json").write_text(json.dumps(jsonable(document), indent=1, allow_nan=False), encoding="utf-8")
    title = f"Reaction path of {template.get_chemical_formula()}"
    html.write_page(folder / "report.html", title, "neb", [band_section(path), html.provenance(origin)])
