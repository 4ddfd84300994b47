"""pysisyphus Hessian files (.h5): `hessian` in Eh/a0^2, `coords3d` in a0, `masses` in u, `vibfreqs` in cm^-1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._hdf5 import holds, open_hdf5
from nequip_hessian.formats._source import ATOMIC_UNITS, atomic_conversions, guarded, provenance, stem
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "pysisyphus-h5"
PATTERNS = ("*hessian*.h5",)


def recognises(path: Path) -> bool:
    """Say whether an HDF5 file is a Hessian of pysisyphus."""
    return holds(path, lambda file: "hessian" in file and "coords3d" in file and "atoms" in file.attrs)


@guarded("pysisyphus h5")
def read_pysisyphus_h5(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a Hessian file of pysisyphus.

    Args:
        path: the .h5 file

    Yields:
        One record with energy, masses and printed (projected) frequencies; forces are not in the file.

    Raises:
        FormatError: damaged, or arrays that do not fit. MissingExtraError: h5py is not installed.
    """
    with open_hdf5(path) as (source, file):
        for name in ("hessian", "coords3d"):
            if name not in file:
                raise source.error(f"expected the dataset {name}, found {', '.join(file)[:100] or 'none'}")
        atoms = np.array([atomic_number(_text(symbol)) for symbol in file.attrs["atoms"]])
        energy = file.attrs.get("energy")
        frequencies = np.sort(file["vibfreqs"][:]) if "vibfreqs" in file and file["vibfreqs"].shape[0] else None
        masses = file["masses"][:] if "masses" in file else None
        yield LabelledGeometry(
            numbers=atoms,
            positions=np.asarray(file["coords3d"][:]) * ATOMIC_UNITS["positions"][1],
            hessian=np.asarray(file["hessian"][:]) * ATOMIC_UNITS["hessian"][1],
            energy=None if energy is None else float(energy) * ATOMIC_UNITS["energy"][1],
            charge=int(file.attrs["charge"]) if "charge" in file.attrs else None,
            multiplicity=int(file.attrs["mult"]) if "mult" in file.attrs else None,
            masses=masses,
            frequencies=frequencies,
            frequencies_projected=None if frequencies is None else True,
            label=stem(source.path),
            level=LevelOfTheory("unknown", program="pysisyphus"),
            provenance=provenance(
                source,
                NAME,
                atomic_conversions(energy=energy is not None, forces=False),
                masses_from=None if masses is None else "file",
            ),
        )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
