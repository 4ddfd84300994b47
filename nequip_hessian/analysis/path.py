"""Reaction paths: nudged elastic band (NEB) on a model's surface, held against the reference.

Both end points are first minimised with the model. Then: geodesic guess, `improvedtangent` (Henkelman,
Jonsson, J. Chem. Phys. 2000, 113, 9978), climbing image (ibid., 9901), no removal of rotations and
translations inside ASE (with linear end points that has given wrong barriers), all moving images evaluated
in one batch. LBFGS is tried first: a band has no energy function, so it either converges quickly or not at
all; then FIRE starts again from the guess, without climbing until the band has settled (largest force below
`SETTLED`). Converged: largest NEB force below `fmax`. A path fails where that is not
reached, where the band is torn (see `UNEVEN`), has no inner maximum, or a highest image without imaginary mode.

barrier_forward    energy of the highest image minus that of the relaxed reactant, eV; reverse: minus product
single-point       the same difference of the model's energies at the reference geometries, no NEB
ts_rmsd            rmsd of the highest image and the reference transition state, angstrom
path_rmsd          mean over the reference geometries of the reaction of the rmsd to the nearest point of the
                   path (straight lines between neighbouring images), angstrom

Every rmsd is after superposition, atoms in the given order, mirror images counted as equal. Reference
barriers are differences of labelled electronic energies: no zero-point energy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes
from ase.mep import NEB
from ase.optimize import FIRE, LBFGS

from nequip_hessian.analysis.answers import Answers
from nequip_hessian.analysis.geometries import other_atoms, state_of
from nequip_hessian.analysis.interpolation import interpolate
from nequip_hessian.analysis.optimisation import relax
from nequip_hessian.analysis.prediction import check_hessian, evaluate_atoms
from nequip_hessian.analysis.superpose import rmsd, superpose
from nequip_hessian.analysis.vibrations import vibrations
from nequip_hessian.errors import reason_of

_Stage = tuple[Any, float, int, bool]  # optimiser, tolerance, steps, climbing

Array = npt.NDArray[np.floating[Any]]

IMAGES: Final = 9
NEB_TOLERANCE: Final = 0.05
"""Largest NEB force, eV/angstrom."""

NEB_STEPS: Final = 400
"""Steps of FIRE; LBFGS, tried first, gets an eighth of them."""

UNEVEN: Final = 3.0
"""Largest gap between neighbouring images over the mean one, above which a band counts as torn."""

SETTLED: Final = 0.5
"""Largest NEB force, eV/angstrom, from which on the highest image climbs in the FIRE run."""


@dataclass(frozen=True, eq=False)
class ReactionPath:
    """A NEB, converged or not.

    Attributes:
        positions: (M, N, 3), angstrom, relaxed reactant first, relaxed product last
        energies: (M,), eV; forces: (M, N, 3) of the model (without springs), eV/angstrom
        converged: largest NEB force below the tolerance
        steps: optimiser steps; residual: last largest NEB force, eV/angstrom
        guess: `geodesic` or `idpp`
        n_imaginary: imaginary modes at the highest image, None where the model gave no Hessian
        failure: why the path cannot be used, None where it can; arrays may then be empty
        state: charge and multiplicity of the images, where they are known, as in `info` (see `geometries.state_of`)
    """

    positions: Array
    energies: Array
    forces: Array
    converged: bool = False
    steps: int = 0
    residual: float = float("nan")
    guess: str = ""
    n_imaginary: int | None = None
    failure: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def highest(self) -> int:
        """Index of the highest image."""
        return int(np.argmax(self.energies))

    @property
    def barrier_forward(self) -> float:
        """Highest image minus reactant, eV."""
        return float(np.max(self.energies) - self.energies[0])

    @property
    def barrier_reverse(self) -> float:
        """Highest image minus product, eV."""
        return float(np.max(self.energies) - self.energies[-1])

    def images(self, numbers: Array) -> list[Atoms]:
        """Return the path as ASE atoms with energies and forces attached; (N,) atomic numbers."""
        from ase.calculators.singlepoint import SinglePointCalculator

        frames = []
        for positions, energy, forces in zip(self.positions, self.energies, self.forces, strict=True):
            atoms = Atoms(np.asarray(numbers, dtype=int), positions, info=dict(self.state))
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces)
            frames.append(atoms)
        return frames


class _Band:
    """Evaluates all images of a band whose positions changed in one call of the model."""

    def __init__(self, calculator: Any, images: Sequence[Atoms], answers: Answers | None) -> None:
        self.calculator = calculator
        self._answers = answers
        self.images = list(images)
        self._known: list[tuple[Array, float, Array] | None] = [None] * len(images)
        for index, image in enumerate(self.images):
            image.calc = _ImageCalculator(self, index)

    def answer(self, index: int) -> tuple[float, Array]:
        """Return (energy, forces) of one image, eV and eV/angstrom; raises ValueError where not finite."""
        stale = [i for i, image in enumerate(self.images) if not self._is_known(i, image.positions)]
        if index in stale:
            bare = [Atoms(self.images[i].numbers, self.images[i].positions, info=self.images[i].info) for i in stale]
            for i, (energy, forces) in zip(stale, self._ask(bare), strict=True):
                self._known[i] = (self.images[i].positions.copy(), energy, np.asarray(forces, dtype=np.float64))
        known = self._known[index]
        if known is None:
            raise ValueError("an image was not evaluated")
        return known[1], known[2]

    def _ask(self, images: Sequence[Atoms]) -> list[tuple[float, Array]]:
        kept = None if self._answers is None else self._answers.kept(images)
        if kept is not None:
            return kept
        found = evaluate_atoms(self.calculator, images)
        if not all(np.isfinite(energy) and np.all(np.isfinite(forces)) for energy, forces in found):
            raise ValueError("energy or forces of an image are not finite")
        if self._answers is not None:
            self._answers.keep(images, found)
        return found

    def _is_known(self, index: int, positions: Array) -> bool:
        known = self._known[index]
        return known is not None and np.array_equal(known[0], positions)


class _ImageCalculator(Calculator):
    """The face that one image of a `_Band` shows to ASE."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, band: _Band, index: int) -> None:
        super().__init__()
        self._band, self._index = band, index

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = self._band.answer(self._index)
        self.results = {"energy": energy, "forces": forces}


def reaction_path(
    reactant: Atoms,
    product: Atoms,
    calculator: Any,
    *,
    images: int = IMAGES,
    fmax: float = NEB_TOLERANCE,
    steps: int = NEB_STEPS,
    on_step: Callable[[], None] | None = None,
    answers: Answers | None = None,
) -> ReactionPath:
    """Find the minimum energy path between two minima with a model.

    Args:
        reactant, product: guesses of the end points, atoms in the same order, angstrom; minimised first
        calculator: ASE calculator; `evaluate_many` and `get_hessian` are used where it has them
        images: number of images with both end points
        fmax: largest NEB force to stop at, eV/angstrom
        steps: at most so many FIRE steps of the climbing band; before them at most an eighth of that of LBFGS and
            half of it of FIRE without climbing
        on_step: called after every optimiser step, for a progress bar
        answers: where the model's answers along the band are kept; a search that was cut goes on from them

    Returns:
        The path. End points that cannot be compared or relaxed, a model that raises, or a band that does
        not converge give a path with `failure`.
    """
    if difference := other_atoms(reactant, product):
        return _no_path(f"reactant and product: expected the same atoms in the same order, found {difference}")
    if len(reactant) < 2:
        return _no_path("one atom has no reaction path")
    if np.any(reactant.pbc) or np.any(product.pbc):
        return _no_path("expected free molecules, found a periodic cell")
    ends = [relax(atoms, calculator) for atoms in (reactant, product)]
    for name, end in zip(("reactant", "product"), ends, strict=True):
        if end.failure is not None:
            return _no_path(f"the {name} could not be minimised: {end.failure}")
    if rmsd(ends[0].atoms.positions, ends[1].atoms.positions, mirror=False) < 0.01:
        return _no_path("reactant and product relax to the same minimum")
    try:
        guess, name = interpolate(ends[0].atoms, ends[1].atoms, images)
        return _run(guess, name, ends[0].atoms, calculator, fmax, steps, on_step, answers)
    except Exception as exc:  # whatever a foreign model raises is that model's failure
        return _no_path(reason_of(exc))


def _no_path(reason: str) -> ReactionPath:
    return ReactionPath(np.zeros((0, 0, 3)), np.zeros(0), np.zeros((0, 0, 3)), failure=reason)


def _run(
    guess: Array,
    name: str,
    template: Atoms,
    calculator: Any,
    fmax: float,
    steps: int,
    on_step: Callable[[], None] | None,
    answers: Answers | None,
) -> ReactionPath:
    taken, residual, reason, converged = 0, float("nan"), "", False
    lbfgs: tuple[_Stage, ...] = ((LBFGS, fmax, max(steps // 8, 10), True),)
    fire: tuple[_Stage, ...] = ((FIRE, SETTLED, steps // 2, False), (FIRE, fmax, steps, True))
    for stages in (lbfgs, fire):
        band = [template.copy() for _ in guess]
        for image, positions in zip(band, guess, strict=True):
            image.positions = positions
        _Band(calculator, band, answers)
        neb = NEB(band, method="improvedtangent", remove_rotation_and_translation=False)
        try:
            for optimiser, tolerance, budget, climb in stages:
                neb.climb = climb
                dynamics = optimiser(neb, logfile=None, maxstep=0.05 if optimiser is FIRE else 0.1)
                if on_step is not None:
                    dynamics.attach(on_step)
                converged = bool(dynamics.run(fmax=tolerance, steps=budget)) and climb
                taken += int(dynamics.nsteps)
            residual = float(neb.get_residual())
        except (ValueError, RuntimeError, ArithmeticError, CalculatorError, np.linalg.LinAlgError) as exc:
            converged, reason = False, f"; {optimiser.__name__}: {exc}".splitlines()[0]
        if converged:
            break
    failure = None if converged else f"not converged: NEB force {residual:.3f} eV/Å after {taken} steps{reason}"
    if any(not np.all(np.isfinite(image.positions)) for image in band):
        return _no_path(failure or "positions became NaN")
    energies = np.array([image.get_potential_energy() for image in band])
    forces = np.array([image.get_forces() for image in band])
    positions = np.array([image.positions for image in band])
    imaginary = _imaginary(band[int(np.argmax(energies))], calculator)
    return ReactionPath(
        positions,
        energies,
        forces,
        converged,
        taken,
        residual,
        name,
        imaginary,
        failure or _implausible(positions, energies, imaginary),
        state_of(template),
    )


def _implausible(positions: Array, energies: Array, imaginary: int | None) -> str | None:
    # small forces alone do not make a path: a band can slide off the ridge and bunch up in both valleys
    lengths = np.diff(path_length(positions))
    if np.max(lengths) > UNEVEN * np.mean(lengths):
        return f"the images bunch up: the largest gap is {np.max(lengths) / np.mean(lengths):.1f} times the mean"
    if int(np.argmax(energies)) in (0, len(energies) - 1):
        return "no maximum between the end points: the model has no barrier here"
    if imaginary == 0:
        return "the highest image has no imaginary mode: it is no saddle point"
    return None


def _imaginary(atoms: Atoms, calculator: Any) -> int | None:
    if not hasattr(calculator, "get_hessian"):
        return None
    bare = Atoms(atoms.numbers, atoms.positions, info=atoms.info)
    hessian = check_hessian(calculator.get_hessian(bare), len(bare))
    return vibrations(hessian, bare.positions, bare.get_masses()).n_imaginary


def path_length(positions: Array) -> npt.NDArray[np.float64]:
    """Cumulated rmsd between neighbouring images (M, N, 3) after superposition: (M,), angstrom, from 0."""
    steps = [rmsd(b, a, mirror=False) for a, b in itertools.pairwise(positions)]
    return np.concatenate([[0.0], np.cumsum(steps)]) if len(positions) else np.zeros(0)


def distance_to_path(point: Array, positions: Array, *, subdivisions: int = 10) -> float:
    """Smallest rmsd, angstrom, of `point` (N, 3) to the straight pieces between images (M, N, 3)."""
    best = min(rmsd(image, point) for image in positions)
    for first, second in itertools.pairwise(positions):
        aligned = superpose(second, first)
        for t in np.linspace(0.0, 1.0, subdivisions, endpoint=False)[1:]:
            best = min(best, rmsd((1 - t) * first + t * aligned, point))
    return best
