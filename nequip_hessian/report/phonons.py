"""What `nequip-hessian phonons` prints and writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.cell import Cell
from ase.io import write

from nequip_hessian.analysis.crystal import CrystalRelaxation
from nequip_hessian.analysis.force_constants import phonopy_module, supercell_atoms, widths
from nequip_hessian.analysis.phonons import IMAGINARY, THZ_TO_CM, PhononErrors, Phonons, Segment
from nequip_hessian.report import html
from nequip_hessian.report.phonon_figures import band_plot, thermal_plot
from nequip_hessian.report.single import align
from nequip_hessian.report.tables import jsonable, versions, write_csv

_EV_PER_A3_TO_GPA: Final = 160.21766208


@dataclass(frozen=True, eq=False)
class PhononJob:
    """Everything one run found.

    Attributes:
        crystal: the unit cell as used; start: lattice constants and angles (6,) before the relaxation
        phonons: its lattice dynamics; source: how the force constants were made
        radius: of the sphere inside the supercell, angstrom; edge: share of the force constants left there
        space_group: symbol and number
        reference: another calculation's, its bands at the model's wave vectors, and the errors; None without
        remarks: what is worth knowing and no failure
    """

    crystal: CrystalRelaxation
    start: Any
    phonons: Phonons
    source: str
    radius: float
    edge: float
    space_group: str
    reference: tuple[Phonons, list[Segment], PhononErrors] | None
    remarks: Sequence[str]


def thz(value: float) -> str:
    """A frequency as text, THz and cm^-1, imaginary ones with an i."""
    mark = "i" if value < 0 else ""
    return f"{abs(value):.3f}{mark} THz ({abs(value) * THZ_TO_CM:.1f}{mark} cm⁻¹)"


def stability(found: Phonons) -> str:
    """One sentence on imaginary modes."""
    value, place = found.lowest
    where = "(" + ", ".join(f"{x:.3f}" for x in place) + ")"
    if found.n_imaginary_gamma == 0 and value >= IMAGINARY:
        return f"Dynamically stable: no imaginary mode at Γ, on the mesh or along the bands (limit {-IMAGINARY:g}i THz)"
    return (
        f"Unstable: {found.n_imaginary_gamma} imaginary modes at Γ, {100 * found.imaginary_share:.2f} % of the modes "
        f"on the mesh; lowest {thz(value)} at q = {where}"
    )


def fact_rows(job: PhononJob) -> list[list[str]]:
    """What one wants to know first, under the head."""
    found, atoms = job.phonons, job.crystal.atoms
    start, end = job.start, Cell(np.asarray(atoms.cell)).cellpar()
    rows = [["", "value"], ["crystal", f"{atoms.get_chemical_formula()}, {job.space_group}"]]
    rows.append(["lattice constants / Å", ", ".join(f"{a:.4f}" for a in end[:3])])
    if np.max(np.abs(start - end)) > 5e-5:
        rows.append(["before the relaxation / Å", ", ".join(f"{a:.4f}" for a in start[:3])])
    rows.append(["energy / eV per unit cell", f"{job.crystal.energy:.6f}"])
    rows.append(["largest force / eV/Å", f"{job.crystal.largest_force:.5f}"])
    if job.crystal.stress is not None:
        pressure = -np.trace(job.crystal.stress) / 3 * _EV_PER_A3_TO_GPA
        rows.append(["pressure / GPa", f"{pressure:.4f}"])
    rows.append(["supercell", f"{len(found.phonon.supercell)} atoms; sphere inside of {job.radius:.2f} Å"])
    rows.append(["force constants at its edge", f"{100 * job.edge:.2g} % of the largest"])
    rows.append(["acoustic sum rule, raw / eV/Å²", f"{found.drift_before:.2e}"])
    rows.append(["as used / eV/Å²", f"{found.drift_after:.2e}"])
    rows.append(["acoustic modes at Γ, raw / THz", ", ".join(f"{v:.4f}" for v in _acoustic(found.gamma_before))])
    rows.append(["as used / THz", ", ".join(f"{v:.4f}" for v in _acoustic(found.gamma))])
    rows.append(["highest frequency", thz(float(found.frequencies.max()))])
    zero = found.thermal.free_energy[0] if found.thermal.temperatures[0] == 0 else None
    if zero is not None:
        rows.append(["zero-point energy / kJ/mol", f"{zero:.3f}"])
    for k in _rooms(found):
        heat, entropy = found.thermal.heat_capacity[k], found.thermal.entropy[k]
        rows.append(["heat capacity, entropy at 300 K / J/(K mol)", f"{heat:.3f}, {entropy:.3f}"])
    return rows


def _acoustic(values: Any) -> list[float]:
    return [round(float(v), 4) + 0.0 for v in sorted(values, key=abs)[:3]]  # + 0.0: no minus zero


def _rooms(found: Phonons) -> list[int]:
    return [int(k) for k in np.flatnonzero(np.abs(found.thermal.temperatures - 300) < 1e-6)]


def error_rows(errors: PhononErrors) -> list[list[str]]:
    """The comparison with the reference under the head."""
    rows = [["against the reference", "THz", "cm⁻¹"]]
    for title, value in (
        ("RMSE of the frequencies", errors.frequency_rmse),
        ("mean absolute difference", errors.frequency_mae),
        ("mean difference", errors.frequency_bias),
        ("largest difference", errors.frequency_max),
        ("distance of the spectra", errors.dos_distance),
    ):
        rows.append([title, f"{value:.4f}", f"{value * THZ_TO_CM:.2f}"])
    return rows


def other_errors(errors: PhononErrors) -> str:
    """Thermal properties and cell against the reference, in one sentence."""
    parts = [f"heat capacity: RMSE {errors.heat_capacity_rmse:.3f}, largest {errors.heat_capacity_max:.3f} J/(K mol)"]
    if errors.heat_capacity_300 is not None and errors.free_energy_300 is not None:
        parts.append(f"at 300 K {errors.heat_capacity_300:+.3f}")
        parts.append(f"free energy at 300 K {errors.free_energy_300:+.3f} kJ/mol")
    change = ", ".join(f"{100 * value:+.2f} %" for value in errors.cell_change)
    return "; ".join([*parts, f"lattice constants of the primitive cell {change}"])


def phonon_table(job: PhononJob) -> str:
    """What the command prints."""
    rows = fact_rows(job)
    width = max(len(row[0]) for row in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows[1:]]
    lines.append(stability(job.phonons))
    if job.phonons.sound:
        lines.append(align(sound_rows(job.phonons)))
    if job.reference is not None:
        lines += ["", align(error_rows(job.reference[2])), other_errors(job.reference[2])]
    return "\n".join([*lines, *(f"remark: {remark}" for remark in job.remarks)])


def sound_rows(found: Phonons) -> list[list[str]]:
    """Speeds of sound under the head."""
    rows = [["speed of sound / km/s", "slow", "", "fast"]]
    return rows + [
        [name, *("imaginary" if np.isnan(value) else f"{value:.3f}" for value in values)]
        for name, values in found.sound.items()
    ]


def write_phonons(folder: Path, job: PhononJob, origin: Mapping[str, Any]) -> None:
    """Write phonopy.yaml and FORCE_CONSTANTS, phonons.json, tables, plots, the crystal and the page report.html.

    Args:
        folder: made if needed
        job: what was found; origin: facts on model and settings
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = job.phonons
    phonopy_files(folder, found.phonon)
    write(folder / "crystal.extxyz", job.crystal.atoms, format="extxyz")
    write(folder / "supercell.extxyz", supercell_atoms(found.phonon), format="extxyz")
    write_csv(folder / "bands.csv", _band_rows(found.bands))
    columns = zip(found.dos_grid, found.dos_grid * THZ_TO_CM, found.dos, strict=True)
    write_csv(folder / "dos.csv", _named(("frequency_THz", "frequency_cm", "states_per_THz"), columns))
    thermal = found.thermal
    names = ("temperature_K", "free_energy_kJ_per_mol", "entropy_J_per_K_mol", "heat_capacity_J_per_K_mol")
    rows = zip(thermal.temperatures, thermal.free_energy, thermal.entropy, thermal.heat_capacity, strict=True)
    write_csv(folder / "thermal.csv", _named(names, rows))
    other = None if job.reference is None else job.reference[:2]
    plots = {"bands": band_plot(found, other), "thermal": thermal_plot(found, None if other is None else other[0])}
    for name, canvas in plots.items():
        (folder / f"{name}.svg").write_bytes(html.svg(canvas))
        canvas.savefig(folder / f"{name}.png", dpi=200)
    text = json.dumps(jsonable(as_dict(job, origin)), indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "phonons.json").write_text(text, encoding="utf-8")
    title = f"Phonons of {job.crystal.atoms.get_chemical_formula()}"
    html.write_page(folder / "report.html", title, "phonons", _page(job, plots, origin))


def phonopy_files(folder: Path, phonon: Any) -> None:
    """Write phonopy.yaml and FORCE_CONSTANTS, eV and angstrom, for `phonopy-load` to go on with."""
    phonon.save(str(folder / "phonopy.yaml"), settings={"force_constants": False, "force_sets": False})
    file_io = phonopy_module("phonopy.file_IO")
    file_io.write_FORCE_CONSTANTS(np.asarray(phonon.force_constants), filename=str(folder / "FORCE_CONSTANTS"))


def _named(names: Sequence[str], columns: Any) -> list[dict[str, float]]:
    return [dict(zip(names, map(float, row), strict=True)) for row in columns]


def _band_rows(bands: Sequence[Segment]) -> list[dict[str, Any]]:
    rows = []
    for segment in bands:
        for k, q in enumerate(segment.q):
            row: dict[str, Any] = {"segment": "–".join(segment.ends), "distance_per_angstrom": segment.distance[k]}
            row |= dict(zip(("q1", "q2", "q3"), q.tolist(), strict=True))
            row |= {f"frequency_{m}_THz": float(v) for m, v in enumerate(segment.frequencies[k])}
            row |= {f"speed_{m}_km_per_s": float(v) for m, v in enumerate(segment.speeds[k])}
            rows.append(row)
    return rows


def as_dict(job: PhononJob, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as a dictionary; units are in the names."""
    found, crystal = job.phonons, job.crystal
    value, place = found.lowest
    return {
        "format": "nequip-hessian phonons",
        "format_version": 1,
        "crystal": {
            "symbols": crystal.atoms.get_chemical_symbols(),
            "cell_angstrom": np.asarray(crystal.atoms.cell),
            "positions_angstrom": crystal.atoms.positions,
            "lattice_before_angstrom_degree": job.start,
            "space_group": job.space_group,
            "energy_eV": crystal.energy,
            "largest_force_eV_per_angstrom": crystal.largest_force,
            "stress_eV_per_angstrom3": crystal.stress,
            "relaxation_steps": crystal.steps,
            "relaxation_failure": crystal.failure,
        },
        "supercell_matrix": np.asarray(found.phonon.supercell_matrix),
        "primitive_matrix": np.asarray(found.phonon.primitive_matrix),
        "supercell_widths_angstrom": widths(np.asarray(found.phonon.supercell.cell)),
        "force_constants": {"source": job.source, "edge_radius_angstrom": job.radius, "edge_share": job.edge},
        "acoustic_sum_rule_eV_per_angstrom2": {"raw": found.drift_before, "used": found.drift_after},
        "gamma_THz": {"raw": found.gamma_before, "used": found.gamma},
        "imaginary": {
            "limit_THz": IMAGINARY,
            "modes_at_gamma": found.n_imaginary_gamma,
            "share_on_mesh": found.imaginary_share,
            "lowest_THz": value,
            "lowest_q": place,
        },
        "mesh": found.mesh,
        "mesh_modes": {"q": found.q, "weights": found.weights, "frequencies_THz": found.frequencies},
        "speeds_of_sound_km_per_s": found.sound,
        "thermal_per_mole_of_primitive_cells": _with_units(found.thermal),
        "errors": None if job.reference is None else _with_units(job.reference[2]),
        "remarks": list(job.remarks),
        "origin": dict(origin),
        "versions": {**versions(), "phonopy": phonopy_module().__version__},
    }


_UNITS: Final = {  # beginning of a name -> what is added to it
    "temperatures": "K",
    "frequency": "THz",
    "dos_distance": "THz",
    "free_energy": "kJ_per_mol",
    "entropy": "J_per_K_mol",
    "heat_capacity": "J_per_K_mol",
    "worst_q": "",
    "cell_change": "",
}


def _with_units(found: Any) -> dict[str, Any]:
    """The fields of a result, units in the names."""
    units = {name: next(unit for start, unit in _UNITS.items() if name.startswith(start)) for name in asdict(found)}
    return {"_".join(filter(None, (name, units[name]))): value for name, value in asdict(found).items()}


def _page(job: PhononJob, plots: Mapping[str, Any], origin: Mapping[str, Any]) -> list[str]:
    found = job.phonons
    good = found.n_imaginary_gamma == 0 and found.lowest[0] >= IMAGINARY
    top = [html.verdict(stability(found), good)]
    cards = [
        ("highest frequency", f"{found.frequencies.max():.2f} THz", f"{found.frequencies.max() * THZ_TO_CM:.0f} cm⁻¹")
    ]
    cards.append(("acoustic sum rule, raw", f"{found.drift_before:.1e}", "eV/Å²"))
    if job.reference is not None:
        errors = job.reference[2]
        below = f"{errors.frequency_rmse * THZ_TO_CM:.1f} cm⁻¹"
        cards.append(("RMSE of the frequencies", f"{errors.frequency_rmse:.3f} THz", below))
        cards.append(("heat capacity, RMSE", f"{errors.heat_capacity_rmse:.2f}", "J/(K mol)"))
    top.append(html.cards(cards))
    top += [html.note(f"Remark: {remark}.") for remark in job.remarks]
    under = "" if job.reference is None else " Broad grey lines: the reference at the same wave vectors."
    sections = [html.section("Summary", *top)]
    text = f"Bands along the special points, and density of states on a {' × '.join(map(str, found.mesh))} mesh.{under}"
    sections.append(html.section("Bands and density of states", html.image(plots["bands"], text)))
    if job.reference is not None:
        text = other_errors(job.reference[2])
        note = html.note(f"{text[0].upper()}{text[1:]}.")
        sections.append(html.section("Against the reference", html.table(error_rows(job.reference[2])), note))
    thermal = "Harmonic, per mole of primitive cells; imaginary modes are left out."
    sections.append(html.section("Thermal properties", html.image(plots["thermal"], thermal)))
    facts = [html.table(fact_rows(job), text_columns=(1,))]
    if found.sound:
        facts.append(html.table(sound_rows(found)))
    sections.append(html.section("Crystal and force constants", *facts, html.note(f"Force constants: {job.source}.")))
    return [*sections, html.provenance(origin)]
