"""Tables and files for one model and one geometry: what `energy`, `optimise` and `vibrations` print and write."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from nequip_hessian.analysis.labelled import Comparison
from nequip_hessian.analysis.optimisation import Relaxation
from nequip_hessian.analysis.single import SingleVibrations
from nequip_hessian.analysis.vibrations import animate_mode, format_wavenumber
from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.outputs import require_output_file
from nequip_hessian.report.modes import write_modes
from nequip_hessian.report.tables import jsonable, write_csv
from nequip_hessian.units import CM_TO_EV, KCAL_PER_MOL, MDYN_PER_ANGSTROM, WAVENUMBER

Float = npt.NDArray[np.floating[Any]]

STATIONARY: Final = 0.05
"""Largest force, eV/angstrom, at which a geometry counts as a stationary point."""


def align(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text right-aligned under the first row, which gets a rule."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def energy_table(frames: Sequence[Atoms], answers: Sequence[tuple[float, Float]]) -> str:
    """Energies and largest forces of several geometries."""
    rows = [["geometry", "formula", "energy / eV", "largest force / eV/Å"]]
    for index, (atoms, (energy, forces)) in enumerate(zip(frames, answers, strict=True)):
        largest = float(np.max(np.linalg.norm(forces, axis=1)))
        rows.append([str(index), atoms.get_chemical_formula(), f"{energy:.6f}", f"{largest:.6f}"])
    return align(rows)


def optimisation_table(before: Sequence[float], outcomes: Sequence[Relaxation]) -> str:
    """Outcome of minimisations; energies before, eV."""
    rows = [["geometry", "formula", "energy / eV", "change / eV", "largest force / eV/Å", "steps", "converged"]]
    for index, (start, end) in enumerate(zip(before, outcomes, strict=True)):
        largest = float(np.max(np.linalg.norm(end.forces, axis=1)))
        text = [str(index), end.atoms.get_chemical_formula(), f"{end.energy:.6f}", f"{end.energy - start:+.6f}"]
        rows.append([*text, f"{largest:.6f}", str(end.steps), "yes" if end.converged else "NO"])
    return align(rows)


def vibration_rows(found: SingleVibrations, intensities: Float | None = None) -> list[list[str]]:
    """One row a mode under the head; intensities (m,), km/mol."""
    result = found.result
    rows = [["mode", "cm⁻¹", "meV", "reduced mass / u", "force constant / mdyn/Å"]]
    if intensities is not None:
        rows[0].append("IR / km/mol")
    masses = result.reduced_masses()
    constants = _force_constants(result.wavenumbers, masses)
    for k, (value, mass, constant) in enumerate(zip(result.wavenumbers, masses, constants, strict=True)):
        quantum = f"{1000 * abs(value) * CM_TO_EV:.2f}{'i' if value < 0 else ''}"
        strength = [] if intensities is None else [f"{intensities[k]:.2f}"]
        rows.append([str(k), format_wavenumber(value), quantum, f"{mass:.4f}", f"{constant:.4f}", *strength])
    return rows


def vibration_table(found: SingleVibrations, intensities: Float | None = None) -> str:
    """Wavenumbers, quanta, reduced masses and force constants of one geometry, and its zero-point energy."""
    result = found.result
    rows = vibration_rows(found, intensities)
    zpe = result.zero_point_energy
    energy = f", energy {found.energy:.6f} eV" if np.isfinite(found.energy) else ""
    lines = [f"{found.atoms.get_chemical_formula()}{energy}"]
    lines.append(align(rows) if len(rows) > 1 else "no vibrations: a single atom")
    lines.append(f"zero-point energy {zpe:.6f} eV = {zpe / KCAL_PER_MOL:.3f} kcal/mol")
    lines.append(
        f"imaginary modes below -20 cm⁻¹: {result.n_imaginary}; rigid motions projected out: {found.n_projected}"
    )
    if found.largest_force > STATIONARY:
        lines.append(
            f"largest force {found.largest_force:.3f} eV/Å: this is no stationary point, and harmonic frequencies have "
            "no meaning here; optimise first"
        )
    return "\n".join(lines)


def _force_constants(wavenumbers: Float, reduced_masses: Float) -> Float:
    # lambda x reduced mass, eV/angstrom^2
    curvature = np.sign(wavenumbers) * (wavenumbers / WAVENUMBER) ** 2 * reduced_masses
    return np.asarray(curvature / MDYN_PER_ANGSTROM, dtype=np.float64)


def comparison_table(found: Comparison) -> str:
    """Frequencies of a calculation beside the model's, matched by overlap."""
    printed = bool(np.isfinite(found.printed).all()) and len(found.printed) > 0
    head = ["mode", *(["printed"] if printed else []), "from its Hessian", "model", "difference", "overlap"]
    rows = [head]
    differences = []
    for k, value in enumerate(found.reference.wavenumbers):
        partner = int(found.partner[k])
        row = [str(k), *([format_wavenumber(float(found.printed[k]))] if printed else []), format_wavenumber(value)]
        if partner < 0:
            rows.append([*row, "–", "–", "–"])
            continue
        other = float(found.model.wavenumbers[partner])
        differences.append(other - value)
        rows.append([*row, format_wavenumber(other), f"{other - value:+.1f}", f"{found.overlap[k]:.2f}"])
    lines = [f"{found.source}: {found.label}, wavenumbers in cm⁻¹ at the file's geometry"]
    lines.append(align(rows) if len(rows) > 1 else "no vibrations: a single atom")
    if differences:
        lines.append(f"mean absolute difference {np.mean(np.abs(differences)):.1f} cm⁻¹, n = {len(differences)}")
        zpe = [v.zero_point_energy for v in (found.reference, found.model)]
        lines.append(f"zero-point energy {zpe[0]:.4f} eV, model {zpe[1]:.4f} eV ({zpe[1] - zpe[0]:+.4f})")
        counts = f"{found.reference.n_imaginary}, model {found.model.n_imaginary}"
        lines.append(f"imaginary modes below -20 cm⁻¹: {counts}")
    return "\n".join(lines)


def _parent(path: str | Path) -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def write_frames(path: str | Path, frames: Sequence[Atoms], answers: Sequence[tuple[float, Float]]) -> None:
    """Write geometries with energies (eV) and forces (eV/angstrom) as extended XYZ."""
    labelled = []
    for atoms, (energy, forces) in zip(frames, answers, strict=True):
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
        labelled.append(copy)
    write(_parent(path), labelled, format="extxyz")


def check_hessian_file(path: str | Path, count: int) -> None:
    """Refuse, before a calculation, what `write_hessians` could not write after it.

    Args:
        path: the file
        count: number of Hessians

    Raises:
        ConfigError: another ending, several Hessians for a .npy, a folder of that name, or a folder that cannot be
            written to.
    """
    place = Path(path)
    if place.suffix not in (".npy", ".npz"):
        raise OptionError(f"{path}: expected a name ending in .npy (one Hessian) or .npz (several)")
    if place.suffix == ".npy" and count != 1:
        raise ConfigError(f"{path}: {count} Hessians do not fit in a .npy file; take .npz")
    require_output_file(place, "--hessian")


def write_hessians(path: str | Path, hessians: Sequence[Float]) -> None:
    """Write one Hessian (3N, 3N), eV/angstrom^2, as .npy, or several as .npz (`hessian_0`, ...).

    Raises:
        ConfigError: another ending, or several Hessians for a .npy.
    """
    place = Path(path)
    check_hessian_file(path, len(hessians))
    _parent(path)
    if place.suffix == ".npy":
        np.save(place, hessians[0])
    else:
        np.savez(place, allow_pickle=False, **{f"hessian_{i}": hessian for i, hessian in enumerate(hessians)})


_WRITTEN: Final = re.compile(
    r"(\d+_)?(frequencies\.(csv|json)|mode_\d+\.extxyz|modes\..+|spectrum\..+|thermochemistry\.json)"
)


def drop_vibrations(folder: str | Path) -> None:
    """Remove what an earlier run wrote into its folder, perhaps of other molecules; what it computed stays."""
    for old in Path(folder).iterdir():
        if old.is_file() and _WRITTEN.fullmatch(old.name):
            old.unlink()


def write_vibrations(
    folder: str | Path, found: SingleVibrations, prefix: str = "", intensities: Float | None = None
) -> list[Path]:
    """Write frequencies.csv, frequencies.json, modes for viewers and one animated extended XYZ a mode into a folder.

    The JSON holds everything: wavenumbers cm^-1, modes as unit-norm Cartesian displacements (m, N, 3), masses u,
    intensities (m,) km/mol where given.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for old in (*place.glob(f"{prefix}mode_*.extxyz"), *place.glob(f"{prefix}spectrum.*")):
        old.unlink()  # of an earlier run, perhaps of another molecule: nobody could tell them from the new ones
    result, displacements = found.result, found.displacements()
    masses = result.reduced_masses()
    columns = zip(result.wavenumbers, masses, _force_constants(result.wavenumbers, masses), strict=True)
    rows = [
        {"mode": k, "wavenumber_cm": float(value), "reduced_mass_u": float(mass), "force_constant_mdyn_per_A": float(c)}
        for k, (value, mass, c) in enumerate(columns)
    ]
    table, document = place / f"{prefix}frequencies.csv", place / f"{prefix}frequencies.json"
    if intensities is not None:
        rows = [{**row, "ir_intensity_km_per_mol": float(i)} for row, i in zip(rows, intensities, strict=True)]
    write_csv(table, rows)
    facts = {
        "symbols": found.atoms.get_chemical_symbols(),
        "positions_angstrom": found.atoms.positions,
        "energy_eV": found.energy,
        "wavenumbers_cm": result.wavenumbers,
        "zero_point_energy_eV": result.zero_point_energy,
        "n_imaginary": result.n_imaginary,
        "rigid_motions_projected": found.n_projected,
        "masses_u": result.masses,
        "modes": displacements,
        "ir_intensities_km_per_mol": intensities,
        "active_atoms": found.active,
    }
    document.write_text(json.dumps(jsonable(facts), indent=1, allow_nan=False), encoding="utf-8")
    written = [table, document]
    written += write_modes(place, found.atoms, result.wavenumbers, displacements, intensities, prefix)
    for k, displacement in enumerate(displacements):
        frames = animate_mode(found.atoms, displacement)
        for frame in frames:
            frame.info["wavenumber_cm"] = float(result.wavenumbers[k])
        written.append(place / f"{prefix}mode_{k:03d}.extxyz")
        write(written[-1], frames, format="extxyz")
    return written
