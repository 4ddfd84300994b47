"""Geometries to label, from any file ASE reads, as records without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from nequip_hessian.errors import FormatError, RecordError
from nequip_hessian.record import LabelledGeometry

_TEXTS = ("kind", "role", "group", "label")


def read_geometries(
    paths: Sequence[str | Path], *, charge: int | None = None, multiplicity: int | None = None
) -> list[LabelledGeometry]:
    """Read all frames of all files; labels that are in them are left behind.

    Args:
        paths: files in any format ASE reads
        charge: total charge, e, of the geometries whose `info` says none
        multiplicity: 2S + 1 of the geometries whose `info` says none (`multiplicity`, or `spin` of
            the same meaning)

    Returns:
        One record a frame, in the order of the files; `kind`, `role`, `group`, `label` and
        `path_coordinate` (u^1/2 angstrom) come from `info`, a missing label becomes `file-index`.

    Raises:
        FormatError: a file that ASE cannot read or that holds no geometry
        FileNotFoundError: no such file
    """
    records = [
        record_from_atoms(atoms, f"{path}, geometry {index}", label, charge=charge, multiplicity=multiplicity)
        for path in map(Path, paths)
        for index, atoms, label in _frames(path)
    ]
    if not records:
        raise FormatError("expected at least one file of geometries, found none")
    return records


def record_from_atoms(
    atoms: Atoms,
    source: str,
    label: str | None = None,
    *,
    charge: int | None = None,
    multiplicity: int | None = None,
) -> LabelledGeometry:
    """Turn an ASE `Atoms` into a record without labels.

    Args:
        atoms: positions and cell in angstrom; `info` as in `read_geometries`
        source: where it came from, for messages
        label: its name where `info` has none
        charge, multiplicity: where `info` has none

    Raises:
        FormatError: something in `info` or the geometry that does not fit; the message has `source`
    """
    info = atoms.info
    texts: dict[str, Any] = {name: str(info[name]) for name in _TEXTS if info.get(name) not in (None, "")}
    texts.setdefault("label", label)
    try:
        return LabelledGeometry(
            numbers=atoms.numbers,
            positions=atoms.get_positions(),
            cell=np.asarray(atoms.cell),
            pbc=atoms.pbc,
            charge=_integer(info, ("charge",), charge),
            multiplicity=_integer(info, ("multiplicity", "spin"), multiplicity),
            path_coordinate=None if info.get("path_coordinate") is None else float(info["path_coordinate"]),
            **texts,
        )
    except (RecordError, TypeError, ValueError) as exc:
        raise FormatError(f"{source}: {exc}") from exc


def _integer(info: dict[str, Any], names: tuple[str, ...], default: int | None) -> int | None:
    for name in names:
        if info.get(name) is not None:
            value = float(info[name])
            if value != int(value):
                raise RecordError(f"{name}: expected an integer, found {info[name]!r}")
            return int(value)
    return default


def _frames(path: Path) -> Iterator[tuple[int, Atoms, str]]:
    from ase.io import iread

    if path.is_dir():
        raise FormatError(f"{path}: expected a file of geometries, found a folder")
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    if not path.is_file():
        raise FormatError(f"{path}: expected a file of geometries, found a pipe or device")
    index = -1
    try:
        for index, atoms in enumerate(iread(path, index=":")):
            yield index, atoms, f"{path.stem}-{index}"
    except Exception as exc:  # ASE's readers raise anything, from IndexError to UnknownFileTypeError
        reason = str(exc) or type(exc).__name__
        raise FormatError(f"{path}: ASE cannot read geometry {index + 1} of this file: {reason}") from exc
    if index < 0:
        raise FormatError(f"{path}: no geometry in this file")


def source_facts(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Name, size and sha256 of each file, for the provenance of a store."""
    facts = []
    for path in map(Path, paths):
        content = path.read_bytes()
        facts.append({"name": path.name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    return facts
