"""Make the labels: `python datasets/crystals/calculate.py [crystal ...]`.

One JSON file a job in journal/CRYSTAL: the geometry, the displacements, and energy, forces and stress of each. A
job that is there is not done again, so that a run that was stopped goes on where it was. Needs ABINIT and phonopy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dft
import numpy as np
from ase import Atoms
from crystals import (
    CRYSTALS,
    RATTLED,
    RATTLED_HESSIAN,
    SCAN,
    VOLUMES,
    Crystal,
    conventional,
    primitive,
    rattled,
    sheared,
)
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from tqdm import tqdm

from nequip_hessian.curvature import SECOND_ORDER, displaced
from nequip_hessian.errors import HessianDataError

HERE = Path(__file__).parent
DISPLACEMENT = 0.02  # angstrom
FACES = ".5 .5 .5\n.5 0 0\n0 .5 0\n0 0 .5"
MESHES = {  # of k-points: (divisions, shifts)
    "scan": ("4 4 4", FACES),
    "cubic": ("2 2 2", ".5 .5 .5"),
    "supercell": ("2 2 2", "0 0 0"),
}


def phonopy_of(unit: Atoms, supercell: int) -> Any:
    """A phonopy calculation of a unit cell, with its irreducible displacements."""
    cell = PhonopyAtoms(numbers=unit.numbers, positions=unit.positions, cell=np.asarray(unit.cell))
    phonon = Phonopy(cell, supercell * np.eye(3, dtype=int), np.eye(3), symprec=1e-4, log_level=0)
    phonon.generate_displacements(distance=DISPLACEMENT)
    return phonon


def atoms_of(cell: Any) -> Atoms:
    """Turn a phonopy cell into ASE's."""
    return Atoms(cell.numbers, cell.positions, cell=cell.cell, pbc=True)


def jobs(crystal: Crystal, folder: Path) -> Iterator[tuple[str, str, list[Atoms], dict[str, Any]]]:
    """Name, mesh, geometries and further facts of each job; those after the scan need its lattice constant."""
    yield "scan", "scan", [primitive(crystal, scale * crystal.length) for scale in SCAN], {}
    length = lattice_constant(json.loads((folder / "scan.json").read_text()))
    cells = {f"volume{100 * s:+.1f}": conventional(crystal, (1 + s) * length) for s in VOLUMES}
    cells |= sheared(crystal, length)
    for name, cell in cells.items():
        phonon = phonopy_of(cell, 1)
        moved = [atoms_of(s) for s in phonon.supercells_with_displacements]
        yield name, "cubic", [atoms_of(phonon.supercell), *moved], {"unit": "conventional", "supercell": 1}
    for count, deviation in enumerate(RATTLED):
        yield f"rattled-{count}", "cubic", [rattled(crystal, length, count, deviation)], {}
    phonon = phonopy_of(primitive(crystal, length), 2)
    moved = [atoms_of(s) for s in phonon.supercells_with_displacements]
    yield "supercell", "supercell", [atoms_of(phonon.supercell), *moved], {"unit": "primitive", "supercell": 2}


def last_jobs(crystal: Crystal, folder: Path) -> Iterator[tuple[str, str, list[Atoms], dict[str, Any]]]:
    """A rattled cell with all its displacements, the dearest job."""
    length = lattice_constant(json.loads((folder / "scan.json").read_text()))
    start = rattled(crystal, length, len(RATTLED), RATTLED_HESSIAN)
    moved = []
    for positions in displaced(start.positions, DISPLACEMENT, SECOND_ORDER):
        moved.append(start.copy())
        moved[-1].positions = positions
    yield "rattled-hessian", "cubic", [start, *moved], {}


def lattice_constant(scan: dict[str, Any]) -> float:
    """Length of least energy of a cubic polynomial through a scan, angstrom."""
    lengths = [2 * abs(cell["cell"][0][1]) for cell in scan["calculations"]]
    energies = [cell["energy"] for cell in scan["calculations"]]
    fit = np.polynomial.Polynomial.fit(lengths, energies, 3)
    roots = [float(r.real) for r in fit.deriv().roots() if abs(r.imag) < 1e-9 and fit.deriv(2)(r.real) > 0]
    if len(roots) != 1 or not min(lengths) < roots[0] < max(lengths):
        raise HessianDataError(f"scan: no minimum between {min(lengths):.3f} and {max(lengths):.3f} angstrom")
    return roots[0]


def calculate(crystal: Crystal, name: str, mesh: str, geometries: list[Atoms], facts: dict[str, Any]) -> dict[str, Any]:
    """Run one job and return what goes into the journal."""
    divisions, shifts = MESHES[mesh]
    with tempfile.TemporaryDirectory() as work:
        answers = dft.run(
            geometries,
            Path(work),
            cutoff=crystal.cutoff,
            electrons=dft.valence(geometries[0]),
            mesh=divisions,
            shifts=shifts,
        )
    calculations = [
        {
            "cell": np.asarray(atoms.cell).tolist(),
            "positions": atoms.positions.tolist(),
            "energy": answer.energy,
            "forces": np.round(answer.forces, 9).tolist(),
            "stress": np.round(answer.stress, 12).tolist(),
        }
        for atoms, answer in zip(geometries, answers, strict=True)
    ]
    head = {"crystal": crystal.name, "job": name, "cutoff_hartree": crystal.cutoff, "mesh": mesh, **facts}
    return {**head, "numbers": geometries[0].numbers.tolist(), "calculations": calculations}


def main() -> int:
    """Do what is not in the journal yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", nargs="*", metavar="crystal", help="default: all")
    parser.add_argument("--journal", type=Path, default=HERE / "journal")
    parser.add_argument("--dearest", action="store_true", help="only the Hessians of rattled cells")
    args = parser.parse_args()
    chosen = [crystal for crystal in CRYSTALS if not args.crystals or crystal.name in args.crystals]
    for crystal in tqdm(chosen, disable=None):
        folder = args.journal / crystal.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, mesh, geometries, facts in (last_jobs if args.dearest else jobs)(crystal, folder):
            target = folder / f"{name}.json"
            if target.exists():
                continue
            try:
                found = calculate(crystal, name, mesh, geometries, facts)
            except HessianDataError as exc:
                sys.exit(f"calculate.py: {crystal.name}: {name}: {exc}")
            unfinished = target.with_suffix(".tmp")
            unfinished.write_text(json.dumps(found), encoding="utf-8")
            unfinished.replace(target)
            print(f"{crystal.name}: {name}, {len(geometries)} calculations", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
