"""Does a model keep a molecule together: a temperature ramp to failure, and the drift of the energy.

ramp    Langevin dynamics from the model's minimum, the bath warmer by `increment` after each `hold`, as in
        Rodriguez, Smith, Mendoza-Cortes (arXiv 2503.07839), who raise it by 5 K each 5 ps. It fails where a bond
        leaves 0.75 to 1.5 times its length at the minimum, where two atoms that are not bonded come closer than
        0.75 times the sum of their covalent radii, or where energy or forces are not finite or the model raises.
        Bonded: see `connectivity`. Real molecules decompose too, from about 1000 K on: a failure below that is the
        model's.
drift   velocity Verlet at constant energy from the minimum, velocities drawn for twice `nve_temperature`: slope of a
        straight line through the total energy per atom, and the root mean square about that line. A conservative
        potential drifts by the error of the integrator only; forces that are no gradient drift without end.

The state after every temperature can be kept, and the ramp goes on from it exactly as it would have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms, units
from ase.data import chemical_symbols, covalent_radii
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from nequip_hessian.analysis.connectivity import bonds
from nequip_hessian.analysis.geometries import require_molecule
from nequip_hessian.analysis.optimisation import relax
from nequip_hessian.errors import ConfigError, OptionError, reason_of
from nequip_hessian.ranges import MD_STEPS, TEMPERATURE

Array = npt.NDArray[np.floating[Any]]

STRETCH: Final = (0.75, 1.5)
"""Smallest and largest length of a bond over that at the minimum."""
CONTACT: Final = 0.75
"""Smallest distance of two atoms that are not bonded over the sum of their covalent radii."""
EVERY: Final = 10
"""Steps between two looks at the geometry."""


def _option(name: str) -> str:
    """How the command line calls a setting."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class RampSettings:
    """How both trajectories run.

    Attributes:
        start, increment, maximum: temperatures of the bath, K; hold: at each, ps
        timestep: fs; friction: 1/fs
        nve: length of the run at constant energy, ps; nve_temperature: K
        seed: of velocities and random forces
    """

    start: float = 25.0
    increment: float = 25.0
    maximum: float = 2000.0
    hold: float = 1.0
    timestep: float = 0.5
    friction: float = 0.01
    nve: float = 2.0
    nve_temperature: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        for name in ("start", "increment", "hold", "timestep", "friction", "nve", "nve_temperature"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise OptionError(f"md: {_option(name)}: expected a number above 0, found {value:g}")
        for name in ("start", "maximum", "nve_temperature"):
            value = getattr(self, name)
            if not value <= TEMPERATURE[1]:
                raise OptionError(f"md: {_option(name)}: expected {TEMPERATURE[1]:g} K or less, found {value:g} K")
        if self.maximum < self.start:
            raise OptionError(
                f"md: {_option('maximum')}: expected the first temperature ({_option('start')}, {self.start:g} K) or "
                f"more, found {self.maximum:g} K"
            )
        if self.seed < 0:
            raise OptionError(f"md: {_option('seed')}: expected 0 or more, found {self.seed}")
        self._check_times()

    def _check_times(self) -> None:
        for name, least in (("hold", 1), ("nve", 20)):
            value = getattr(self, name)
            # as steps are counted, by rounding; before round(), which does not take infinity
            if 1000 * value / self.timestep < 0.5 or round(min(1000 * value / self.timestep, least)) < least:
                raise OptionError(
                    f"md: {_option(name)}: expected {least} time step{'s' if least > 1 else ''} "
                    f"({_option('timestep')}, {self.timestep:g} fs) or more, found {value:g} ps"
                )
        stages = (self.maximum - self.start) / self.increment + 1
        steps = 1000 * (stages * self.hold + self.nve) / self.timestep
        if steps > MD_STEPS:
            raise OptionError(
                f"md: expected at most {MD_STEPS:g} time steps a molecule, found {steps:.3g}: about {stages:.3g} "
                f"temperatures of {self.hold:g} ps ({_option('hold')}) and {self.nve:g} ps ({_option('nve')}) in steps "
                f"of {self.timestep:g} fs; shorten them, or take a larger {_option('increment')}"
            )

    @property
    def temperatures(self) -> list[float]:
        """The temperatures of the ramp, K."""
        count = int(np.floor((self.maximum - self.start) / self.increment + 1e-9)) + 1
        return [self.start + k * self.increment for k in range(count)]

    @property
    def steps_per_hold(self) -> int:
        """Steps at each temperature."""
        return round(1000 * self.hold / self.timestep)


@dataclass
class RampState:
    """A ramp under way: the number of temperatures done, the atoms, the generator.

    Attributes:
        minimum: (N, 3), angstrom; positions, momenta: (N, 3), ASE's units
        generator: state of the generator of random numbers
        measured: mean temperature of the atoms at each temperature done, K
        worst: smallest and largest length of a bond so far, over that at the minimum
    """

    stage: int
    minimum: list[list[float]]
    positions: list[list[float]]
    momenta: list[list[float]]
    generator: dict[str, Any]
    measured: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=lambda: [1.0, 1.0])


@dataclass(frozen=True)
class Dynamics:
    """What one molecule did.

    Attributes:
        label, formula, n_atoms: the molecule
        survived: whole at the end of the ramp
        temperature: K, of the bath where it failed, the last one where it survived
        time: ps of the ramp
        reason: how it failed, None where it survived
        worst: smallest and largest relative bond length seen
        drift: eV/atom/ps; fluctuation: eV/atom; nve_temperature: mean, K; None where that run failed
        nve_time: (M,) ps and nve_energy: (M,) eV/atom above the first, for a plot
        failure: why there was no dynamics
    """

    label: str
    formula: str
    n_atoms: int
    survived: bool = False
    temperature: float | None = None
    time: float = 0.0
    reason: str | None = None
    worst: list[float] = field(default_factory=list)
    drift: float | None = None
    fluctuation: float | None = None
    nve_temperature: float | None = None
    nve_time: list[float] = field(default_factory=list)
    nve_energy: list[float] = field(default_factory=list)
    failure: str | None = None


class Watch:
    """Says when a molecule is no longer what it was.

    Args:
        atoms: the minimum, angstrom
    """

    def __init__(self, atoms: Atoms) -> None:
        self.numbers = atoms.numbers
        bonded = np.triu(bonds(atoms.numbers, atoms.positions))
        free = np.triu(~bonds(atoms.numbers, atoms.positions), 1)
        self.bonded, self.free = np.argwhere(bonded), np.argwhere(free)
        self.lengths = self._distances(atoms.positions, self.bonded)
        radii = covalent_radii[atoms.numbers]
        contact = CONTACT * (radii[self.free[:, 0]] + radii[self.free[:, 1]])
        # a pair of atoms that is this close in the minimum itself is no sign of a failure
        self.contact = np.minimum(contact, STRETCH[0] * self._distances(atoms.positions, self.free))
        self.worst = [1.0, 1.0]

    @staticmethod
    def _distances(positions: Array, pairs: npt.NDArray[np.intp]) -> Array:
        return np.asarray(np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1))

    def _name(self, pair: npt.NDArray[np.intp]) -> str:
        return "-".join(f"{chemical_symbols[self.numbers[i]]}{i}" for i in pair.tolist())

    def __call__(self, atoms: Atoms) -> str | None:
        """Return what has failed, None where nothing has; positions in angstrom."""
        energy = float(atoms.get_potential_energy())
        if not (
            np.isfinite(energy) and np.all(np.isfinite(atoms.positions)) and np.all(np.isfinite(atoms.get_forces()))
        ):
            return "energy, forces or positions are not finite"
        ratio = self._distances(atoms.positions, self.bonded) / self.lengths
        if len(ratio):
            self.worst = [min(self.worst[0], float(ratio.min())), max(self.worst[1], float(ratio.max()))]
            bad = np.flatnonzero((ratio < STRETCH[0]) | (ratio > STRETCH[1]))
            if len(bad):
                return f"bond {self._name(self.bonded[bad[0]])} at {ratio[bad[0]]:.2f} times its length"
        distance = self._distances(atoms.positions, self.free)
        near = np.flatnonzero(distance < self.contact)
        if len(near):
            return f"{self._name(self.free[near[0]])} at {distance[near[0]]:.2f} Å, not bonded before"
        return None


def _thermal(atoms: Atoms, temperature: float, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Momenta (N, 3) of a Maxwell-Boltzmann distribution, ASE's units; temperature in K."""
    width = np.sqrt(atoms.get_masses() * units.kB * temperature)
    return np.asarray(width[:, None] * generator.standard_normal((len(atoms), 3)))


def _begin(minimum: Atoms, settings: RampSettings) -> RampState:
    generator = np.random.default_rng(settings.seed)
    atoms = minimum.copy()
    atoms.set_momenta(_thermal(atoms, settings.start, generator))
    return RampState(
        0,
        minimum.positions.tolist(),
        atoms.positions.tolist(),
        atoms.get_momenta().tolist(),
        dict(generator.bit_generator.state),
    )


def ramp(
    minimum: Atoms,
    calculator: Any,
    settings: RampSettings,
    *,
    state: RampState | None = None,
    on_stage: Callable[[RampState], None] | None = None,
) -> tuple[RampState, str | None]:
    """Warm a molecule until it fails or the last temperature is over.

    Args:
        minimum: a minimum of the calculator, a free molecule, angstrom
        calculator: ASE calculator
        settings: temperatures and times
        state: where an earlier run was; default: the beginning
        on_stage: called with the state after every temperature that the molecule survived

    Returns:
        The state (`stage` counts the temperatures survived) and how it failed, None where it did not.
    """
    state = state or _begin(minimum, settings)
    watch = Watch(minimum)
    watch.worst = list(state.worst)
    atoms = Atoms(minimum.numbers, np.array(state.positions), masses=minimum.get_masses(), info=dict(minimum.info))
    atoms.set_momenta(np.array(state.momenta))
    atoms.calc = calculator
    generator = np.random.default_rng()
    generator.bit_generator.state = state.generator
    for stage in range(state.stage, len(settings.temperatures)):
        target = settings.temperatures[stage]
        friction = settings.friction / units.fs
        dynamics = Langevin(
            atoms, settings.timestep * units.fs, temperature_K=target, friction=friction, fixcm=False, rng=generator
        )
        measured, left = [], settings.steps_per_hold
        while left:
            try:
                with np.errstate(all="ignore"):
                    dynamics.run(min(EVERY, left))
                reason = watch(atoms)
            except Exception as exc:  # a molecule torn so far that the model gives up on it
                reason = f"the model failed: {reason_of(exc)}"
            left -= min(EVERY, left)
            if reason is not None:
                state.worst = watch.worst
                return state, reason
            measured.append(atoms.get_temperature())
        state = RampState(
            stage + 1,
            state.minimum,
            atoms.positions.tolist(),
            atoms.get_momenta().tolist(),
            dict(generator.bit_generator.state),
            [*state.measured, float(np.mean(measured))],
            watch.worst,
        )
        if on_stage is not None:
            on_stage(state)
    return state, None


def energy_drift(minimum: Atoms, calculator: Any, settings: RampSettings) -> dict[str, Any]:
    """Run at constant energy; the fields `drift`, `fluctuation` and `nve_*` of `Dynamics`.

    Raises:
        ConfigError: the molecule falls apart, or energies are not finite.
    """
    atoms = Atoms(minimum.numbers, minimum.positions, masses=minimum.get_masses(), info=dict(minimum.info))
    atoms.calc = calculator
    # half of the kinetic energy goes into the springs
    atoms.set_momenta(_thermal(atoms, 2 * settings.nve_temperature, np.random.default_rng(settings.seed)))
    dynamics = VelocityVerlet(atoms, settings.timestep * units.fs)
    watch = Watch(minimum)
    energies, temperatures, times = [], [], []
    steps = round(1000 * settings.nve / settings.timestep)
    for step in range(0, steps + 1, EVERY):
        if step:
            dynamics.run(EVERY)
        if (reason := watch(atoms)) is not None:
            raise ConfigError(f"constant-energy run at {settings.nve_temperature:g} K: {reason}")
        energies.append(float(atoms.get_total_energy()) / len(atoms))
        temperatures.append(float(atoms.get_temperature()))
        times.append(step * settings.timestep / 1000)
    time, energy = np.array(times), np.array(energies) - energies[0]
    slope, offset = np.polyfit(time, energy, 1)
    return {
        "drift": float(slope),
        "fluctuation": float(np.sqrt(np.mean((energy - slope * time - offset) ** 2))),
        "nve_temperature": float(np.mean(temperatures)),
        "nve_time": time.tolist(),
        "nve_energy": energy.tolist(),
    }


def run_dynamics(
    atoms: Atoms,
    calculator: Any,
    settings: RampSettings | None = None,
    *,
    label: str = "",
    state: RampState | None = None,
    on_stage: Callable[[RampState], None] | None = None,
) -> Dynamics:
    """Minimise a molecule, warm it until it fails, and measure the drift of the energy.

    Args:
        atoms: a free molecule of two or more atoms, angstrom
        calculator: ASE calculator
        settings: temperatures and times
        label: what the molecule is called
        state, on_stage: as for `ramp`

    Returns:
        What happened; whatever the model does is part of it.

    Raises:
        ConfigError: one atom, or a periodic geometry.
    """
    require_molecule(f"md: {label}" if label else "md", atoms)
    settings = settings or RampSettings()
    what = (label, atoms.get_chemical_formula(), len(atoms))
    try:
        if state is None:
            outcome = relax(atoms, calculator)
            if outcome.failure:
                return Dynamics(*what, failure=f"cannot be minimised: {outcome.failure}")
            minimum = outcome.atoms
        else:
            minimum = atoms.copy()
            minimum.positions = np.array(state.minimum)
        state, reason = ramp(minimum, calculator, settings, state=state, on_stage=on_stage)
    except Exception as exc:  # whatever a model raises is that model's failure
        return Dynamics(*what, failure=reason_of(exc))
    reached = settings.temperatures[min(state.stage, len(settings.temperatures) - 1)]
    time = state.stage * settings.hold
    try:
        drift = energy_drift(minimum, calculator, settings)
    except Exception as exc:  # the ramp is told all the same
        reason = "; ".join(filter(None, (reason, str(exc).splitlines()[0])))
        drift = {}
    survived = state.stage == len(settings.temperatures)
    return Dynamics(
        *what, survived, temperature=reached, time=time, reason=reason, worst=[float(x) for x in state.worst], **drift
    )
