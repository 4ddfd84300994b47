"""Gaussian and Q-Chem formatted checkpoint files (.fchk, .fch).

Sections are `label (40 columns), type, N= count` lines followed by five reals
or six integers a line. `Cartesian Force Constants` is the row-major lower
triangle in Eh/a0^2, in the frame of `Current cartesian coordinates` (a0).
`Internal Force Constants` are something else and not read. A checkpoint of an
optimisation or an IRC can hold force constants of an earlier geometry; only
the rotational identity shows it (see `nequip_hessian.convert`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import pack, packed_size, unpack
from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._atoms import isotopic_masses
from nequip_hessian.formats._gaussian import level_of_theory
from nequip_hessian.formats._sink import atomic_hessian, write_text
from nequip_hessian.formats._source import (
    ATOMIC_UNITS,
    Source,
    atomic_conversions,
    guarded,
    numbers,
    provenance,
    read_source,
    require_line_end,
    stem,
)
from nequip_hessian.record import LabelledGeometry

NAME = "fchk"
PATTERNS = ("*.fchk", "*.fch", "*.FChk", "*.FCHK")

_HEADER = re.compile(r"^(\S.{39})   ([IRCLH])(?:   N=\s*(\d+)|\s+(\S+))\s*$")


def sniff(text: str) -> bool:
    """Say whether the beginning of a file looks like a formatted checkpoint."""
    return any(_HEADER.match(line) for line in text[:4000].split("\n")[2:12])


class _Sections:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: dict[str, tuple[int, int | None, str | None]] = {}
        for index, line in enumerate(source.lines):
            match = _HEADER.match(line)
            if match:
                label, _, count, value = match.groups()
                self.found[label.strip()] = (index, int(count) if count else None, value)

    def cut(self) -> str | None:
        """Name the last section where lines of it, or the end of its last line, are missing: the file was cut there."""
        label, (index, count, _) = max(self.found.items(), key=lambda item: item[1][0])
        kind = self.source.lines[index][43:44]
        rows = -(-(count or 0) // {"I": 6, "L": 72, "H": 9}.get(kind, 5))
        there = len(self.source.lines) - index - 1 - (not self.source.lines[-1])
        return label if there < rows or self.source.lines[-1] else None

    def array(self, label: str, size: int | None = None) -> npt.NDArray[np.float64] | None:
        if label not in self.found:
            return None
        index, count, _ = self.found[label]
        line = index + 1
        if count is None:
            raise self.source.error(f"{label}: expected a list, found one value", line)
        if size is not None and count != size:
            raise self.source.error(f"{label}: expected {size} numbers for the atoms of this file, found {count}", line)
        rows: list[str] = []
        taken = 0
        for row in self.source.lines[index + 1 :]:
            if taken >= count or _HEADER.match(row):
                break
            rows.append(row)
            taken += len(row.split())
        if index + 1 + len(rows) == len(self.source.lines):
            require_line_end(self.source)  # the section is the last one of the file: is its last number whole?
        return numbers(" ".join(rows), self.source, line + 1, count, label)

    def scalar(self, *labels: str) -> float | None:
        for label in labels:
            if label in self.found and self.found[label][2] is not None:
                index, _, value = self.found[label]
                return float(numbers(str(value), self.source, index + 1, 1, label)[0])
        return None


@guarded("formatted checkpoint")
def read_fchk(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the geometry with its Cartesian force constants from a formatted checkpoint.

    Args:
        path: the .fchk file

    Yields:
        One record; forces are minus `Cartesian Gradient`, frequencies and masses those of the
        `Vib-` sections where the file has them, else the masses under `Real atomic weights`.

    Raises:
        NoHessianError: the file is sound but holds no `Cartesian Force Constants`.
        FormatError: not a formatted checkpoint, cut, or sections that do not fit together.
    """
    source = read_source(path)
    sections = _Sections(source)
    if not sections.found:
        raise source.error("no section of a formatted checkpoint found; expected a .fchk made by formchk")
    cut = sections.cut()
    atoms = sections.array("Atomic numbers")
    if cut is not None and not {"Current cartesian coordinates", "Cartesian Force Constants"} <= set(sections.found):
        raise source.error(f"no Hessian in this file, which is cut in the section {cut!r}: fetch the whole file")
    if atoms is None or "Current cartesian coordinates" not in sections.found:
        raise source.error(
            "expected the sections 'Atomic numbers' and 'Current cartesian coordinates', found a file without "
            "geometry; make it again with formchk"
        )
    if np.any((atoms < 1) | (atoms > 118) | (atoms % 1 != 0)):
        raise source.error(f"Atomic numbers: expected 1 to 118, found {atoms.min():g} to {atoms.max():g}")
    n = len(atoms)
    packed = sections.array("Cartesian Force Constants", packed_size(3 * n))
    if packed is None:
        hint = ": only 'Internal Force Constants', which are not Cartesian" if _internal(sections) else ""
        raise source.error(
            f"no Hessian in this file{hint}; expected 'Cartesian Force Constants' of a frequency job",
            kind=NoHessianError,
        )
    yield _record(source, sections, atoms.astype(int), packed)


def _internal(sections: _Sections) -> bool:
    return "Internal Force Constants" in sections.found


def _record(
    source: Source, sections: _Sections, atoms: npt.NDArray[np.int_], packed: npt.NDArray[np.float64]
) -> LabelledGeometry:
    n = len(atoms)
    positions = sections.array("Current cartesian coordinates", 3 * n)
    gradient = sections.array("Cartesian Gradient", 3 * n)
    dipole = sections.array("Dipole Derivatives", 9 * n)
    energy = sections.scalar("Total Energy", "SCF Energy")
    charge, multiplicity = sections.scalar("Charge"), sections.scalar("Multiplicity")
    masses = sections.array("Vib-AtMass", n)
    if masses is None:
        masses = sections.array("Real atomic weights", n)
    second = source.lines[1] if len(source.lines) > 1 else ""
    program = "Q-Chem" if "Dipole_Data" in sections.found and "Job Status" not in sections.found else "Gaussian"
    version = _version(source, sections)
    conversions = atomic_conversions(energy=energy is not None, forces=gradient is not None)
    facts: dict[str, Any] = {
        "title": source.lines[0].strip() or None,
        "masses_from": "file" if masses is not None else "convention: most abundant isotopes",
    }
    cut, warnings = sections.cut(), []
    if cut is not None:
        warnings = [f"the file is cut in the section {cut!r}, behind the Hessian: fetch the whole file"]
    return LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=np.asarray(positions).reshape(n, 3) * ATOMIC_UNITS["positions"][1],
        hessian=unpack(packed * ATOMIC_UNITS["hessian"][1]),
        forces=None if gradient is None else gradient.reshape(n, 3) * ATOMIC_UNITS["forces"][1],
        energy=None if energy is None else energy * ATOMIC_UNITS["energy"][1],
        charge=None if charge is None else int(charge),
        multiplicity=None if multiplicity is None else int(multiplicity),
        masses=isotopic_masses(atoms) if masses is None else masses,
        dipole_derivatives=None if dipole is None else dipole.reshape(3 * n, 3),
        frequencies=_frequencies(sections),
        frequencies_projected=True if "Vib-E2" in sections.found else None,
        label=stem(source.path),
        level=level_of_theory(second[10:40].strip(), second[40:].strip(), _route(source, sections), program, version),
        provenance=provenance(source, NAME, conversions, warnings=warnings, **facts),
    )


def _frequencies(sections: _Sections) -> npt.NDArray[np.float64] | None:
    values, count = sections.array("Vib-E2"), sections.scalar("Number of Normal Modes")
    if values is None or count is None or count < 1 or len(values) < count:
        return None
    return values[: int(count)]  # the other rows hold reduced masses, force constants, intensities


def _text(source: Source, sections: _Sections, label: str) -> str:
    if label not in sections.found:
        return ""
    index, count, _ = sections.found[label]
    rows = -(-(count or 0) // 5)  # five words of twelve characters a line
    return "".join(line.ljust(60) for line in source.lines[index + 1 : index + 1 + rows]).strip()


def _route(source: Source, sections: _Sections) -> str:
    return _text(source, sections, "Route")


def _version(source: Source, sections: _Sections) -> str | None:
    text = _text(source, sections, "Gaussian Version")
    found = re.search(r"G(\d\d)Rev([A-Z]\.\d+)", text)  # ES64L-G16RevA.03 is what an output calls 16, A.03
    return " ".join(found.groups()) if found else text or None


# -- writing --------------------------------------------------------------------------------


def write_fchk(path: str | Path, record: LabelledGeometry, *, overwrite: bool = False) -> None:
    """Write a formatted checkpoint file with geometry, energy, gradient, Hessian, masses and dipole derivatives.

    Args:
        path: the .fchk file
        record: a molecule with a whole Hessian; a missing label is left out. Masses default to those of the
            most abundant isotopes. There is no wave function in it
        overwrite: replace a file that is there

    Raises:
        FormatError: no whole Hessian, a periodic geometry, or something at `path`.
    """
    hessian = atomic_hessian(record, NAME)
    masses = isotopic_masses(record.numbers) if record.masses is None else record.masses
    n = len(record)
    title = (record.label or record.formula).encode("ascii", "replace").decode()[:72]
    words = [(word or "").encode("ascii", "replace").decode() for word in (record.level.method, record.level.basis)]
    parts = [f"{title}\nFreq      {words[0][:30]:<30s}{words[1][:30]:<30s}\n", _scalar("Number of atoms", n)]
    if record.charge is not None:
        parts.append(_scalar("Charge", record.charge))
    if record.multiplicity is not None:
        parts.append(_scalar("Multiplicity", record.multiplicity))
    if record.charge is not None and record.multiplicity is not None:
        electrons = int(np.sum(record.numbers, dtype=int)) - record.charge
        unpaired = record.multiplicity - 1
        for name, count in (
            ("Number of electrons", electrons),
            ("Number of alpha electrons", (electrons + unpaired) // 2),
            ("Number of beta electrons", (electrons - unpaired) // 2),
        ):
            parts.append(_scalar(name, count))
    parts += [
        _integers("Atomic numbers", record.numbers),
        _reals("Nuclear charges", record.numbers),
        _reals("Current cartesian coordinates", record.positions / ATOMIC_UNITS["positions"][1]),
        _integers("Integer atomic weights", np.round(masses)),
        _reals("Real atomic weights", masses),
    ]
    if record.energy is not None:
        parts.append(_scalar("Total Energy", record.energy / ATOMIC_UNITS["energy"][1]))
    if record.forces is not None and np.all(np.isfinite(record.forces)):
        parts.append(_reals("Cartesian Gradient", record.forces / ATOMIC_UNITS["forces"][1]))
    parts.append(_reals("Cartesian Force Constants", pack(hessian)))
    if record.dipole_derivatives is not None:
        parts.append(_reals("Dipole Derivatives", record.dipole_derivatives))
    write_text(path, "".join(parts), overwrite=overwrite)


def _scalar(label: str, value: float) -> str:
    return f"{label:<43s}I     {value:12d}\n" if isinstance(value, int) else f"{label:<43s}R     {value:22.15E}\n"


def _integers(label: str, values: npt.ArrayLike) -> str:
    flat = np.asarray(values).ravel().astype(int).tolist()
    rows = ("".join(f"{value:12d}" for value in flat[i : i + 6]) for i in range(0, len(flat), 6))
    return f"{label:<43s}I   N={len(flat):12d}\n" + "".join(f"{row}\n" for row in rows)


def _reals(label: str, values: npt.ArrayLike) -> str:
    flat = np.asarray(values, dtype=np.float64).ravel().tolist()
    rows = ("".join(f"{value:16.8E}" for value in flat[i : i + 5]) for i in range(0, len(flat), 5))
    return f"{label:<43s}R   N={len(flat):12d}\n" + "".join(f"{row}\n" for row in rows)
