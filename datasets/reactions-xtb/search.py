"""One attempt at a reaction: end points, band, transition state, intrinsic reaction coordinate, checks."""

from __future__ import annotations

import io
import warnings
import zlib
from contextlib import redirect_stdout, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.mep import NEB
from ase.optimize import LBFGS
from graphs import Graph, change_name, connectivity_name, fragments, from_connectivity, smiles_of, to_molecule
from rdkit import Chem
from rdkit.Chem import AllChem
from sella import IRC, Sella
from surface import Array, Configuration, Failure, Xtb, configuration, hessian, relax, wavenumbers

from nequip_hessian.analysis.interpolation import interpolate
from nequip_hessian.analysis.superpose import rmsd, superpose

CONTACT = 2.2  # angstrom, between fragments of a start
CONFORMERS = 8
IMAGES = 9
BARRIER = 5.0  # eV; a band that stays BAND_MARGIN above is given up
BAND_MARGIN = 2.5
IMAGINARY = -50.0  # cm^-1, at the transition state
SOFT = -20.0  # cm^-1; no other mode may lie below
STATIONARY = 0.003  # eV/angstrom


def attempt(reactant: Graph, product: Graph, conformer: int, seed: int) -> dict[str, Any]:
    """Look for a transition state between two graphs.

    Args:
        reactant, product: the same atoms in the same order
        conformer: which pair of conformers, 0 the one of least motion
        seed: of the embedding

    Returns:
        `stage` reached and `reason` where it ended; for a confirmed transition state positions (angstrom),
        energies (eV) and wavenumbers (cm^-1) of both ends, the transition state and the path between.
    """
    key = f"{change_name(reactant, product)}|{conformer}"
    record: dict[str, Any] = {"key": key, "reactant": smiles_of(reactant), "product": smiles_of(product)}
    progress = {"stage": "tried"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _search(reactant, product, conformer, zlib.crc32(key.encode()) ^ seed, progress)
    except Failure as failure:
        return {**record, **progress, "reason": str(failure)}
    except (ValueError, RuntimeError, ArithmeticError, np.linalg.LinAlgError, AssertionError) as exc:
        return {**record, **progress, "reason": f"{type(exc).__name__}: {exc}".splitlines()[0][:120]}
    return {**record, **progress, **found}


def _search(reactant: Graph, product: Graph, conformer: int, seed: int, progress: dict[str, str]) -> dict[str, Any]:
    first, second = _ends(reactant, product, conformer, seed)
    _check_ends(first, second)
    progress["stage"] = "ends"
    guess = _band(first, second)
    progress["stage"] = "band"
    state, matrix = _transition_state(guess)
    progress["stage"] = "transition state"
    sides = [_side(state, matrix, direction) for direction in (1, -1)]
    progress["stage"] = "path"
    return _describe(state, matrix, sides, reactant)


def _ends(reactant: Graph, product: Graph, conformer: int, seed: int) -> tuple[Atoms, Atoms]:
    """Conformers of the reactant, each turned into the product by a force field; the pair of least motion first."""
    before, after = to_molecule(reactant), to_molecule(product)
    pairs = []
    try:
        for molecule in (before, after):
            Chem.SanitizeMol(molecule)
        embedded = AllChem.EmbedMultipleConfs(before, CONFORMERS, randomSeed=seed % 2**31, useRandomCoords=True)
        if not embedded or not AllChem.UFFHasAllMoleculeParams(after):
            raise Failure("no force field or embedding")
        AllChem.UFFOptimizeMoleculeConfs(before, maxIters=500)
        for index in embedded:
            there = Chem.Mol(after)
            there.RemoveAllConformers()
            there.AddConformer(Chem.Conformer(before.GetConformer(index)), assignId=True)
            AllChem.UFFOptimizeMolecule(there, maxIters=1000)
            pair = [m.GetConformer(i).GetPositions() for m, i in ((before, index), (there, 0))]
            pairs.append((rmsd(pair[1], pair[0], mirror=False), pair))
    except (ValueError, RuntimeError) as exc:
        raise Failure("no force field or embedding") from exc
    pairs.sort(key=lambda entry: entry[0])
    distinct: list[Any] = []
    for distance, pair in pairs:
        if all(rmsd(pair[0], other[0]) > 0.2 or rmsd(pair[1], other[1]) > 0.2 for _, other in distinct):
            distinct.append((distance, pair))
    if conformer >= len(distinct):
        raise Failure("no further conformer")
    ends = []
    for graph, positions in zip((reactant, product), distinct[conformer][1], strict=True):
        atoms = Atoms(reactant.numbers, _apart(positions, fragments(graph.bonds)))
        atoms.calc = Xtb()
        relax(atoms, 0.05, 200)
        ends.append(atoms)
    return ends[0], ends[1]


def _apart(positions: Array, parts: list[list[int]]) -> Array:
    """Move two fragments apart along the line between them until no two of their atoms are within CONTACT."""
    moved = positions.copy()
    if len(parts) == 2:
        first, second = (moved[part] for part in parts)
        line = second.mean(axis=0) - first.mean(axis=0)
        line /= np.linalg.norm(line) or 1.0
        for _ in range(40):
            if np.linalg.norm(first[:, None] - moved[parts[1]][None], axis=-1).min() > CONTACT:
                break
            moved[parts[1]] += 0.1 * line
    return moved


def _name(atoms: Atoms) -> str:
    return connectivity_name(atoms.numbers, atoms.calc.bonds(atoms))


def _check_ends(first: Atoms, second: Atoms) -> None:
    if _name(first) == _name(second):
        raise Failure("product falls back to the reactant")
    if abs(second.get_potential_energy() - first.get_potential_energy()) > BARRIER:
        raise Failure("end points too far apart in energy")


def _band(first: Atoms, second: Atoms) -> Atoms:
    """A few steps of a climbing band from the geodesic; its highest image."""
    path, _ = interpolate(first, second, IMAGES)
    band = [first.copy() for _ in path]
    for image, positions in zip(band, path, strict=True):
        image.positions = positions
        image.calc = Xtb()
    neb = NEB(band, method="improvedtangent", climb=True, remove_rotation_and_translation=False)
    limit = max(first.get_potential_energy(), second.get_potential_energy()) + BARRIER + BAND_MARGIN
    with LBFGS(neb, logfile=None, maxstep=0.1) as optimiser:
        for budget in (15, 15, 20):
            done = optimiser.run(fmax=0.3, steps=budget)
            energies = np.array([image.get_potential_energy() for image in band])
            if done:
                break
            if energies.max() > limit:
                raise Failure("band too high")
    highest = int(np.argmax(energies))
    if highest in (0, IMAGES - 1):
        raise Failure("band without a barrier")
    return band[highest]


def _transition_state(guess: Atoms) -> tuple[Atoms, Array]:
    atoms = Atoms(guess.numbers, guess.positions)
    atoms.calc = Xtb()
    with redirect_stdout(io.StringIO()):
        search = Sella(atoms, order=1, internal=False, hessian_function=hessian, logfile=None)
        done = search.run(fmax=STATIONARY, steps=80)
    if not done:
        raise Failure("transition state not converged")
    matrix = hessian(atoms)
    waves = wavenumbers(atoms, matrix)
    if waves[0] > IMAGINARY:
        raise Failure("no imaginary mode beyond 50i")
    if waves[1] < SOFT:
        raise Failure("second-order saddle")
    return atoms, matrix


class _Descent(IRC):
    """Sella's intrinsic reaction coordinate that keeps its points."""

    def __init__(self, atoms: Atoms, **settings: Any) -> None:
        super().__init__(atoms, logfile=None, **settings)
        self.points: list[tuple[Array, float, Array]] = []
        self.attach(self._keep)

    def _keep(self) -> None:
        atoms = self.atoms
        point = (atoms.positions.copy(), float(atoms.get_potential_energy()), atoms.get_forces().copy())
        if not self.points or not np.array_equal(point[0], self.points[-1][0]):
            self.points.append(point)


def _side(state: Atoms, matrix: Array, direction: int) -> dict[str, Any]:
    """Follow the path down one side, then minimise: points from the transition state on, the minimum apart."""
    atoms = Atoms(state.numbers, state.positions, masses=state.get_masses())
    atoms.calc = Xtb()
    walk = _Descent(atoms, dx=0.1, eta=1e-4, gamma=0.1, hessian_function=hessian)
    # it often gives up in the flat bottom, where its inner loop cannot converge: the points before are good
    with suppress(RuntimeError), redirect_stdout(io.StringIO()):
        walk.run(fmax=0.05, steps=100, direction="forward" if direction > 0 else "reverse")
    points = _falling(walk.points, state.get_potential_energy())
    method = "IRC"
    if len(points) < 5:
        method, points, atoms = "relaxed", [], _pushed(state, matrix, direction)
    else:
        atoms.positions = points[-1][0]
    relax(atoms, STATIONARY, 500)
    below = hessian(atoms)
    if wavenumbers(atoms, below)[0] < SOFT:  # stopped on a ridge: leave it along its mode, once
        atoms = _pushed(atoms, below, direction)
        relax(atoms, STATIONARY, 500)
    return {"method": method, "points": points, "minimum": atoms}


def _falling(points: list[tuple[Array, float, Array]], start: float) -> list[tuple[Array, float, Array]]:
    """The points up to the first that does not lie 1 meV below the one before."""
    kept: list[tuple[Array, float, Array]] = []
    for point in points[1:]:
        if point[1] > (kept[-1][1] if kept else start) - 0.001:
            break
        kept.append(point)
    return kept


def _pushed(state: Atoms, matrix: Array, direction: int) -> Atoms:
    from nequip_hessian.curvature import normal_modes

    masses = state.get_masses()
    mode = normal_modes(matrix, state.positions, masses)[1][:, 0] / np.sqrt(np.repeat(masses, 3))
    atoms = Atoms(state.numbers, state.positions + direction * 0.15 * (mode / np.abs(mode).max()).reshape(-1, 3))
    atoms.calc = Xtb()
    return atoms


def _describe(state: Atoms, matrix: Array, sides: list[dict[str, Any]], reactant: Graph) -> dict[str, Any]:
    ends = [side["minimum"] for side in sides]
    names = [_name(atoms) for atoms in ends]
    bonds = [atoms.calc.bonds(atoms) for atoms in ends]
    if names[0] == names[1]:
        if not np.array_equal(bonds[0], bonds[1]):
            raise Failure("exchange of like atoms")
        if rmsd(ends[0].positions, ends[1].positions) < 0.1:
            raise Failure("both sides reach the same minimum")
    lower = int(ends[1].get_potential_energy() < ends[0].get_potential_energy())
    intended = connectivity_name(reactant.numbers, reactant.bonds)
    start = names.index(intended) if intended in names and names[0] != names[1] else lower
    order = [sides[start], sides[1 - start]]
    minima = [_stationary(side["minimum"]) for side in order]
    if any(end["wavenumbers"][0] < SOFT for end in minima):
        raise Failure("an end point with an imaginary mode")
    middle = _stationary(state, matrix)
    barrier = middle["energy"] - minima[0]["energy"]
    found = [e["configuration"] for e in (*minima, middle)]
    record = {
        "kind": "conformational" if names[0] == names[1] else "reaction",
        "names": [names[start], names[1 - start]],
        "smiles": [_smiles(side["minimum"]) for side in order],
        "numbers": state.numbers.tolist(),
        "barrier": barrier,
        "reverse": middle["energy"] - minima[1]["energy"],
        "method": [side["method"] for side in order],
        "reactant_state": minima[0],
        "transition_state": middle,
        "product_state": minima[1],
        "path": [_points(order[0], state, -1), _points(order[1], state, 1)],
    }
    if max(barrier, record["reverse"]) <= 0 or min(barrier, record["reverse"]) < 0.01:
        return {**record, "reason": "no barrier"}
    if not all(Configuration(**c).closed_shell for c in found):
        return {**record, "reason": "not one closed-shell configuration"}
    if barrier > BARRIER:
        return {**record, "reason": "barrier too high"}
    return {**record, "stage": "confirmed", "reason": ""}


def _stationary(atoms: Atoms, matrix: Array | None = None) -> dict[str, Any]:
    waves = wavenumbers(atoms, hessian(atoms) if matrix is None else matrix)
    return {
        "positions": np.round(atoms.positions, 7).tolist(),
        "energy": round(float(atoms.get_potential_energy()), 8),
        "wavenumbers": np.round(waves[:3], 2).tolist(),
        "configuration": {name: round(value, 4) for name, value in vars(configuration(atoms)).items()},
    }


def _points(side: dict[str, Any], state: Atoms, sign: int) -> list[dict[str, Any]]:
    """Up to eight points spread evenly over the arc length of one side, the first steps left out."""
    if not side["points"]:
        return []
    root = np.sqrt(state.get_masses())[:, None]
    arc, last, walked = [], state.positions, 0.0
    for positions, _, _ in side["points"]:
        walked += float(np.linalg.norm(root * (superpose(positions, last) - last)))
        arc.append(walked)
        last = positions
    targets = np.linspace(0, arc[-1], 9)[1:]
    chosen = sorted({int(np.argmin(np.abs(np.array(arc) - target))) for target in targets})
    return [
        {
            "arc": round(sign * arc[i], 5),
            "energy": round(side["points"][i][1], 8),
            "positions": np.round(side["points"][i][0], 7).tolist(),
        }
        for i in chosen
    ]


def _smiles(atoms: Atoms) -> str:
    graph = from_connectivity(np.asarray(atoms.numbers, dtype=np.int64), atoms.calc.bonds(atoms))
    return _name(atoms) if graph is None else smiles_of(graph)


def as_bonds(numbers: npt.NDArray[np.int64], positions: Array) -> npt.NDArray[np.bool_]:
    """Which atoms are bonded at a geometry, (N, N)."""
    atoms = Atoms(numbers, positions)
    atoms.calc = Xtb()
    return atoms.calc.bonds(atoms)
