"""A potential in several processes: images of a band, and the displacements of a Hessian by differences.

For calculators that answer one geometry at a time. NequIP files answer a batch in one call and need no processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.executors import Crew
from nequip_hessian.potentials import ForeignPotential, PotentialSource

Array = npt.NDArray[np.float64]


class PooledPotential(ForeignPotential):
    """A calculator whose copies in other processes share what is asked for together.

    Args:
        potential: the calculator of this process, which answers single geometries
        source: how to make it again; `source.workers` processes of one thread each do so when they are first needed
    """

    def __init__(self, potential: ForeignPotential, source: PotentialSource) -> None:
        super().__init__(potential.inner, potential.title, potential.displacement)
        self._source = replace(source, workers=1)
        self._crew = Crew(source.workers)

    def evaluate_many(self, geometries: Sequence[Atoms]) -> list[tuple[float, Array]]:
        """Return energy (eV) and forces (N, 3) (eV/angstrom) of several geometries."""
        return self._crew.map(_answer, [(self._source, _bare(atoms)) for atoms in geometries])

    def _forces_at(self, atoms: Atoms, moved: Iterable[Array]) -> Iterator[Array]:
        frames = []
        for positions in moved:
            frames.append(_bare(atoms))
            frames[-1].positions = positions
        return (forces for _, forces in self.evaluate_many(frames))


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=dict(atoms.info))


_HERE: list[tuple[PotentialSource, Any]] = []  # of a worker process


def _answer(task: tuple[PotentialSource, Atoms]) -> tuple[float, Array]:
    source, atoms = task
    if not _HERE or _HERE[0][0] != source:
        _HERE[:] = [(source, source.load())]
    atoms.calc = _HERE[0][1]
    return float(atoms.get_potential_energy()), np.array(atoms.get_forces())
