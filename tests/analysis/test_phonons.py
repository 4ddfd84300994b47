"""Phonons against an analytic chain, phonopy's own finite displacements, and themselves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from small_models import NEQUIP, R_MAX, SYMBOLS, nequip_state  # noqa: F401

from nequip_hessian.analysis.crystal import relax_crystal
from nequip_hessian.analysis.force_constants import (
    PhononCache,
    default_supercell,
    drift,
    edge_share,
    force_constants,
    model_cutoff,
    phonon_calculation,
    supercell_atoms,
    widths,
)
from nequip_hessian.analysis.phonons import THZ_TO_CM, compare_phonons, lattice_dynamics
from nequip_hessian.errors import ConfigError, HessianDataError
from nequip_hessian.potentials import ForeignPotential, load_potential
from nequip_hessian.report.phonons import sound_rows
from nequip_hessian.units import WAVENUMBER

STIFFNESS, HEAVY, LIGHT, LENGTH = 5.0, 40.0, 12.0, 5.0  # eV/angstrom^2, u, u, angstrom


class Springs(Calculator):
    """Nearest neighbours of rock salt joined by springs at their rest length."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        from ase.neighborlist import neighbor_list

        i, vectors = neighbor_list("iD", self.atoms, 0.7 * LENGTH)
        lengths = np.linalg.norm(vectors, axis=1)
        stretch = lengths - LENGTH / 2
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, STIFFNESS * (stretch / lengths)[:, None] * vectors)
        self.results = {"energy": 0.25 * STIFFNESS * float(stretch @ stretch), "forces": forces}


def chain(q, cell):
    """Frequencies, THz, of the three diatomic chains along x, y and z that these springs make of rock salt."""
    phase = (np.asarray(q) @ np.linalg.inv(cell).T) * np.pi * LENGTH  # half the lattice constant times 2 pi q
    total = STIFFNESS * (1 / HEAVY + 1 / LIGHT)
    root = np.sqrt(total**2 - 4 * STIFFNESS**2 * np.sin(phase) ** 2 / (HEAVY * LIGHT))
    squares = np.concatenate([total - root, total + root], axis=-1)
    return np.sort(np.sqrt(np.maximum(squares, 0)), axis=-1) * WAVENUMBER / THZ_TO_CM


def same_squares(found, expected):
    # Squares, because a frequency of nothing is the root of a rounding error. What differs is the anharmonicity at
    # 0.01 angstrom: 3 stiffness/d^2 u^2 relative to the stiffness, 1e-5 of 265 THz^2, and phonopy's constants.
    np.testing.assert_allclose(np.sign(found) * found**2, expected**2, atol=5e-3)


@pytest.fixture(scope="module")
def springs():
    atoms = bulk("NaCl", "rocksalt", a=LENGTH)
    atoms.set_masses([HEAVY, LIGHT])
    phonon = phonon_calculation(atoms, 3 * np.eye(3, dtype=int))
    constants = force_constants(phonon, ForeignPotential(Springs(), "springs"))
    return lattice_dynamics(phonon, constants, mesh=(8, 8, 8), points=11), constants


def test_bands_of_springs_are_those_of_the_diatomic_chain(springs):
    found, _ = springs
    cell = np.asarray(found.phonon.primitive.cell)
    for segment in found.bands:
        same_squares(segment.frequencies, chain(segment.q, cell))
    same_squares(found.frequencies, chain(found.q, cell))


def test_sum_rule_acoustic_modes_and_highest_frequency_of_springs(springs):
    found, constants = springs
    assert drift(constants) < 1e-10
    assert np.max(np.abs(found.gamma[:3])) < 1e-2
    top = np.sqrt(2 * STIFFNESS * (1 / HEAVY + 1 / LIGHT)) * WAVENUMBER / THZ_TO_CM
    assert found.gamma[3:] == pytest.approx([top] * 3, rel=1e-3)
    assert found.imaginary_share == 0
    assert found.lowest[0] == pytest.approx(0, abs=2e-2)


def test_density_of_states_holds_all_modes_and_heat_capacity_reaches_dulong_petit(springs):
    found, _ = springs
    assert np.trapezoid(found.dos, found.dos_grid) == pytest.approx(6, rel=0.02)
    assert found.thermal.heat_capacity[0] == 0
    # three of the six branches of these springs have zero modes over whole planes; phonopy leaves those out
    assert 0.9 * 6 * 8.3145 < found.thermal.heat_capacity[-1] < 6 * 8.3145


def test_speed_of_sound_of_springs(springs):
    found, _ = springs
    # long waves along x: omega = q a/2 sqrt(2 k / (M + m)) a diatomic chain's, a/2 the distance of neighbours
    expected = LENGTH / 2 * np.sqrt(2 * STIFFNESS / (HEAVY + LIGHT)) * WAVENUMBER / THZ_TO_CM * 2 * np.pi / 10
    assert found.sound["Γ–X"][-1] == pytest.approx(expected, rel=2e-3)


@pytest.fixture(scope="module")
def aluminium():
    potential = load_potential("ase:emt")
    crystal = relax_crystal(bulk("Al", cubic=True), potential)
    phonon = phonon_calculation(crystal.atoms, 2 * np.eye(3, dtype=int))
    return crystal, phonon, force_constants(phonon, potential), potential


def finite_displacements(atoms, supercell, calculator, distance):
    """Phonopy's own irreducible displacements of the same model."""
    own = phonon_calculation(atoms, supercell)
    own.generate_displacements(distance=distance, is_plusminus=True)
    forces = []
    for cell in own.supercells_with_displacements:
        moved = Atoms(cell.numbers, cell.positions, cell=cell.cell, pbc=True)
        moved.calc = calculator
        forces.append(moved.get_forces())
    own.forces = forces
    own.produce_force_constants()
    return own


def test_relaxation_takes_the_stress_and_keeps_the_space_group(aluminium):
    crystal, *_ = aluminium
    assert crystal.failure is None
    assert np.max(np.abs(crystal.stress)) * 160.2 < 0.01  # GPa
    lengths = crystal.atoms.cell.cellpar()
    assert np.ptp(lengths[:3]) < 1e-8
    assert lengths[0] == pytest.approx(3.994, abs=0.002)


def test_differences_equal_finite_displacements_of_phonopy(aluminium):
    crystal, phonon, constants, _ = aluminium
    own = finite_displacements(crystal.atoms, phonon.supercell_matrix, EMT(), 0.01)
    assert np.max(np.abs(constants - own.force_constants)) < 1e-4 * np.max(np.abs(constants))
    mine = lattice_dynamics(phonon, constants, mesh=(6, 6, 6), points=5)
    theirs = lattice_dynamics(own, np.asarray(own.force_constants), mesh=(6, 6, 6), points=5)
    errors = compare_phonons(mine, theirs)
    assert errors.frequency_max < 1e-3  # THz
    assert errors.heat_capacity_max < 1e-2


def test_errors_of_scaled_force_constants_are_those_computed_by_hand(aluminium):
    crystal, phonon, constants, _ = aluminium
    reference = lattice_dynamics(phonon, constants, mesh=(5, 5, 5), points=3)
    stiff = phonon_calculation(crystal.atoms, phonon.supercell_matrix)
    errors = compare_phonons(lattice_dynamics(stiff, 1.21 * constants, mesh=(5, 5, 5), points=3), reference)
    share = reference.weights / reference.weights.sum()
    mean_square = float(share @ (reference.frequencies**2).mean(axis=1))
    mean = float(share @ reference.frequencies.mean(axis=1))
    assert errors.frequency_rmse == pytest.approx(0.1 * np.sqrt(mean_square), rel=1e-6)  # all frequencies times 1.1
    assert errors.frequency_bias == pytest.approx(0.1 * mean, rel=1e-4)
    assert errors.dos_distance == pytest.approx(0.1 * mean, rel=1e-4)
    assert errors.frequency_max == pytest.approx(0.1 * reference.frequencies.max(), rel=1e-6)
    assert errors.heat_capacity_300 < 0
    assert errors.free_energy_300 > 0


def test_an_unstable_crystal_is_said_to_be_unstable(aluminium):
    crystal, _, constants, _ = aluminium
    weak = phonon_calculation(crystal.atoms, 2 * np.eye(3, dtype=int))
    found = lattice_dynamics(weak, -constants, mesh=(4, 4, 4), points=3)
    assert found.imaginary_share > 0.9
    assert found.lowest[0] < -5
    assert found.n_imaginary_gamma == 0  # one atom in the primitive cell: three acoustic modes at Gamma


def test_no_wave_runs_along_an_imaginary_branch(aluminium):
    crystal, _, constants, _ = aluminium
    weak = phonon_calculation(crystal.atoms, 2 * np.eye(3, dtype=int))
    turned = lattice_dynamics(weak, -constants, mesh=(2, 2, 2), points=2)
    assert turned.sound
    assert all(np.all(np.isnan(speeds)) for speeds in turned.sound.values())
    cells = [cell for row in sound_rows(turned)[1:] for cell in row[1:]]
    assert set(cells) == {"imaginary"}


def test_force_constants_are_kept_and_taken_up_again(aluminium, tmp_path):
    _, phonon, constants, potential = aluminium
    cache = PhononCache(tmp_path / "stages", {"key": 1})
    first = force_constants(phonon, potential, cache=cache)

    class Broken(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, *args, **kwargs):
            raise AssertionError("nothing is to be calculated again")

    again = force_constants(phonon, ForeignPotential(Broken(), "broken"), cache=cache)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, constants, atol=1e-9)


def test_model_that_is_not_finite_is_refused(aluminium):
    _, phonon, *_ = aluminium

    class Nothing(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results = {"energy": 0.0, "forces": np.full((len(self.atoms), 3), np.nan)}

    with pytest.raises(HessianDataError, match="not finite"):
        force_constants(phonon, ForeignPotential(Nothing(), "nothing"))


def test_exact_hessian_of_a_nequip_model_equals_finite_displacements_of_phonopy():
    from nequip.model import NequIPGNNModel

    from nequip_hessian.calculator import HessianCalculator

    atoms = bulk("Al", cubic=True)
    supercell = np.diag([2, 2, 2])
    calculator = HessianCalculator(
        NequIPGNNModel(**NEQUIP).eval(),
        device="cpu",
        transforms=[ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)],
    )
    phonon = phonon_calculation(atoms, supercell)
    constants = force_constants(phonon, calculator)
    own = finite_displacements(atoms, supercell, calculator, 2.5e-4)
    largest = np.max(np.abs(constants))
    assert largest > 1e-3
    # the rest is the fourth derivative over the step, squared
    assert np.max(np.abs(constants - own.force_constants)) < 1e-5 * largest
    assert drift(constants) < 1e-9 * largest
    assert model_cutoff(calculator) == R_MAX


def test_supercells_and_their_edges(aluminium):
    _, phonon, constants, _ = aluminium
    cell = np.array([[4.0, 0, 0], [0, 5.0, 0], [0, 3.0, 6.0]])
    assert widths(cell) == pytest.approx([4, 5 * 6 / np.hypot(3, 6), 6])
    assert np.diag(default_supercell(cell)).tolist() == [3, 3, 2]
    radius, share = edge_share(phonon, constants)
    assert radius == pytest.approx(np.asarray(phonon.supercell.cell)[0, 0] / 2)
    assert 0.05 < share < 0.5
    assert len(supercell_atoms(phonon)) == 32


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pbc": False}, "no cell"),
        ({"pbc": (True, True, False)}, "three directions"),
    ],
)
def test_what_is_no_crystal_is_refused(change, text):
    atoms = bulk("Al", cubic=True)
    atoms.set_pbc(change["pbc"])
    with pytest.raises(ConfigError, match=text):
        phonon_calculation(atoms, np.eye(3, dtype=int))


def test_supercell_without_volume_is_refused():
    with pytest.raises(ConfigError, match="volume"):
        phonon_calculation(bulk("Al"), np.zeros((3, 3), dtype=int))


def test_another_crystal_is_no_reference(aluminium, springs):
    _, phonon, constants, _ = aluminium
    mine = lattice_dynamics(phonon, constants, mesh=(3, 3, 3), points=2)
    with pytest.raises(ConfigError, match="another crystal"):
        compare_phonons(mine, springs[0])
    wide = phonon_calculation(bulk("Al", a=6.0, cubic=True), 2 * np.eye(3, dtype=int))
    with pytest.raises(ConfigError, match="15 %"):
        compare_phonons(mine, lattice_dynamics(wide, constants, mesh=(3, 3, 3), points=2))


def test_a_model_without_stress_cannot_relax_the_cell():
    with pytest.raises(ConfigError, match="--relax positions"):
        relax_crystal(bulk("NaCl", "rocksalt", a=LENGTH), ForeignPotential(Springs(), "springs"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = relax_crystal(bulk("NaCl", "rocksalt", a=LENGTH), ForeignPotential(Springs(), "springs"), "positions")
    assert found.failure is None
    assert found.stress is None
