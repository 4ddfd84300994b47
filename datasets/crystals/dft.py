"""Density-functional theory with ABINIT: geometries in, energies, forces and stress out.

The program is called as a process of its own, with the norm-conserving pseudopotentials that Debian's `abinit-data`
installs (Troullier-Martins, local density approximation, Teter-Pade form).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from nequip_hessian.errors import EngineError
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR

Array = npt.NDArray[np.float64]

PSEUDOPOTENTIALS = Path(os.environ.get("ABINIT_PSPDIR", "/usr/share/abinit/psp")) / "PseudosTM_pwteter"
FORCE_TOLERANCE = 5e-7  # hartree/bohr, change of the forces between two iterations
_SETTINGS = """\
nstep 60 toldff {tolerance} ecut {cutoff} ecutsm 0.5 nband {bands}
ngkpt {mesh} nshiftk {shifts}
shiftk {shift}
optforces 1 optstress 1 prtwf 0 prteig 0 prtebands 0 prtgsr 0 chkprim 0
"""


@dataclass(frozen=True)
class Answer:
    """Energy, eV; forces (N, 3), eV/angstrom; stress (3, 3), eV/angstrom^3, tension positive, as in ASE."""

    energy: float
    forces: Array
    stress: Array


def run(
    geometries: Sequence[Atoms], folder: Path, *, cutoff: float, electrons: int, mesh: str, shifts: str
) -> list[Answer]:
    """Calculate geometries of one composition in one process; each starts from the density of the first.

    Args:
        geometries: same atoms in the same order, angstrom
        folder: where the program works
        cutoff: of the plane waves, hartree; electrons: valence electrons of the cell
        mesh: Monkhorst-Pack divisions, `2 2 2`; shifts: rows of three numbers, one row a shifted mesh

    Raises:
        EngineError: the program is missing, failed, or did not converge.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = _input(geometries, cutoff=cutoff, bands=electrons // 2, mesh=mesh, shifts=shifts)
    (folder / "run.abi").write_text(text, encoding="utf-8")
    for old in folder.glob("run.abo*"):
        old.unlink()
    try:
        with (folder / "log").open("w") as log:
            subprocess.run(["abinit", "run.abi"], cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=False)
    except FileNotFoundError:
        raise EngineError("abinit: not found; on Debian: apt-get install abinit abinit-data") from None
    finally:
        for big in (*folder.glob("*_DEN*"), *folder.glob("*_WFK*"), *folder.glob("*.nc")):
            big.unlink()
    return _parse(folder / "run.abo", geometries)


def _input(geometries: Sequence[Atoms], *, cutoff: float, bands: int, mesh: str, shifts: str) -> str:
    first = geometries[0]
    kinds = sorted(set(first.numbers.tolist()))
    names = ", ".join(f"{z}{chemical_symbols[z].lower()}.pspnc" for z in kinds)
    lines = [f'pp_dirpath "{PSEUDOPOTENTIALS}"', f'pseudos "{names}"', f"ndtset {len(geometries)}"]
    lines.append(f"natom {len(first)} ntypat {len(kinds)} znucl {' '.join(map(str, kinds))}")
    lines.append("typat " + " ".join(str(kinds.index(z) + 1) for z in first.numbers.tolist()))
    for k, atoms in enumerate(geometries, start=1):
        lines.append(f"acell{k} 1 1 1\nrprim{k}\n{_rows(np.asarray(atoms.cell) / BOHR)}")
        lines.append(f"xred{k}\n{_rows(atoms.get_scaled_positions(wrap=False))}")
        lines.append(f"prtden{k} {int(k == 1 and len(geometries) > 1)}" + (f" getden{k} 1" if k > 1 else ""))
    shift_rows = shifts.strip().splitlines()
    settings = {"tolerance": FORCE_TOLERANCE, "cutoff": cutoff, "bands": bands, "mesh": mesh}
    return "\n".join(lines) + "\n" + _SETTINGS.format(**settings, shifts=len(shift_rows), shift=shifts.strip())


def _rows(values: Array) -> str:
    return "\n".join(" ".join(f"{value:.14f}" for value in row) for row in values)


def _parse(path: Path, geometries: Sequence[Atoms]) -> list[Answer]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    _, found, echo = text.rpartition("-outvars: echo values of variables after computation")
    if not found or "Calculation completed" not in text:
        raise EngineError(f"{path}: ABINIT did not finish; its messages are in {path.parent / 'log'}")
    if "nstep=" in text and "was not enough SCF cycles" in text:
        raise EngineError(f"{path}: the density did not converge")
    answers = []
    for k, atoms in enumerate(geometries, start=1):
        suffix = str(k) if len(geometries) > 1 else "1?"
        energy = _block(echo, f"etotal{suffix}", 1)[0] * HARTREE
        forces = _block(echo, f"fcart{suffix}", 3 * len(atoms)).reshape(-1, 3) * HARTREE_PER_BOHR
        xx, yy, zz, yz, xz, xy = _block(echo, f"strten{suffix}", 6) * HARTREE / BOHR**3
        answers.append(Answer(energy, forces, np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])))
    return answers


def _block(text: str, name: str, count: int) -> Array:
    number = r"[-+]?\d+\.\d+(?:E[-+]?\d+)?"
    match = re.search(rf"\s{name}((?:\s+{number}){{{count}}})\s", text)
    if match is None:
        raise EngineError(f"ABINIT's output: expected {count} numbers of {name}, found none")
    return np.array(match.group(1).split(), dtype=np.float64)


def valence(atoms: Atoms) -> int:
    """Valence electrons of the pseudopotentials; another element's number belongs into the table below."""
    return sum(_VALENCE[z] for z in atoms.numbers.tolist())


_VALENCE = {atomic_numbers[s]: n for s, n in {"C": 4, "Na": 1, "Si": 4, "Cl": 7}.items()}
