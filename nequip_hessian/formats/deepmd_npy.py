"""DeePMD-kit systems of NumPy files with Hessians.

A system is a folder with `type.raw`, `type_map.raw` and folders `set.*`, each with
`coord.npy`, `hessian.npy`, `energy.npy`, `force.npy`, `box.npy`, a frame a row, in eV and
angstrom; the Hessian is the full (3N)^2, row by row. The file to read is a
`hessian.npy`. Without a periodic box (`nopbc` in the system's folder, or more than
20 angstrom of vacuum on all sides, where it was forgotten) a frame is a molecule,
so that the rotational identity holds and fixes units and signs. Streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._binary import NUMPY, binary_source, first_bytes
from nequip_hessian.formats._source import Source, guarded, provenance, read_source
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "deepmd-npy"
PATTERNS = ("hessian.npy",)

VACUUM: Final = 20.0
"""Empty space in all three directions, angstrom, beyond which a box holds a molecule."""

_OPTIONAL: Final = ("energy", "force", "box", "real_atom_types")


def recognises(path: Path) -> bool:
    """Say whether a file is the hessian.npy of a DeePMD-kit system."""
    beside = (path.parent / "coord.npy").is_file() and (path.parent.parent / "type.raw").is_file()
    return beside and path.name == "hessian.npy" and first_bytes(path).startswith(NUMPY)


@guarded("DeePMD-kit")
def read_deepmd_npy(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the frames of one set of a DeePMD-kit system.

    Args:
        path: the file hessian.npy of the set

    Yields:
        One record a frame, labelled with system, set and frame.

    Raises:
        FormatError: damaged, files of the system missing, or arrays that do not fit.
    """
    source = binary_source(path, "the hessian.npy of a DeePMD-kit system, a NumPy array", NUMPY)
    folder, system = source.path.absolute().parent, source.path.absolute().parent.parent
    for needed in (folder / "coord.npy", system / "type.raw"):
        if not needed.is_file():
            raise source.error(
                f"a NumPy array, which holds no geometry: expected {needed.name} of a DeePMD-kit system "
                f"{'beside it' if needed.parent == folder else 'in the folder above'}, found none"
            )
    present = [name for name in _OPTIONAL if (folder / f"{name}.npy").is_file()]
    files = {name: folder / f"{name}.npy" for name in ("coord", *present)}
    arrays = {name: _array(source, file) for name, file in files.items()}
    arrays["hessian"] = _array(source, source.path)
    frames = len(arrays["coord"])
    if any(len(array) != frames for array in arrays.values()):
        sizes = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise source.error(f"expected files of as many frames each, found {sizes}")
    numbers, texts = _types(source, system)
    companions = [_beside(binary_source(file, "a NumPy array", NUMPY), folder) for file in files.values()]
    companions += [_beside(text, folder) for text in texts]
    units = {"positions": ("angstrom", 1.0), "hessian": ("eV/angstrom^2", 1.0)}
    units |= {"energy": ("eV", 1.0)} if "energy" in arrays else {}
    units |= {"forces": ("eV/angstrom", 1.0)} if "force" in arrays else {}
    facts = provenance(source, NAME, units, companions=companions)
    molecules = (system / "nopbc").is_file() or "box" not in arrays
    for index in range(frames):
        label = f"{system.name}/{folder.name}-{index}"
        try:
            yield _record({name: array[index] for name, array in arrays.items()}, numbers, molecules, label, facts)
        except (HessianDataError, ValueError) as exc:
            raise FormatError(f"{source.path}: frame {index}: {exc}") from exc


def _beside(source: Source, folder: Path) -> dict[str, Any]:
    return {**source.facts(), "source": Path(*_up(source.path.absolute(), folder)).as_posix()}


def _up(path: Path, folder: Path) -> tuple[str, ...]:
    return (path.name,) if path.parent == folder else ("..", path.name)


def _array(source: Source, path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as exc:
        raise source.error(f"{path.name}: damaged NumPy array ({' '.join(str(exc).split())[:150]})") from None
    if array.dtype.kind not in "fiu" or array.ndim < 1:
        raise source.error(f"{path.name}: expected numbers, found {array.dtype} of shape {array.shape}")
    return array


def _types(source: Source, system: Path) -> tuple[npt.NDArray[np.uint8], list[Source]]:
    """Return the types of the atoms and the texts they came from, the atomic numbers of types resolved."""
    types = read_source(system / "type.raw")
    texts = [types]
    codes = np.array([int(token) for token in types.text.split()])
    if not (system / "type_map.raw").is_file():
        raise source.error(
            "the elements are not named: expected type_map.raw in the system's folder, found none; write one, the "
            "symbol of type 0 in its first line and so on"
        )
    texts.append(read_source(system / "type_map.raw"))
    names = texts[-1].text.split()
    if len(codes) == 0 or codes.min() < 0 or codes.max() >= len(names):
        raise types.error(f"expected types 0 to {len(names) - 1} of type_map.raw, found {codes.tolist()[:8]}")
    return np.array([atomic_number(names[code]) for code in codes], dtype=np.uint8), texts


def _record(
    frame: dict[str, npt.NDArray[Any]],
    numbers: npt.NDArray[np.uint8],
    molecule: bool,
    label: str,
    facts: dict[str, Any],
) -> LabelledGeometry:
    n = len(numbers)
    if "real_atom_types" in frame:
        raise FormatError("a system of mixed compositions (real_atom_types.npy), which is not read; use one a formula")
    positions = np.asarray(frame["coord"], dtype=np.float64).reshape(n, 3)
    box = None if molecule else np.asarray(frame["box"], dtype=np.float64).reshape(3, 3)
    molecule = molecule or box is None or _alone(positions, box)
    return LabelledGeometry(
        numbers=numbers,
        positions=positions,
        cell=None if molecule else box,
        pbc=not molecule,
        energy=float(np.ravel(frame["energy"])[0]) if "energy" in frame else None,
        forces=np.asarray(frame["force"]).reshape(n, 3) if "force" in frame else None,
        hessian=np.asarray(frame["hessian"]).ravel(),
        label=label,
        level=LevelOfTheory("unknown"),
        provenance=facts,
    )


def _alone(positions: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> bool:
    """Say whether a box is mostly vacuum in each direction."""
    fractions = np.linalg.solve(box.T, positions.T).T
    heights = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)  # distances between opposite faces
    return bool(np.all((1 - np.ptp(fractions, axis=0)) * heights > VACUUM))
