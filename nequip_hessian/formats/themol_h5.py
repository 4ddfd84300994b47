"""THEMol's Hessian subset (HDF5): optimised organic molecules, B3LYP-D3BJ/DZVP, in kcal/mol and angstrom.

One group a molecule, named by its uuid: `atomic_numbers` (N, 1), `coords` (N, 3),
`hessian` (3N, 3N) in kcal/mol/angstrom^2, `mapped_isomeric_smiles`. Neither energy
nor forces. The charge is that of the formal charges in the SMILES. Streamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from nequip_hessian.errors import HessianDataError
from nequip_hessian.formats._hdf5 import holds, open_hdf5
from nequip_hessian.formats._source import guarded, provenance
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import KCAL_PER_MOL

NAME = "themol-h5"
PATTERNS = ("hessian*.h5", "hessian*.hdf5")

LEVEL: Final = LevelOfTheory("B3LYP", "DZVP", dispersion="D3BJ")  # arXiv 2605.14973
_ARRAYS: Final = ("atomic_numbers", "coords", "hessian")
_CHARGE: Final = re.compile(r"\[[^\]]*?([+-]+)(\d*)(?::\d+)?\]")


def recognises(path: Path) -> bool:
    """Say whether an HDF5 file is of THEMol's Hessian subset."""
    return holds(path, lambda file: _is_molecule(file[next(iter(file))]))


def _is_molecule(group: Any) -> bool:
    return all(name in group for name in _ARRAYS) and "mapped_nonisomeric_smiles" in group


@guarded("THEMol HDF5")
def read_themol_h5(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the molecules of a THEMol file.

    Args:
        path: an HDF5 file of the Hessian subset

    Yields:
        One record a molecule, labelled with its uuid and grouped by its SMILES without stereochemistry.

    Raises:
        FormatError: damaged, or another subset. MissingExtraError: h5py is not installed.
    """
    with open_hdf5(path) as (source, file):
        facts = provenance(
            source,
            NAME,
            {"positions": ("angstrom", 1.0), "hessian": ("kcal/mol/angstrom^2", KCAL_PER_MOL)},
        )
        if not len(file):
            raise source.error("no molecules in this file")
        for name in tqdm(file, desc=source.path.name, unit="molecule", disable=None, delay=3):
            missing = [key for key in _ARRAYS if key not in file[name]]
            if missing:
                raise source.error(f"{name}: expected {', '.join(_ARRAYS)}; {', '.join(missing)} missing")
            try:
                yield _record(name, file[name], facts)
            except HessianDataError as exc:
                raise type(exc)(f"{source.path}: {name}: {exc}") from exc


def _record(name: str, group: Any, facts: dict[str, Any]) -> LabelledGeometry:
    smiles = _text(group, "mapped_isomeric_smiles") or _text(group, "mapped_nonisomeric_smiles")
    return LabelledGeometry(
        numbers=np.asarray(group["atomic_numbers"][()]).ravel(),
        positions=group["coords"][()],
        hessian=np.asarray(group["hessian"][()]) * KCAL_PER_MOL,
        charge=None if smiles is None else charge_of(smiles),
        label=name,
        group=_text(group, "mapped_nonisomeric_smiles") or name,
        level=LEVEL,
        provenance=facts,
    )


def _text(group: Any, name: str) -> str | None:
    if name not in group:
        return None
    value = group[name][()]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def charge_of(smiles: str) -> int:
    """Add up the formal charges of a SMILES, e.g. 0 of `[NH3+:1][CH2:2][C:3](=[O:4])[O-:5]`."""
    total = 0
    for signs, count in _CHARGE.findall(smiles):
        size = int(count) if count else len(signs)
        total += size if signs[0] == "+" else -size
    return total
