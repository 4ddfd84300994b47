"""A record from what an output in atomic units holds: units, masses and provenance in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses_legacy

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._atoms import average_masses, isotopic_masses
from nequip_hessian.formats._source import ATOMIC_UNITS, Source, atomic_conversions, provenance, read_output, stem
from nequip_hessian.record import UNKNOWN_LEVEL, LabelledGeometry, LevelOfTheory
from nequip_hessian.units import DEBYE

FloatArray = npt.NDArray[np.float64]
ISOTOPIC: Final = "convention: most abundant isotopes"
AVERAGE: Final = "convention: standard atomic weights"
_LARGEST_COMPANION: Final = 100_000_000  # bytes


@dataclass(frozen=True)
class Parsed:
    """What was read; atomic units unless said otherwise.

    Attributes:
        atoms: (N,) atomic numbers
        positions: (N, 3), in `length`
        hessian: (3N, 3N), Eh/a0^2
        length: `a0` or `angstrom`
        energy: Eh; gradient: (N, 3), Eh/a0
        masses: (N,), u, or None for the convention `masses_from`
        frequencies: cm^-1, imaginary negative; exact zeros are left out
        dipole: (3N, 3), in `dipole_unit`, `e` or `debye/angstrom`; row 3*atom + xyz, column dipole component
    """

    atoms: npt.NDArray[np.int_]
    positions: FloatArray
    hessian: FloatArray
    length: str = "a0"
    energy: float | None = None
    gradient: FloatArray | None = None
    charge: int | None = None
    multiplicity: int | None = None
    masses: FloatArray | None = None
    masses_from: str = "file"
    frequencies: FloatArray | None = None
    projected: bool | None = None
    dipole: FloatArray | None = None
    dipole_unit: str = "e"
    level: LevelOfTheory = UNKNOWN_LEVEL
    line: int | None = None
    companions: tuple[Source, ...] = ()


def record_of(source: Source, name: str, parsed: Parsed, **more: Any) -> LabelledGeometry:
    """Convert to the units of the package and describe where the numbers came from.

    Args:
        source: the file that holds the Hessian
        name: name of the format
        parsed: what was read
        more: further fields of the record
    """
    conversions = atomic_conversions(energy=parsed.energy is not None, forces=parsed.gradient is not None)
    if parsed.length == "angstrom":
        conversions["positions"] = ("angstrom", 1.0)
    if parsed.dipole is not None:
        conversions["dipole_derivatives"] = (
            parsed.dipole_unit,
            {"e": 1.0, "debye/angstrom": DEBYE}[parsed.dipole_unit],
        )
    masses = parsed.masses
    if masses is None:
        masses = (average_masses if parsed.masses_from == AVERAGE else isotopic_masses)(parsed.atoms)
    values = parsed.frequencies
    if values is not None:
        values = np.sort(values[values != 0.0])
        values = values if len(values) else None
    return LabelledGeometry(
        numbers=np.asarray(parsed.atoms).astype(np.uint8),
        positions=parsed.positions * conversions["positions"][1],
        hessian=parsed.hessian * ATOMIC_UNITS["hessian"][1],
        energy=None if parsed.energy is None else parsed.energy * ATOMIC_UNITS["energy"][1],
        forces=None if parsed.gradient is None else parsed.gradient * ATOMIC_UNITS["forces"][1],
        charge=parsed.charge,
        multiplicity=parsed.multiplicity,
        masses=masses,
        frequencies=values,
        dipole_derivatives=None if parsed.dipole is None else parsed.dipole * conversions["dipole_derivatives"][1],
        frequencies_projected=None if values is None else parsed.projected,
        label=stem(source.path),
        level=parsed.level,
        provenance=provenance(
            source,
            name,
            conversions,
            hessian=parsed.hessian * ATOMIC_UNITS["hessian"][1],
            line=parsed.line,
            masses_from=parsed.masses_from,
            companions=[companion.facts() for companion in parsed.companions] or None,
        ),
        **more,
    )


def recognised_masses(printed: FloatArray, atoms: npt.NDArray[np.int_], decimals: int) -> FloatArray:
    """Replace masses printed to a few decimals by the tabulated ones that they are the rounding of.

    Args:
        printed: (N,), u
        atoms: (N,), atomic numbers
        decimals: digits behind the point

    Returns:
        (N,), u: most abundant isotope, standard atomic weight of today or of 1999, where one rounds (or was
        cut) to what is printed; else as printed.
    """
    unit = 10.0**-decimals
    exact = np.asarray(printed, dtype=np.float64)
    legacy = np.asarray(atomic_masses_legacy[np.asarray(atoms, dtype=int)], dtype=np.float64)
    tables = (legacy, average_masses(atoms), isotopic_masses(atoms))
    result = np.array(exact)
    for table in tables:  # cut off, not rounded
        result = np.where((table >= exact) & (table < exact + 0.999 * unit), table, result)
    for table in tables:  # rounded, which is the likelier
        result = np.where(np.abs(table - exact) < 0.5001 * unit, table, result)
    return result


def files_beside(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """List the files of the same folder that could be companions of a file, the most likely first.

    Args:
        path: the file
        suffixes: endings, in lower case; `""` for none

    Returns:
        Regular files of at most 100 MB; those whose name shares its beginning with the file come first.
    """

    def common(other: Path) -> int:
        pairs = zip(path.name.lower(), other.name.lower(), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(path.name), len(other.name)))

    found = []
    for other in sorted(path.parent.iterdir()):
        fits = other.suffix.lower() in suffixes and other != path and other.is_file()
        if fits and other.stat().st_size <= _LARGEST_COMPANION:
            found.append(other)
    return sorted(found, key=lambda other: (-common(other), other.name))


def sources_beside(path: Path, suffixes: Sequence[str]) -> list[Source]:
    """Read the files of `files_beside` that are text; what cannot be read is left out."""
    sources = []
    for other in files_beside(path, suffixes):
        try:
            sources.append(read_output(other))
        except FormatError:
            continue
    return sources
