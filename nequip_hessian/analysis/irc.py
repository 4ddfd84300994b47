"""Intrinsic reaction coordinate: the steepest-descent path in mass-weighted coordinates from a saddle point.

Method: local quadratic approximation (Page, McIver, J. Chem. Phys. 1988, 88, 922), in which the steepest
descent on the quadratic surface at each point has a closed form that stays stable in stiff, flat valleys.
Translations and rotations are projected out. The Hessian is the calculator's own every `hessian_every`
points, updated in between by Bofill's formula (J. Comput. Chem. 1994, 15, 1). Arc length in u^(1/2) angstrom,
summed over the steps, 0 at the transition state, negative on the reverse side. The forward side is that of
the imaginary mode as it comes, with its largest component positive, so that a repeated run gives the same.

A side ends at a minimum (largest force below `fmax`), where the energy no longer falls even with smaller
steps, or after `points`. What comes after is a minimisation; its outcome says which minimum the side leads to. How far
it moved is part of the result: past a flat point the walk goes on, see `irc_side`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.geometries import require_molecule
from nequip_hessian.analysis.irc_side import Journal, Side, Walk
from nequip_hessian.analysis.prediction import check_hessian
from nequip_hessian.analysis.vibrations import IMAGINARY_THRESHOLD
from nequip_hessian.curvature import normal_modes
from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.units import KCAL_PER_MOL

Array = npt.NDArray[np.floating[Any]]

STEP: Final = 0.05
"""Length of a step, u^(1/2) angstrom."""
POINTS: Final = 400
FORCE_TOLERANCE: Final = 0.02
"""Largest force at which a side has arrived, eV/angstrom; the minimisation goes on from there."""
HESSIAN_EVERY: Final = 5
STATIONARY: Final = 0.05
"""Largest force, eV/angstrom, at which a start counts as stationary."""


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
    def shortfalls(self) -> list[str]:
        """A sentence on each side that ended before its minimum: how far, and that the rest is none of the path."""
        return [
            text
            for name, side in (("reverse", self.reverse), ("forward", self.forward))
            if (text := _shortfall(name, side)) is not None
        ]

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


def _shortfall(name: str, side: Side) -> str | None:
    if side.fall is None or not side.stopped_short:
        return None
    where = "at a flat point" if side.ended.startswith("forces below") else "before its minimum"
    fall = f"{side.fall / KCAL_PER_MOL:.1f} kcal/mol ({side.fall:.3f} eV)"
    return (
        f"the {name} side stopped {where} ({side.ended}), {fall} above the minimum and {side.shift:.2f} Å (RMSD) from "
        "it: this last part comes from a minimisation, not from the path"
    )


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
    journal: Journal | None = None,
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
        journal: where points and finished sides are kept, of this start, model and settings; what is there
            already is not computed again

    Returns:
        Both sides; a side on which the calculator raises or that does not end has a `failure`.

    Raises:
        ConfigError: a periodic geometry, one atom, settings out of range, or a start that is no transition state:
            forces above `STATIONARY`, or no imaginary mode.
    """
    require_molecule("irc", atoms)
    if not (step > 0 and fmax > 0 and points >= 1 and hessian_every >= 1):
        raise OptionError(
            "irc: expected a step and fmax above 0, points and hessian_every of 1 or more, found "
            f"{step}, {fmax}, {points} and {hessian_every}"
        )
    weights = np.asarray(atoms.get_masses() if masses is None else masses, dtype=np.float64)
    start = Atoms(atoms.numbers, atoms.positions, masses=weights, info=dict(atoms.info))
    walk = Walk(start, calculator, step, points, fmax, hessian_every, on_step, journal)
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
    sides = [walk.side(name, energy, forces, matrix, mode) for name in ("forward", "reverse")]
    return ReactionCoordinate(start, energy, forces, np.asarray(wavenumbers, dtype=np.float64), *sides)
