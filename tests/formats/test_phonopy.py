"""phonopy's files in each of their forms give the Hessian that differences of forces of the supercell give."""

from __future__ import annotations

import bz2
import lzma
import shutil

import numpy as np
import phonopy
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from phonopy.file_IO import write_FORCE_CONSTANTS, write_force_constants_to_hdf5, write_FORCE_SETS
from phonopy.structure.atoms import PhonopyAtoms

from nequip_hessian.checks import check
from nequip_hessian.curvature import mass_weight, signed_wavenumbers
from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import format_of, read
from nequip_hessian.formats.phonopy_files import write_phonopy_files
from nequip_hessian.store import HessianStore, StoreWriter
from nequip_hessian.units import BOHR, HARTREE

STEP = 0.01
THZ_TO_CM = 1e12 / 2.99792458e10


def forces_of(cell: PhonopyAtoms) -> np.ndarray:
    atoms = Atoms(numbers=cell.numbers, positions=cell.positions, cell=cell.cell, pbc=True)
    atoms.calc = EMT()
    return atoms.get_forces()


def frequencies(phonon: phonopy.Phonopy, point: tuple[float, ...]) -> np.ndarray:
    """THz, at one point of the primitive cell's reciprocal lattice."""
    phonon.run_qpoints([point])
    return phonon.qpoints.frequencies[0]


def calculation(length: float = 1.0, force: float = 1.0, calculator: str | None = None) -> phonopy.Phonopy:
    """Cu3Au, cubic cell of 4 atoms, 2 x 1 x 2 supercell; `length` and `force` are units in angstrom and eV/angstrom."""
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    atoms.numbers[0] = 79
    unit = PhonopyAtoms(numbers=atoms.numbers, positions=atoms.positions / length, cell=atoms.cell.array / length)
    made = phonopy.Phonopy(unit, np.diag([2, 1, 2]), np.eye(3), calculator=calculator)
    made.generate_displacements(distance=STEP / length)
    moved = []
    for cell in made.supercells_with_displacements:
        angstrom = PhonopyAtoms(numbers=cell.numbers, positions=cell.positions * length, cell=cell.cell * length)
        moved.append(forces_of(angstrom) / force)
    made.forces = np.array(moved)
    made.produce_force_constants(calculate_full_force_constants=True)
    return made


@pytest.fixture(scope="module")
def made():
    return calculation()


@pytest.fixture(scope="module")
def differences(made):
    """Central differences of forces, without phonopy's symmetry."""
    cell = made.supercell
    rows = []
    for degree in range(3 * len(cell)):
        pair = []
        for sign in (1, -1):
            positions = np.array(cell.positions)
            positions.flat[degree] += sign * STEP
            pair.append(forces_of(PhonopyAtoms(numbers=cell.numbers, positions=positions, cell=cell.cell)).ravel())
        rows.append((pair[1] - pair[0]) / (2 * STEP))
    return np.array(rows)


def one(path):
    (record,) = read(path)
    return record


def right(record, made, differences, tolerance=2e-3):
    assert record.numbers.tolist() == made.supercell.numbers.tolist()
    assert np.allclose(record.positions, made.supercell.positions, atol=1e-8)
    assert np.allclose(record.cell, made.supercell.cell, atol=1e-8)
    assert np.allclose(record.masses, made.supercell.masses)
    assert record.pbc.all()
    assert record.supercell_matrix.tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 2]]
    assert np.max(np.abs(record.hessian - differences)) < tolerance * np.max(np.abs(differences))
    _, found = check(record)
    assert found.imaginary == 0


def save(made, path, **settings):
    made.save(str(path), settings={"force_constants": False, "force_sets": False, **settings})


def test_force_constants_in_the_yaml_file(tmp_path, made, differences):
    save(made, tmp_path / "phonopy_params.yaml", force_constants=True)
    assert format_of(tmp_path / "phonopy_params.yaml").name == "phonopy"
    right(one(tmp_path / "phonopy_params.yaml"), made, differences)


@pytest.mark.parametrize("named", ["phonopy.yaml", "FORCE_CONSTANTS"])
@pytest.mark.parametrize("compact", [False, True])
def test_force_constants_text(tmp_path, made, differences, named, compact):
    save(made, tmp_path / "phonopy.yaml")
    rows = made.primitive.p2s_map
    values = made.force_constants[rows] if compact else made.force_constants
    write_FORCE_CONSTANTS(values, str(tmp_path / "FORCE_CONSTANTS"), p2s_map=rows if compact else None)
    assert format_of(tmp_path / named).name == "phonopy"
    record = one(tmp_path / named)
    right(record, made, differences)
    assert [facts["source"] for facts in record.provenance["companions"]] == [
        "FORCE_CONSTANTS" if named == "phonopy.yaml" else "phonopy.yaml"
    ]


@pytest.mark.parametrize("named", ["phonopy.yaml", "force_constants.hdf5"])
@pytest.mark.parametrize("compact", [False, True])
def test_force_constants_hdf5(tmp_path, made, differences, named, compact):
    save(made, tmp_path / "phonopy.yaml")
    rows = made.primitive.p2s_map
    values = made.force_constants[rows] if compact else made.force_constants
    path = tmp_path / "force_constants.hdf5"
    write_force_constants_to_hdf5(values, str(path), p2s_map=rows if compact else None)
    assert format_of(tmp_path / named).name == "phonopy"
    right(one(tmp_path / named), made, differences)


def test_forces_of_displaced_cells_in_the_file_or_beside_it(tmp_path, made, differences):
    save(made, tmp_path / "phonopy_params.yaml", force_sets=True, displacements=True)
    right(one(tmp_path / "phonopy_params.yaml"), made, differences)
    (tmp_path / "beside").mkdir()
    save(made, tmp_path / "beside" / "phonopy_disp.yaml", displacements=True)
    write_FORCE_SETS(made.dataset, str(tmp_path / "beside" / "FORCE_SETS"))
    right(one(tmp_path / "beside" / "phonopy_disp.yaml"), made, differences)


@pytest.mark.parametrize(("ending", "module"), [("bz2", bz2), ("xz", lzma)])
def test_compressed_with_the_energy_of_the_unit_cell(tmp_path, made, differences, ending, module):
    """The layout of the archives of the phonon databases: one compressed file a crystal, many in a folder."""
    save(made, tmp_path / "a.yaml", force_sets=True, displacements=True)
    text = (tmp_path / "a.yaml").read_text() + "\nenergy: -3.5\n"
    path = tmp_path / f"mp-1000.yaml.{ending}"
    path.write_bytes(module.compress(text.encode()))
    assert format_of(path).name == "phonopy"
    record = one(path)
    right(record, made, differences)
    assert record.energy == -3.5 * 4
    assert record.label == "mp-1000"


def test_units_of_another_calculator(tmp_path, differences):
    """Quantum ESPRESSO: positions in a0, forces in Ry/a0; the numbers must come out as in eV and angstrom."""
    qe = calculation(BOHR, HARTREE / 2 / BOHR, "qe")
    save(qe, tmp_path / "phonopy.yaml")
    write_FORCE_CONSTANTS(qe.force_constants, str(tmp_path / "FORCE_CONSTANTS"))
    record = one(tmp_path / "phonopy.yaml")
    right(record, calculation(), differences)
    assert record.provenance["conversions"]["hessian"]["from"] == "Ry/au^2"
    assert record.provenance["conversions"]["positions"]["from"] == "au"


def test_gamma_point_modes_of_the_supercell_are_those_of_phonopy_at_commensurate_points(tmp_path, made):
    save(made, tmp_path / "phonopy.yaml", force_constants=True)
    record = one(tmp_path / "phonopy.yaml")
    values = np.sort(signed_wavenumbers(np.linalg.eigvalsh(mass_weight(record.hessian, record.masses))))
    symmetric = calculation()
    symmetric.force_constants = (made.force_constants + made.force_constants.transpose(1, 0, 3, 2)) / 2
    points = [(i / 2, 0, k / 2) for i in range(2) for k in range(2)]
    expected = np.sort(np.concatenate([frequencies(symmetric, q) for q in points])) * THZ_TO_CM
    assert np.max(np.abs(values[3:] - expected[3:])) < 0.01
    assert np.max(np.abs(values[:3])) < 1.0


def test_born_charges_and_dielectric_tensor(tmp_path, made):
    """Charges of the primitive cell's independent atoms, spread by symmetry over the supercell."""
    gold, copper = np.diag([1.5, 1.5, 1.5]), np.diag([-0.7, -0.4, -0.4])  # copper 1 lies off its plane along x
    rows = [" 14.4", *(" ".join(f"{v:.8f}" for v in matrix.ravel()) for matrix in (5 * np.eye(3), gold, copper))]
    (tmp_path / "BORN").write_text("\n".join(rows) + "\n")
    save(made, tmp_path / "phonopy.yaml", force_constants=True)
    record = one(tmp_path / "phonopy.yaml")
    assert np.allclose(record.dielectric, 5 * np.eye(3))
    assert np.allclose(record.born_charges[record.numbers == 79], gold)
    copper_charges = record.born_charges[record.numbers == 29]
    assert np.allclose(np.sort(np.diagonal(copper_charges, axis1=1, axis2=2), axis=1), [[-0.7, -0.4, -0.4]] * 12)
    assert np.allclose(record.born_charges.sum(axis=0), 0, atol=1e-8)
    written = tmp_path / "again"
    write_phonopy_files(written, record)
    again = one(written / "phonopy.yaml")
    assert np.allclose(again.born_charges, record.born_charges)
    assert np.allclose(again.dielectric, record.dielectric)


def test_store_and_back_to_phonopy(tmp_path, made):
    save(made, tmp_path / "phonopy.yaml", force_constants=True)
    with StoreWriter(tmp_path / "s.zarr") as writer:
        writer.append(one(tmp_path / "phonopy.yaml"))
    record = HessianStore(tmp_path / "s.zarr")[0]
    write_phonopy_files(tmp_path / "out", record)
    opened = phonopy.load(
        tmp_path / "out" / "phonopy.yaml",
        force_constants_filename=tmp_path / "out" / "FORCE_CONSTANTS",
        symmetrize_fc=False,
        is_compact_fc=False,
    )
    symmetric = (made.force_constants + made.force_constants.transpose(1, 0, 3, 2)) / 2
    assert np.max(np.abs(opened.force_constants - symmetric)) < 1e-14
    assert len(opened.unitcell) == 4
    made.force_constants = symmetric
    point = (0.1, 0.2, 0.3)
    assert np.allclose(frequencies(opened, point), frequencies(made, point), atol=1e-5)
    again = one(tmp_path / "out" / "FORCE_CONSTANTS")
    assert np.max(np.abs(again.hessian - record.hessian)) < 1e-14
    with pytest.raises(FormatError, match="something already"):
        write_phonopy_files(tmp_path / "out", record)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "phonopy.yaml", "s.zarr"]


def test_what_cannot_be_read_is_refused(tmp_path, made):
    save(made, tmp_path / "phonopy.yaml")
    with pytest.raises(NoHessianError, match=r"phonopy\.yaml: no Hessian in this file: no force"):
        one(tmp_path / "phonopy.yaml")
    write_FORCE_CONSTANTS(made.force_constants, str(tmp_path / "FORCE_CONSTANTS"))
    text = (tmp_path / "FORCE_CONSTANTS").read_text()
    for cut in (len(text) - 3, len(text) - 40, len(text) // 2):
        (tmp_path / "FORCE_CONSTANTS").write_text(text[:cut])
        with pytest.raises(FormatError, match=r"FORCE_CONSTANTS.*cut"):
            one(tmp_path / "phonopy.yaml")
    (tmp_path / "FORCE_CONSTANTS").write_text(text)
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "FORCE_CONSTANTS", tmp_path / "alone")
    with pytest.raises(FormatError, match=r"expected one of phonopy\.yaml, .* beside it"):
        one(tmp_path / "alone" / "FORCE_CONSTANTS")
    other = phonopy.Phonopy(made.unitcell, np.eye(3), np.eye(3))
    save(other, tmp_path / "alone" / "phonopy.yaml")
    with pytest.raises(FormatError, match="another calculation"):
        one(tmp_path / "alone" / "FORCE_CONSTANTS")


def test_yaml_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "phonopy.yaml"
    mark = tmp_path / "mark"
    path.write_text(f"phonopy:\n  version: !!python/object/apply:os.system ['touch {mark}']\nsupercell_matrix: 1\n")
    with pytest.raises(FormatError, match="no valid YAML"):
        one(path)
    assert not mark.exists()


@pytest.mark.parametrize("value", ["[*a, *a]", "[" * 200_000], ids=["aliases", "deep"])
def test_yaml_that_is_more_than_it_looks_is_refused(tmp_path, value):
    path = tmp_path / "phonopy.yaml"
    path.write_text(f"phonopy:\n  version: &a [1, 2]\nsupercell_matrix: {value}\n")
    with pytest.raises(FormatError, match=r"phonopy.yaml, line [23]: expected YAML"):
        one(path)


def test_molecules_and_other_orders_are_not_written(tmp_path, made):
    save(made, tmp_path / "phonopy.yaml", force_constants=True)
    record = one(tmp_path / "phonopy.yaml")
    order = np.arange(len(record))
    order[[4, 9]] = order[[9, 4]]
    turned = record.replace(numbers=record.numbers[order], positions=record.positions[order], masses=None)
    with pytest.raises(FormatError, match="phonopy's order"):
        write_phonopy_files(tmp_path / "out", turned)
    with pytest.raises(FormatError, match="found a molecule"):
        write_phonopy_files(tmp_path / "out", record.replace(pbc=False, supercell_matrix=None, primitive_matrix=None))
    assert not (tmp_path / "out").exists()
