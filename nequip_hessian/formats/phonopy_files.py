"""phonopy: phonopy.yaml, phonopy_params.yaml (also compressed), FORCE_CONSTANTS, force_constants.hdf5.

One calculation is one record: the supercell in phonopy's order of atoms, with its
Gamma-point Hessian, H[3i + a, 3j + b] = Phi[i, j, a, b]. Units are those of the
calculator the YAML file names (eV/angstrom^2 for VASP, Ry/au^2 for Quantum
ESPRESSO, ...). Force constants come from the YAML file itself, else from
force_constants.hdf5 or FORCE_CONSTANTS beside it, else phonopy makes them from
the displacements and forces of the file or of FORCE_SETS; compact ones are
expanded. They are not symmetrised. Born charges and the dielectric tensor come
from the YAML file or from BORN. There are no forces: a phonon calculation
starts from a relaxed cell, but does not say how well it is relaxed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from nequip_hessian.errors import FormatError
from nequip_hessian.formats import _phonopy
from nequip_hessian.formats._binary import HDF5, binary_source, first_bytes
from nequip_hessian.formats._hdf5 import holds
from nequip_hessian.formats._sink import new_folder, whole_hessian
from nequip_hessian.formats._source import Source, guarded, provenance, read_source, stem
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "phonopy"
PATTERNS = (
    "phonopy*.yaml",
    *(f"*.yaml.{ending}" for ending in ("xz", "bz2", "gz")),
    "FORCE_CONSTANTS*",
    "force_constants*.hdf5",
    "fc2.hdf5",
)

_YAMLS: Final = ("phonopy.yaml", "phonopy_params.yaml", "phonopy_disp.yaml")
_TEXT: Final = re.compile(r"\s*\d+(?:[ \t]+\d+)?[ \t]*\n[ \t]*\d+[ \t]+\d+[ \t]*\n(?:[ \t]*-?\d+\.\S+){3}[ \t]*\n")


def sniff(text: str) -> bool:
    """Say whether a text looks like a YAML file of phonopy with its cells, or a FORCE_CONSTANTS file."""
    head = text[:20000]
    yaml = re.search(r"^phonopy:", head, re.MULTILINE) and re.search(r"^(unit_cell|supercell_matrix):", head, re.M)
    return bool(yaml) or _TEXT.match(head) is not None


def recognises(path: Path) -> bool:
    """Say whether a binary file is phonopy's force_constants.hdf5."""
    return holds(path, lambda file: any(key in file and file[key].shape[2:] == (3, 3) for key in _DATASETS))


_DATASETS: Final = ("force_constants", "fc2")


@guarded("phonopy")
def read_phonopy_files(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a phonon calculation.

    Args:
        path: the YAML file, or FORCE_CONSTANTS or force_constants.hdf5 with the YAML file beside it

    Yields:
        One record: the supercell with cell, masses, Hessian, Born charges, dielectric tensor, supercell and
        primitive matrix.

    Raises:
        NoHessianError: neither force constants nor forces are there.
        FormatError: damaged, or files of different calculations. MissingExtraError: phonopy is not installed.
    """
    path = Path(path)
    if first_bytes(path).startswith(HDF5):
        source = binary_source(path, "force_constants.hdf5 of phonopy", HDF5)
        yield _with_yaml(source)
        return
    source = read_source(path)
    if _TEXT.match(source.text):
        yield _with_yaml(source)
        return
    phonons = _phonopy.load(source)
    companions = _find_force_constants(phonons)
    yield _record(phonons, source, companions)


def _with_yaml(source: Source) -> LabelledGeometry:
    """Read force constants with the YAML file beside them."""
    folder = source.path.parent
    found = [folder / name for name in _YAMLS if (folder / name).is_file()]
    if not found:
        raise source.error(
            f"the file holds no geometry: expected one of {', '.join(_YAMLS)} of the same calculation beside it, "
            "found none"
        )
    phonons = _phonopy.load(read_source(found[0]))
    _phonopy.add_force_constants(phonons, source.path)
    return _record(phonons, source, [phonons.source.facts()])


def _find_force_constants(phonons: _phonopy.Phonons) -> list[dict[str, Any]]:
    """Give the calculation of a YAML file its force constants; return the facts of the files they came from."""
    if phonons.phonon.force_constants is not None:
        return []
    folder = phonons.source.path.parent
    own = phonons.source.path.name.startswith("phonopy")  # files of other names lie by the thousand in one folder
    for name in ("force_constants.hdf5", "FORCE_CONSTANTS"):
        if own and (folder / name).is_file():
            return [_phonopy.add_force_constants(phonons, folder / name).facts()]
    companions = []
    entries = (phonons.phonon.dataset or {}).get("first_atoms") or []
    if own and not any("forces" in entry for entry in entries) and (folder / "FORCE_SETS").is_file():
        _phonopy.add_force_sets(phonons, folder / "FORCE_SETS")
        companions.append(read_source(folder / "FORCE_SETS").facts())
    _phonopy.produce(phonons)
    return companions


def _record(phonons: _phonopy.Phonons, source: Source, companions: list[dict[str, Any]]) -> LabelledGeometry:
    phonon, length = phonons.phonon, phonons.length_factor()
    cell = phonon.supercell
    born_file = phonons.source.path.parent / "BORN"
    beside = born_file if born_file.is_file() and phonons.source.path.name.startswith("phonopy") else None
    born = _phonopy.born_charges(phonons, beside)
    if born is not None and phonon.nac_params is None:
        companions = [*companions, read_source(born_file).facts()]
    count = abs(round(float(np.linalg.det(phonon.supercell_matrix))))
    energy = phonons.content.get("energy")
    scale = phonons.force_constant_factor()
    hessian = np.asarray(phonon.force_constants).transpose(0, 2, 1, 3).reshape(3 * len(cell), 3 * len(cell)) * scale
    label = stem(source.path)
    generic = label in ("FORCE_CONSTANTS", "force_constants", "fc2") or label.startswith("phonopy")
    conversions = {"positions": (phonons.length, length), "hessian": (phonons.force_constants, scale)}
    if energy is not None:
        conversions["energy"] = ("eV per unit cell", float(count))
    return LabelledGeometry(
        numbers=np.asarray(cell.numbers, dtype=np.uint8),
        positions=np.asarray(cell.positions) * length,
        cell=np.asarray(cell.cell) * length,
        pbc=True,
        energy=None if energy is None else float(energy) * count,
        hessian=hessian,
        masses=np.asarray(cell.masses),
        born_charges=None if born is None else born[0],
        dielectric=None if born is None else born[1],
        supercell_matrix=np.asarray(phonon.supercell_matrix, dtype=np.int32),
        primitive_matrix=np.asarray(phonon.primitive_matrix, dtype=np.float64),
        label=source.path.absolute().parent.name or label if generic else label,
        level=_level(phonons),
        provenance=provenance(source, NAME, conversions, masses_from="file", companions=companions or None),
    )


def _level(phonons: _phonopy.Phonons) -> LevelOfTheory:
    about = phonons.content.get("phonopy") or {}
    version = about.get("version") if isinstance(about, dict) else None
    return LevelOfTheory(
        "unknown",
        program=phonons.phonon.calculator or "phonopy",
        program_version=None if version is None else f"phonopy {version}",
        hessian="finite_difference",
    )


# -- writing --------------------------------------------------------------------------------


def write_phonopy_files(path: str | Path, record: LabelledGeometry, *, overwrite: bool = False) -> None:
    """Write a folder with `phonopy.yaml` and `FORCE_CONSTANTS`, in eV and angstrom, for `phonopy` to go on with.

    Args:
        path: the folder to make
        record: a periodic geometry with a Hessian. Where it has a supercell matrix, the unit cell is
            recovered from it; else the whole geometry is the unit cell
        overwrite: replace a folder that is there

    Raises:
        FormatError: not periodic, no Hessian or a partial one, or atoms not in the order of phonopy's supercell.
        MissingExtraError: phonopy is not installed.
    """
    hessian = whole_hessian(record, "phonopy")
    if not np.all(record.pbc):
        raise FormatError("phonopy: expected a periodic geometry, found a molecule; export it in another format")
    phonon = _phonopy.calculation_of(record, path)
    total = len(record)
    blocks = hessian.reshape(total, 3, total, 3).transpose(0, 2, 1, 3)
    with new_folder(path, overwrite=overwrite) as folder:
        phonon.save(str(folder / "phonopy.yaml"), settings={"force_constants": False, "force_sets": False})
        with open(folder / "FORCE_CONSTANTS", "w", encoding="utf-8") as file:
            file.write(f"{total:4d} {total:4d}\n")
            for i, j in np.ndindex(total, total):
                rows = "".join("".join(f"{value:22.15f}" for value in row) + "\n" for row in blocks[i, j])
                file.write(f"{i + 1} {j + 1}\n{rows}")
