"""Force constants of a supercell from a model: its exact Hessian, or central differences of its forces.

Phonopy's convention: Phi[i, j, a, b] = d2E / dx_ia dx_jb of the supercell, eV/angstrom^2, which is the Gamma-point
Hessian of the supercell. Needs phonopy (extra `phonons`).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.prediction import check_hessian, evaluate_atoms
from nequip_hessian.curvature import SECOND_ORDER, displaced
from nequip_hessian.errors import ConfigError, HessianDataError, MissingExtraError, OptionError
from nequip_hessian.potentials import ForeignPotential
from nequip_hessian.ranges import SUPERCELL_ATOMS

Array = npt.NDArray[np.float64]

DISPLACEMENT: Final = 0.01
"""Step of the central differences where a model has no Hessian of its own, angstrom; as phonopy's."""

LEAST_WIDTH: Final = 10.0
"""Width of a supercell in every direction where none was asked for, angstrom."""


class PhononCache(Cache):
    """The folder of one phonon job: the relaxed crystal and the force constants as they come."""

    def put(self, name: str, **arrays: Any) -> None:
        """Keep arrays under a name."""
        self._save(name, arrays)

    def get(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return what was kept under a name, None where nothing was."""
        return self._load(name)


def phonopy_module(name: str = "phonopy") -> Any:
    """Import phonopy or one of its modules.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MissingExtraError('phonons need phonopy: pip install "nequip-hessian[phonons]"') from exc


def widths(cell: npt.NDArray[Any]) -> Array:
    """Distances (3,) between opposite faces of a cell (3, 3), angstrom."""
    return np.asarray(1 / np.linalg.norm(np.linalg.inv(cell), axis=0))


def default_supercell(cell: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Least diagonal supercell matrix (3, 3) that is LEAST_WIDTH wide everywhere."""
    return np.diag(np.ceil(LEAST_WIDTH / widths(cell) - 1e-6).astype(np.int64))


def phonon_calculation(atoms: Atoms, supercell: npt.NDArray[Any], primitive: Any = "auto") -> Any:
    """Make a `phonopy.Phonopy` without force constants.

    Args:
        atoms: the unit cell, angstrom
        supercell: (3, 3) integers, phonopy's convention: supercell = matrix^T @ unit cell, vectors in rows
        primitive: (3, 3), or `auto`: found from the symmetry

    Raises:
        ConfigError: no crystal, or a supercell matrix without volume. MissingExtraError: no phonopy.
    """
    api, structure = phonopy_module(), phonopy_module("phonopy.structure.atoms")
    if not np.all(atoms.pbc) or abs(np.linalg.det(np.asarray(atoms.cell))) < 1e-6:
        raise ConfigError(
            f"{atoms.get_chemical_formula()}: phonons need a crystal, a cell periodic in three directions; found "
            f"{'no cell' if not np.any(atoms.pbc) else f'pbc {atoms.pbc.tolist()}'}; a molecule is for "
            "nequip-hessian vibrations"
        )
    matrix = np.asarray(supercell)
    if matrix.shape != (3, 3) or abs(round(float(np.linalg.det(matrix)))) < 1:
        raise OptionError(f"supercell: expected a (3, 3) matrix of integers with a volume, found {matrix.tolist()}")
    check_size(atoms, matrix)
    unit = structure.PhonopyAtoms(
        numbers=atoms.numbers, positions=atoms.positions, cell=np.asarray(atoms.cell), masses=atoms.get_masses()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that `auto` was resolved, and cells of lower symmetry than their lattice
        return api.Phonopy(unit, matrix, primitive, log_level=0)


def check_size(atoms: Atoms, supercell: npt.NDArray[Any]) -> None:
    """Refuse a supercell whose force constants would not fit into memory, before anything is computed.

    Args:
        atoms: the unit cell
        supercell: (3, 3) integers

    Raises:
        ConfigError: more than `ranges.SUPERCELL_ATOMS` atoms.
    """
    count = len(atoms) * abs(round(float(np.linalg.det(np.asarray(supercell, dtype=np.float64)))))
    if count > SUPERCELL_ATOMS:
        raise ConfigError(
            f"supercell: expected at most {SUPERCELL_ATOMS} atoms, found {count} (unit cell of {len(atoms)}): their "
            f"force constants are {8 * (3.0 * count) ** 2 / 1e9:.3g} GB; take a smaller --supercell, some 10 Å wide"
        )


def supercell_atoms(phonon: Any) -> Atoms:
    """The supercell as ASE atoms, in phonopy's order."""
    cell = phonon.supercell
    return Atoms(cell.numbers, cell.positions, cell=cell.cell, pbc=True, masses=cell.masses)


def has_hessian(calculator: Any) -> bool:
    """Whether a model differentiates twice itself; compiled files without products and most ASE calculators do not."""
    if isinstance(calculator, ForeignPotential):
        return hasattr(calculator.inner, "get_hessian")
    return bool(getattr(calculator, "products", True))


def force_constants(
    phonon: Any,
    calculator: Any,
    *,
    cache: PhononCache | None = None,
    displacement: float = DISPLACEMENT,
    on_atom: Callable[[], None] | None = None,
) -> Array:
    """Force constants (N, N, 3, 3) of a phonopy calculation's supercell, eV/angstrom^2, not cleaned.

    A model with a Hessian is asked for that of the whole supercell. Else the atoms of the primitive cell are moved
    to both sides, and the lattice's translations give the other rows.

    Args:
        phonon: `phonopy.Phonopy`
        calculator: ASE calculator with `get_hessian`
        cache: where what is done is kept; displacement: step, angstrom; on_atom: called after each atom moved

    Raises:
        ConfigError: no small positive displacement. HessianDataError: the answer is not finite.
    """
    if not 0 < displacement <= 0.1:
        raise OptionError(f"displacement: expected a step between 0 and 0.1 angstrom, found {displacement}")
    atoms = supercell_atoms(phonon)
    if has_hessian(calculator):
        kept = None if cache is None else cache.get("hessian")
        hessian = check_hessian(calculator.get_hessian(atoms), len(atoms)) if kept is None else kept["hessian"]
        if cache is not None and kept is None:
            cache.put("hessian", hessian=hessian)
        return np.ascontiguousarray(np.asarray(hessian).reshape(len(atoms), 3, len(atoms), 3).transpose(0, 2, 1, 3))
    rows = []
    for atom in np.asarray(phonon.primitive.p2s_map).tolist():
        kept = None if cache is None else cache.get(f"rows-{atom}")
        row = _rows(atoms, calculator, atom, displacement) if kept is None else kept["rows"]
        if cache is not None and kept is None:
            cache.put(f"rows-{atom}", rows=row)
        rows.append(row)
        if on_atom is not None:
            on_atom()
    compact = np.array(rows, dtype="double", order="C")
    expand = phonopy_module("phonopy.harmonic.force_constants").compact_fc_to_full_fc
    return np.asarray(expand(phonon.primitive, compact), dtype=np.float64)


def _rows(atoms: Atoms, calculator: Any, atom: int, step: float) -> Array:
    """Force constants (N, 3, 3) of one atom with all."""
    frames = []
    for positions in displaced(atoms.positions, step, SECOND_ORDER, [atom]):
        frames.append(atoms.copy())
        frames[-1].positions = positions
    forces = np.array([np.asarray(f, dtype=np.float64) for _, f in evaluate_atoms(calculator, frames)])
    if not np.all(np.isfinite(forces)):
        raise HessianDataError(f"supercell of {len(atoms)} atoms: forces that are not finite")
    rows = -(forces[0::2] - forces[1::2]) / (2 * step)  # [direction, other atom, component]
    return np.asarray(rows.transpose(1, 0, 2))


def drift(constants: Array) -> float:
    """Largest violation of the acoustic sum rule, max |sum_j Phi[i, j]| and the same over i, eV/angstrom^2."""
    return float(max(np.max(np.abs(constants.sum(axis=axis))) for axis in (0, 1)))


def edge_share(phonon: Any, constants: Array) -> tuple[float, float]:
    """How far the force constants have decayed where the supercell ends.

    Returns:
        Radius of the sphere inside the supercell, angstrom; largest norm of a pair beyond nine tenths of it, as a
        share of the largest norm of any pair of different atoms (0 where there is none).
    """
    atoms = supercell_atoms(phonon)
    radius = float(np.min(widths(np.asarray(atoms.cell)))) / 2
    rows = np.asarray(phonon.primitive.p2s_map)
    norms = np.linalg.norm(constants[rows], axis=(2, 3))
    apart = np.array([atoms.get_distances(int(i), range(len(atoms)), mic=True) for i in rows])
    pairs, outer = norms[apart > 1e-3], norms[apart > 0.9 * radius]
    if not len(pairs) or not len(outer) or not np.max(pairs) > 0:
        return radius, 0.0
    return radius, float(np.max(outer) / np.max(pairs))


def model_cutoff(calculator: Any) -> float | None:
    """Cutoff radius of a NequIP model's neighbour lists, angstrom; None where it is not known."""
    radii = [getattr(transform, "r_max", None) for transform in getattr(calculator, "transforms", ())]
    return next((float(radius) for radius in radii if radius), None)
