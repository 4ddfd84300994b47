"""Which crystals, and which geometries of each: seeded, so that the same list comes out every time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk

SEED = 20261123
SCAN = (0.96, 0.98, 1.0, 1.02, 1.04)  # of the length guessed; the energies give the lattice constant
VOLUMES = (-0.03, -0.015, 0.0, 0.015, 0.03)  # strain of the length
RATTLED = (0.03, 0.05, 0.07, 0.09)  # angstrom, standard deviation of each coordinate
STRAIN = 0.015  # standard deviation of the strain of rattled cells
RATTLED_HESSIAN = 0.06  # angstrom


@dataclass(frozen=True)
class Crystal:
    """One crystal.

    Attributes:
        name: chemical formula; structure: as ASE's `bulk` names it; length: guess of the lattice constant, angstrom
        cutoff: of the plane waves, hartree
        part: of the split `crystal`
    """

    name: str
    structure: str
    length: float
    cutoff: float
    part: str


CRYSTALS = (
    Crystal("Si", "diamond", 5.40, 10, "train"),
    Crystal("C", "diamond", 3.54, 22, "train"),
    Crystal("NaCl", "rocksalt", 5.50, 14, "val"),
    Crystal("SiC", "zincblende", 4.33, 22, "test"),
)


def primitive(crystal: Crystal, length: float) -> Atoms:
    """The primitive cell, two atoms."""
    return bulk(crystal.name, crystal.structure, a=length)


def conventional(crystal: Crystal, length: float) -> Atoms:
    """The conventional cubic cell, eight atoms."""
    return bulk(crystal.name, crystal.structure, a=length, cubic=True)


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """Deform cell and positions with a symmetric strain (3, 3)."""
    moved = atoms.copy()
    moved.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return moved


def sheared(crystal: Crystal, length: float) -> dict[str, Atoms]:
    """Conventional cells under a tetragonal and under a trigonal strain; symmetric, so few displacements are needed."""
    cell = conventional(crystal, length)
    tetragonal = np.diag([-0.01, -0.01, 0.02])
    trigonal = 0.012 * (np.ones((3, 3)) - np.eye(3))
    return {"tetragonal": strained(cell, tetragonal), "trigonal": strained(cell, trigonal)}


def rattled(crystal: Crystal, length: float, count: int, deviation: float) -> Atoms:
    """A conventional cell with a random strain and random displacements of every atom."""
    random = np.random.default_rng([SEED, zlib.crc32(crystal.name.encode()), count])
    strain = random.normal(scale=STRAIN, size=(3, 3))
    moved = strained(conventional(crystal, length), (strain + strain.T) / 2)
    moved.positions += random.normal(scale=deviation, size=moved.positions.shape)
    return moved
