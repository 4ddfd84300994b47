"""Ranges of the numbers a user may choose, with their reasons. This module imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from typing import Final

TEMPERATURE: Final = (1.0, 20000.0)
"""K; below, rotation is no classical rotor; above, nothing is a molecule or crystal (the Sun's surface has 5800 K)."""

PRESSURE: Final = (1e-20, 1e6)
"""bar; from interstellar clouds to the inside of planets, where nothing is an ideal gas any more."""

SUPERCELL_ATOMS: Final = 5000
"""The Hessian of so many atoms has 225 million elements: 1.8 GB, of which several copies are held at a time."""

MESH_POINTS: Final = 10**6
"""Wave vectors of a mesh: each has the modes of a primitive cell to be kept. 6.4 million of a crystal with one atom in
it took more than 24 GB."""

STARTS: Final = 10**5
"""Starts of a saddle search from one guess: a day at a second a search."""

SPREAD: Final = 2.0
"""Angstrom a coordinate, random displacement of a start; beyond, nothing is left of the guess."""

MD_STEPS: Final = 10**9
"""Time steps of one molecule: 12 days at a millisecond a step, which is fast for a model."""
