"""Writing a file or a folder whole or not at all, and never over something else."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.places import beside
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import HARTREE_PER_BOHR2


def _begin(path: Path, overwrite: bool) -> Path:
    if os.path.lexists(path) and not overwrite:
        raise FormatError(f"{path}: there is something already; choose another name or allow overwriting")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FormatError(f"{path}: the folder {path.parent} cannot be made: {exc.strerror or exc}") from exc
    return beside(path, f".{os.getpid()}.part", prefix=".")


@contextlib.contextmanager
def new_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename what was written there when all went well.

    Raises:
        FormatError: there is something at `path` and `overwrite` was not said, or it is a folder, or the
            disk refuses.
    """
    path = Path(path)
    temporary = _begin(path, overwrite)
    if path.is_dir():
        raise FormatError(f"{path}: expected a file to write, found a folder")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as exc:
        raise FormatError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, and rename it when all went well.

    Args:
        path: the folder to make
        overwrite: replace a folder that is there, whatever is in it

    Raises:
        FormatError: there is something at `path` and `overwrite` was not said, or it is a file, or the
            disk refuses.
    """
    path = Path(path)
    temporary = _begin(path, overwrite)
    if path.is_file():
        raise FormatError(f"{path}: expected a folder to write, found a file")
    old = beside(path, f".{os.getpid()}.old", prefix=".")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
    except OSError as exc:
        raise FormatError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        if old.exists() and not path.exists():
            os.rename(old, path)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        FormatError: there is something at `path` and `overwrite` was not said, or the disk refuses.
    """
    with new_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def whole_hessian(record: LabelledGeometry, what: str) -> npt.NDArray[np.float64]:
    """Return the (3N, 3N) Hessian of a record, eV/angstrom^2, for a format that has place for a whole one only.

    Raises:
        NoHessianError: there is none. FormatError: it is of some of the atoms only.
    """
    if record.hessian is None:
        raise NoHessianError(f"{what}: expected a geometry with a Hessian, found one without")
    if record.active is not None:
        raise FormatError(
            f"{what}: the Hessian is of {len(record.active)} of {len(record)} atoms only, for which this format has "
            "no place; export it as extxyz"
        )
    return np.asarray(record.hessian, dtype=np.float64)


def require_molecule(record: LabelledGeometry, what: str) -> None:
    """Refuse a periodic geometry for a format that has no place for a cell.

    Raises:
        FormatError: the geometry is periodic.
    """
    if np.any(record.pbc):
        raise FormatError(
            f"{what}: expected a molecule, found a periodic geometry, for whose cell this format has no place; "
            "export it as extxyz or phonopy"
        )


def atomic_hessian(record: LabelledGeometry, what: str) -> npt.NDArray[np.float64]:
    """Return the (3N, 3N) Hessian of a molecule, Eh/a0^2; the errors of `whole_hessian` and `require_molecule`."""
    require_molecule(record, what)
    return whole_hessian(record, what) / HARTREE_PER_BOHR2


def symbols_of(record: LabelledGeometry) -> list[str]:
    """Return the element symbols."""
    return [chemical_symbols[int(number)] for number in record.numbers]


def xyz_text(record: LabelledGeometry, comment: str = "") -> str:
    """Return a plain XYZ file in angstrom, 14 decimals; the comment in one line."""
    rows = zip(symbols_of(record), record.positions, strict=True)
    body = "".join(f"{symbol:<2s} {x:22.14f} {y:22.14f} {z:22.14f}\n" for symbol, (x, y, z) in rows)
    return f"{len(record)}\n{' '.join(comment.split())}\n{body}"
