"""LMDB files of pickled graphs with Hessians: HORM and data sets laid out like it.

Entries `0`, `1`, ... are pickled `Data` objects of PyTorch Geometric (or plain
dictionaries) with `pos` (angstrom), `energy` (eV), `forces` (eV/angstrom) and a
flat `hessian` of (3N)^2 numbers (eV/angstrom^2). Atomic numbers are under `z` or
`atomic_numbers`; in HORM they are under `charges`. `rxn` names the reaction. The
pickles are read by `_pickle`, which executes nothing. Files are streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats._lmdb import first_value, numbered, open_lmdb
from nequip_hessian.formats._pickle import unpickle
from nequip_hessian.formats._source import Source, guarded, provenance, stem
from nequip_hessian.record import UNKNOWN_LEVEL, LabelledGeometry, LevelOfTheory

NAME = "horm-lmdb"
PATTERNS = ("*.lmdb", "data.mdb")

HORM_LEVEL: Final = LevelOfTheory("wB97X", "6-31G(d)")  # arXiv 2505.12447
_NUMBERS: Final = ("z", "atomic_numbers", "charges")


def recognises(path: Path) -> bool:
    """Say whether a file is an LMDB file of pickles."""
    return first_value(path)[:1] == b"\x80"


@guarded("pickled LMDB")
def read_horm_lmdb(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the geometries of an LMDB file of pickled graphs.

    Args:
        path: the file itself (`data.mdb` where it is a folder)

    Yields:
        One record an entry, in the order of their numbers; the Hessian in the precision of the file.

    Raises:
        FormatError: damaged, arrays that do not fit, or a pickle that asks for anything but plain data.
    """
    with open_lmdb(path) as (source, tree):
        length = tree.get(b"length")
        keys = None if length is None else range(int(unpickle(length)))
        facts = provenance(
            source,
            NAME,
            {
                "positions": ("angstrom", 1.0),
                "energy": ("eV", 1.0),
                "forces": ("eV/angstrom", 1.0),
                "hessian": ("eV/angstrom^2", 1.0),
            },
        )
        for index, raw in numbered(source, tree, keys):
            try:
                yield _record(source, unpickle(raw), index, facts)
            except HessianDataError as exc:
                raise type(exc)(f"{source.path}: entry {index}: {exc}") from exc


def _record(source: Source, fields: Any, index: int, facts: dict[str, Any]) -> LabelledGeometry:
    if not isinstance(fields, dict):
        raise FormatError(f"expected a graph with named fields, found {type(fields).__name__}")
    name = next((key for key in _NUMBERS if fields.get(key) is not None), None)
    if fields.get("pos") is None or name is None:
        raise FormatError(f"expected pos and one of {', '.join(_NUMBERS)}, found {', '.join(map(str, fields))[:200]}")
    numbers = np.asarray(fields[name]).ravel()
    if np.any(numbers != np.round(numbers)):
        raise FormatError(f"{name}: expected atomic numbers, found {numbers[:4].tolist()}")
    energy, reaction = fields.get("energy"), fields.get("rxn")
    horm = name == "charges" and reaction is not None
    total = np.asarray(fields["natoms"]).ravel() if fields.get("natoms") is not None else [len(numbers)]
    if len(total) != 1 or int(total[0]) != len(numbers):
        raise FormatError(f"natoms: expected {len(numbers)}, the length of {name}, found {total}")
    return LabelledGeometry(
        numbers=numbers.astype(int),
        positions=np.asarray(fields["pos"]),
        energy=None if energy is None else float(np.asarray(energy).ravel()[0]),
        forces=None if fields.get("forces") is None else np.asarray(fields["forces"]),
        hessian=None if fields.get("hessian") is None else np.asarray(fields["hessian"]).ravel(),
        charge=0 if horm else None,
        group=None if reaction is None else f"rxn{_text(reaction)}",
        label=f"{_name(source.path)}-{index}",
        level=HORM_LEVEL if horm else UNKNOWN_LEVEL,
        provenance={**facts, "index": index},
    )


def _name(path: Path) -> str:
    """Return the name of an LMDB file, or that of its folder where it is one."""
    return path.absolute().parent.name if path.name == "data.mdb" else stem(path)


def _text(value: Any) -> str:
    array = np.asarray(value).ravel()
    return str(array[0].item()) if array.dtype.kind in "iuf" else str(value)
