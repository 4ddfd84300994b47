"""What the `hessian:` entry of a data section may say, checked before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from nequip_hessian.errors import ConfigError

MODES: Final = ("full", "columns", "random", "modes", "stored")
DISTRIBUTIONS: Final = ("rademacher", "sphere")
METHODS: Final = ("autograd", "finite_difference", "forward_difference", "taylor")
DIFFERENCES: Final = ("finite_difference", "forward_difference")
DEFAULT_STEP: Final = 0.01
"""Displacement along a unit-norm probe for finite differences, angstrom."""
DEFAULT_DISPLACEMENT: Final = 0.02
"""Standard deviation of a Cartesian component of a Taylor displacement, angstrom."""
STEPS: Final = (1e-5, 1.0)
"""Shortest and longest displacement along a probe, angstrom: below, rounding; beyond, bonds break and atoms collide."""
DISPLACEMENTS: Final = (1e-4, 0.5)
"""The same of a Taylor displacement's standard deviation, angstrom; thermal motion has about 0.05."""

_TRAINING_ONLY: Final = ("probe_fraction", "mass_weighted", "cache_mb")


@dataclass(frozen=True)
class ProbeSettings:
    """How Hessians are supervised.

    Attributes:
        mode: `full` (all n unit vectors), `columns` (k of them), `random` (k random directions),
            `modes` (k lowest normal modes of the reference, imaginary ones first) or `stored` (the
            probes and products that the data hold)
        k: number of probes a geometry and step, default 1; not for `full`; for `stored` the number
            drawn out of those there are, default all
        distribution: of `random` probes: `rademacher` (signs / sqrt(n)) or `sphere` (uniform)
        mass_weighted: probes v = M^-1/2 u, for the loss of the mass-weighted Hessian
        project: translations and rotations are taken out of probe and residual
        probe_fraction: share of the labelled geometries that carry a probe in a step (of those that
            are displaced, with `taylor`)
        method: how the model's product is made: `autograd` (exact), `finite_difference` (central),
            `forward_difference`, or `taylor`: no product at all, displaced geometries instead
        step: of the two differences, angstrom along the unit-norm probe, default 0.01
        displacement: of `taylor`, standard deviation of a Cartesian component, angstrom, default 0.02

    Raises:
        ConfigError: options that do not fit together; the message says what to do.
    """

    mode: str = "random"
    k: int | None = None
    distribution: str = "rademacher"
    mass_weighted: bool = False
    project: bool = False
    probe_fraction: float = 1.0
    method: str = "autograd"
    step: float | None = None
    displacement: float | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, MODES)
        _one_of("distribution", self.distribution, DISTRIBUTIONS)
        _one_of("method", self.method, METHODS)
        for name in ("mass_weighted", "project"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"hessian {name}: expected true or false, found {getattr(self, name)!r}")
        self._check_k()
        self._check_combination()
        self._set_length(
            "step", self.method in DIFFERENCES, "finite_difference or forward_difference", DEFAULT_STEP, STEPS
        )
        self._set_length("displacement", self.method == "taylor", "taylor", DEFAULT_DISPLACEMENT, DISPLACEMENTS)
        if not _is_number(self.probe_fraction) or not 0.0 < self.probe_fraction <= 1.0:
            raise ConfigError(
                f"hessian probe_fraction: expected a share above 0 and up to 1, found {self.probe_fraction!r}"
            )

    def _check_k(self) -> None:
        if self.mode == "full" and self.k is not None:
            raise ConfigError(f"hessian k: mode `full` takes all columns; leave k out (found k = {self.k})")
        if self.mode in ("full", "stored") and self.k is None:
            return
        k = 1 if self.k is None else self.k
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"hessian k: expected a whole number of 1 or more, found {self.k!r}")
        if self.method != "taylor":
            object.__setattr__(self, "k", k)

    def _check_combination(self) -> None:
        if self.mode != "random" and self.distribution != "rademacher":
            raise ConfigError(f"hessian distribution: has no meaning with mode `{self.mode}`; leave it out")
        if self.project and self.mode in ("modes", "stored"):
            reason = "have no translations and rotations in them" if self.mode == "modes" else "are given as they are"
            raise ConfigError(f"hessian project: the probes of mode `{self.mode}` {reason}; leave it out")
        if self.mass_weighted and self.mode == "stored":
            raise ConfigError(
                "hessian mass_weighted: stored probes were not drawn in mass-weighted coordinates; use mode full, "
                "columns, random or modes"
            )
        if self.method != "taylor":
            return
        if self.mode != "random" or self.k is not None or self.distribution != "rademacher":
            raise ConfigError(
                "hessian method `taylor` displaces geometries and has no probes; leave out mode, k and distribution"
            )
        if self.mass_weighted or self.project:
            raise ConfigError("hessian method `taylor` has no Hessian loss; leave out mass_weighted and project")

    def _set_length(self, name: str, used: bool, user: str, default: float, bounds: tuple[float, float]) -> None:
        value = getattr(self, name)
        if not used:
            if value is not None:
                raise ConfigError(f"hessian {name}: is for method {user}, found method `{self.method}`; leave it out")
            return
        value = default if value is None else value
        if not _is_number(value) or not 0.0 < value < math.inf:
            raise ConfigError(f"hessian {name}: expected a length above 0 in angstrom, found {value!r}")
        if not bounds[0] <= value <= bounds[1]:
            reason = (
                "so short a displacement drowns in the rounding of forces"
                if value < bounds[0]
                else "so long a displacement leaves what a Hessian describes: bonds break, atoms collide"
            )
            raise ConfigError(
                f"hessian {name}: expected {bounds[0]:g} to {bounds[1]:g} angstrom (default {default:g}), found "
                f"{value!r}: {reason}"
            )
        object.__setattr__(self, name, float(value))

    @property
    def of_elements(self) -> bool:
        """Whether the mean over probes estimates the mean squared error of a Hessian element."""
        return self.mode in ("full", "columns", "random") and self.method != "taylor" and not self.mass_weighted

    @property
    def unit_vectors(self) -> bool:
        """Whether products are columns of the matrix, so that absolute errors of elements can be read off."""
        return self.of_elements and self.mode != "random" and not self.project

    def width(self, max_atoms: int) -> int:
        """Number of probes K that every geometry of a dataloader is padded to.

        Raises:
            ConfigError: mode `stored` and k not known.
        """
        if self.mode == "full":
            return 3 * max_atoms
        if self.k is None:
            raise ConfigError(
                "hessian mode `stored`: give k, the largest number of stored probes of a geometry (our own dataset "
                "finds it by itself)"
            )
        return self.k


def parse(hessian: Mapping[str, Any]) -> ProbeSettings:
    """Return the settings of a `hessian:` entry, whose `cache_mb` is the transform's own.

    Raises:
        ConfigError: an unknown key, or options that do not fit together.
    """
    known = [field.name for field in fields(ProbeSettings)]
    unknown = [str(key) for key in hessian if key not in known and key != "cache_mb"]
    if unknown:
        raise ConfigError(f"hessian: unknown {', '.join(unknown)}; expected some of {', '.join(known)}, cache_mb")
    return ProbeSettings(**{key: value for key, value in hessian.items() if key != "cache_mb"})


def for_validation(hessian: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What validation and test sets take where `val_hessian` is not given.

    The settings of the training, less what only a training can use: the fraction of probes and the
    mass weighting. Displaced geometries (`taylor`) leave energies and forces to validate.

    Raises:
        ConfigError: `modes`, whose errors are not those of Hessian elements.
    """
    if hessian is None or hessian.get("method") == "taylor":
        return None
    if hessian.get("mode") == "modes":
        raise ConfigError(
            "hessian mode `modes` gives no error of a Hessian element to validate with: add "
            "val_hessian: {mode: full} or {mode: random, k: 1} to the data section"
        )
    return {key: value for key, value in hessian.items() if key not in _TRAINING_ONLY}


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"hessian {name}: expected one of {', '.join(known)}, found {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
