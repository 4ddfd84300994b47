"""Make the raw labels of the demo: `python datasets/demo/recipe.py --work WORK [reaction ...]`.

Each reaction goes through the stages below, and each stage leaves a file in
WORK, so that a run that was stopped goes on where it was. See README.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import irc
import numpy as np
import raw
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read, write
from ase.io.zmatrix import parse_zmatrix
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS
from sella import Sella
from tblite.ase import TBLite

from nequip_hessian.curvature import normal_modes, rigid_motions
from nequip_hessian.errors import HessianDataError
from nequip_hessian.identities import translation_residual
from nequip_hessian.label.engine import Labels
from nequip_hessian.label.pyscf import PyscfEngine, labels_of, run_scf
from nequip_hessian.label.tblite import TbliteEngine
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import WAVENUMBER

HERE = Path(__file__).parent
ENGINE = PyscfEngine(method="b3lyp", basis="def2-svp", grid_level=3, conv_tol=1e-10)
FMAX = 0.002  # eV/angstrom, stationary points
DISPLACED = {"train": 6, "val": 5, "test": 4}
ON_PATH = {"train": 8, "val": 5, "test": 5}
STATIONARY = (("reactant", "minimum"), ("transition_state", "transition_state"), ("product", "minimum"))
log = logging.getLogger("demo")


class DensityFunctional(Calculator):
    """ASE calculator over the label engine that starts each SCF from the last density."""

    implemented_properties = ("energy", "forces")

    def __init__(self) -> None:
        super().__init__()
        self.density: Any = None

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = tuple(all_changes)
    ) -> None:
        """Energy and forces."""
        super().calculate(atoms, properties, system_changes)
        labels = self.labels(atoms, hessian=False)
        self.results = {"energy": labels.energy, "forces": labels.forces}

    def labels(self, atoms: Atoms, hessian: bool) -> Labels:
        """Energy, forces and, where asked for, the analytic Hessian."""
        geometry = LabelledGeometry(numbers=atoms.numbers, positions=atoms.positions, charge=0, multiplicity=1)
        field = ENGINE.mean_field(geometry)
        run_scf(field, geometry, self.density)
        self.density = field.make_rdm1()
        return labels_of(field, geometry, hessian)


def bonds_of(atoms: Atoms) -> list[str]:
    """Sorted element pairs of the bonded atoms, e.g. ['C-H', 'C-N']."""
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    pairs = ("-".join(sorted((atoms[i].symbol, atoms[j].symbol))) for i, j in zip(first, second, strict=True) if i < j)
    return sorted(pairs)


def xtb_hessian(atoms: Atoms) -> Any:
    """GFN2-xTB Hessian, (3N, 3N) eV/angstrom^2, symmetrised."""
    geometry = LabelledGeometry(numbers=atoms.numbers, positions=atoms.positions, charge=0, multiplicity=1)
    matrix = TbliteEngine().calculate(geometry, hessian=True).hessian
    return (matrix + matrix.T) / 2


def guess_with_xtb(entry: dict[str, Any], target: Path) -> None:
    """Refine the hand-made guess to a GFN2-xTB transition state."""
    atoms = parse_zmatrix(entry["guess"])
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
    optimiser = Sella(atoms, order=1, internal=False, hessian_function=xtb_hessian, logfile=None)
    if not optimiser.run(fmax=0.01, steps=200):
        raise HessianDataError("GFN2-xTB: no transition state in 200 steps")
    matrix = xtb_hessian(atoms)
    waves = normal_modes(matrix, atoms.positions, atoms.get_masses())[0]
    log.info("  GFN2-xTB transition state: %s", np.round(waves[:3], 0))
    write(target, atoms, plain=True)


def find_transition_state(guess: Path, target: Path) -> None:
    """Refine to a transition state of the density functional, from the tight-binding Hessian, and label it."""
    atoms = read(guess)
    atoms.calc = calculator = DensityFunctional()
    optimiser = Sella(atoms, order=1, internal=False, hessian_function=xtb_hessian, logfile=None)
    if not optimiser.run(fmax=FMAX, steps=60):
        raise HessianDataError("no transition state in 60 steps")
    labels = calculator.labels(atoms, hessian=True)
    waves = frequencies(atoms, labels)
    log.info(
        "  transition state: %d steps, %s cm-1, translation %.3f", optimiser.nsteps, np.round(waves[:3], 0), asr(labels)
    )
    if not waves[0] < -50 < waves[1]:
        raise HessianDataError(f"expected one imaginary mode, found {waves[:3]}")
    raw.save(target, atoms, labels, ENGINE)


def asr(labels: Labels) -> float:
    """Residual of the translational identity, eV/angstrom^2."""
    return translation_residual(labels.hessian)


def frequencies(atoms: Atoms, labels: Labels) -> Any:
    """Projected wavenumbers, cm^-1, imaginary negative."""
    matrix = (labels.hessian + labels.hessian.T) / 2
    return normal_modes(matrix, atoms.positions, atoms.get_masses())[0]


def walk_path(state: Path, target: Path) -> None:
    """Follow the intrinsic reaction coordinate down both sides."""
    atoms, labels = raw.load(state)
    calculator = DensityFunctional()

    def surface(positions: Any) -> tuple[float, Any]:
        moved = Atoms(atoms.numbers, positions)
        found = calculator.labels(moved, hessian=False)
        return found.energy, found.forces

    start = irc.PathPoint(0.0, atoms.positions, labels.energy, labels.forces)
    sides = []
    for sign in (1, -1):
        calculator.density = None
        points, hessian = irc.follow(surface, start, labels.hessian, atoms.get_masses(), sign)
        sides.append({"points": [vars(p) for p in points], "hessian": hessian})
        log.info(
            "  side %+d: %d points to s = %.2f, E = %.3f eV",
            sign,
            len(points),
            points[-1].arc,
            points[-1].energy - start.energy,
        )
    raw.dump(target, {"symbols": atoms.get_chemical_symbols(), "sides": sides})


def relax_ends(entry: dict[str, Any], path: Path, folder: Path) -> None:
    """Optimise both ends of the path, decide which is the reactant, and label them."""
    state = json.loads(path.read_text())
    ends = []
    for side in state["sides"]:
        last = side["points"][-1]
        atoms = Atoms(state["symbols"], last["positions"])
        atoms.calc = calculator = DensityFunctional()
        optimiser = BFGS(atoms, logfile=None)
        optimiser.H0 = positive(np.array(side["hessian"]), atoms)
        if not optimiser.run(fmax=FMAX, steps=80):
            raise HessianDataError(f"minimum not reached in 80 steps, fmax {np.abs(atoms.get_forces()).max():.4f}")
        labels = calculator.labels(atoms, hessian=True)
        waves = frequencies(atoms, labels)
        log.info(
            "  minimum: %d steps, %s cm-1, translation %.3f, %s",
            optimiser.nsteps,
            np.round(waves[:2], 0),
            asr(labels),
            bonds_of(atoms),
        )
        if waves[0] < 0:
            raise HessianDataError(f"a minimum with an imaginary mode: {waves[:3]}")
        ends.append((atoms, labels, last["arc"]))
    i, j = entry["far"]
    ends.sort(key=lambda end: -end[0].get_distance(i, j))
    for (atoms, labels, arc), role, bonds in zip(ends, ("reactant", "product"), entry["bonds"], strict=True):
        if bonds_of(atoms) != sorted(bonds):
            raise HessianDataError(f"{role}: expected the bonds {bonds}, found {bonds_of(atoms)}")
        raw.save(folder / f"{role}.json", atoms, labels, ENGINE, side=int(np.sign(arc)))


def positive(hessian: Any, atoms: Atoms) -> Any:
    """A positive definite copy of a Hessian, a start for BFGS; rigid motions get 5 eV/angstrom^2."""
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    basis = rigid_motions(atoms.positions, np.ones(len(atoms)))
    return (vectors * np.maximum(np.abs(values), 1.0)) @ vectors.T + 5.0 * basis @ basis.T


def path_points(entry: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[int]]:
    """The path as it was walked, its points by arc length, and the indices of those that are labelled."""
    state = json.loads((folder / "path.json").read_text())
    points = sorted((p for side in state["sides"] for p in side["points"]), key=lambda p: p["arc"])
    chosen = np.unique(np.linspace(0, len(points) - 1, ON_PATH[entry["part"]]).round().astype(int))
    return state, points, chosen.tolist()


def on_path(entry: dict[str, Any], folder: Path, name: str) -> None:
    """Label points spread evenly along the path; with a Hessian in a held-out reaction."""
    state, points, chosen = path_points(entry, folder)
    for count, index in enumerate(chosen):
        point, target = points[index], folder / f"path_{count:02d}.json"
        atoms = Atoms(state["symbols"], point["positions"])
        if target.exists():
            continue
        if entry["part"] == "test":
            labels = DensityFunctional().labels(atoms, hessian=True)
        else:
            labels = Labels(point["energy"], np.array(point["forces"]), None)
        raw.save(target, atoms, labels, ENGINE, arc=point["arc"])


def displaced(entry: dict[str, Any], folder: Path, name: str) -> None:
    """Label geometries displaced at random along the normal modes of the stationary points.

    Each mode gets an energy drawn evenly from 0 to 0.12 eV in the harmonic approximation (a mode
    below 400 cm^-1 counts as one of 400), and a random sign.
    """
    for count in range(DISPLACED[entry["part"]]):
        target = folder / f"displaced_{count:02d}.json"
        if not target.exists():
            displace(
                folder, target, STATIONARY[count % 3][0], [zlib.crc32(name.encode()), count], entry["part"] == "test"
            )


def displace(folder: Path, target: Path, origin: str, seed: list[int], hessian: bool) -> None:
    """Displace a stationary point along all its modes at random, and label it."""
    atoms, labels = raw.load(folder / f"{origin}.json")
    random = np.random.default_rng(seed)
    waves, modes = normal_modes((labels.hessian + labels.hessian.T) / 2, atoms.positions, atoms.get_masses())
    stiffness = (np.maximum(np.abs(waves), 400.0) / WAVENUMBER) ** 2  # eV/(angstrom^2 u)
    amplitude = np.sqrt(2 * random.uniform(0, 0.12, len(waves)) / stiffness) * random.choice([-1, 1], len(waves))
    atoms.positions += (modes @ amplitude / np.sqrt(np.repeat(atoms.get_masses(), 3))).reshape(-1, 3)
    raw.save(target, atoms, DensityFunctional().labels(atoms, hessian=hessian), ENGINE, origin=origin)


def held_out(entry: dict[str, Any], folder: Path, name: str) -> None:
    """Off-equilibrium points of a training reaction with Hessians, for tests: two of the path, two displaced."""
    state, points, chosen = path_points(entry, folder)
    free = [index for index in range(len(points)) if index not in chosen]
    for count, index in enumerate((free[len(free) // 4], free[3 * len(free) // 4])):
        target = folder / f"heldout_path_{count:02d}.json"
        if not target.exists():
            atoms = Atoms(state["symbols"], points[index]["positions"])
            labels = DensityFunctional().labels(atoms, hessian=True)
            raw.save(target, atoms, labels, ENGINE, arc=points[index]["arc"])
    for count, origin in enumerate(("reactant", "product")):
        target = folder / f"heldout_displaced_{count:02d}.json"
        if not target.exists():
            displace(folder, target, origin, [zlib.crc32(name.encode()), 100 + count], True)


def make(name: str, entry: dict[str, Any], folder: Path) -> None:
    """All stages of one reaction."""
    folder.mkdir(parents=True, exist_ok=True)
    guess, state, path = folder / "guess.xyz", folder / "transition_state.json", folder / "path.json"
    stages: list[tuple[Path, Callable[[], None]]] = [
        (guess, lambda: guess_with_xtb(entry, guess)),
        (state, lambda: find_transition_state(guess, state)),
        (path, lambda: walk_path(state, path)),
        (folder / "product.json", lambda: relax_ends(entry, path, folder)),
    ]
    for target, stage in stages:
        if not target.exists():
            start = time.process_time()
            stage()
            log.info("%s: %s, %.0f CPU s", name, target.name, time.process_time() - start)
    start = time.process_time()
    on_path(entry, folder, name)
    displaced(entry, folder, name)
    if entry["part"] == "train":
        held_out(entry, folder, name)
    log.info("%s: done, %.0f CPU s", name, time.process_time() - start)


def main() -> int:
    """Run the recipe; a reaction that fails is reported and the others go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reactions", nargs="*", help="names from reactions.json; default: all")
    parser.add_argument("--work", type=Path, required=True, help="folder of intermediate results")
    parser.add_argument("--guess-only", action="store_true", help="stop after the GFN2-xTB transition states")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    failed = []
    for name, entry in json.loads((HERE / "reactions.json").read_text())["reactions"].items():
        if args.reactions and name not in args.reactions:
            continue
        folder = args.work / name
        try:
            log.info("%s", name)
            if args.guess_only:
                folder.mkdir(parents=True, exist_ok=True)
                guess_with_xtb(entry, folder / "guess.xyz")
            else:
                make(name, entry, folder)
        except HessianDataError as exc:
            log.info("%s: FAILED: %s", name, exc)
            failed.append(name)
    log.info("failed: %s", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
