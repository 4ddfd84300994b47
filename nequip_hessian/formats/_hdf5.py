"""What modules of HDF5 formats share (extra `hdf5`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nequip_hessian.formats._binary import HDF5, binary_source, first_bytes, optional
from nequip_hessian.formats._source import Source


@contextlib.contextmanager
def open_hdf5(path: str | Path) -> Iterator[tuple[Source, Any]]:
    """Open an HDF5 file for reading.

    Yields:
        Its facts, and the `h5py.File`.

    Raises:
        FormatError: no HDF5 file, or damaged. MissingExtraError: h5py is not installed.
    """
    source = binary_source(path, "an HDF5 file", HDF5)
    h5py = optional("h5py", "hdf5", path)
    try:
        file = h5py.File(source.path, "r")
    except OSError as exc:
        raise source.error(f"damaged HDF5 file ({exc}); fetch it again") from None
    with file:
        try:
            yield source, file
        except (OSError, RuntimeError, KeyError) as exc:  # what h5py raises for damage inside
            raise source.error(f"damaged HDF5 file ({' '.join(str(exc).split())[:200]}); fetch it again") from exc


def holds(path: Path, test: Callable[[Any], bool]) -> bool:
    """Say whether a file is HDF5 and passes a test on its open `h5py.File`; a damaged one does not."""
    if not first_bytes(path).startswith(HDF5):
        return False
    h5py = optional("h5py", "hdf5", path)
    try:
        with h5py.File(path, "r") as file:
            return bool(test(file))
    except (OSError, RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError):
        return False
