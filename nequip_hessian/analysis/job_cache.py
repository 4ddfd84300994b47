"""Stages of a reaction job kept on disk, one file a stage, so that an interrupted job goes on where it was."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.irc import ReactionCoordinate
from nequip_hessian.analysis.irc_side import Descent, Side
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
        for name, side in (("forward", path.forward), ("reverse", path.reverse)):
            self.put_side(name, side)
        start = path.transition_state.positions
        arrays: dict[str, Any] = {"positions": start, "energy": path.energy, "forces": path.forces}
        self._save("irc", arrays | {"wavenumbers": path.wavenumbers})

    def irc(self, template: Atoms) -> ReactionCoordinate | None:
        """Return the kept reaction coordinate, None where it was not done yet."""
        kept = self._load("irc")
        forward, reverse = (self.side(name, template) for name in ("forward", "reverse"))
        if kept is None or forward is None or reverse is None:
            return None
        start = _moved(template, kept["positions"])
        return ReactionCoordinate(start, float(kept["energy"]), kept["forces"], kept["wavenumbers"], forward, reverse)

    def put_side(self, name: str, side: Side) -> None:
        """Keep one side of a reaction coordinate; `name` is `forward` or `reverse`."""
        arrays: dict[str, Any] = {field: getattr(side, field) for field in (*_SIDE, "ended")}
        if side.minimum is not None:
            minimum = side.minimum
            arrays |= {"minimum.positions": minimum.atoms.positions, "minimum.energy": minimum.energy}
            arrays |= {"minimum.forces": minimum.forces, "minimum.steps": minimum.steps}
        self._save(f"irc_{name}", arrays)

    def side(self, name: str, template: Atoms) -> Side | None:
        """Return a kept side, None where it was not done yet."""
        kept = self._load(f"irc_{name}")
        if kept is None:
            return None
        minimum = _relaxation(kept, "minimum.", template)
        arc, positions, energies, forces = (kept[field] for field in _SIDE)
        return Side(arc, positions, energies, forces, str(kept["ended"]), minimum, 0)

    def put_descent(self, name: str, descent: Descent) -> None:
        """Keep the points of a side that is on its way."""
        arrays: dict[str, Any] = {
            field: np.array([point[k] for point in descent.points]) for k, field in enumerate(_SIDE)
        }
        arrays |= {"hessian": descent.hessian, "length": descent.length, "halved": descent.halved}
        self._save(f"irc_{name}_points", arrays | {"ended": descent.ended or "", "finer": descent.finer})

    def descent(self, name: str) -> Descent | None:
        """Return how far a side has come, None where it has not begun."""
        kept = self._load(f"irc_{name}_points")
        if kept is None:
            return None
        rows = zip(*(kept[field] for field in _SIDE), strict=True)
        points = [(float(arc), positions, float(energy), forces) for arc, positions, energy, forces in rows]
        ended = str(kept["ended"]) or None
        length, halved, finer = float(kept["length"]), int(kept["halved"]), bool(kept["finer"])
        return Descent(points, kept["hessian"], length, halved, ended, finer)


def _moved(template: Atoms, positions: Any) -> Atoms:
    atoms = template.copy()
    atoms.calc = None
    atoms.positions = np.asarray(positions)
    return atoms


def _relaxation(kept: dict[str, Any], prefix: str, template: Atoms) -> Relaxation:
    atoms = _moved(template, kept[f"{prefix}positions"])
    energy, forces = float(kept[f"{prefix}energy"]), np.asarray(kept[f"{prefix}forces"], dtype=np.float64)
    return Relaxation(atoms, energy, forces, True, int(kept[f"{prefix}steps"]), None)
