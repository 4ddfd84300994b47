"""Limits that `convert` and `validate` share: beyond them a label is doubted or refused.

Published outputs are those that docs/formats.md lists, 103 with a sound Hessian.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

TRANSLATION_WARNING: Final = 0.05
"""eV/angstrom^2; 98 of the published outputs stay below 0.041, the others are of coarse integration grids."""

TRANSLATION_REFUSAL: Final = (0.1, 2.0)
"""Of the largest element, and eV/angstrom^2, the larger of the two; small grids reach 0.015 and 1.07."""

STATIONARY_FORCE: Final = 0.1
"""eV/angstrom; optimisers stop by default at 0.015 (ORCA, Q-Chem) to 0.023 (Gaussian)."""

IMAGINARY: Final = 10.0
"""cm^-1, below which a negative wavenumber is noise of grids and steps in a floppy mode."""

STIFFEST: Final = (15.0, 500.0)
"""eV/angstrom^2, largest eigenvalue with a bond to hydrogen at least, and of any molecule at most.

A bond between two atoms has twice its force constant; published outputs have 2.4 (Li2) to 422 (CN). A Hessian
in Eh/a0^2 is 97 times smaller."""

LONGEST_BOND_TO_HYDROGEN: Final = 1.3
"""Angstrom; B-H has 1.2, Li-H and Na-H, which are soft, 1.6 and more."""

SPACING: Final = (0.6, 1.7)
"""Distance of the closest two atoms of a molecule of three or more, over the sum of their covalent radii.

Published outputs have 0.72 to 1.06, the transition state of H + H2 1.5; positions in bohr read as angstrom have 1.9
times these, angstrom read as bohr 0.53 times. Two noble gas atoms are no pair."""


def closest_pair(numbers: npt.NDArray[np.integer[Any]], positions: npt.NDArray[np.floating[Any]]) -> float | None:
    """Return the distance of the closest two atoms over the sum of their covalent radii.

    Args:
        numbers: (N,) atomic numbers
        positions: (N, 3), angstrom, of a molecule

    Returns:
        The ratio; None of fewer than three atoms, and where all are noble gases.
    """
    from ase.data import covalent_radii

    if len(numbers) < 3:
        return None
    radii, noble = covalent_radii[np.asarray(numbers, dtype=int)], np.isin(numbers, (2, 10, 18, 36, 54, 86))
    closest = np.inf
    for i in range(1, len(numbers)):  # row by row: a matrix of 3000 atoms would be 200 MB of differences
        ratios = np.linalg.norm(positions[:i] - positions[i], axis=1) / (radii[i] + radii[:i])
        closest = min(closest, float(np.min(ratios[~(noble[i] & noble[:i])], initial=np.inf)))
    return closest if np.isfinite(closest) else None


def largest_translation(hessian: npt.NDArray[np.floating[Any]]) -> float:
    """Return the residual of the translational identity, eV/angstrom^2, above which a matrix (n, n) is no Hessian."""
    relative, absolute = TRANSLATION_REFUSAL
    return max(relative * float(np.max(np.abs(hessian), initial=0.0)), absolute)


def stiffness_range(
    numbers: npt.NDArray[np.integer[Any]], positions: npt.NDArray[np.floating[Any]]
) -> tuple[float, float]:
    """Return between what the largest eigenvalue of a Hessian lies, eV/angstrom^2; 0 where nothing says how low.

    Args:
        numbers: (N,) atomic numbers
        positions: (N, 3), angstrom
    """
    hydrogens = np.asarray(numbers) == 1
    if len(numbers) < 2 or not hydrogens.any():
        return 0.0, STIFFEST[1]
    distances = np.linalg.norm(positions[hydrogens][:, None] - positions[None], axis=2)
    bonded = np.any((distances > 0.1) & (distances < LONGEST_BOND_TO_HYDROGEN))
    return STIFFEST[0] if bonded else 0.0, STIFFEST[1]
