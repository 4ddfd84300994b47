"""Normal modes as files for viewers: Molden, and XYZ with displacement columns for Jmol and its kin.

Both hold all modes in one file; the animations, one file a mode, are written by `report.single`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.units import BOHR

Array = npt.NDArray[np.floating[Any]]


def molden_text(atoms: Atoms, wavenumbers: Array, displacements: Array, intensities: Array | None = None) -> str:
    """Return a Molden file with geometry, frequencies and normal modes.

    Args:
        atoms: geometry, angstrom
        wavenumbers: (m,), cm^-1, imaginary negative, as the format has them
        displacements: (m, N, 3) Cartesian modes, any norm
        intensities: (m,), km/mol
    """
    bohr = atoms.positions / BOHR
    symbols = atoms.get_chemical_symbols()
    lines = ["[Molden Format]", "[Atoms] Angs"]
    for index, (symbol, number, r) in enumerate(zip(symbols, atoms.numbers, atoms.positions, strict=True), 1):
        lines.append(f"{symbol} {index} {number} {r[0]:.8f} {r[1]:.8f} {r[2]:.8f}")
    lines += ["[FREQ]", *(f"{value:.4f}" for value in wavenumbers)]
    if intensities is not None:
        lines += ["[INT]", *(f"{value:.4f}" for value in intensities)]
    lines.append("[FR-COORD]")
    lines += [f"{symbol} {r[0]:.8f} {r[1]:.8f} {r[2]:.8f}" for symbol, r in zip(symbols, bohr, strict=True)]
    lines.append("[FR-NORM-COORD]")
    for index, mode in enumerate(displacements, 1):
        lines.append(f"vibration {index}")
        lines += [f"{d[0]:.8f} {d[1]:.8f} {d[2]:.8f}" for d in mode]
    return "\n".join(lines) + "\n"


def jmol_text(atoms: Atoms, wavenumbers: Array, displacements: Array, intensities: Array | None = None) -> str:
    """Return XYZ frames, one a mode: symbol, position (angstrom) and displacement of each atom; arguments as above."""
    symbols = atoms.get_chemical_symbols()
    lines: list[str] = []
    for index, (value, mode) in enumerate(zip(wavenumbers, displacements, strict=True)):
        strength = "" if intensities is None else f", IR intensity {intensities[index]:.3f} km/mol"
        sign = " (imaginary)" if value < 0 else ""
        lines += [str(len(atoms)), f"mode {index}, {abs(value):.2f} cm^-1{sign}{strength}"]
        for symbol, r, d in zip(symbols, atoms.positions, mode, strict=True):
            lines.append(f"{symbol:2s} " + " ".join(f"{x:13.8f}" for x in (*r, *d)))
    return "\n".join(lines) + "\n"


def write_modes(
    folder: Path, atoms: Atoms, wavenumbers: Array, displacements: Array, intensities: Array | None, prefix: str = ""
) -> list[Path]:
    """Write modes.molden and modes.jmol.xyz into a folder."""
    texts: Sequence[tuple[str, str]] = (
        ("modes.molden", molden_text(atoms, wavenumbers, displacements, intensities)),
        ("modes.jmol.xyz", jmol_text(atoms, wavenumbers, displacements, intensities)),
    )
    written = []
    for name, text in texts:
        written.append(folder / f"{prefix}{name}")
        written[-1].write_text(text, encoding="utf-8")
    return written
