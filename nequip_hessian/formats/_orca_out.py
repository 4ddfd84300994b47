"""Energy, gradient, charge, multiplicity and level from the ORCA output beside a .hess file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._source import Source, read_source
from nequip_hessian.record import LevelOfTheory
from nequip_hessian.units import BOHR

_SAME_GEOMETRY: Final = 2e-5  # a0; outputs print six decimals
_JOB_WORDS: Final = re.compile(
    r"^(an|num)?freq$|^opt|opt$|^(very|extreme)?tight|^loose|^normal|scf$|grid|^pal\d|^(no)?rij?|^cosj|^(no)?fro[cz]|"
    r"^(u|r|ro)?(hf|ks)$|^engrad$|^sp$|print|^slow|^kdiis|^(no)?soscf|^mo|^cpcm|^smd|^(no)?autostart|^allowrhf|^irc$|"
    r"^neb|^conv$|^direct$|^xyzfile$|^bohrs|^usesym|^nousesym|^ri-?|^zora|^dkh|^keep|^(no)?trah|^d[34]|^defgrid",
    re.IGNORECASE,
)
_BASIS: Final = re.compile(
    r"^(ma-|aug-|x2c-|zora-|dkh-|sarc-)*(def2-|def-|\d-\d|cc-p|sto-|pc-|apc|ano|epr-|svp$|tzvp)", re.IGNORECASE
)
_DISPERSION: Final = re.compile(r"^d[34](bj|zero|2|s|tz)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Companion:
    """What the output beside a .hess file adds; energy in Eh, gradient (N, 3) in Eh/a0."""

    energy: float | None = None
    gradient: npt.NDArray[np.float64] | None = None
    charge: int | None = None
    multiplicity: int | None = None
    level: LevelOfTheory | None = None
    files: tuple[Mapping[str, Any], ...] = field(default=())


def companion_of(path: Path, atoms: npt.NDArray[np.int_], positions: npt.NDArray[np.float64]) -> Companion | None:
    """Look for `<stem>.out`, `.log` and `.engrad` beside a .hess file and read what belongs to its geometry.

    Args:
        path: the .hess file
        atoms: (N,) atomic numbers of the .hess file
        positions: (N, 3) positions of the .hess file, a0

    Returns:
        None where there is no such file or none of them holds this geometry. A damaged
        companion is treated as absent: the Hessian is sound without it.
    """
    result: Companion | None = None
    for suffix in (".out", ".log", ".engrad"):
        beside = path.with_suffix(suffix)
        if not beside.is_file():
            continue
        try:
            source = read_source(beside)
            read = _from_engrad if suffix == ".engrad" else _from_output
            found = read(source, atoms, positions)
        except (FormatError, ValueError, IndexError):
            continue
        if found is not None:
            result = found if result is None else _merge(result, found)
    return result


def _merge(first: Companion, second: Companion) -> Companion:
    gradient = second.gradient if second.gradient is not None else first.gradient  # .engrad has more digits
    return Companion(
        first.energy if first.energy is not None else second.energy,
        gradient,
        first.charge,
        first.multiplicity,
        first.level or second.level,
        (*first.files, *second.files),
    )


def _from_engrad(source: Source, atoms: npt.NDArray[np.int_], positions: npt.NDArray[np.float64]) -> Companion | None:
    values = [line.split() for line in source.lines if line.strip() and not line.lstrip().startswith("#")]
    n = len(atoms)
    if int(values[0][0]) != n:
        return None
    gradient = np.array([float(row[0]) for row in values[2 : 2 + 3 * n]]).reshape(n, 3)
    table = values[2 + 3 * n : 2 + 4 * n]
    there = np.array([[float(v) for v in row[1:4]] for row in table])
    same = [atomic_number(row[0]) for row in table] == atoms.tolist()
    if not same or np.max(np.abs(there - positions)) > _SAME_GEOMETRY:
        return None
    return Companion(energy=float(values[1][0]), gradient=gradient, files=(source.facts(),))


def _from_output(source: Source, atoms: npt.NDArray[np.int_], positions: npt.NDArray[np.float64]) -> Companion | None:
    """Take energy and gradient from behind the last printed geometries that are that of the .hess file."""
    starts = [m.end() for m in re.finditer(r"^CARTESIAN COORDINATES \(ANGSTROEM\)\n-+\n", source.text, re.MULTILINE)]
    bounds = [*starts, len(source.text)]
    parts = [
        source.text[begin:end]
        for begin, end in zip(starts, bounds[1:], strict=True)
        if _same(source.text[begin:end], atoms, positions)
    ]
    if not parts:
        return None
    energies = [found for part in parts for found in re.findall(r"^FINAL SINGLE POINT ENERGY\s+(\S+)", part, re.M)[:1]]
    gradients = [found for part in parts if (found := _gradient(part, len(atoms))) is not None]
    charge = re.findall(r"^ *Total Charge\s+Charge\s+\.+\s+(-?\d+)", source.text, re.MULTILINE)
    multiplicity = re.findall(r"^ *Multiplicity\s+Mult\s+\.+\s+(\d+)", source.text, re.MULTILINE)
    return Companion(
        energy=float(energies[-1]) if energies else None,
        gradient=gradients[-1] if gradients else None,
        charge=int(charge[-1]) if charge else None,
        multiplicity=int(multiplicity[-1]) if multiplicity else None,
        level=_level(source.text),
        files=(source.facts(),),
    )


def _same(part: str, atoms: npt.NDArray[np.int_], positions: npt.NDArray[np.float64]) -> bool:
    rows = [line.split() for line in part.split("\n", len(atoms))[: len(atoms)]]
    if any(len(row) != 4 for row in rows) or len(rows) != len(atoms):
        return False
    if [atomic_number(row[0]) for row in rows] != atoms.tolist():
        return False
    there = np.array([[float(v) for v in row[1:]] for row in rows])
    return bool(np.max(np.abs(there - positions * BOHR)) < _SAME_GEOMETRY)


def _gradient(part: str, n_atoms: int) -> npt.NDArray[np.float64] | None:
    found = re.search(r"^CARTESIAN GRADIENT(?: \(NUMERICAL\))?\s*\n-+\n\s*\n", part, re.MULTILINE)
    if found is None:
        return None
    rows = [line.split(":")[-1].split() for line in part[found.end() :].split("\n", n_atoms)[:n_atoms]]
    return np.array([[float(v) for v in row] for row in rows]) if all(len(row) == 3 for row in rows) else None


def _level(text: str) -> LevelOfTheory:
    rows = re.findall(r"^\|\s*\d+>\s*!(.*)$", text, re.MULTILINE)
    words = [word for row in rows for word in row.split("#")[0].split()]
    bases = [word for word in words if _BASIS.match(word) and not word.upper().endswith(("/J", "/C", "/JK"))]
    dispersion = next((word for word in words if _DISPERSION.match(word)), None)
    rest = [w for w in words if not (_BASIS.match(w) or _JOB_WORDS.search(w) or _DISPERSION.match(w))]
    method = rest[0] if rest else next((w for w in words if w.lower() in ("hf", "uhf", "rhf")), "unknown")
    solvent = re.search(r"\b(?:CPCM|SMD)\s*\(\s*([^)]+?)\s*\)", " ".join(words), re.IGNORECASE)
    version = re.search(r"Program Version\s+(\S+)", text)
    numerical = any(word.lower() == "numfreq" for word in words)
    analytic = any(word.lower() in ("freq", "anfreq") for word in words)
    return LevelOfTheory(
        method=method,
        basis=bases[0] if bases else None,
        dispersion=dispersion,
        solvation=solvent.group(0) if solvent else None,
        program="ORCA",
        program_version=version.group(1) if version else None,
        hessian="finite_difference" if numerical else ("analytic" if analytic else None),
    )
