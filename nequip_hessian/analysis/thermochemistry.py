"""Ideal-gas thermochemistry of one conformer: enthalpy, entropy and Gibbs energy from projected normal modes.

Rigid rotor, harmonic oscillator, ideal gas (McQuarrie, Statistical Mechanics, 1976), the electronic ground
state only (degeneracy 2S + 1). Low modes, for which the harmonic entropy is far too large, are treated by one of
`TREATMENTS`:

rrho       every real mode a harmonic oscillator
grimme     entropy of a mode: weight w harmonic, 1 - w a free rotor, w = 1 / (1 + (100 cm^-1 / nu)^4), moment of
           inertia damped with 1e-44 kg m^2 (Grimme, Chem. Eur. J. 2012, 18, 9955); energies as in rrho
truhlar    entropy of a mode below 100 cm^-1 as if it were at 100 cm^-1 (Ribeiro, Marenich, Cramer, Truhlar,
           J. Phys. Chem. B 2011, 115, 14556); energies as in rrho

Imaginary modes are left out: of a transition state that is the reaction coordinate, of a minimum a fault that
is counted in `n_left_out`. A single atom has translation and electronic state only.

All energies in eV, entropies in eV/K; `gibbs` = electronic energy + `enthalpy_correction` - T `entropy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import is_linear, principal_moments
from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.ranges import PRESSURE as PRESSURES
from nequip_hessian.ranges import TEMPERATURE as TEMPERATURES
from nequip_hessian.units import CM_TO_EV

Array = npt.NDArray[np.floating[Any]]

TREATMENTS: Final = ("rrho", "grimme", "truhlar")
TEMPERATURE: Final = 298.15  # K
PRESSURE: Final = 101325.0  # Pa
CUTOFF: Final = 100.0  # cm^-1, of both treatments of low modes

BOLTZMANN: Final = 1.380649e-23 / 1.602176634e-19  # eV/K
_PLANCK: Final = 6.62607015e-34  # J s
_JOULE: Final = 1.602176634e-19  # per eV
_MASS: Final = 1.66053906660e-27  # kg per u
_DAMPING: Final = 1e-44  # kg m^2


@dataclass(frozen=True)
class Thermochemistry:
    """Contributions at one temperature and pressure, eV and eV/K.

    Attributes:
        temperature: K; pressure: Pa; symmetry_number; multiplicity: 2S + 1; treatment: one of TREATMENTS
        electronic_energy: of the geometry; zero_point_energy
        thermal_energy: beyond the zero point, without the electronic energy: translation, rotation, vibration
        entropy_translation, entropy_rotation, entropy_vibration, entropy_electronic: parts of the entropy
        n_modes: modes that were counted; n_left_out: imaginary ones that were not
    """

    temperature: float
    pressure: float
    symmetry_number: int
    multiplicity: int
    treatment: str
    electronic_energy: float
    zero_point_energy: float
    thermal_energy: float
    entropy_translation: float
    entropy_rotation: float
    entropy_vibration: float
    entropy_electronic: float
    n_modes: int
    n_left_out: int

    @property
    def entropy(self) -> float:
        """Total entropy, eV/K."""
        return self.entropy_translation + self.entropy_rotation + self.entropy_vibration + self.entropy_electronic

    @property
    def enthalpy_correction(self) -> float:
        """Enthalpy minus electronic energy, eV: zero point, thermal energy and kT."""
        return self.zero_point_energy + self.thermal_energy + BOLTZMANN * self.temperature

    @property
    def gibbs_correction(self) -> float:
        """Gibbs minus electronic energy, eV."""
        return self.enthalpy_correction - self.temperature * self.entropy

    @property
    def enthalpy(self) -> float:
        """Enthalpy, eV."""
        return self.electronic_energy + self.enthalpy_correction

    @property
    def gibbs(self) -> float:
        """Gibbs energy, eV."""
        return self.electronic_energy + self.gibbs_correction


def thermochemistry(
    wavenumbers: Array,
    positions: Array,
    masses: Array,
    *,
    energy: float = 0.0,
    temperature: float = TEMPERATURE,
    pressure: float = PRESSURE,
    symmetry_number: int = 1,
    multiplicity: int = 1,
    treatment: str = "grimme",
) -> Thermochemistry:
    """Thermochemistry of a molecule from its projected normal modes.

    Args:
        wavenumbers: (m,), cm^-1, translations and rotations projected out, imaginary negative
        positions: (N, 3), angstrom; masses: (N,), u
        energy: electronic energy, eV
        temperature: K; pressure: Pa
        symmetry_number: of the rotation, see `symmetry.symmetry_number`
        multiplicity: 2S + 1
        treatment: one of TREATMENTS

    Raises:
        ConfigError: temperature or pressure out of `nequip_hessian.ranges`, a symmetry number or multiplicity
            below 1, an unknown treatment, or a real mode of no frequency.
    """
    _check_options(temperature, pressure, symmetry_number, multiplicity, treatment)
    values = np.asarray(wavenumbers, dtype=np.float64)
    real = values[values > 0]
    if np.any(values == 0) or np.any(~np.isfinite(values)):
        raise ConfigError(
            "thermochemistry: a vibration of zero frequency, which has no entropy as an oscillator: atoms that do not "
            "interact, or modes that were not projected"
        )
    kt = BOLTZMANN * temperature
    quanta = real * CM_TO_EV
    rotation_energy, rotation_entropy = _rotation(positions, masses, temperature, symmetry_number)
    vibration_energy = float(np.sum(quanta / np.expm1(np.minimum(quanta / kt, 700.0))))
    return Thermochemistry(
        temperature,
        pressure,
        symmetry_number,
        multiplicity,
        treatment,
        energy,
        float(0.5 * np.sum(quanta)),
        1.5 * kt + rotation_energy + vibration_energy,
        _translation_entropy(float(np.sum(masses)), temperature, pressure),
        rotation_entropy,
        float(np.sum(_vibration_entropies(real, temperature, treatment))),
        BOLTZMANN * math.log(multiplicity),
        len(real),
        int(np.sum(values < 0)),
    )


def _check_options(
    temperature: float, pressure: float, symmetry_number: int, multiplicity: int, treatment: str
) -> None:
    if not TEMPERATURES[0] <= temperature <= TEMPERATURES[1]:
        raise OptionError(
            f"thermochemistry: expected a temperature of {TEMPERATURES[0]:g} to {TEMPERATURES[1]:g} K, found "
            f"{temperature:g} K"
        )
    least, most = (1e5 * bar for bar in PRESSURES)
    if not least <= pressure <= most:
        raise OptionError(f"thermochemistry: expected a pressure of {least:g} to {most:g} Pa, found {pressure:g} Pa")
    if symmetry_number < 1 or multiplicity < 1:
        raise OptionError(
            f"thermochemistry: expected symmetry number and multiplicity of 1 or more, found {symmetry_number} and "
            f"{multiplicity}"
        )
    if treatment not in TREATMENTS:
        raise OptionError(f"thermochemistry: expected one of {', '.join(TREATMENTS)}, found {treatment!r}")


def _translation_entropy(mass: float, temperature: float, pressure: float) -> float:
    # Sackur-Tetrode
    kt = BOLTZMANN * temperature * _JOULE
    states = (2 * math.pi * mass * _MASS * kt / _PLANCK**2) ** 1.5 * kt / pressure
    return BOLTZMANN * (math.log(states) + 2.5)


def _rotation(positions: Array, masses: Array, temperature: float, symmetry_number: int) -> tuple[float, float]:
    """Energy, eV, and entropy, eV/K, of a classical rigid rotor."""
    if len(masses) == 1:
        return 0.0, 0.0
    moments = principal_moments(positions, masses) * _MASS * 1e-20
    # h^2 / (8 pi^2 I k), K
    temperatures = _PLANCK**2 / (8 * math.pi**2 * np.maximum(moments, 1e-60) * BOLTZMANN * _JOULE)
    kt = BOLTZMANN * temperature
    if is_linear(positions, masses):
        states = temperature / (symmetry_number * float(temperatures[2]))
        return kt, BOLTZMANN * (math.log(states) + 1.0)
    states = math.sqrt(math.pi * temperature**3 / float(np.prod(temperatures))) / symmetry_number
    return 1.5 * kt, BOLTZMANN * (math.log(states) + 1.5)


def _vibration_entropies(wavenumbers: Array, temperature: float, treatment: str) -> Array:
    """Entropy of each mode, eV/K."""
    if treatment == "truhlar":
        return _harmonic_entropies(np.maximum(wavenumbers, CUTOFF), temperature)
    harmonic = _harmonic_entropies(wavenumbers, temperature)
    if treatment == "rrho":
        return harmonic
    frequencies = wavenumbers * CM_TO_EV * _JOULE / _PLANCK  # 1/s
    inertia = _PLANCK / (8 * math.pi**2 * frequencies)
    damped = inertia * _DAMPING / (inertia + _DAMPING)
    rotor = 8 * math.pi**3 * damped * BOLTZMANN * _JOULE * temperature / _PLANCK**2
    free = BOLTZMANN * (0.5 + 0.5 * np.log(rotor))
    weight = 1.0 / (1.0 + (CUTOFF / wavenumbers) ** 4)
    return np.asarray(weight * harmonic + (1 - weight) * free)


def _harmonic_entropies(wavenumbers: Array, temperature: float) -> Array:
    x = np.minimum(wavenumbers * CM_TO_EV / (BOLTZMANN * temperature), 700.0)
    return np.asarray(BOLTZMANN * (x / np.expm1(x) - np.log1p(-np.exp(-x))))
