"""Thermochemistry as the commands print it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from nequip_hessian.analysis.thermochemistry import Thermochemistry
from nequip_hessian.report.single import align
from nequip_hessian.units import KCAL_PER_MOL

TREATMENT_NAMES: Final = {
    "rrho": "harmonic oscillators",
    "grimme": "quasi-RRHO (Grimme 2012), 100 cm⁻¹",
    "truhlar": "modes below 100 cm⁻¹ raised to it (Truhlar 2011)",
}


def conditions(*found: Thermochemistry) -> str:
    """Temperature, pressure, symmetry number (of each), multiplicity and treatment in one line."""
    first = found[0]
    sigma = ", ".join(str(one.symmetry_number) for one in found)
    return (
        f"{first.temperature:g} K, {first.pressure / 1e5:g} bar, symmetry number{'s'[: len(found) - 1]} {sigma}, "
        f"multiplicity {first.multiplicity}, {TREATMENT_NAMES[first.treatment]}"
    )


def thermochemistry_rows(found: Thermochemistry) -> list[list[str]]:
    """Corrections, and totals where the electronic energy is known, in eV, kcal/mol; entropies in cal/(mol K)."""
    rows = [["", "eV", "kcal/mol"]]
    for name, value in (
        ("zero-point energy", found.zero_point_energy),
        ("enthalpy - electronic energy", found.enthalpy_correction),
        ("T x entropy", found.temperature * found.entropy),
        ("Gibbs energy - electronic energy", found.gibbs_correction),
    ):
        rows.append([name, f"{value:.6f}", f"{value / KCAL_PER_MOL:.3f}"])
    if np.isfinite(found.electronic_energy):
        rows.append(["enthalpy", f"{found.enthalpy:.6f}", ""])
        rows.append(["Gibbs energy", f"{found.gibbs:.6f}", ""])
    return rows


def thermochemistry_table(found: Thermochemistry) -> str:
    """The table that the command prints."""
    parts = (
        ("translation", found.entropy_translation),
        ("rotation", found.entropy_rotation),
        ("vibration", found.entropy_vibration),
        ("electronic", found.entropy_electronic),
    )
    listed = ", ".join(f"{name} {1000 * value / KCAL_PER_MOL:.3f}" for name, value in parts)
    total = 1000 * found.entropy / KCAL_PER_MOL
    lines = [f"thermochemistry at {conditions(found)}", align(thermochemistry_rows(found))]
    lines.append(f"entropy {total:.3f} cal/(mol K): {listed}")
    if found.n_left_out:
        lines.append(f"{found.n_left_out} imaginary mode{'s' if found.n_left_out > 1 else ''} left out")
    return "\n".join(lines)


def thermochemistry_facts(found: Thermochemistry) -> dict[str, Any]:
    """All contributions and the totals by name, units in the names; the pressure in bar, as it is asked for."""
    totals = ("entropy", "enthalpy", "gibbs", "enthalpy_correction", "gibbs_correction")
    facts = asdict(found) | {name: getattr(found, name) for name in totals}
    facts["pressure"] = found.pressure / 1e5
    return {f"{name}{_unit(name)}": value for name, value in facts.items()}


def _unit(name: str) -> str:
    """What the unit of a contribution adds to its name; nothing for counts and words."""
    if name in ("symmetry_number", "multiplicity", "treatment", "n_modes", "n_left_out"):
        return ""
    if name.startswith("entropy"):
        return "_eV_per_K"
    return {"temperature": "_K", "pressure": "_bar"}.get(name, "_eV")
