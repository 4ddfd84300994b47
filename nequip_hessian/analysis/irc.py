"""Intrinsic reaction coordinate: the steepest-descent path in mass-weighted coordinates from a saddle point.

Method: local quadratic approximation (Page, McIver, J. Chem. Phys. 1988, 88, 922), in which the steepest
descent on the quadratic surface at each point has a closed form that stays stable in stiff, flat valleys.
Translations and rotations are projected out. The Hessian is the calculator's own every `hessian_every`
points, updated in between by Bofill's formula (J. Comput. Chem. 1994, 15, 1). Arc length in u^(1/2) angstrom,
summed over the steps, 0 at the transition state, negative on the reverse side. The forward side is that of
the imaginary mode as it comes, with its largest component positive, so that a repeated run gives the same.

A side ends at a minimum (largest force below `fmax`), where the energy no longer falls even with smaller
steps, or after `points`. What comes after is a minimisation; its outcome says which minimum the side leads to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.optimisation import Relaxation, relax
from nequip_hessian.analysis.prediction import check_hessian, evaluate_atoms
from nequip_hessian.analysis.vibrations import IMAGINARY_THRESHOLD, vibrations
from nequip_hessian.curvature import mass_weight, normal_modes, project_out, rigid_motions
from nequip_hessian.errors import ConfigError, HessianDataError, OptionError

Array = npt.NDArray[np.floating[Any]]

STEP: Final = 0.05
"""Length of a step, u^(1/2) angstrom."""
POINTS: Final = 400
FORCE_TOLERANCE: Final = 0.02
"""Largest force at which a side has arrived, eV/angstrom; the minimisation goes on from there."""
HESSIAN_EVERY: Final = 5
STATIONARY: Final = 0.05
"""Largest force, eV/angstrom, at which a start counts as stationary."""
_HALVINGS: Final = 4
_PUSH: Final = 0.1  # angstrom, largest displacement off a ridge


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the path, from the transition state outwards, without it.

    Attributes:
        arc: (M,), u^(1/2) angstrom, signed
        positions: (M, N, 3), angstrom; energies: (M,), eV; forces: (M, N, 3), eV/angstrom
        ended: why it ended, in words
        minimum: the minimisation from its last point
        n_imaginary: imaginary modes at that minimum, None where it was not reached
        failure: why the side cannot be used, None where it can
    """

    arc: Array
    positions: Array
    energies: Array
    forces: Array
    ended: str
    minimum: Relaxation | None = None
    n_imaginary: int | None = None
    failure: str | None = None

    def __len__(self) -> int:
        return len(self.arc)


@dataclass(frozen=True, eq=False)
class ReactionCoordinate:
    """Both sides of a transition state.

    Attributes:
        transition_state: the start, angstrom, without a calculator
        energy: its energy, eV; forces: (N, 3), eV/angstrom
        wavenumbers: (m,), cm^-1, at the start
        forward, reverse: the sides
    """

    transition_state: Atoms
    energy: float
    forces: Array
    wavenumbers: Array
    forward: Side
    reverse: Side

    @property
    def failure(self) -> str | None:
        """Why the path cannot be used, None where both sides can."""
        sides = (("forward", self.forward), ("reverse", self.reverse))
        return "; ".join(f"{name} side: {side.failure}" for name, side in sides if side.failure) or None

    @property
    def arc(self) -> npt.NDArray[np.float64]:
        """Arc length of all points from the reverse end to the forward end, u^(1/2) angstrom."""
        return np.concatenate([self.reverse.arc[::-1], [0.0], self.forward.arc])

    @property
    def energies(self) -> npt.NDArray[np.float64]:
        """Energies in the order of `arc`, eV."""
        return np.concatenate([self.reverse.energies[::-1], [self.energy], self.forward.energies])

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """Positions (M, N, 3) in the order of `arc`, angstrom."""
        middle = self.transition_state.positions[None]
        return np.concatenate([self.reverse.positions[::-1], middle, self.forward.positions])

    @property
    def all_forces(self) -> npt.NDArray[np.float64]:
        """Forces (M, N, 3) in the order of `arc`, eV/angstrom."""
        return np.concatenate([self.reverse.forces[::-1], self.forces[None], self.forward.forces])

    def turned(self) -> ReactionCoordinate:
        """Return the same path with its sides exchanged: the sign of the arc length changes."""
        forward, reverse = (replace(side, arc=-side.arc) for side in (self.reverse, self.forward))
        return replace(self, forward=forward, reverse=reverse)

    def frames(self) -> list[Atoms]:
        """Return the path as ASE atoms with energies, forces and `path_coordinate` (u^(1/2) angstrom) in `info`."""
        from ase.calculators.singlepoint import SinglePointCalculator

        frames = []
        for arc, energy, positions, forces in zip(
            self.arc, self.energies, self.positions, self.all_forces, strict=True
        ):
            atoms = self.transition_state.copy()
            atoms.positions = positions
            atoms.info["path_coordinate"] = float(arc)
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces)
            frames.append(atoms)
        return frames


def bofill_update(hessian: Array, step: Array, change: Array) -> Array:
    """Update a Hessian (n, n) from a step (n,) and the change of the gradient along it (n,); any consistent units."""
    error = change - hessian @ step
    square = float(step @ step)
    if np.linalg.norm(error) < 1e-10 or square < 1e-16:
        return hessian
    overlap = float(error @ step)
    weight = overlap**2 / (float(error @ error) * square)
    symmetric_rank_one = np.outer(error, error) / overlap if abs(overlap) > 1e-12 else np.zeros_like(hessian)
    powell = (np.outer(error, step) + np.outer(step, error)) / square - overlap * np.outer(step, step) / square**2
    return np.asarray(hessian + weight * symmetric_rank_one + (1 - weight) * powell)


def steepest_descent_step(gradient: Array, hessian: Array, length: float) -> npt.NDArray[np.float64]:
    """Walk a given arc length down a quadratic surface.

    Args:
        gradient: (n,) and hessian: (n, n), both mass-weighted: eV/(angstrom u^(1/2)), eV/(angstrom^2 u)
        length: arc length, u^(1/2) angstrom

    Returns:
        (n,) displacement, u^(1/2) angstrom; it ends at the minimum of the quadratic surface where that is nearer.
    """
    values, vectors = np.linalg.eigh(hessian)
    slope = vectors.T @ gradient
    norm = float(np.linalg.norm(slope))
    if norm == 0:
        return np.zeros_like(slope)
    # in the path's own time t the surface has x_i(t) = -g_i (1 - exp(-k_i t)) / k_i; find t of this arc length
    unit = length / norm
    time = np.concatenate([[0.0], np.geomspace(1e-4 * unit, 1e6 * unit, 2000)])
    decay = np.exp(-np.clip(values[None] * time[:, None], -60.0, 700.0))
    speed = np.linalg.norm(slope[None] * decay, axis=1)
    walked = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * np.diff(time))])
    end = float(np.interp(length, walked, time))
    exponent = np.clip(values * end, -60.0, 700.0)
    flat = np.abs(exponent) < 1e-8
    travelled = np.where(flat, end, -np.expm1(-exponent) / np.where(flat, 1.0, values))
    return np.asarray(vectors @ (-slope * travelled))


def intrinsic_reaction_coordinate(
    atoms: Atoms,
    calculator: Any,
    *,
    masses: Array | None = None,
    step: float = STEP,
    points: int = POINTS,
    fmax: float = FORCE_TOLERANCE,
    hessian_every: int = HESSIAN_EVERY,
    hessian: Array | None = None,
    on_step: Callable[[], None] | None = None,
) -> ReactionCoordinate:
    """Follow both sides of a transition state and minimise from their ends.

    Args:
        atoms: the transition state, a free molecule, angstrom; it has to be one of this calculator
        calculator: ASE calculator with `get_hessian`
        masses: (N,), u; default: those of `atoms`
        step: u^(1/2) angstrom
        points: at most so many on a side
        fmax: largest force at which a side has arrived, eV/angstrom
        hessian_every: take the calculator's Hessian at every so many points, update it in between
        hessian: (3N, 3N) at the start, eV/angstrom^2, where it is known already
        on_step: called after every point, for a progress bar

    Returns:
        Both sides; a side on which the calculator raises or that does not end has a `failure`.

    Raises:
        ConfigError: a periodic geometry, one atom, settings out of range, or a start that is no transition state:
            forces above `STATIONARY`, or no imaginary mode.
    """
    if len(atoms) < 2 or np.any(atoms.pbc):
        raise ConfigError("irc: expected a free molecule of two or more atoms")
    if not (step > 0 and fmax > 0 and points >= 1 and hessian_every >= 1):
        raise OptionError("irc: expected a step and fmax above 0, points and hessian_every of 1 or more")
    weights = np.asarray(atoms.get_masses() if masses is None else masses, dtype=np.float64)
    start = Atoms(atoms.numbers, atoms.positions, masses=weights, info=dict(atoms.info))
    walk = _Walk(start, calculator, weights, step, points, fmax, hessian_every, on_step)
    energy, forces = walk.evaluate(start.positions)
    largest = float(np.max(np.linalg.norm(forces, axis=1)))
    if largest > STATIONARY:
        raise ConfigError(
            f"irc: {start.get_chemical_formula()}: largest force {largest:.3f} eV/Å, wanted below {STATIONARY:g}: this "
            "is no stationary point of the model; find its transition state first: nequip-hessian ts"
        )
    matrix = walk.hessian(start.positions) if hessian is None else check_hessian(hessian, len(atoms))
    wavenumbers, modes = normal_modes(matrix, start.positions, weights)
    if not len(wavenumbers) or wavenumbers[0] >= IMAGINARY_THRESHOLD:
        lowest = f"{wavenumbers[0]:.0f} cm⁻¹" if len(wavenumbers) else "none"
        raise ConfigError(
            f"irc: {start.get_chemical_formula()}: no imaginary mode below {IMAGINARY_THRESHOLD:.0f} cm⁻¹ (lowest: "
            f"{lowest}), so this is no transition state of the model; find one first: nequip-hessian ts"
        )
    mode = modes[:, 0] * np.sign(modes[np.argmax(np.abs(modes[:, 0])), 0])
    sides = [walk.side(sign, energy, np.asarray(forces), matrix, mode) for sign in (1, -1)]
    return ReactionCoordinate(start, energy, forces, np.asarray(wavenumbers, dtype=np.float64), *sides)


class _Walk:
    """The surface and the settings that both sides share."""

    def __init__(
        self,
        start: Atoms,
        calculator: Any,
        masses: Array,
        step: float,
        points: int,
        fmax: float,
        hessian_every: int,
        on_step: Callable[[], None] | None,
    ) -> None:
        self.start, self.calculator, self.masses = start, calculator, masses
        self.step, self.points, self.fmax, self.hessian_every = step, points, fmax, hessian_every
        self.on_step = on_step or (lambda: None)
        self.root = np.sqrt(np.repeat(masses, 3))

    def _atoms(self, positions: Array) -> Atoms:
        return Atoms(self.start.numbers, positions, masses=self.masses, info=dict(self.start.info))

    def evaluate(self, positions: Array) -> tuple[float, Array]:
        energy, forces = evaluate_atoms(self.calculator, [self._atoms(positions)])[0]
        if not (np.isfinite(energy) and np.all(np.isfinite(forces))):
            raise ConfigError("energy or forces are not finite")
        return energy, np.asarray(forces, dtype=np.float64)

    def hessian(self, positions: Array) -> Array:
        return check_hessian(self.calculator.get_hessian(self._atoms(positions)), len(self.start))

    def side(self, sign: int, energy: float, forces: Array, hessian: Array, mode: Array) -> Side:
        """Walk one side and minimise from its end; whatever the calculator raises becomes the side's failure."""
        kept: list[tuple[float, Array, float, Array]] = []
        try:
            ended = self._descend(sign, (0.0, self.start.positions, energy, forces), hessian, mode, kept)
            failure = None if kept else ended
        except HessianDataError as exc:
            ended = failure = str(exc)
        except Exception as exc:  # whatever a foreign model raises is that model's failure
            ended = failure = f"{type(exc).__name__}: {exc}".splitlines()[0]
        arc = np.array([point[0] for point in kept])
        shape = (len(kept), len(self.start), 3)
        positions = np.array([point[1] for point in kept]).reshape(shape)
        energies = np.array([point[2] for point in kept])
        all_forces = np.array([point[3] for point in kept]).reshape(shape)
        if failure is not None:
            return Side(arc, positions, energies, all_forces, ended, failure=failure)
        minimum, count, failure = self._minimum(positions[-1])
        return Side(arc, positions, energies, all_forces, ended, minimum, count, failure)

    def _descend(
        self, sign: int, last: tuple[float, Array, float, Array], hessian: Array, mode: Array, kept: list[Any]
    ) -> str:
        length, since, halved = self.step, 0, 0
        move = sign * length * mode
        while len(kept) < self.points:
            arc, positions, energy, forces = last
            trial = positions + (move / self.root).reshape(-1, 3)
            trial_energy, trial_forces = self.evaluate(trial)
            if trial_energy < energy:
                walked = sign * float(np.linalg.norm(move))
                last = (arc + walked, trial, trial_energy, trial_forces)
                kept.append(last)
                since += 1
                self.on_step()
                if np.max(np.linalg.norm(trial_forces, axis=1)) < self.fmax:
                    return f"forces below {self.fmax:g} eV/Å"
                if since % self.hessian_every == 0:
                    hessian = self.hessian(trial)
                else:
                    hessian = bofill_update(hessian, (trial - positions).ravel(), (forces - trial_forces).ravel())
            else:
                halved += 1
                length /= 2
                if halved > _HALVINGS:
                    return "the energy no longer falls"
                hessian = self.hessian(positions)
            move = self._step(last[1], last[3], hessian, length) if kept else sign * length * mode
        return f"{self.points} points, not at a minimum yet"

    def _step(self, positions: Array, forces: Array, hessian: Array, length: float) -> Array:
        basis = rigid_motions(positions, self.masses)
        gradient = -forces.ravel() / self.root
        gradient = gradient - basis @ (basis.T @ gradient)
        return steepest_descent_step(gradient, project_out(mass_weight(hessian, self.masses), basis), length)

    def _minimum(self, positions: Array) -> tuple[Relaxation, int | None, str | None]:
        outcome = relax(self._atoms(positions), self.calculator)
        if outcome.failure:
            return outcome, None, f"the minimisation from its end failed: {outcome.failure}"
        found = vibrations(self.hessian(outcome.atoms.positions), outcome.atoms.positions, self.masses)
        if found.n_imaginary:  # it stopped on a ridge: leave it along its mode, once
            push = found.displacements()[0]
            pushed = outcome.atoms.positions + _PUSH / np.max(np.linalg.norm(push, axis=1)) * push
            outcome = relax(self._atoms(pushed), self.calculator)
            if outcome.failure:
                return outcome, None, f"the minimisation from its end failed: {outcome.failure}"
            found = vibrations(self.hessian(outcome.atoms.positions), outcome.atoms.positions, self.masses)
        if found.n_imaginary:
            return outcome, found.n_imaginary, f"{found.n_imaginary} imaginary modes where it ends: no minimum"
        return outcome, 0, None
