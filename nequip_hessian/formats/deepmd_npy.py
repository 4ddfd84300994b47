"""DeePMD-kit systems of NumPy files with Hessians.

A system is a folder with `type.raw`, `type_map.raw` and folders `set.*`, each with
`coord.npy`, `hessian.npy`, `energy.npy`, `force.npy`, `box.npy`, a frame a row, in eV and
angstrom; the Hessian is the full (3N)^2, row by row. The file to read is a
`hessian.npy`. Without a periodic box (`nopbc` in the system's folder, or more than
20 angstrom of vacuum on all sides, where it was forgotten) a frame is a molecule,
so that the rotational identity holds and fixes units and signs. Streamed.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._binary import NUMPY, binary_source, first_bytes
from nequip_hessian.formats._sink import new_folder, whole_hessian
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
    except Exception as exc:  # a damaged header goes through Python's own parser, which raises whatever it likes
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


# -- writing --------------------------------------------------------------------------------


class _Growing:
    """A .npy file of rows that arrive one by one: the rows in a file of their own until their number is known."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width, self.count = path, width, 0

    def append(self, row: npt.ArrayLike) -> None:
        with open(self.path.with_suffix(".part"), "ab") as file:
            file.write(np.ascontiguousarray(row, dtype="<f8").tobytes())
        self.count += 1

    def finish(self) -> None:
        shape = (self.count, self.width) if self.width else (self.count,)
        part = self.path.with_suffix(".part")
        with open(self.path, "wb") as file, open(part, "rb") as rows:
            header = {"descr": "<f8", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            shutil.copyfileobj(rows, file)
        part.unlink()


class _System:
    """One system under construction: all frames have the same atoms and the same labels."""

    def __init__(self, folder: Path, record: LabelledGeometry) -> None:
        self.name, n = folder.name, len(record)
        data = folder / "set.000"
        data.mkdir(parents=True)
        kinds = sorted({int(number) for number in record.numbers})
        (folder / "type_map.raw").write_text("".join(f"{chemical_symbols[z]}\n" for z in kinds), encoding="utf-8")
        types = "".join(f"{kinds.index(int(z))}\n" for z in record.numbers)
        (folder / "type.raw").write_text(types, encoding="utf-8")
        if not np.any(record.pbc):
            (folder / "nopbc").touch()
        widths = {"coord": 3 * n, "energy": 0, "force": 3 * n, "hessian": 9 * n * n, "box": 9}
        self.files = {key: _Growing(data / f"{key}.npy", widths[key]) for key in _rows(record)}

    def append(self, record: LabelledGeometry) -> str:
        frame = self.files["coord"].count
        for key, row in _rows(record).items():
            self.files[key].append(row)
        return f"{self.name}/set.000#{frame}"


def _rows(record: LabelledGeometry) -> dict[str, npt.NDArray[Any]]:
    """Return what a record adds to each file, in the unit of the package, which is DeePMD-kit's."""
    rows = {"coord": np.asarray(record.positions).ravel()}
    if record.energy is not None:
        rows["energy"] = np.array(record.energy)
    if record.forces is not None:
        if not np.all(np.isfinite(record.forces)):
            raise FormatError("deepmd-npy: unknown forces of some atoms, for which this format has no place")
        rows["force"] = np.asarray(record.forces).ravel()
    if record.hessian is not None:
        rows["hessian"] = whole_hessian(record, NAME).ravel()
    if np.any(record.pbc):
        rows["box"] = np.asarray(record.cell).ravel()
    return rows


def write_deepmd_npy(path: str | Path, records: Iterable[LabelledGeometry], *, overwrite: bool = False) -> list[str]:
    """Write DeePMD-kit systems: a folder each for all frames of the same atoms, in this order, and the same labels.

    Args:
        path: the folder to make
        records: labelled geometries; a missing label makes a system of its own, without that file. Charge,
            multiplicity, masses, groups and levels of theory have no place in this format. They are
            written one by one and not kept
        overwrite: replace a folder that is there

    Returns:
        For each record the system, set and frame it went to, e.g. `H2O/set.000#3`.

    Raises:
        FormatError: a partial Hessian, forces with gaps, periodicity in some directions only, or something at `path`.
    """
    places: list[str] = []
    systems: dict[tuple[object, ...], _System] = {}
    names: Counter[str] = Counter()
    with new_folder(path, overwrite=overwrite) as folder:
        for record in records:
            if np.any(record.pbc) and not np.all(record.pbc):
                raise FormatError("deepmd-npy: periodic in some directions only, for which this format has no place")
            key = (np.asarray(record.numbers).tobytes(), *_rows(record))
            if key not in systems:
                formula = record.formula
                names[formula] += 1
                suffix = f"-{names[formula]}" if names[formula] > 1 else ""
                systems[key] = _System(folder / f"{formula}{suffix}", record)
            places.append(systems[key].append(record))
        if not systems:
            raise FormatError("deepmd-npy: no geometry to write")
        for system in systems.values():
            for file in system.files.values():
                file.finish()
    return places
