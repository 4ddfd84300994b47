"""One side of an intrinsic reaction coordinate: the walk down from the transition state, and the minimum it leads to.

A side stops where forces are small, and flat points have small forces too. Where the minimisation from such an end
falls by more than `FLAT`, the walk goes on past it: until forces have risen above `fmax` and fallen again, or are below
a tenth of it. `Side.stopped_short` says of a side that it never came to its minimum.

Every point that was accepted can be kept by a `Journal`, with the Hessian the next step starts from: a walk that
was killed goes on from there and ends where it would have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.optimisation import Relaxation, relax
from nequip_hessian.analysis.prediction import check_hessian, evaluate_atoms
from nequip_hessian.analysis.steepest_descent import bofill_update, steepest_descent_step
from nequip_hessian.analysis.superpose import rmsd
from nequip_hessian.analysis.vibrations import vibrations
from nequip_hessian.curvature import mass_weight, project_out, rigid_motions
from nequip_hessian.errors import ConfigError, reason_of

Array = npt.NDArray[np.floating[Any]]

Point = tuple[float, Array, float, Array]
"""Arc length, u^(1/2) angstrom; positions (N, 3), angstrom; energy, eV; forces (N, 3), eV/angstrom."""

FLAT: Final = 0.05
"""Fall of the energy from the last point to the minimum, eV, above which a side stopped short of it.

Ends that are at their minimum are a few meV above it, by forces below 0.02 eV/angstrom in all but the softest modes;
1 kcal/mol, the accuracy one wants of a barrier, is 0.043 eV."""

_FINER: Final = 0.1  # of fmax, while a walk passes a flat point
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

    @property
    def fall(self) -> float | None:
        """Energy of the last point above the minimum, eV; None without a minimum."""
        if self.minimum is None or self.minimum.failure or not len(self):
            return None
        return float(self.energies[-1]) - self.minimum.energy

    @property
    def shift(self) -> float | None:
        """RMSD of the minimum from the last point, angstrom; None without a minimum."""
        if self.minimum is None or self.minimum.failure or not len(self):
            return None
        return rmsd(self.minimum.atoms.positions, self.positions[-1], mirror=False)

    @property
    def stopped_short(self) -> bool:
        """Whether the walk ended before its minimum, so that the rest of the way down is none of the path."""
        return self.fall is not None and self.fall > FLAT


@dataclass
class Descent:
    """How far a walk has come.

    Attributes:
        points: the accepted ones, from the transition state outwards, without it
        hessian: (3N, 3N), eV/angstrom^2, that the next step is made with
        length: of the next step, u^(1/2) angstrom; halved: how often it has been halved
        ended: why the walk is over, None where it is not
        finer: whether it passes a flat point, and is over only where forces are below a tenth of `fmax`
    """

    points: list[Point]
    hessian: Array
    length: float
    halved: int = 0
    ended: str | None = None
    finer: bool = False


class Journal(Protocol):
    """Where the parts of a reaction coordinate are kept; a side is called `forward` or `reverse`."""

    def descent(self, name: str) -> Descent | None:
        """Return how far a side has come, None where it has not begun."""

    def put_descent(self, name: str, descent: Descent) -> None:
        """Keep how far a side has come."""

    def side(self, name: str, template: Atoms) -> Side | None:
        """Return a side that ended at a minimum, None where it has not yet; template: atoms, masses and state."""

    def put_side(self, name: str, side: Side) -> None:
        """Keep a side that ended at a minimum."""


@dataclass
class Walk:
    """The surface and the settings that both sides share.

    Attributes:
        start: the transition state, angstrom, with the masses (u) of the path
        calculator: ASE calculator with `get_hessian`
        step, points, fmax, hessian_every: as `intrinsic_reaction_coordinate`
        on_step: called after every point
        journal: where points are kept
    """

    start: Atoms
    calculator: Any
    step: float
    points: int
    fmax: float
    hessian_every: int
    on_step: Callable[[], None] | None = None
    journal: Journal | None = None

    @property
    def masses(self) -> Array:
        """(N,), u."""
        return np.asarray(self.start.get_masses())

    @property
    def root(self) -> Array:
        """(3N,), u^(1/2), of each coordinate."""
        return np.asarray(np.sqrt(np.repeat(self.masses, 3)))

    def _atoms(self, positions: Array) -> Atoms:
        return Atoms(self.start.numbers, positions, masses=self.masses, info=dict(self.start.info))

    def evaluate(self, positions: Array) -> tuple[float, Array]:
        """Return energy, eV, and forces (N, 3), eV/angstrom; raises ConfigError where they are not finite."""
        energy, forces = evaluate_atoms(self.calculator, [self._atoms(positions)])[0]
        if not (np.isfinite(energy) and np.all(np.isfinite(forces))):
            raise ConfigError("energy or forces are not finite")
        return energy, np.asarray(forces, dtype=np.float64)

    def hessian(self, positions: Array) -> Array:
        """Return the calculator's Hessian (3N, 3N), eV/angstrom^2."""
        return check_hessian(self.calculator.get_hessian(self._atoms(positions)), len(self.start))

    def side(self, name: str, energy: float, forces: Array, hessian: Array, mode: Array) -> Side:
        """Walk one side and minimise from its end; whatever the calculator raises becomes the side's failure.

        Args:
            name: `forward`, along the mode, or `reverse`, against it
            energy, forces, hessian: at the start: eV; (N, 3), eV/angstrom; (3N, 3N), eV/angstrom^2
            mode: (3N,), the imaginary mode in mass-weighted coordinates, unit norm
        """
        kept, descent = None, None
        if self.journal is not None:
            kept, descent = self.journal.side(name, self.start), self.journal.descent(name)
        if kept is not None:
            return kept
        descent = descent or Descent([], hessian, self.step)
        try:
            if descent.ended is None:
                self._descend(name, descent, (0.0, self.start.positions, energy, forces), mode)
            side = self._ended(descent, None if descent.points else descent.ended)
            while side.stopped_short and self._reopened(descent):
                self._descend(name, descent, descent.points[-1], mode)
                side = self._ended(descent, None)
        except Exception as exc:  # whatever a model raises is that model's failure
            descent.ended = descent.ended or reason_of(exc)
            side = self._walked(descent, reason_of(exc))
        if self.journal is not None and side.failure is None:
            self.journal.put_side(name, side)
        return side

    def _reopened(self, descent: Descent) -> bool:
        """Let a walk go on that ended by its forces; False where it ended otherwise or by the finer limit."""
        _, positions, _, forces = descent.points[-1]
        by_forces = np.max(np.linalg.norm(forces, axis=1)) < self.fmax
        if descent.finer or not by_forces or len(descent.points) >= self.points:
            return False
        descent.hessian, descent.finer, descent.ended = self.hessian(positions), True, None
        return True

    def _walked(self, descent: Descent, failure: str | None) -> Side:
        shape = (len(descent.points), len(self.start), 3)
        arc, positions, energies, forces = (np.array([point[k] for point in descent.points]) for k in range(4))
        return Side(arc, positions.reshape(shape), energies, forces.reshape(shape), str(descent.ended), failure=failure)

    def _ended(self, descent: Descent, failure: str | None) -> Side:
        side = self._walked(descent, failure)
        if failure is not None:
            return side
        minimum, count, failure = self._minimum(side.positions[-1])
        return replace(side, minimum=minimum, n_imaginary=count, failure=failure)

    def _descend(self, name: str, descent: Descent, start: Point, mode: Array) -> None:
        """Walk until the side has ended, adding each point that lies lower than the one before."""
        sign = 1 if name == "forward" else -1
        while descent.ended is None:
            last = descent.points[-1] if descent.points else start
            arc, positions, energy, forces = last
            move = self._step(last, descent) if descent.points else sign * descent.length * mode
            trial = positions + (move / self.root).reshape(-1, 3)
            trial_energy, trial_forces = self.evaluate(trial)
            if trial_energy < energy:
                walked = sign * float(np.linalg.norm(move))
                descent.points.append((arc + walked, trial, trial_energy, trial_forces))
                self._after_point(descent, (trial - positions).ravel(), (forces - trial_forces).ravel())
                if self.on_step is not None:
                    self.on_step()
            else:
                descent.halved += 1
                descent.length /= 2
                if descent.halved > _HALVINGS:
                    descent.ended = "the energy no longer falls"
                else:
                    descent.hessian = self.hessian(positions)
            if self.journal is not None:
                self.journal.put_descent(name, descent)

    def _after_point(self, descent: Descent, step: Array, change: Array) -> None:
        """Say whether the side has arrived, or make the Hessian of the next step."""
        _, positions, _, forces = descent.points[-1]
        largest = float(np.max(np.linalg.norm(forces, axis=1)))
        descent.finer = descent.finer and largest < self.fmax
        limit = _FINER * self.fmax if descent.finer else self.fmax
        if largest < limit:
            descent.ended = f"forces below {limit:g} eV/Å"
        elif len(descent.points) >= self.points:
            descent.ended = f"{self.points} points, not at a minimum yet"
        elif len(descent.points) % self.hessian_every == 0:
            descent.hessian = self.hessian(positions)
        else:
            descent.hessian = bofill_update(descent.hessian, step, change)

    def _step(self, point: Point, descent: Descent) -> Array:
        _, positions, _, forces = point
        basis = rigid_motions(positions, self.masses)
        gradient = -forces.ravel() / self.root
        gradient = gradient - basis @ (basis.T @ gradient)
        curvature = project_out(mass_weight(descent.hessian, self.masses), basis)
        return steepest_descent_step(gradient, curvature, descent.length)

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
