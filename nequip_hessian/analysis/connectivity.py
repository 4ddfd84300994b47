"""Which atoms are bonded, and whether two geometries are the same species or the same minimum.

Two atoms count as bonded where their distance is below `THRESHOLD` times the sum of their covalent radii
(Cordero et al., Dalton Trans. 2008, 2832, as in ASE). Atoms keep their order: geometries with the same bonds
between the same atoms are the same species.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.formula import Formula

from nequip_hessian.analysis.superpose import rmsd

Array = npt.NDArray[np.floating[Any]]
Bonds = npt.NDArray[np.bool_]

THRESHOLD: Final = 1.3
"""Largest distance of two bonded atoms over the sum of their covalent radii."""

SAME_MINIMUM: Final = 0.1
"""RMSD, angstrom, below which two minima with the same bonds are the same one."""

NEARER: Final = 0.5
"""RMSD, angstrom, below which the nearer of two minima with the same bonds is taken."""


def bonds(numbers: npt.NDArray[np.integer[Any]], positions: Array, threshold: float = THRESHOLD) -> Bonds:
    """Return which atoms are bonded: (N, N), symmetric, False on the diagonal.

    Args:
        numbers: (N,) atomic numbers
        positions: (N, 3), angstrom
        threshold: of the sum of covalent radii
    """
    radii = covalent_radii[np.asarray(numbers, dtype=int)]
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    bonded = distance < threshold * (radii[:, None] + radii[None])
    np.fill_diagonal(bonded, False)
    return np.asarray(bonded)


def fragments(bonded: Bonds) -> list[list[int]]:
    """Atoms of each molecule of a bond matrix (N, N), in ascending order."""
    from scipy.sparse.csgraph import connected_components

    count, owner = connected_components(bonded, directed=False)
    return [np.flatnonzero(owner == k).tolist() for k in range(count)]


def species(atoms: Atoms) -> str:
    """Formulas of the molecules in a geometry, e.g. `CO + H2`, largest first."""
    parts = fragments(bonds(atoms.numbers, atoms.positions))
    parts.sort(key=lambda part: (-len(part), part))
    return " + ".join(str(Formula(str(atoms[part].symbols)).convert("hill")) for part in parts)


def bond_changes(numbers: npt.NDArray[np.integer[Any]], before: Bonds, after: Bonds) -> tuple[list[str], list[str]]:
    """Bonds formed and broken between two bond matrices, as `C0-H3` (atoms counted from 0)."""

    def names(mask: Bonds) -> list[str]:
        pairs = np.argwhere(np.triu(mask))
        return [f"{chemical_symbols[numbers[i]]}{i}-{chemical_symbols[numbers[j]]}{j}" for i, j in pairs.tolist()]

    return names(after & ~before), names(before & ~after)


def other_species(numbers: npt.NDArray[np.integer[Any]], before: Array, after: Array) -> str | None:
    """Say which bonds a minimisation formed and broke, None where the geometry is the same species still.

    Args:
        numbers: (N,) atomic numbers
        before, after: (N, 3), angstrom
    """
    formed, broken = bond_changes(numbers, bonds(numbers, before), bonds(numbers, after))
    parts = [f"{name} {', '.join(names)}" for name, names in (("formed", formed), ("broken", broken)) if names]
    return f"relaxes to another species with this model ({'; '.join(parts)})" if parts else None


def exchanged(numbers: npt.NDArray[np.integer[Any]], first: Bonds, second: Bonds) -> bool:
    """Whether two different bond matrices are one species with like atoms exchanged (graph isomorphism)."""
    import networkx as nx

    graphs = []
    for matrix in (first, second):
        graph = nx.from_numpy_array(matrix.astype(int))
        nx.set_node_attributes(graph, dict(enumerate(np.asarray(numbers).tolist())), "element")
        graphs.append(graph)
    match = nx.algorithms.isomorphism.categorical_node_match("element", 0)
    return bool(nx.is_isomorphic(*graphs, node_match=match))


@dataclass(frozen=True)
class Basin:
    """Which of several known minima a geometry belongs to.

    Attributes:
        name: of the known minimum, None where it is none of them
        rmsd: to it, or to the nearest with the same bonds, angstrom; None where none has these bonds
        species: formulas of the molecules it consists of
        remark: why, in words
    """

    name: str | None
    rmsd: float | None
    species: str
    remark: str


def identify(atoms: Atoms, known: Mapping[str, Atoms], threshold: float = THRESHOLD) -> Basin:
    """Say which of several minima a relaxed geometry is, by connectivity, then by RMSD.

    Where only one known minimum has these bonds, they decide. Where several have (conformers), the
    nearest is taken, and only below `NEARER`. Mirror images are told apart where both are known (an inversion
    leads from one to the other); else a geometry is that of which it is the mirror image.

    Args:
        atoms: a relaxed geometry, angstrom
        known: minima by name, the same atoms in the same order
        threshold: as in `bonds`
    """
    what = species(atoms)
    own = bonds(atoms.numbers, atoms.positions, threshold)
    matrices = {name: bonds(other.numbers, other.positions, threshold) for name, other in known.items()}
    alike = [name for name, matrix in matrices.items() if np.array_equal(matrix, own)]
    if not alike:
        swapped = [name for name, matrix in matrices.items() if exchanged(atoms.numbers, own, matrix)]
        also = f"; the species of {swapped[0]} with like atoms exchanged" if swapped else ""
        return Basin(None, None, what, f"other bonds than {' and '.join(known) or 'any known minimum'}{also}")
    distance = {name: rmsd(known[name].positions, atoms.positions, mirror=False) for name in alike}
    if min(distance.values()) >= SAME_MINIMUM:
        distance = {name: rmsd(known[name].positions, atoms.positions) for name in alike}
    best = min(alike, key=distance.__getitem__)
    value = distance[best]
    if value < SAME_MINIMUM:
        return Basin(best, value, what, f"the {best}: same bonds, RMSD {value:.3f} Å")
    if len(alike) == 1:
        return Basin(best, value, what, f"the {best} by its bonds; RMSD {value:.2f} Å, perhaps another conformer")
    if value < NEARER:
        return Basin(best, value, what, f"nearest to the {best}, RMSD {value:.2f} Å; {len(alike)} have these bonds")
    return Basin(None, value, what, f"the bonds of {' and '.join(alike)}, but RMSD {value:.2f} Å from the nearest")
