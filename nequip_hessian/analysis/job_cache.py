"""Stages of a reaction job kept on disk, one file a stage, so that an interrupted job goes on where it was."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.irc import ReactionCoordinate, Side
from nequip_hessian.analysis.optimisation import Relaxation
from nequip_hessian.analysis.saddle import SaddleSearch
from nequip_hessian.analysis.vibrations import vibrations

_SIDE = ("arc", "positions", "energies", "forces")


class JobCache(Cache):
    """The folder of one job; files are whole or not there, content of another key is removed (see `Cache`)."""

    def put_relaxation(self, name: str, found: Relaxation) -> None:
        """Keep the minimisation of one end."""
        arrays = {"positions": found.atoms.positions, "energy": found.energy, "forces": found.forces}
        self._save(name, arrays | {"steps": found.steps})

    def relaxation(self, name: str, template: Atoms) -> Relaxation | None:
        """Return a kept minimisation, None where it was not done yet or failed."""
        kept = self._load(name)
        return None if kept is None else _relaxation(kept, "", template)

    def put_search(self, search: SaddleSearch) -> None:
        """Keep a search that found a transition state."""
        arrays: dict[str, Any] = {"positions": search.atoms.positions, "energy": search.energy, "forces": search.forces}
        arrays |= {"hessian": search.hessian, "seconds": search.seconds, "with_hessian": search.with_hessian}
        arrays["counts"] = (search.steps, search.gradient_calls, search.hessian_calls)
        self._save("transition_state", arrays)

    def search(self, template: Atoms) -> SaddleSearch | None:
        """Return the kept transition state, None where none was found yet."""
        kept = self._load("transition_state")
        if kept is None:
            return None
        atoms = _moved(template, kept["positions"])
        modes = vibrations(kept["hessian"], atoms.positions, atoms.get_masses())
        counts = [int(count) for count in kept["counts"]]
        return SaddleSearch(
            atoms,
            float(kept["energy"]),
            kept["forces"],
            kept["hessian"],
            modes,
            True,
            counts[0],
            counts[1],
            counts[2],
            float(kept["seconds"]),
            bool(kept["with_hessian"]),
            None,
        )

    def put_irc(self, path: ReactionCoordinate) -> None:
        """Keep a reaction coordinate, both sides of which ended at minima."""
        start = path.transition_state.positions
        arrays: dict[str, Any] = {"positions": start, "energy": path.energy, "forces": path.forces}
        arrays["wavenumbers"] = path.wavenumbers
        for name, side in (("forward", path.forward), ("reverse", path.reverse)):
            arrays |= {f"{name}.{field}": getattr(side, field) for field in _SIDE}
            arrays[f"{name}.ended"] = side.ended
            if side.minimum is not None:
                minimum = side.minimum
                arrays |= {
                    f"{name}.minimum.positions": minimum.atoms.positions,
                    f"{name}.minimum.energy": minimum.energy,
                }
                arrays |= {f"{name}.minimum.forces": minimum.forces, f"{name}.minimum.steps": minimum.steps}
        self._save("irc", arrays)

    def irc(self, template: Atoms) -> ReactionCoordinate | None:
        """Return the kept reaction coordinate, None where it was not done yet."""
        kept = self._load("irc")
        if kept is None:
            return None
        sides = []
        for name in ("forward", "reverse"):
            minimum = _relaxation(kept, f"{name}.minimum.", template)
            arc, positions, energies, forces = (kept[f"{name}.{field}"] for field in _SIDE)
            sides.append(Side(arc, positions, energies, forces, str(kept[f"{name}.ended"]), minimum, 0))
        start = _moved(template, kept["positions"])
        return ReactionCoordinate(start, float(kept["energy"]), kept["forces"], kept["wavenumbers"], sides[0], sides[1])


def _moved(template: Atoms, positions: Any) -> Atoms:
    atoms = template.copy()
    atoms.calc = None
    atoms.positions = np.asarray(positions)
    return atoms


def _relaxation(kept: dict[str, Any], prefix: str, template: Atoms) -> Relaxation:
    atoms = _moved(template, kept[f"{prefix}positions"])
    energy, forces = float(kept[f"{prefix}energy"]), np.asarray(kept[f"{prefix}forces"], dtype=np.float64)
    return Relaxation(atoms, energy, forces, True, int(kept[f"{prefix}steps"]), None)
