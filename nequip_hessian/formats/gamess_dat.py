"""GAMESS punch files (.dat, PUNCH) with a `$HESS` group; Firefly's too.

The full square in Eh/a0^2: lines of row number (two digits, so it starts anew at
100), line number and five numbers of fifteen characters that touch. Groups that
say APPROXIMATE are guesses of an optimisation and never read; the last other one
counts. Geometry, masses and labels come from the output beside the file, else the
geometry from `$DATA`; then the nuclear repulsion energy in `$HESS` shows whether the
geometry, and its unit, is that of the Hessian.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import gamess_out
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, record_of, sources_beside
from nequip_hessian.formats._source import Source, guarded, numbers, read_output
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR

NAME = "gamess-dat"
PATTERNS = ("*.dat", "PUNCH", "*.pun", "*.PUNCH")

FloatArray = npt.NDArray[np.float64]
_GROUP: Final = re.compile(r"^ \$HESS *\n(.*)\n", re.M)
_GRAD: Final = re.compile(r"^ \$GRAD *\nE= +(-?\d+\.\d+).*\n((?:\S+ .*\n)+) \$END", re.M)
_PRINTED: Final = 2e-6  # Eh/a0^2, to which an output shows the same matrix
_REPULSION: Final = 1e-5  # of the nuclear repulsion energy


def sniff(text: str) -> bool:
    """Say whether a file looks like a punch file of GAMESS."""
    groups = any(f"\n ${name}" in text or text.startswith(f" ${name}") for name in ("HESS", "VEC", "GRAD"))
    return groups and not gamess_out.sniff(text)


@guarded("GAMESS punch file")
def read_gamess_dat(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last true `$HESS` group of a GAMESS punch file.

    Args:
        path: the file; the output of the job is looked for in its folder

    Yields:
        One record.

    Raises:
        NoHessianError: there is no such group.
        FormatError: cut or damaged, or there is no geometry that belongs to the Hessian.
    """
    source = read_output(path)
    groups = [group for group in _GROUP.finditer(source.text) if not _approximate(source.text, group)]
    if not groups:
        raise source.error(
            "no Hessian in this file: there is no $HESS group, or only those of APPROXIMATE Hessians",
            kind=NoHessianError,
        )
    group = groups[-1]
    matrix = _matrix(source, group)
    facts = re.search(r"ENERGY IS +(-?\d+\.\d+) +E\(NUC\) IS +(-?\d+\.\d+)", group.group(1))
    energy, repulsion = (float(facts.group(1)), float(facts.group(2))) if facts else (None, None)
    parsed = _companion(source, matrix) or _data(source, matrix, repulsion)
    yield record_of(
        source,
        NAME,
        replace(
            parsed,
            hessian=matrix,
            energy=energy or parsed.energy,
            gradient=_gradient(source, group, parsed, energy),
            line=source.line_of(group.start()),
        ),
    )


def _approximate(text: str, group: re.Match[str]) -> bool:
    return "APPROX" in text[max(0, group.start() - 200) : group.end()].upper()


def _matrix(source: Source, group: re.Match[str]) -> FloatArray:
    first = source.line_of(group.end())
    rows: list[list[str]] = []
    at = first
    while at <= len(source.lines) and not source.lines[at - 1].strip().startswith("$END"):
        line = source.lines[at - 1]
        label, card = line[:2].strip(), line[2:5].strip()
        if card == "1":
            rows.append([])
        if not rows or label != str(len(rows) % 100) or not card.isdigit():
            raise source.error(f"$HESS: expected a line of row {len(rows) or 1}; the file is damaged", at)
        fields = line[5:].rstrip()
        rows[-1] += [fields[i : i + 15] for i in range(0, len(fields), 15)]
        at += 1
    if at > len(source.lines):
        raise source.error("$HESS: expected $END, found the end of the file; the file is cut", first)
    order = len(rows)
    if order % 3 or not order:
        raise source.error(f"$HESS: expected 3N rows, found {order}; the file is damaged", first)
    values = [numbers(" ".join(row), source, first, order, f"$HESS, row {i}") for i, row in enumerate(rows, 1)]
    return np.array(values)


def _fits(parsed_atoms: npt.NDArray[np.int_], positions: FloatArray, repulsion: float | None) -> bool:
    """Say whether the nuclear repulsion of positions (a0) is that of the group; True where it names none."""
    if repulsion is None or len(parsed_atoms) < 2:
        return True
    i, j = np.triu_indices(len(positions), 1)
    distances = np.linalg.norm(positions[i] - positions[j], axis=1)
    value = float(np.sum(parsed_atoms[i] * parsed_atoms[j] / distances))
    return abs(value - repulsion) < _REPULSION * abs(repulsion)


def _companion(source: Source, matrix: FloatArray) -> Parsed | None:
    """Read the output of the job: the one that prints the same matrix, with fewer digits."""
    for output in sources_beside(source.path, (".out", ".log", ".gamout", ".gms")):
        if not gamess_out.sniff(output.text):
            continue
        try:
            parsed = gamess_out.parse(output)
        except FormatError:
            continue
        if parsed is None or parsed.hessian.shape != matrix.shape:
            continue
        if np.max(np.abs(parsed.hessian - matrix)) < _PRINTED:
            return replace(parsed, companions=(output,))
    return None


def _data(source: Source, matrix: FloatArray, repulsion: float | None) -> Parsed:
    """Take the geometry from `$DATA`, which lists all atoms only where there is no symmetry."""
    begin = source.text.find("$DATA")
    end = source.text.find("$END", begin)
    found = re.findall(
        r"^ ?([A-Za-z]\S*) +(\d+\.?\d*) +(-?\d+\.\d+) +(-?\d+\.\d+) +(-?\d+\.\d+) *$", source.text[begin:end], re.M
    )
    atoms = np.array([round(float(row[1])) for row in found], dtype=int)
    values = np.array([row[2:] for row in found], dtype=np.float64).reshape(-1, 3)
    if begin >= 0 and 3 * len(atoms) == len(matrix) and repulsion is not None and min(atoms, default=0) > 0:
        for factor in (1 / BOHR, 1.0):
            if _fits(atoms, values * factor, repulsion):
                return Parsed(
                    atoms,
                    values * factor,
                    matrix,
                    masses_from=ISOTOPIC,
                    level=LevelOfTheory("unknown", program="GAMESS"),
                )
    raise source.error(
        f"expected the geometry of the {len(matrix) // 3} atoms of the Hessian, but $DATA has {len(atoms)} atoms "
        "(only those unique by symmetry, or another geometry); put the output (.out) of the job beside this file"
    )


def _gradient(source: Source, group: re.Match[str], parsed: Parsed, energy: float | None) -> FloatArray | None:
    """Take the `$GRAD` group of the same energy: it has more digits than the output."""
    found = list(_GRAD.finditer(source.text[: group.start()]))
    if not found or energy is None or abs(float(found[-1].group(1)) - energy) > 1e-9:
        return parsed.gradient
    rows = [line[-60:].split() for line in found[-1].group(2).strip("\n").split("\n")]
    if len(rows) != len(parsed.atoms):
        return parsed.gradient
    return np.array([numbers(" ".join(row[-3:]), source, 1, 3, "$GRAD") for row in rows])
