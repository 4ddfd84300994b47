"""Level of theory as Gaussian names it: method, basis and route line."""

from __future__ import annotations

import re

from nequip_hessian.record import LevelOfTheory

# Wavefunction methods whose second derivatives Gaussian takes by differences of gradients.
_NUMERICAL_METHODS = re.compile(r"^(CCSD|QCISD|BD|MP3|MP4|CCD|EOM)", re.IGNORECASE)


def plain_method(name: str) -> str:
    """Drop Gaussian's spin prefix: RB3LYP -> B3LYP, UwB97XD -> wB97XD, ROHF -> HF."""
    match = re.match(r"^(?:RO(?=[A-Za-z])|R(?=[A-Za-z])|U(?=[A-Za-z]))(.+)$", name)
    return match.group(1) if match else name


def level_of_theory(
    method: str, basis: str | None, route: str, program: str | None = None, version: str | None = None
) -> LevelOfTheory:
    """Build the level of theory from Gaussian's method, basis and route.

    Args:
        method: as in the archive block or the second line of a checkpoint, e.g. `RB3LYP`
        basis: basis set name; empty and `ZDO` (semi-empirical) count as none
        route: the route line; tells solvent, dispersion and numerical differentiation
        program, version: who made the labels
    """
    name = plain_method(method.strip()) if program == "Gaussian" else method.strip()
    if program == "Q-Chem" and name in ("R", "U", "RO"):  # Q-Chem checkpoints name the spin type only
        name = "unknown"
    dispersion = re.search(r"(?:empiricaldispersion|em)\s*=\s*\(?\s*([a-z0-9]+)", route, re.IGNORECASE)
    solvent = re.search(r"scrf\s*[=(]\s*\(?\s*([^)\s]+)", route, re.IGNORECASE)
    numerical = re.search(r"freq\s*=?\s*\(?[^)\s]*num", route, re.IGNORECASE) or _NUMERICAL_METHODS.match(name)
    words = [None if basis in (None, "", "ZDO") else basis]
    return LevelOfTheory(
        method=name or "unknown",
        basis=words[0],
        dispersion=dispersion.group(1).upper() if dispersion else None,
        solvation=solvent.group(1) if solvent and solvent.group(1).lower() != "check" else None,
        program=program,
        program_version=version,
        hessian="finite_difference" if numerical else ("analytic" if program == "Gaussian" else None),
    )
