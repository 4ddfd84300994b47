"""What an evaluation does, and with which settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nequip_hessian.analysis.consistency import STEP
from nequip_hessian.analysis.md import RampSettings
from nequip_hessian.analysis.outcomes import SPREAD, STARTS
from nequip_hessian.analysis.path import IMAGES, NEB_STEPS, NEB_TOLERANCE
from nequip_hessian.analysis.vibrations import IMAGINARY_THRESHOLD
from nequip_hessian.errors import OptionError

TASKS: Final = ("accuracy", "consistency", "minima", "thermochemistry", "neb", "saddle", "irc", "md")
"""In the order in which they run."""

DEFAULT_TASKS: Final = TASKS[:5]

MOLECULES: Final = 10
"""Molecules of the temperature ramp."""


@dataclass(frozen=True)
class Options:
    """What to do besides energies, forces and Hessians at the reference geometries.

    Attributes:
        split: `scheme:part` each, see `analysis.selection.select`
        limit: at most so many geometries, and the stationary points of the chosen reactions
        reactions: at most so many reactions; default: all that are complete among the geometries
        masses: `standard`, `isotopic` or `source`
        tasks: some of TASKS; `accuracy` is always done
        neb, relax: False leaves `neb` or `minima` out of the tasks
        images: images of a NEB with both ends
        neb_steps: optimiser steps after which a NEB counts as failed, see `analysis.path.reaction_path`
        starts, spread: perturbed starts of a saddle search and their displacement, angstrom
        molecules: of the temperature ramp; ramp: its settings
        workers: processes of one thread each
    """

    split: tuple[str, ...] = ()
    limit: int | None = None
    reactions: int | None = None
    masses: str = "standard"
    tasks: tuple[str, ...] = DEFAULT_TASKS
    neb: bool = True
    relax: bool = True
    images: int = IMAGES
    neb_steps: int = NEB_STEPS
    starts: int = STARTS
    spread: float = SPREAD
    molecules: int = MOLECULES
    ramp: RampSettings = field(default_factory=RampSettings)
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        check_tasks(self.tasks)
        lowest = (("neb-steps", self.neb_steps, 1), ("starts", self.starts, 0), ("molecules", self.molecules, 1))
        for name, value, least in (*lowest, ("workers", self.workers, 1)):
            if value < least:
                raise OptionError(f"{name}: expected {least} or more, found {value}")
        if self.images < 4:
            raise OptionError(f"images: expected 4 or more with both ends, found {self.images}")
        if self.reactions is not None and self.reactions < 1:
            raise OptionError(f"reactions: expected 1 or more, found {self.reactions}")
        if not self.spread > 0:
            raise OptionError(f"spread: expected more than 0 Å, found {self.spread}")

    def wants(self, task: str) -> bool:
        """Whether a task is to be done."""
        left_out = {"neb": not self.neb, "minima": not self.relax}
        return task == "accuracy" or (task in self.tasks and not left_out.get(task, False))

    def settings(self) -> dict[str, Any]:
        """What the numbers of the chosen tasks depend on, for the report; units are in the names."""
        found: dict[str, Any] = {
            "tasks": [task for task in TASKS if self.wants(task)],
            "split": list(self.split),
            "limit": self.limit,
            "reactions": self.reactions,
            "masses": self.masses,
            "imaginary_threshold_cm": IMAGINARY_THRESHOLD,
        }
        if self.wants("consistency"):
            found["consistency_step_angstrom"] = STEP
        if self.wants("neb"):
            found |= {"neb_images": self.images, "neb_force_tolerance_eV_per_angstrom": NEB_TOLERANCE}
            found["neb_steps"] = self.neb_steps
        if self.wants("saddle"):
            found |= {"saddle_perturbed_starts": self.starts, "saddle_spread_angstrom": self.spread}
        if self.wants("md"):
            names = {"start": "K", "increment": "K", "maximum": "K", "hold": "ps", "timestep": "fs", "nve": "ps"}
            found |= {f"md_{name}_{unit}": getattr(self.ramp, name) for name, unit in names.items()}
            found |= {"md_molecules": self.molecules, "md_friction_per_fs": self.ramp.friction}
            found |= {"md_nve_temperature_K": self.ramp.nve_temperature, "md_seed": self.ramp.seed}
        return found


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise ConfigError where a task is unknown or there is none."""
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise OptionError(f"tasks: expected some of {', '.join(TASKS)}, found {', '.join(unknown) or 'none'}")
