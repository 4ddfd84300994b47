"""Q-Chem output files: the Cartesian Hessian printed by a frequency job.

`Hessian of the SCF Energy` (analytic) or `Final Hessian.` (differences of
gradients) is the full square in Eh/a0^2, in blocks of six columns with seven
decimals; the last one in the file counts. It is in the frame of the
`Standard Nuclear Orientation`. At the default print level Q-Chem 5.4 and newer
print none, or only the mass-weighted one: then there is nothing to read here,
and the .fchk of the job has it. Forces are not read: a frequency job prints
none, and what optimisations print leaves out solvent and dispersion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._atoms import atomic_number, isotopic_masses, unrounded_masses
from nequip_hessian.formats._source import (
    ATOMIC_UNITS,
    Source,
    atomic_conversions,
    column_blocks,
    guarded,
    numbers,
    provenance,
    read_source,
    stem,
)
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR

NAME = "qchem-out"
PATTERNS = ("*.out", "*.log", "*.qcout", "*.OUT", "*.LOG")

_HESSIANS: Final = re.compile(r"^ *(Hessian of the SCF Energy|Final Hessian\.) *$", re.MULTILINE)
_GEOMETRY: Final = re.compile(r"^ *Standard Nuclear Orientation \((Angstroms|Bohr)\) *$", re.MULTILINE)


def sniff(text: str) -> bool:
    """Say whether a file looks like a Q-Chem output."""
    return "Welcome to Q-Chem" in text or "Q-Chem, Inc." in text or "Standard Nuclear Orientation" in text


@guarded("Q-Chem output")
def read_qchem_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Cartesian Hessian of a Q-Chem output with its geometry.

    Args:
        path: the output file

    Yields:
        One record with energy, charge, multiplicity, masses and printed frequencies.

    Raises:
        NoHessianError: the job ended well but printed no Cartesian Hessian.
        FormatError: the job failed, or the file is cut or damaged.
    """
    source = read_source(path)
    hessians = list(_HESSIANS.finditer(source.text))
    if not hessians:
        raise _no_hessian(source)
    last = hessians[-1]
    frame = _frame(source, last)
    atoms, positions, at = _geometry(source, frame)
    matrix, _ = column_blocks(source, source.line_of(last.end()), 3 * len(atoms), last.group(1))
    yield _record(source, last, atoms, positions, at, matrix)


def _no_hessian(source: Source) -> Exception:
    fatal = re.search(r"^ *Q-Chem fatal error.*\n\s*\n?(.*)$", source.text, re.MULTILINE)
    if fatal:
        return source.error(f"the Q-Chem job failed: {fatal.group(1).strip()[:100]}", source.line_of(fatal.start()))
    if "Thank you very much for using Q-Chem" not in source.text:
        return source.error("the Q-Chem job did not end, and there is no Hessian in the file")
    hint = (
        "only the mass-weighted Hessian is printed"
        if "Mass-Weighted Hessian Matrix" in source.text
        else "Q-Chem prints none at this print level"
    )
    return source.error(
        f"no Cartesian Hessian in this file: {hint}; convert the .fchk of the job (GUI = 2) or set VIBMAN_PRINT = 7",
        kind=NoHessianError,
    )


def _frame(source: Source, hessian: re.Match[str]) -> re.Match[str]:
    """Find the geometry of a Hessian: the last one before it; after differences of gradients the next one.

    A numerical job prints its displaced geometries before `Final Hessian.` and the undisplaced one
    again behind it, ahead of the vibrational analysis.
    """
    frames = list(_GEOMETRY.finditer(source.text))
    before = [frame for frame in frames if frame.start() < hessian.start()]
    if hessian.group(1).startswith("Final"):
        analysis = source.text.find("VIBRATIONAL ANALYSIS", hessian.end())
        behind = [frame for frame in frames if hessian.end() < frame.start() < analysis]
        if not behind:
            raise source.error(
                "expected the geometry and the vibrational analysis behind 'Final Hessian.', found none: the file is "
                "cut, and the geometry before it is a displaced one",
                source.line_of(hessian.start()),
            )
        return behind[0]
    if not before:
        raise source.error("expected a 'Standard Nuclear Orientation' before the Hessian, found none")
    return before[-1]


def _geometry(source: Source, frame: re.Match[str]) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.float64], int]:
    first = source.line_of(frame.start()) + 2  # title, column names, rule
    atoms, rows = [], []
    at = first
    while at < len(source.lines):
        tokens = source.lines[at].split()
        if len(tokens) != 5 or not tokens[0].isdigit():
            break
        atoms.append(atomic_number(tokens[1]))
        rows.append(numbers(" ".join(tokens[2:]), source, at + 1, 3, "Standard Nuclear Orientation"))
        at += 1
    if not atoms:
        raise source.error("Standard Nuclear Orientation: no atoms; the file is cut or damaged", first)
    factor = BOHR if frame.group(1) == "Bohr" else 1.0
    return np.array(atoms), np.array(rows) * factor, first


def _record(
    source: Source,
    hessian: re.Match[str],
    atoms: npt.NDArray[np.int_],
    positions: npt.NDArray[np.float64],
    frame_line: int,
    matrix: npt.NDArray[np.float64],
) -> LabelledGeometry:
    before, behind = source.text[: hessian.start()], source.text[hessian.end() :]
    analytic = hessian.group(1).startswith("Hessian")
    # After differences of gradients the energies printed last are those of displaced geometries.
    energies = re.findall(r"^ *Total energy in the final basis set =\s+(\S+)", before, re.MULTILINE)
    energy = float(energies[-1]) if analytic and energies else _energy_behind(behind)
    molecules = re.findall(r"^\$molecule\s*\n\s*(-?\d+)\s+(\d+)\s*$", source.text, re.MULTILINE | re.IGNORECASE)
    charge, multiplicity = (int(molecules[-1][0]), int(molecules[-1][1])) if molecules else (None, None)
    printed = re.findall(r"^ *Atom +(\d+) Element +\S+ +Has Mass +(\S+)", behind, re.MULTILINE)[: len(atoms)]
    masses = unrounded_masses(np.array([float(m) for _, m in printed]), atoms) if len(printed) == len(atoms) else None
    angstrom = source.lines[frame_line - 2].find("Bohr") < 0
    conversions = atomic_conversions(energy=energy is not None, forces=False)
    if angstrom:
        conversions["positions"] = ("angstrom", 1.0)
    return LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions,
        hessian=matrix * ATOMIC_UNITS["hessian"][1],
        energy=None if energy is None else energy * ATOMIC_UNITS["energy"][1],
        charge=charge,
        multiplicity=multiplicity,
        masses=isotopic_masses(atoms) if masses is None else masses,
        frequencies=_frequencies(source, behind),
        frequencies_projected=True,
        label=stem(source.path),
        level=_level(source.text, analytic),
        provenance=provenance(
            source,
            NAME,
            conversions,
            hessian=matrix * ATOMIC_UNITS["hessian"][1],
            line=source.line_of(hessian.start()),
            masses_from="file" if masses is not None else "convention: most abundant isotopes",
        ),
    )


def _energy_behind(text: str) -> float | None:
    part = text[: max(text.find("VIBRATIONAL ANALYSIS"), 0)]
    found = re.findall(r"^ *Total energy in the final basis set =\s+(\S+)", part, re.MULTILINE)
    return float(found[-1]) if found else None


def _frequencies(source: Source, text: str) -> npt.NDArray[np.float64] | None:
    rows = re.findall(r"^ *Frequency:(.*)$", text, re.MULTILINE)
    return np.sort(numbers(" ".join(rows), source, 1, None, "printed frequencies")) if rows else None


def _level(text: str, analytic: bool) -> LevelOfTheory:
    def option(*names: str) -> str | None:
        for name in names:
            found = re.findall(rf"^ *{name}\s*=?\s+([^\s!]+)", text, re.MULTILINE | re.IGNORECASE)
            if found:
                return str(found[-1])
        return None

    exchange, correlation = option("exchange"), option("correlation")
    correlation = None if correlation is None or correlation.lower() == "none" else correlation
    method = option("method") or (f"{exchange}-{correlation}" if exchange and correlation else exchange or correlation)
    version = re.search(r"^ *Q-Chem (\d\S*) for ", text, re.MULTILINE) or re.search(r"^ *Q-Chem (\d\S*?),", text, re.M)
    dispersion, solvent = option("dft_d"), option("solvent_method")
    return LevelOfTheory(
        method=method or "unknown",
        basis=option("basis"),
        dispersion=None if dispersion is None or dispersion.lower() in ("0", "false", "off") else dispersion,
        solvation=None if solvent is None or solvent.lower() in ("0", "none", "false") else solvent,
        program="Q-Chem",
        program_version=version.group(1) if version else None,
        hessian="analytic" if analytic else "finite_difference",
    )
