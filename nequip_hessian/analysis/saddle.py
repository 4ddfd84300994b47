"""Transition-state search with Sella, from one start or many, with the model's own Hessian or without.

A search succeeds where it converged (largest force below `fmax`) on a point with exactly one imaginary mode
(below -20 cm^-1 after projection). Where the ends of the reaction are known, the sides of its intrinsic reaction
coordinate have to lead to both of them as well; where a reference is known, the RMSD to its transition state
(angstrom, mirror images counted as equal) and the error of the barrier (eV) are reported beside it.

Sella: Hermes, Sargsyan, Najm, Zador, J. Chem. Theory Comput. 2022, 18, 6974. With the Hessian it starts from the
exact curvature and takes it again where the mode is lost, or every `hessian_every` steps; without, it finds the
lowest mode by differences of forces. Calls of forces and Hessians are counted where they are made, so that the
two can be compared; a Hessian by differences of forces counts as one.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from tqdm import tqdm

from nequip_hessian.analysis.connectivity import Basin, identify
from nequip_hessian.analysis.geometries import require_molecule
from nequip_hessian.analysis.irc import ReactionCoordinate
from nequip_hessian.analysis.prediction import check_hessian
from nequip_hessian.analysis.superpose import rmsd
from nequip_hessian.analysis.vibrations import Vibrations, vibrations
from nequip_hessian.errors import ConfigError, MissingExtraError, OptionError, reason_of
from nequip_hessian.ranges import SPREAD, STARTS

Array = npt.NDArray[np.floating[Any]]

FORCE_TOLERANCE: Final = 0.005
"""Largest force on any atom at a transition state, eV/angstrom."""
STEPS: Final = 200
SAME: Final = (0.05, 0.005)
"""RMSD, angstrom, and energy, eV, below which two transition states are the same."""


@dataclass(frozen=True, eq=False)
class SaddleSearch:
    """Outcome of one search.

    Attributes:
        atoms: the last geometry, angstrom, without a calculator
        energy: eV; forces: (N, 3), eV/angstrom; NaN where the model gave none
        hessian: (3N, 3N), eV/angstrom^2, and modes: the vibrations there; None where it did not converge
        converged: largest force below the tolerance
        steps: Sella's steps; gradient_calls, hessian_calls: of the model; seconds: wall time
        with_hessian: whether Sella had the model's Hessian
        failure: why it is no transition state, None where it is one
    """

    atoms: Atoms
    energy: float
    forces: Array
    hessian: Array | None
    modes: Vibrations | None
    converged: bool
    steps: int
    gradient_calls: int
    hessian_calls: int
    seconds: float
    with_hessian: bool
    failure: str | None

    @property
    def largest_force(self) -> float:
        """Largest force on an atom, eV/angstrom."""
        return float(np.max(np.linalg.norm(self.forces, axis=1)))


class CountingCalculator(Calculator):
    """Passes everything on to a calculator and counts the geometries and Hessians asked for."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's convention)

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.gradient_calls, self.hessian_calls = inner, 0, 0

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """ASE's entry point."""
        super().calculate(atoms, properties, system_changes)
        self.gradient_calls += 1
        probe = self.atoms.copy()
        probe.calc = self.inner
        energy, forces = float(probe.get_potential_energy()), np.array(probe.get_forces(), dtype=np.float64)
        if not (np.isfinite(energy) and np.all(np.isfinite(forces))):
            raise ConfigError("energy or forces are not finite")
        self.results = {"energy": energy, "forces": forces}

    def get_hessian(self, atoms: Atoms) -> Array:
        """Hessian (3N, 3N), eV/angstrom^2."""
        self.hessian_calls += 1
        bare = atoms.copy()
        bare.calc = None
        return check_hessian(self.inner.get_hessian(bare), len(bare))


def search_saddle(
    atoms: Atoms,
    calculator: Any,
    *,
    with_hessian: bool = True,
    hessian_every: int | None = None,
    internal: bool = False,
    fmax: float = FORCE_TOLERANCE,
    steps: int = STEPS,
    masses: Array | None = None,
) -> SaddleSearch:
    """Search a transition state from a guess.

    Args:
        atoms: guess, a free molecule, angstrom; left as it is
        calculator: ASE calculator with `get_hessian`
        with_hessian: give Sella the calculator's Hessian
        hessian_every: take it again every so many steps; default: only where the mode is lost
        internal: search in internal coordinates
        fmax: largest force, eV/angstrom; steps: at most so many
        masses: (N,), u, for the vibrations; default: those of `atoms`

    Returns:
        The search; a model that raises gives one with `failure`.

    Raises:
        ConfigError: one atom, a periodic geometry, settings out of range; MissingExtraError: no Sella.
    """
    require_molecule("saddle search", atoms)
    if not (fmax > 0 and steps >= 1 and (hessian_every is None or hessian_every >= 1)):
        raise OptionError(
            "saddle search: expected fmax above 0, steps and hessian_every of 1 or more, found "
            f"{fmax}, {steps} and {hessian_every}"
        )
    sella = require_sella()
    counter = CountingCalculator(calculator)
    work = Atoms(atoms.numbers, atoms.positions, masses=atoms.get_masses(), info=dict(atoms.info))
    work.calc = counter
    options: dict[str, Any] = {"hessian_function": counter.get_hessian} if with_hessian else {}
    if with_hessian and hessian_every is not None:
        options["diag_every_n"] = hessian_every
    begun, done, reason = time.perf_counter(), False, ""
    search: Any = None
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # its own on ill-conditioned steps, which its trust radius handles
            search = sella(work, order=1, internal=internal, logfile=None, **options)
            done = bool(search.run(fmax=fmax, steps=steps))
        if not done:
            reason = f"not converged after {search.nsteps} steps"
    except Exception as exc:  # whatever the model or Sella raises ends this search, not the run
        reason = reason_of(exc)
    seconds = time.perf_counter() - begun
    taken = 0 if search is None else int(search.nsteps)
    counts = (taken, counter.gradient_calls, counter.hessian_calls, seconds, with_hessian)
    return _outcome(work, counter, done, reason, counts, masses, fmax)


def require_sella() -> Any:
    """Return the class Sella.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from sella import Sella
    except ImportError as exc:
        raise MissingExtraError(
            'transition-state searches need the package sella: pip install "nequip-hessian[ts]"'
        ) from exc
    return Sella


def _outcome(
    work: Atoms,
    counter: CountingCalculator,
    done: bool,
    reason: str,
    counts: tuple[int, int, int, float, bool],
    masses: Array | None,
    fmax: float,
) -> SaddleSearch:
    bare = work.copy()
    bare.calc = None
    energy, forces = float("nan"), np.full((len(bare), 3), np.nan)
    hessian = modes = None
    try:
        energy, forces = float(work.get_potential_energy()), np.array(work.get_forces())
        if done:
            hessian = check_hessian(counter.inner.get_hessian(bare), len(bare))
            modes = vibrations(hessian, bare.positions, bare.get_masses() if masses is None else masses)
    except Exception as exc:  # the model failed where the search ended
        done, reason = False, reason or reason_of(exc)
    if not done and np.all(np.isfinite(forces)):
        largest = float(np.max(np.linalg.norm(forces, axis=1)))
        reason += f", largest force {largest:.3f} eV/Å, wanted below {fmax:g}"
    if modes is not None and modes.n_imaginary != 1:
        reason = f"{modes.n_imaginary} imaginary modes below -20 cm⁻¹ instead of one: no transition state"
    return SaddleSearch(bare, energy, forces, hessian, modes, done, *counts, reason or None)


def perturbed(atoms: Atoms, count: int, spread: float, seed: int = 0) -> list[Atoms]:
    """Return the guess and `count` - 1 copies with random displacements of `spread` angstrom a coordinate."""
    if not 1 <= count <= STARTS:
        raise OptionError(f"starts: expected 1 to {STARTS} from each guess, found {count}")
    if not 0 <= spread <= SPREAD:
        raise OptionError(f"spread: expected 0 to {SPREAD:g} angstrom a coordinate, found {spread:g}")
    if seed < 0:
        raise OptionError(f"seed: expected 0 or more, found {seed}")
    rng = np.random.default_rng(seed)
    starts = [atoms.copy()]
    for _ in range(count - 1):
        starts.append(atoms.copy())
        starts[-1].positions += rng.normal(scale=spread, size=atoms.positions.shape)
    return starts


def search_saddles(starts: Sequence[Atoms], calculator: Any, **settings: Any) -> list[SaddleSearch]:
    """Search from several starts; settings as in `search_saddle`. A bar on a terminal."""
    return [
        search_saddle(atoms, calculator, **settings) for atoms in tqdm(starts, desc="ts", disable=None, leave=False)
    ]


def distinct(searches: Sequence[SaddleSearch]) -> list[int | None]:
    """Number the different transition states among searches in order of appearance; None for a failed one."""
    found: list[SaddleSearch] = []
    names: list[int | None] = []
    for search in searches:
        if search.failure is not None:
            names.append(None)
            continue
        for index, other in enumerate(found):
            near = abs(search.energy - other.energy) < SAME[1]
            if near and rmsd(search.atoms.positions, other.atoms.positions) < SAME[0]:
                names.append(index)
                break
        else:
            names.append(len(found))
            found.append(search)
    return names


@dataclass(frozen=True)
class SaddleVerdict:
    """Whether a search found the transition state that was wanted.

    Attributes:
        success: all that could be judged holds
        first_order: converged with one imaginary mode
        connects: whether the two sides lead to the two ends, None where no ends or no path were given
        forward, reverse: where the sides lead
        rmsd: to the reference transition state, angstrom; barrier_error: eV; None without a reference
        reasons: why it is no success
    """

    success: bool
    first_order: bool
    connects: bool | None
    forward: Basin | None
    reverse: Basin | None
    rmsd: float | None
    barrier_error: float | None
    reasons: tuple[str, ...]


def judge(
    search: SaddleSearch,
    *,
    path: ReactionCoordinate | None = None,
    ends: Mapping[str, Atoms] | None = None,
    reference: Atoms | None = None,
    barriers: tuple[float, float] | None = None,
) -> SaddleVerdict:
    """Hold a search against what was wanted.

    Args:
        search: the search
        path: its intrinsic reaction coordinate
        ends: the two minima by name, e.g. `reactant` and `product`, same atoms in the same order
        reference: the transition state wanted
        barriers: the barrier found and the one wanted, eV, both measured in the same way

    Returns:
        The verdict; a failed path counts as one that does not connect.

    Raises:
        ConfigError: the reference is another molecule, or its atoms have another order.
    """
    if reference is not None and not np.array_equal(reference.numbers, search.atoms.numbers):
        raise ConfigError(
            f"reference: expected the atoms of the search in the same order, {search.atoms.get_chemical_symbols()}, "
            f"found {reference.get_chemical_symbols()}"
        )
    reasons = [search.failure] if search.failure else []
    sides: list[Basin | None] = [None, None]
    connects = None
    if path is not None and ends:
        for index, side in enumerate((path.forward, path.reverse)):
            if side.failure is not None or side.minimum is None:
                reasons.append(f"{('forward', 'reverse')[index]} side: {side.failure}")
            else:
                sides[index] = identify(side.minimum.atoms, ends)
        reached = {basin.name for basin in sides if basin is not None and basin.name}
        connects = reached == set(ends)
        if not connects and all(basin is not None for basin in sides):
            reasons.append("its sides lead to " + " and to ".join(b.remark for b in sides if b is not None))
    distance = None if reference is None else rmsd(search.atoms.positions, reference.positions)
    error = None if barriers is None else barriers[0] - barriers[1]
    first_order = search.failure is None
    success = first_order and connects is not False
    return SaddleVerdict(success, first_order, connects, sides[0], sides[1], distance, error, tuple(reasons))


def compare_hessian(atoms: Atoms, calculator: Any, **settings: Any) -> tuple[SaddleSearch, SaddleSearch]:
    """Search from one start with the model's Hessian and without; settings as in `search_saddle`."""
    first, second = (search_saddle(atoms, calculator, with_hessian=use, **settings) for use in (True, False))
    return first, second
