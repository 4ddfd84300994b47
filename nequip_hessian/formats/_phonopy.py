"""From phonopy's files to arrays: cells, units, force constants and Born charges of one phonon calculation.

Needs phonopy (extra `phonons`); its readers parse, but YAML is loaded here, with the
loader that builds plain containers only (phonopy's own would construct any object).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError, NoHessianError, reason_of
from nequip_hessian.formats._binary import optional
from nequip_hessian.formats._source import Source, numbers, read_source
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import BOHR, HARTREE

Array = npt.NDArray[np.float64]
_ENERGY: Final = {"ev": 1.0, "ry": HARTREE / 2, "mry": HARTREE / 2000, "hartree": HARTREE}
COULOMB: Final = HARTREE * BOHR  # e^2/(4 pi eps0), eV angstrom: phonopy's factor of the non-analytical term
_LENGTH: Final = {"angstrom": 1.0, "au": BOHR, "bohr": BOHR}


@dataclass
class Phonons:
    """One phonon calculation as phonopy has it, in the units of its calculator.

    Attributes:
        source: the YAML file
        content: its plain contents
        phonon: a `phonopy.Phonopy`
        length: unit of length
        force_constants: unit of force constants
    """

    source: Source
    content: dict[str, Any]
    phonon: Any
    length: str
    force_constants: str

    def length_factor(self) -> float:
        """Angstrom per unit of length."""
        return factor(self.source, self.length)

    def force_constant_factor(self) -> float:
        """eV/angstrom^2 per unit of force constants."""
        return factor(self.source, self.force_constants)


def factor(source: Source, unit: str) -> float:
    """Turn a unit as phonopy spells it, e.g. `Ry/au^2`, `eV/angstrom.au` or `au`, into eV and angstrom."""
    above, slash, below = unit.strip().lower().partition("/")
    try:
        if not slash:
            return _LENGTH[above]
        value = _ENERGY[above]
        for part in below.split("."):
            name, _, power = part.partition("^")
            value /= _LENGTH[name] ** int(power or 1)
    except (KeyError, ValueError):
        raise source.error(
            f"unit {unit!r}: expected eV, Ry, mRy or hartree over powers of angstrom or au, as phonopy writes them"
        ) from None
    return value


def load(source: Source) -> Phonons:
    """Load a phonopy YAML file.

    Raises:
        FormatError: no YAML, or not of phonopy. MissingExtraError: phonopy is not installed.
    """
    interface = optional("phonopy.interface.phonopy_yaml", "phonons", source.path)
    api = optional("phonopy", "phonons", source.path)
    units = optional("phonopy.physical_units", "phonons", source.path)
    content = _plain(source)
    try:
        data = interface.load_phonopy_yaml(content)
    except (AssertionError, RuntimeError) as exc:  # phonopy asserts what its own files obey
        raise source.error(f"damaged or unusual phonopy file ({reason_of(exc)})") from exc
    if data.unitcell is None:
        raise source.error("expected the unit cell of a phonopy calculation, found none")
    matrix = np.eye(3, dtype=int) if data.supercell_matrix is None else data.supercell_matrix
    primitive = np.eye(3) if data.primitive_matrix is None else data.primitive_matrix
    try:
        phonon = api.Phonopy(
            data.unitcell,
            matrix,
            primitive,
            calculator=data.calculator,
            is_symmetry=False,  # its search takes most of the time, and only `produce` needs it
            log_level=0,
        )
    except (AssertionError, RuntimeError) as exc:
        raise source.error(f"damaged or unusual phonopy file ({reason_of(exc)})") from exc
    known = units.get_calculator_physical_units(data.calculator)
    given = content.get("physical_unit") or {}
    found = Phonons(
        source,
        content,
        phonon,
        str(given.get("length") or known.length_unit),
        str(given.get("force_constants") or known.force_constants_unit),
    )
    if data.nac_params is not None:
        phonon.nac_params = data.nac_params
    if data.dataset is not None:
        phonon.dataset = data.dataset
    if data.force_constants is not None:  # after the dataset, which drops them
        _set(found, data.force_constants, source)
    return found


def _plain(source: Source) -> dict[str, Any]:
    import yaml

    from nequip_hessian._yaml import RefusedYamlError, load_yaml

    try:
        content = load_yaml(source.text)
    except RefusedYamlError as exc:
        raise source.error(str(exc), exc.line) from None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        reason = getattr(exc, "problem", None) or "unreadable"
        raise source.error(f"no valid YAML ({reason}); the file is cut or damaged", line) from None
    if not isinstance(content, dict) or "phonopy" not in content:
        raise source.error("expected a YAML file of phonopy, which has the key 'phonopy'")
    return content


def force_constants_text(source: Source) -> tuple[Array, npt.NDArray[np.int64]]:
    """Read a FORCE_CONSTANTS file.

    Returns:
        (n, N, 3, 3) force constants in the unit of the calculator, and the supercell atoms (n,) of the
        first axis, counted from 0.

    Raises:
        FormatError: cut or damaged.
    """
    head, _, body = source.text.lstrip().partition("\n")
    sizes = head.split()
    if len(sizes) not in (1, 2) or not all(token.isdigit() for token in sizes):
        raise source.error("expected the numbers of atoms of a FORCE_CONSTANTS file", 1)
    n, m = int(sizes[0]), int(sizes[-1])
    values = numbers(body, source, 2, n * m * 11, "FORCE_CONSTANTS").reshape(n, m, 11)
    tokens = body.split()[-2:]
    if len({len(token.partition(".")[2]) for token in tokens}) > 1:  # phonopy ends the file without a line end
        raise source.error(f"the last number {tokens[-1]!r} has fewer digits than the others; the file is cut")
    first = values[:, 0, 0].astype(np.int64) - 1
    pairs = np.stack(np.broadcast_arrays(first[:, None], np.arange(m)[None]), axis=-1)
    if not np.array_equal(values[:, :, :2], pairs + 1):
        raise source.error("the pairs of atoms are not in the order that phonopy writes; the file is damaged")
    return values[:, :, 2:].reshape(n, m, 3, 3), first


def _set(phonons: Phonons, values: Array, source: Source, atoms: npt.NDArray[np.int64] | None = None) -> None:
    """Give the calculation its force constants, compact ones expanded."""
    phonon = phonons.phonon
    total, rows = len(phonon.supercell), np.asarray(phonon.primitive.p2s_map)
    if values.shape not in ((total, total, 3, 3), (len(rows), total, 3, 3)):
        raise source.error(
            f"force constants: expected ({total}, {total}, 3, 3) or compact ({len(rows)}, {total}, 3, 3) for this "
            f"supercell, found {values.shape}; is it of another calculation than {phonons.source.path.name}?"
        )
    if values.shape[0] != total:
        if atoms is not None and not np.array_equal(atoms, rows):
            raise source.error(
                f"compact force constants of atoms {atoms.tolist()[:8]}, expected {rows.tolist()[:8]}: "
                f"{phonons.source.path.name} has another primitive cell"
            )
        harmonic = optional("phonopy.harmonic.force_constants", "phonons", source.path)
        values = harmonic.compact_fc_to_full_fc(phonon.primitive, np.array(values, dtype="double", order="C"))
    if not np.all(np.isfinite(values)):
        raise source.error("force constants: expected finite numbers, found NaN or infinity")
    phonon.force_constants = values


def add_force_constants(phonons: Phonons, path: Path) -> Source:
    """Take the force constants from a FORCE_CONSTANTS or an HDF5 file.

    Raises:
        FormatError: damaged, or of another supercell.
    """
    if path.suffix == ".hdf5":
        from nequip_hessian.formats._hdf5 import open_hdf5

        with open_hdf5(path) as (source, file):
            name = next((key for key in ("fc2", "force_constants") if key in file), None)
            if name is None:
                raise source.error(f"expected fc2 or force_constants, found {', '.join(file)[:80]}")
            atoms = np.asarray(file["p2s_map"][:]) if "p2s_map" in file else None
            if "physical_unit" in file:
                phonons.force_constants = file["physical_unit"][0].decode("utf-8")
            _set(phonons, np.asarray(file[name][:], dtype=np.float64), source, atoms)
        return source
    source = read_source(path)
    _set(phonons, *_reordered(source))
    return source


def _reordered(source: Source) -> tuple[Array, Source, npt.NDArray[np.int64]]:
    values, atoms = force_constants_text(source)
    return values, source, atoms


def produce(phonons: Phonons) -> None:
    """Make force constants from displacements and forces, by phonopy.

    Raises:
        NoHessianError: there are no forces, or random displacements, which need a fit.
    """
    phonon = phonons.phonon
    dataset = phonon.dataset or {}
    entries = dataset.get("first_atoms")
    if entries and all("forces" in entry for entry in entries):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a supercell of lower symmetry than its crystal, which does not matter
            symmetric = type(phonon)(
                phonon.unitcell, phonon.supercell_matrix, phonon.primitive_matrix, calculator=phonon.calculator
            )
        symmetric.dataset = dataset
        symmetric.produce_force_constants()
        phonon.force_constants = symmetric.force_constants
        return
    what = "random displacements, whose fit is a choice of its own" if "displacements" in dataset else "no forces"
    raise phonons.source.error(
        f"no Hessian in this file: {what if dataset else 'no force constants'}; put FORCE_CONSTANTS, "
        "force_constants.hdf5 or FORCE_SETS beside it (phonopy --writefc makes the first)",
        kind=NoHessianError,
    )


def add_force_sets(phonons: Phonons, path: Path) -> None:
    """Take displacements and forces from a FORCE_SETS file."""
    file_io = optional("phonopy.file_IO", "phonons", path)
    phonons.phonon.dataset = file_io.parse_FORCE_SETS(natom=len(phonons.phonon.supercell), filename=str(path))


def born_charges(phonons: Phonons, beside: Path | None) -> tuple[Array, Array] | None:
    """Return the Born charges (N, 3, 3), e, of the supercell's atoms and the dielectric tensor (3, 3), or None.

    Args:
        phonons: the calculation; its own parameters win
        beside: a BORN file
    """
    phonon = phonons.phonon
    values = phonon.nac_params
    if values is None and beside is not None:
        values = optional("phonopy.file_IO", "phonons", beside).parse_BORN(phonon.primitive, filename=str(beside))
    if values is None:
        return None
    primitive = phonon.primitive
    rows = [primitive.p2p_map[int(atom)] for atom in primitive.s2p_map]
    return np.asarray(values["born"], dtype=np.float64)[rows], np.asarray(values["dielectric"], dtype=np.float64)


def calculation_of(record: LabelledGeometry, path: str | Path) -> Any:
    """Make a `phonopy.Phonopy` of a stored supercell, in eV and angstrom.

    Args:
        record: a periodic geometry; its supercell matrix says which part of it is the unit cell
        path: where it is going to be written, for messages

    Raises:
        FormatError: the atoms are not those of phonopy's supercell in phonopy's order.
    """
    api = optional("phonopy", "phonons", path)
    structure = optional("phonopy.structure.atoms", "phonons", path)
    matrix = np.eye(3, dtype=int) if record.supercell_matrix is None else np.asarray(record.supercell_matrix)
    primitive = np.eye(3) if record.primitive_matrix is None else record.primitive_matrix
    count = abs(round(float(np.linalg.det(matrix))))
    cell = np.linalg.inv(matrix.T) @ np.asarray(record.cell)
    masses = None if record.masses is None else record.masses[::count]
    unit = structure.PhonopyAtoms(
        numbers=record.numbers[::count], positions=record.positions[::count], cell=cell, masses=masses
    )
    wrong = FormatError(
        f"phonopy: the supercell matrix {matrix.tolist()} does not give the atoms of this geometry in phonopy's "
        "order; leave it out to write the whole cell as unit cell"
    )
    try:
        phonon = api.Phonopy(unit, matrix, primitive, is_symmetry=False, log_level=0)
    except (AssertionError, RuntimeError) as exc:
        raise wrong from exc
    made = phonon.supercell
    apart = np.linalg.solve(np.asarray(record.cell).T, (np.asarray(made.positions) - record.positions).T).T
    moved = (apart - np.round(apart)) @ np.asarray(record.cell)
    if not np.array_equal(made.numbers, record.numbers) or np.max(np.abs(moved)) > 1e-4:
        raise wrong
    if record.born_charges is not None and record.dielectric is not None:
        rows = np.asarray(phonon.primitive.p2s_map)
        phonon.nac_params = {"born": record.born_charges[rows], "dielectric": record.dielectric, "factor": COULOMB}
    return phonon
