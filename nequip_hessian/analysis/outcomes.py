"""Transition states and reaction coordinates of a store's reactions: found or not, and how far from the labels.

Starts: `perturbed` ones are the labelled transition state with Gaussian displacements of SPREAD angstrom a
coordinate; the `interpolated` one knows the two labelled ends only: the image of highest energy, on the model's
surface, of a geodesic between them. The ends are minimised with the model first. A search succeeds where it
converged on a point with exactly one imaginary mode whose reaction coordinate ends in the two minima
(`saddle.judge`). Every other outcome is a failure with its reason. Barriers are measured from the model's own minima.

From each start Sella also runs without the model's Hessian; that search succeeds where it converged on one
imaginary mode. Steps and calls of both are compared over the starts from which both did.

irc: from the labelled transition state the model's own one is searched, and its coordinate followed to both
sides. Each labelled geometry of the reaction is held against the nearest point of it (RMSD):
`irc_path_rmsd` is the mean of these RMSD, `irc_profile_mae` the mean |difference| of the energies there, both
measured from the transition state of their own surface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.connectivity import other_species
from nequip_hessian.analysis.interpolation import interpolate
from nequip_hessian.analysis.irc import ReactionCoordinate, intrinsic_reaction_coordinate
from nequip_hessian.analysis.optimisation import relax
from nequip_hessian.analysis.path import path_length
from nequip_hessian.analysis.prediction import atoms_of, evaluate_atoms
from nequip_hessian.analysis.saddle import SAME, SaddleSearch, judge, perturbed, search_saddle
from nequip_hessian.analysis.superpose import rmsd
from nequip_hessian.errors import MissingExtraError, reason_of
from nequip_hessian.record import LabelledGeometry

Array = npt.NDArray[np.floating[Any]]

STARTS: Final = 1
SPREAD: Final = 0.05
"""Displacement of a perturbed start, angstrom a coordinate."""
IMAGES: Final = 9
"""Of the geodesic that an interpolated start is taken from."""


@dataclass(frozen=True)
class SaddleErrors:
    """One search of one model; energies eV, lengths angstrom, None where there is nothing.

    Attributes:
        name: the reaction; start: `interpolated`, `perturbed 1`, ...
        converged, n_imaginary, connects: the three parts of success; failure: why it is none
        rmsd: to the labelled transition state
        forward, reverse: barriers; forward_error, reverse_error: minus the labelled ones
        steps, gradient_calls, hessian_calls, seconds: with the model's Hessian
        plain_*: without it
        positions: (N, 3) where the search ended
    """

    name: str
    start: str
    failure: str | None = None
    converged: bool = False
    n_imaginary: int | None = None
    connects: bool | None = None
    rmsd: float | None = None
    forward: float | None = None
    reverse: float | None = None
    forward_error: float | None = None
    reverse_error: float | None = None
    steps: int = 0
    gradient_calls: int = 0
    hessian_calls: int = 0
    seconds: float = 0.0
    plain_failure: str | None = None
    plain_steps: int = 0
    plain_gradient_calls: int = 0
    plain_seconds: float = 0.0
    positions: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class IrcErrors:
    """The reaction coordinate of one model's transition state against the labels.

    Attributes:
        name: the reaction; failure: why there is none, or why it is not that of this reaction
        ts_rmsd: the model's from the labelled transition state, angstrom
        forward, reverse: barriers, eV; forward_error, reverse_error: minus the labelled ones
        profile_mae: eV; path_rmsd: angstrom; n_points: labelled geometries behind both
        sides: where the two sides lead, in words
        distance: (M,) angstrom, cumulated RMSD, 0 at the transition state, the reactant's side negative
        energies: (M,) eV, above the model's reactant
    """

    name: str
    failure: str | None = None
    ts_rmsd: float | None = None
    forward: float | None = None
    reverse: float | None = None
    forward_error: float | None = None
    reverse_error: float | None = None
    profile_mae: float | None = None
    path_rmsd: float | None = None
    n_points: int = 0
    sides: list[str] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Ends:
    """The reaction's minima on the model's surface."""

    atoms: dict[str, Atoms]
    energies: dict[str, float]
    failure: str | None


def _relaxed(members: Mapping[str, LabelledGeometry], calculator: Any) -> _Ends:
    atoms: dict[str, Atoms] = {}
    energies: dict[str, float] = {}
    for role in ("reactant", "product"):
        outcome = relax(atoms_of(members[role]), calculator)
        if outcome.failure:
            return _Ends(atoms, energies, f"the {role} cannot be minimised: {outcome.failure}")
        record = members[role]
        if moved := other_species(record.numbers, np.asarray(record.positions), outcome.atoms.positions):
            return _Ends(atoms, energies, f"the {role} {moved}")
        atoms[role], energies[role] = outcome.atoms, outcome.energy
    return _Ends(atoms, energies, None)


def _barriers(energy: float, ends: _Ends, members: Mapping[str, LabelledGeometry]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, role in (("forward", "reactant"), ("reverse", "product")):
        own = energy - ends.energies[role]
        state, end = members["transition_state"].energy, members[role].energy
        found[name] = own
        found[f"{name}_error"] = None if state is None or end is None else own - (state - end)
    return found


def follow_irc(
    name: str,
    members: Mapping[str, LabelledGeometry],
    points: Sequence[LabelledGeometry],
    calculator: Any,
    masses: Array,
) -> IrcErrors:
    """Find the model's transition state from the labelled one and follow both sides.

    Args:
        name: the reaction
        members: the labelled `reactant`, `transition_state`, `product`
        points: further labelled geometries of the reaction
        calculator: ASE calculator with `get_hessian`
        masses: (N,), u

    Raises:
        MissingExtraError: Sella is not installed.
    """
    start = atoms_of(members["transition_state"])
    search = search_saddle(start, calculator, masses=masses)
    if search.failure:
        return IrcErrors(name, f"no transition state from the labelled one: {search.failure}")
    distance = rmsd(search.atoms.positions, start.positions)
    ends = _relaxed(members, calculator)
    if ends.failure:
        return IrcErrors(name, ends.failure, distance)
    try:
        path = intrinsic_reaction_coordinate(search.atoms, calculator, masses=masses, hessian=search.hessian)
    except Exception as exc:  # whatever a model raises is that model's failure
        return IrcErrors(name, reason_of(exc), distance)
    verdict = judge(search, path=path, ends=ends.atoms)
    if verdict.forward is not None and verdict.forward.name == "reactant" and verdict.connects:
        path = path.turned()
    sides = [basin.remark for basin in (verdict.reverse, verdict.forward) if basin is not None]
    if not verdict.success:
        return IrcErrors(name, "; ".join(verdict.reasons), distance, sides=sides)
    error, deviation = _profile(path, members, points)
    along = path_length(path.positions)
    return IrcErrors(
        name,
        None,
        distance,
        **_barriers(search.energy, ends, members),
        profile_mae=error,
        path_rmsd=deviation,
        n_points=len(members) + len(points),
        sides=sides,
        distance=(along - along[len(path.reverse)]).tolist(),
        energies=(path.energies - ends.energies["reactant"]).tolist(),
    )


def _profile(
    path: ReactionCoordinate, members: Mapping[str, LabelledGeometry], points: Sequence[LabelledGeometry]
) -> tuple[float | None, float]:
    top = members["transition_state"].energy
    differences, distances = [], []
    for record in (*members.values(), *points):
        separation = [rmsd(image, np.asarray(record.positions)) for image in path.positions]
        nearest = int(np.argmin(separation))
        distances.append(separation[nearest])
        if top is not None and record.energy is not None:
            differences.append(abs((path.energies[nearest] - path.energy) - (record.energy - top)))
    return (float(np.mean(differences)) if differences else None), float(np.mean(distances))


def saddle_starts(
    members: Mapping[str, LabelledGeometry], ends: Mapping[str, Atoms], calculator: Any, count: int, spread: float
) -> dict[str, Atoms]:
    """Starts of the searches by name: one interpolated, `count` perturbed ones.

    Args:
        members: the labelled geometries; ends: the model's `reactant` and `product`
        calculator: decides which image of the geodesic is the highest
        count: of perturbed starts; spread: angstrom a coordinate
    """
    path, _ = interpolate(ends["reactant"], ends["product"], IMAGES)
    images = []
    for positions in path:
        images.append(ends["reactant"].copy())
        images[-1].positions = positions
    energies = [energy for energy, _ in evaluate_atoms(calculator, images)]
    found = {"interpolated": images[1 + int(np.nanargmax(energies[1:-1]))]}
    moved = perturbed(atoms_of(members["transition_state"]), count + 1, spread)[1:]
    return found | {f"perturbed {k}": atoms for k, atoms in enumerate(moved, start=1)}


def search_reaction(
    name: str,
    members: Mapping[str, LabelledGeometry],
    calculator: Any,
    masses: Array,
    *,
    starts: int = STARTS,
    spread: float = SPREAD,
) -> list[SaddleErrors]:
    """Search the transition state of one reaction from several starts, with the model's Hessian and without.

    Args:
        name: the reaction; members: the labelled `reactant`, `transition_state`, `product`
        calculator: ASE calculator with `get_hessian`; masses: (N,), u
        starts: perturbed starts beside the interpolated one; spread: angstrom a coordinate

    Returns:
        One outcome a start; whatever the model does is an outcome.

    Raises:
        MissingExtraError: Sella is not installed.
    """
    names = ["interpolated", *(f"perturbed {k}" for k in range(1, starts + 1))]
    ends = _relaxed(members, calculator)
    if ends.failure:
        return [SaddleErrors(name, start, ends.failure) for start in names]
    try:
        guesses = saddle_starts(members, ends.atoms, calculator, starts, spread)
    except MissingExtraError:
        raise
    except Exception as exc:  # whatever a foreign model raises is that model's failure
        reason = f"no start: {reason_of(exc)}"
        return [SaddleErrors(name, start, reason) for start in names]
    followed: list[tuple[SaddleSearch, ReactionCoordinate | str]] = []
    found = []
    for start, guess in guesses.items():
        search = search_saddle(guess, calculator, masses=masses)
        plain = search_saddle(guess, calculator, masses=masses, with_hessian=False)
        found.append(
            _outcome(name, start, search, plain, members, ends, _path_of(search, calculator, masses, followed))
        )
    return found


def _path_of(
    search: SaddleSearch, calculator: Any, masses: Array, followed: list[tuple[SaddleSearch, ReactionCoordinate | str]]
) -> ReactionCoordinate | str | None:
    """The path from a search's end; of a transition state that was followed already, the one known."""
    if search.failure:
        return None
    for other, path in followed:
        near = abs(search.energy - other.energy) < SAME[1]
        if near and rmsd(search.atoms.positions, other.atoms.positions, mirror=False) < SAME[0]:
            return path
    result: ReactionCoordinate | str
    try:
        result = intrinsic_reaction_coordinate(search.atoms, calculator, masses=masses, hessian=search.hessian)
    except Exception as exc:  # whatever a model raises is that model's failure
        result = reason_of(exc)
    followed.append((search, result))
    return result


def _outcome(
    name: str,
    start: str,
    search: SaddleSearch,
    plain: SaddleSearch,
    members: Mapping[str, LabelledGeometry],
    ends: _Ends,
    path: ReactionCoordinate | str | None,
) -> SaddleErrors:
    reference = atoms_of(members["transition_state"])
    usable = path if isinstance(path, ReactionCoordinate) else None
    verdict = judge(search, path=usable, ends=ends.atoms, reference=reference)
    reasons = [*verdict.reasons, *([path] if isinstance(path, str) else [])]
    first_order = search.failure is None
    return SaddleErrors(
        name,
        start,
        "; ".join(reasons) or None,
        search.converged,
        None if search.modes is None else search.modes.n_imaginary,
        False if isinstance(path, str) else verdict.connects,
        verdict.rmsd if search.converged else None,
        **(_barriers(search.energy, ends, members) if first_order and not reasons else {}),
        steps=search.steps,
        gradient_calls=search.gradient_calls,
        hessian_calls=search.hessian_calls,
        seconds=search.seconds,
        plain_failure=plain.failure,
        plain_steps=plain.steps,
        plain_gradient_calls=plain.gradient_calls,
        plain_seconds=plain.seconds,
        positions=search.atoms.positions.tolist(),
    )
