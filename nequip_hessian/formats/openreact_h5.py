"""OpenREACT-CHON-EFH (HDF5): geometries of organic reactions, wB97X-D/6-31G(d), with energies, forces and Hessians.

One group a reaction (attributes `crg`, `mult`): `coordinates` (n, N, 3) in angstrom,
`energies` (n,) in Eh, `forces` (n, N, 3), `hessian` (n, 3N, 3N), `species`. The units of
Hessian and forces are not in the file and users disagree on them by a factor of
3.57. They are decided here by physics, once a file: H (A r) = -s A F, fitted
over a few hundred geometries, has another s for each pair of units. Where the
forces of all of them are too small for that, the highest wavenumber decides the
unit of the Hessian, and forces are left out. Streamed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.curvature import normal_modes, rotate_vectors, symmetrise
from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats._atoms import atomic_number, isotopic_masses
from nequip_hessian.formats._hdf5 import holds, open_hdf5
from nequip_hessian.formats._source import Source, guarded, provenance
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2

NAME = "openreact-h5"
PATTERNS = ("molecules-*.h5",)

LEVEL: Final = LevelOfTheory("wB97X-D", "6-31G(d)", program="Gaussian", program_version="16", hessian="analytic")
_ARRAYS: Final = ("coordinates", "energies", "forces", "hessian", "species")
_SAMPLE: Final = 200
_HESSIAN_UNITS: Final = {"Eh/a0^2": HARTREE_PER_BOHR2, "Eh/angstrom^2": HARTREE, "eV/angstrom^2": 1.0}
_FORCE_UNITS: Final = {"Eh/a0": HARTREE_PER_BOHR, "Eh/angstrom": HARTREE, "eV/angstrom": 1.0}
_STRETCH: Final = (2400.0, 4600.0)  # cm^-1, the highest harmonic wavenumber of any molecule with X-H bonds
_TOLERANCE: Final = 0.05

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """Units of Hessian and forces in one file, and what decided them.

    Attributes:
        hessian: unit of the Hessian
        forces: unit of the forces, None where nothing decides it
        sign: 1 where the file holds forces, -1 where it holds gradients
        reason: one sentence
    """

    hessian: str
    forces: str | None
    sign: int
    reason: str


def recognises(path: Path) -> bool:
    """Say whether an HDF5 file is laid out like OpenREACT-CHON-EFH."""
    return holds(path, lambda file: all(name in file[next(iter(file))] for name in ("coordinates", *_ARRAYS[3:])))


@guarded("OpenREACT HDF5")
def read_openreact_h5(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the geometries of an OpenREACT file.

    Args:
        path: molecules-RTP.h5, -IRC.h5 or -NMS.h5

    Yields:
        One record a geometry, grouped by reaction.

    Raises:
        FormatError: damaged, or neither forces nor wavenumbers fit any unit. MissingExtraError: no h5py.
    """
    with open_hdf5(path) as (source, file):
        if not len(file):
            raise source.error("no reactions in this file")
        units = decide_units(source, file)
        conversions = {
            "positions": ("angstrom", 1.0),
            "energy": ("Eh", HARTREE),
            "hessian": (units.hessian, _HESSIAN_UNITS[units.hessian]),
        }
        if units.forces is not None:
            conversions["forces"] = (units.forces, units.sign * _FORCE_UNITS[units.forces])
        facts = provenance(source, NAME, conversions, units_decided_by=units.reason)
        for name in tqdm(file, desc=source.path.name, unit="reaction", disable=None, delay=3):
            yield from _records(source, name, file[name], facts)


def _species(source: Source, name: str, group: Any) -> npt.NDArray[np.uint8]:
    missing = [key for key in _ARRAYS if key not in group]
    if missing:
        raise source.error(f"{name}: expected {', '.join(_ARRAYS)}; {', '.join(missing)} missing")
    values = [value.decode() if isinstance(value, bytes) else str(value) for value in group["species"][()].ravel()]
    return np.array([atomic_number(value) for value in values], dtype=np.uint8)


def _records(source: Source, name: str, group: Any, facts: dict[str, Any]) -> Iterator[LabelledGeometry]:
    numbers = _species(source, name, group)
    conversions = facts["conversions"]
    count = len(group["coordinates"])
    if any(len(group[key]) != count for key in ("energies", "forces", "hessian")):
        sizes = {key: len(group[key]) for key in _ARRAYS[:4]}
        raise source.error(f"{name}: expected arrays of one length, found {sizes}; the file is damaged")
    charge, multiplicity = (group.attrs.get(key) for key in ("crg", "mult"))
    for index in range(count):
        try:
            yield LabelledGeometry(
                numbers=numbers,
                positions=group["coordinates"][index],
                energy=float(group["energies"][index]) * HARTREE,
                forces=np.asarray(group["forces"][index]) * conversions["forces"]["factor"]
                if "forces" in conversions
                else None,
                hessian=np.asarray(group["hessian"][index]) * conversions["hessian"]["factor"],
                charge=None if charge is None else int(charge),
                multiplicity=None if multiplicity is None else int(multiplicity),
                group=name,
                label=f"{name}-{index}",
                level=LEVEL,
                provenance={**facts, "index": index},
            )
        except HessianDataError as exc:
            raise type(exc)(f"{source.path}: {name}, geometry {index}: {exc}") from exc


# -- units ----------------------------------------------------------------------------------


def decide_units(source: Source, file: Any) -> Units:
    """Decide the units of Hessian and forces of a file.

    Args:
        source: for messages
        file: the open file

    Returns:
        The units.

    Raises:
        FormatError: nothing fits any of the known units.
    """
    sample = list(itertools.islice(_sampled(source, file), _SAMPLE))
    left, right = [], []
    for _, positions, forces, hessian in sample:
        left.append((hessian @ rotate_vectors(positions - positions.mean(axis=0))).ravel())
        right.append(-rotate_vectors(forces).ravel())
    a, b = np.concatenate(left), np.concatenate(right)
    norm = float(b @ b)
    if norm > 0:
        scale = float(a @ b) / norm  # (unit of the forces) / (unit of the Hessian)
        with np.errstate(over="ignore"):  # a damaged number makes it infinite
            error = float(np.sqrt(np.sum((a - scale * b) ** 2) / max(len(a) - 1, 1) / norm))
        if error < _TOLERANCE * abs(scale):
            return _by_rotation(source, scale, error, len(sample))
    return _by_wavenumber(source, sample)


def _sampled(source: Source, file: Any) -> Iterator[tuple[npt.NDArray[np.uint8], Array, Array, Array]]:
    """Yield a few hundred geometries, spread over the file: numbers, positions, forces and Hessian as they are."""
    names = list(file)
    for name in names[:: max(1, len(names) // _SAMPLE)]:
        group = file[name]
        numbers = _species(source, name, group)
        indices = np.unique(np.linspace(0, len(group["coordinates"]) - 1, 3).round().astype(int))
        for index in indices[: max(1, _SAMPLE // len(names) + 1)].tolist() if len(names) > _SAMPLE else indices:
            n = len(numbers)
            raw = np.asarray(group["hessian"][index], dtype=np.float64).reshape(3 * n, 3 * n)
            hessian = np.asarray(symmetrise(raw)[0], dtype=np.float64)
            positions = np.asarray(group["coordinates"][index], dtype=np.float64)
            yield numbers, positions, np.asarray(group["forces"][index], dtype=np.float64), hessian


def _by_rotation(source: Source, scale: float, error: float, count: int) -> Units:
    for (hessian, per_hessian), (forces, per_force) in itertools.product(_HESSIAN_UNITS.items(), _FORCE_UNITS.items()):
        # two pairs share a ratio only where both units are wrong by the same energy; Eh comes first
        if abs(abs(scale) * per_hessian / per_force - 1) < max(_TOLERANCE, 3 * error / abs(scale)):
            sign = 1 if scale > 0 else -1
            found = f"{scale:.4f} +- {error:.4f}"
            reason = f"rotational identity: ratio {found} over {count} geometries{'' if sign > 0 else ', gradients'}"
            return Units(hessian, forces, sign, reason)
    raise source.error(
        f"the rotational identity gives {scale:.4g} for (unit of the forces) / (unit of the Hessian), which fits no "
        f"pair of {', '.join(_FORCE_UNITS)} and {', '.join(_HESSIAN_UNITS)}; the file is damaged"
    )


def _by_wavenumber(source: Source, sample: list[tuple[npt.NDArray[np.uint8], Array, Array, Array]]) -> Units:
    highest = [
        float(normal_modes(hessian, positions, isotopic_masses(numbers))[0][-1])
        for numbers, positions, _, hessian in sample
        if np.any(numbers == 1)
    ]
    fitting = []
    if highest:
        middle = float(np.median(highest))
        fitting = [
            unit for unit, value in _HESSIAN_UNITS.items() if _STRETCH[0] <= middle * np.sqrt(value) <= _STRETCH[1]
        ]
    if len(fitting) != 1:
        raise FormatError(
            f"{source.path}: nothing decides the unit of the Hessian: its forces are too small for the rotational "
            f"identity, and its highest wavenumbers fit {', '.join(fitting) or 'none'} of {', '.join(_HESSIAN_UNITS)}"
        )
    top = middle * float(np.sqrt(_HESSIAN_UNITS[fitting[0]]))
    reason = f"highest wavenumber, {top:.0f} cm^-1 in the middle of {len(highest)}; the unit of the forces is open"
    return Units(fitting[0], None, 1, reason)
