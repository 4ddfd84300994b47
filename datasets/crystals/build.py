"""Journal -> store: `python datasets/crystals/build.py -o out/crystals.zarr`.

Hessians come from the forces of the displaced cells, over the symmetry of the crystal by phonopy; they are stored as
they come, without a sum rule imposed. Stress, which a store does not hold, goes into an extended XYZ file beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress
from calculate import DISPLACEMENT, HERE, lattice_constant, phonopy_of
from crystals import CRYSTALS, Crystal, primitive
from phonopy import Phonopy

from nequip_hessian.curvature import SECOND_ORDER, difference_hessian
from nequip_hessian.errors import HessianDataError
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store import HessianStore, StoreWriter

PARTS = ("train", "val", "test", "test_new", "unused")
GROUP_FOUR = {"Si": None, "C": None, "SiC": "test_new"}  # split `group4`; None: as in `geometry`
GEOMETRY = {  # part of the split `geometry`; other jobs are trained on
    "volume+1.5": "val",
    "rattled-3": "val",
    "volume+0.0": "test",
    "trigonal": "test",
    "supercell": "test",
    "rattled-hessian": "test",
}
ATTRIBUTES = {
    "id": "nequip-hessian-crystals",
    "title": "Force constants of strained crystals, and rattled cells, with density-functional theory",
    "license": "CC0-1.0",
    "dataset_version": "0.1",
}
LEVEL = LevelOfTheory(
    "LDA",
    basis="plane waves, Troullier-Martins pseudopotentials",
    program="ABINIT",
    program_version="9.6.2",
    hessian="finite_difference",
    displacement=DISPLACEMENT,
)


DECIMALS = 8  # of Hessians, eV/angstrom^2: what is below differs from processor to processor


def geometries(job: dict[str, Any]) -> list[Atoms]:
    """Cells of a job's calculations, the first without displacement."""
    return [Atoms(job["numbers"], c["positions"], cell=c["cell"], pbc=True) for c in job["calculations"]]


def hessian_of(job: dict[str, Any], crystal: Crystal, scan: dict[str, Any]) -> dict[str, Any]:
    """Hessian (3N, 3N), eV/angstrom^2, of a job with displacements, and its supercell and primitive matrix.

    Raises:
        HessianDataError: atoms in another order than phonopy's.
    """
    cells = geometries(job)
    forces = np.array([c["forces"] for c in job["calculations"]])
    if job["job"] == "rattled-hessian":
        return {"hessian": rounded(difference_hessian(forces[1:], DISPLACEMENT, SECOND_ORDER))}
    unit = cells[0] if job["supercell"] == 1 else primitive(crystal, lattice_constant(scan))
    phonon = phonopy_of(unit, job["supercell"])
    moved = []
    for cell, force in zip(cells[1:], forces[1:], strict=True):
        apart = (cell.positions - cells[0].positions) @ np.linalg.inv(np.asarray(cell.cell))
        apart = (apart - np.round(apart)) @ np.asarray(cell.cell)
        atom = int(np.argmax(np.linalg.norm(apart, axis=1)))
        # the forces of the strained cell itself are no part of its curvature
        moved.append({"number": atom, "displacement": apart[atom], "forces": force - forces[0]})
    start = (phonon.supercell.positions - cells[0].positions) @ np.linalg.inv(np.asarray(cells[0].cell))
    if np.max(np.abs(start - np.round(start))) > 1e-6:
        raise HessianDataError(f"{crystal.name}: {job['job']}: the journal's atoms are in another order; make it again")
    phonon.dataset = {"natom": len(cells[0]), "first_atoms": moved}
    phonon.produce_force_constants()
    count = len(cells[0])
    matrix = job["supercell"] * np.eye(3, dtype=np.int32)
    own = Phonopy(phonon.unitcell, matrix, "auto", symprec=1e-4, log_level=0)
    return {
        "hessian": rounded(phonon.force_constants).transpose(0, 2, 1, 3).reshape(3 * count, 3 * count),
        "supercell_matrix": matrix,
        "primitive_matrix": np.round(np.asarray(own.primitive_matrix), 12) + 0.0,
    }


def rounded(values: Any) -> Any:
    """The same numbers to DECIMALS, so that a store is the same wherever it is built.

    Many of them end in a half, which would go up on one processor and down on another: a little is added first. No
    zero is negative.
    """
    return np.round(np.asarray(values, dtype=np.float64) + 0.123 * 10.0**-DECIMALS, DECIMALS) + 0.0


def records_of(job: dict[str, Any], crystal: Crystal, scan: dict[str, Any]) -> list[LabelledGeometry]:
    """Labelled geometries of one job: all of a scan, else the first, with its Hessian where it has displacements."""
    name = job["job"]
    taken = job["calculations"] if name == "scan" else job["calculations"][:1]
    further = hessian_of(job, crystal, scan) if len(job["calculations"]) > 1 and name != "scan" else {}
    found = []
    for k, (atoms, answer) in enumerate(zip(geometries(job), taken, strict=False)):
        found.append(
            LabelledGeometry(
                numbers=atoms.numbers,
                positions=atoms.positions,
                cell=np.asarray(atoms.cell),
                pbc=True,
                # another mesh of k-points: its energies do not belong to the others'
                energy=None if name == "supercell" else answer["energy"],
                forces=np.array(answer["forces"]),
                kind="minimum" if name in ("volume+0.0", "supercell") else "displaced",
                group=crystal.name,
                label=f"{crystal.name}/{name}" + (f"-{k}" if name == "scan" else ""),
                level=LEVEL,
                **further,
            )
        )
    return found


def with_stress(job: dict[str, Any]) -> list[Atoms]:
    """Every calculation of a job with energy, forces and stress."""
    frames = []
    for atoms, answer in zip(geometries(job), job["calculations"], strict=True):
        stress = full_3x3_to_voigt_6_stress(np.array(answer["stress"]))
        atoms.calc = SinglePointCalculator(
            atoms, energy=answer["energy"], forces=np.array(answer["forces"]), stress=stress
        )
        atoms.info["job"] = f"{job['crystal']}/{job['job']}"
        frames.append(atoms)
    return frames


def build(journal: Path, output: Path, overwrite: bool = False, stress: Path | None = None) -> HessianStore:
    """Write the store, and the file with stress where it was asked for.

    Raises:
        HessianDataError: no job in the journal, or atoms in another order.
    """
    records: list[LabelledGeometry] = []
    frames: list[Atoms] = []
    splits: dict[str, list[str]] = {"geometry": [], "crystal": [], "group4": []}
    for crystal in CRYSTALS:
        folder = journal / crystal.name
        if not (folder / "scan.json").is_file():
            continue
        scan = json.loads((folder / "scan.json").read_text())
        for path in sorted(folder.glob("*.json")):
            job = json.loads(path.read_text())
            made = records_of(job, crystal, scan)
            records += made
            part = GEOMETRY.get(job["job"], "train")
            splits["geometry"] += [part] * len(made)
            splits["crystal"] += [crystal.part] * len(made)
            splits["group4"] += [GROUP_FOUR.get(crystal.name, "unused") or part] * len(made)
            if job["job"] != "supercell":
                frames += with_stress(job)
    if not records:
        raise HessianDataError(f"{journal}: no job in it; python datasets/crystals/calculate.py makes them")
    with StoreWriter(output, attributes=ATTRIBUTES, overwrite=overwrite) as writer:
        writer.extend(records)
        for scheme, parts in splits.items():
            writer.set_split(scheme, list(PARTS), np.array([PARTS.index(p) for p in parts], dtype=np.int8))
        writer.add_provenance({"routine": "crystals", "jobs": len(records)})
    if stress is not None:
        write(stress, frames, format="extxyz")
    return HessianStore(output)


def table(journal: Path) -> str:
    """Markdown table: lattice constant of each crystal in the journal, and its frequencies at Gamma."""
    lines = ["| crystal | lattice constant / Å | highest frequency at Γ / THz | Hessians | other cells |"]
    lines.append("|---|---|---|---|---|")
    for crystal in CRYSTALS:
        folder = journal / crystal.name
        if not (folder / "volume+0.0.json").is_file():
            continue
        scan = json.loads((folder / "scan.json").read_text())
        job = json.loads((folder / "volume+0.0.json").read_text())
        found = hessian_of(job, crystal, scan)
        count = len(job["numbers"])
        phonon = phonopy_of(geometries(job)[0], 1)
        phonon.force_constants = found["hessian"].reshape(count, 3, count, 3).transpose(0, 2, 1, 3).copy()
        phonon.symmetrize_force_constants(show_drift=False)
        phonon.run_qpoints([[0, 0, 0]])
        top = float(np.max(gamma_of_primitive(phonon, crystal, lattice_constant(scan))))
        jobs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        hessians = sum(len(j["calculations"]) > 1 and j["job"] != "scan" for j in jobs)
        others = sum(len(records_of(j, crystal, scan)) for j in jobs) - hessians
        lines.append(f"| {crystal.name} | {lattice_constant(scan):.3f} | {top:.2f} | {hessians} | {others} |")
    return "\n".join(lines)


def gamma_of_primitive(phonon: Any, crystal: Crystal, length: float) -> Any:
    """Frequencies at Gamma of the primitive cell, THz, from force constants of the conventional cell."""
    conventional = phonon.unitcell
    matrix = np.asarray(Phonopy(conventional, np.eye(3, dtype=int), "auto", log_level=0).primitive_matrix)
    own = Phonopy(conventional, np.eye(3, dtype=int), matrix, log_level=0)
    own.force_constants = np.asarray(phonon.force_constants)
    own.run_qpoints([[0, 0, 0]])
    return own.qpoints.frequencies


def main() -> int:
    """Build, and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the store to write")
    parser.add_argument("--journal", type=Path, default=HERE / "journal", help="default: the one shipped")
    parser.add_argument(
        "--stress", type=Path, metavar="FILE", help="write all calculations with stress as extended XYZ"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    args = parser.parse_args()
    try:
        store = build(args.journal, args.output, args.overwrite, args.stress)
    except HessianDataError as exc:
        print(f"build.py: error: {exc}", file=sys.stderr)
        return 1
    print(table(args.journal))
    for scheme in store.split_schemes:
        codes, parts = store.split(scheme)
        print(f"{scheme}: " + ", ".join(f"{part} {np.sum(codes == code)}" for code, part in enumerate(parts)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
