"""A whole phonon job with one model: relax, force constants, lattice dynamics, comparison; resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from nequip_hessian.analysis.crystal import FORCE_TOLERANCE, CrystalRelaxation, relax_crystal
from nequip_hessian.analysis.force_constants import (
    DISPLACEMENT,
    PhononCache,
    default_supercell,
    edge_share,
    force_constants,
    has_hessian,
    model_cutoff,
    phonon_calculation,
)
from nequip_hessian.analysis.phonons import Phonons, lattice_dynamics
from nequip_hessian.errors import EngineError, HessianDataError

EDGE: Final = 0.05
"""Share of the largest force constant at the edge of the supercell above which a remark is due."""


@contextmanager
def _said(atoms: Atoms) -> Iterator[None]:
    """Turn whatever a foreign model raises into one line."""
    try:
        yield
    except (HessianDataError, OSError):
        raise
    except Exception as exc:
        reason = (str(exc).strip().splitlines() or [""])[0]
        raise EngineError(f"{atoms.get_chemical_formula()}: the model failed: {type(exc).__name__}: {reason}") from exc


def relaxed(
    atoms: Atoms, calculator: Any, what: str, cache: PhononCache, fmax: float = FORCE_TOLERANCE
) -> CrystalRelaxation:
    """Relax a crystal, or take what an earlier run left.

    Raises:
        HessianDataError: it does not converge, or the model failed. ConfigError, MissingExtraError: as `relax_crystal`.
    """
    kept = cache.get("crystal")
    if kept is not None:
        again = Atoms(atoms.numbers, kept["positions"], cell=kept["cell"], pbc=True, masses=atoms.get_masses())
        stress = kept["stress"] if kept["stress"].size else None
        return CrystalRelaxation(again, float(kept["energy"]), kept["forces"], stress, int(kept["steps"]), None)
    with _said(atoms):
        found = relax_crystal(atoms, calculator, what, fmax=fmax)
    if found.failure:
        raise HessianDataError(
            f"{atoms.get_chemical_formula()}: the crystal cannot be relaxed: {found.failure}; take a larger --fmax, or "
            "give a relaxed cell with --relax none"
        )
    stress = np.zeros(0) if found.stress is None else found.stress
    cache.put(
        "crystal",
        positions=found.atoms.positions,
        cell=np.asarray(found.atoms.cell),
        energy=found.energy,
        forces=found.forces,
        stress=stress,
        steps=found.steps,
    )
    return found


def model_phonons(
    atoms: Atoms,
    calculator: Any,
    cache: PhononCache,
    *,
    supercell: npt.NDArray[Any] | None = None,
    born: dict[str, Any] | None = None,
    displacement: float = DISPLACEMENT,
    on_atom: Callable[[], None] | None = None,
    **settings: Any,
) -> tuple[Phonons, str, float, float]:
    """Force constants of a crystal at equilibrium and its lattice dynamics.

    Args:
        atoms: unit cell, angstrom; calculator: ASE calculator with `get_hessian`; cache: where stages are kept
        supercell: (3, 3) integers; default: the least diagonal one 10 angstrom wide everywhere
        born: phonopy's parameters of the non-analytical term, or None
        displacement: step where the model has no Hessian, angstrom; on_atom: called after each atom moved
        **settings: of `lattice_dynamics`

    Returns:
        The phonons, how the force constants were made, and `edge_share`.
    """
    matrix = default_supercell(np.asarray(atoms.cell)) if supercell is None else np.asarray(supercell)
    phonon = phonon_calculation(atoms, matrix)
    with _said(atoms):
        constants = force_constants(phonon, calculator, cache=cache, displacement=displacement, on_atom=on_atom)
    if born is not None:
        charges, primitive = np.asarray(born["born"]), phonon.primitive
        if len(charges) != len(primitive):
            raise HessianDataError(
                f"Born charges: expected {len(primitive)} of the primitive cell, found {len(charges)}"
            )
        phonon.nac_params = {**born, "born": charges}
    source = f"central differences of forces, {displacement} Å"
    if has_hessian(calculator):
        source = "the model's Hessian of the supercell"
    radius, edge = edge_share(phonon, constants)
    return lattice_dynamics(phonon, constants, **settings), source, radius, edge


def remarks_on(calculator: Any, crystal: CrystalRelaxation, what: str, radius: float, edge: float) -> list[str]:
    """What is worth knowing about a supercell and its crystal."""
    found = []
    cutoff = model_cutoff(calculator)
    if cutoff is not None and radius < cutoff:
        found.append(
            f"the supercell is too small for the model: its cutoff is {cutoff:.2f} Å, the sphere inside the supercell "
            f"{radius:.2f} Å; an atom sees its own images, take a larger --supercell"
        )
    if edge > EDGE:
        found.append(
            f"force constants at the edge of the supercell ({radius:.2f} Å) are {100 * edge:.0f} % of the largest; "
            "frequencies between the commensurate wave vectors are interpolated from a cut range"
        )
    if what == "none" and crystal.largest_force > 10 * FORCE_TOLERANCE:
        found.append(
            f"largest force {crystal.largest_force:.3f} eV/Å: this is no equilibrium of the model, where phonons "
            "have no meaning (--relax cell)"
        )
    return found


def space_group(phonon: Any) -> str:
    """Symbol and number of the unit cell's space group, e.g. `Fd-3m (227)`."""
    found = phonon.symmetry.dataset
    return f"{found.international} ({found.number})"
