import geometric.normal_modes
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from pyscf.data import nist
from pyscf.hessian import thermo
from scipy.spatial.transform import Rotation
from springs import spring_network
from xtb_models import hydrogen_cyanide, label, xtb

from nequip_hessian.analysis.prediction import masses_of
from nequip_hessian.analysis.vibrations import (
    animate_mode,
    compare_vibrations,
    format_wavenumber,
    match_modes,
    turn_modes,
    vibrations,
    vibrations_data,
)
from nequip_hessian.units import BOHR, CM_TO_EV, HARTREE_PER_BOHR2


def spectrum(seed=1, n_atoms=5, scale=1.0):
    positions, _, hessian = spring_network(n_atoms, seed, stretched=0.0)
    return vibrations(scale * hessian, positions, np.linspace(1.0, 16.0, n_atoms))


@pytest.mark.parametrize("name", ["CH3OH", "H2O", "CO2"])
def test_agrees_with_geometric_and_ase_on_one_hessian(name):
    atoms = molecule(name)
    record = label(atoms.get_chemical_symbols(), atoms.positions)
    masses = masses_of(record.numbers)
    ours = vibrations(record.hessian, record.positions, masses).wavenumbers
    ase = vibrations_data(atoms, record.hessian).get_frequencies()
    ase = np.sort(np.where(np.abs(ase.imag) > np.abs(ase.real), -np.abs(ase.imag), ase.real))
    # ASE projects nothing out and the geometry is no minimum: only the stiff modes are free of rotations
    stiff = ours > 1500
    assert stiff.sum() >= 1
    np.testing.assert_allclose(ours[stiff], ase[-stiff.sum() :], atol=3.0)
    theirs = geometric.normal_modes.frequency_analysis(
        record.positions.ravel() / BOHR,
        record.hessian / HARTREE_PER_BOHR2,
        elem=atoms.get_chemical_symbols(),
        mass=masses,
    )[0]
    np.testing.assert_allclose(ours, np.sort(theirs)[-len(ours) :], atol=0.04)


def test_agrees_with_ase_and_pyscf_at_a_stationary_point():
    record = hydrogen_cyanide()["transition_state"]
    atoms = Atoms(record.numbers, record.positions)
    masses = masses_of(record.numbers)
    ours = vibrations(record.hessian, record.positions, masses).wavenumbers
    ase = vibrations_data(atoms, record.hessian).get_frequencies()
    signed = np.where(np.abs(ase.imag) > np.abs(ase.real), -np.abs(ase.imag), ase.real)
    kept = np.sort(signed[np.argsort(np.abs(signed))[6:]])
    np.testing.assert_allclose(ours, kept, atol=0.04)

    class Mol:  # what pyscf's analysis asks of a molecule
        natm = 3

        def atom_coords(self):
            return record.positions / BOHR

        def atom_mass_list(self, isotope_avg=True):
            return masses

    four = record.hessian.reshape(3, 3, 3, 3).transpose(0, 2, 1, 3) / HARTREE_PER_BOHR2
    pyscf = thermo.harmonic_analysis(Mol(), four, imaginary_freq=False)["freq_wavenumber"]
    np.testing.assert_allclose(ours, np.sort(pyscf), atol=0.04)
    assert pytest.approx(BOHR, rel=1e-7) == nist.BOHR


def test_a_hessian_scaled_by_c_has_frequencies_scaled_by_its_root():
    reference, model = spectrum(), spectrum(scale=1.21)
    errors = compare_vibrations(reference, model)
    assert errors.n == 9
    assert errors.frequency_mae == pytest.approx(0.1 * reference.wavenumbers.mean())
    assert errors.wasserstein == pytest.approx(0.1 * reference.wavenumbers.mean())
    assert errors.zpe_error == pytest.approx(0.1 * reference.zero_point_energy)
    assert errors.overlap == pytest.approx(1.0)
    low, high = reference.wavenumbers < 400, reference.wavenumbers >= 400
    assert (errors.n_low, errors.n_high) == (low.sum(), high.sum())
    for value, mask in ((errors.frequency_low_mae, low), (errors.frequency_high_mae, high)):
        assert value == (pytest.approx(0.1 * reference.wavenumbers[mask].mean()) if mask.any() else None)


def test_modes_are_matched_by_overlap_not_by_rank():
    # stiffen the softest normal mode until it is the hardest: ranks shift, overlaps do not
    positions, _, hessian = spring_network(4, 3, stretched=0.0)
    masses = np.array([1.0, 4.0, 9.0, 16.0])
    reference = vibrations(hessian, positions, masses)
    weighted = reference.modes[:, 0] * np.sqrt(np.repeat(masses, 3))
    model = vibrations(hessian + 500.0 * np.outer(weighted, weighted), positions, masses)
    partner, overlap = match_modes(reference, model)
    assert partner.tolist() == [5, 0, 1, 2, 3, 4]
    np.testing.assert_allclose(overlap, 1.0, atol=1e-6)
    errors = compare_vibrations(reference, model)
    difference = model.wavenumbers[-1] - reference.wavenumbers[0]
    assert errors.frequency_mae == pytest.approx(difference / 6, rel=1e-6)


def test_imaginary_modes_are_negative_counted_and_printed_with_an_i():
    record = hydrogen_cyanide()["transition_state"]
    found = vibrations(record.hessian, record.positions, masses_of(record.numbers))
    assert found.n_imaginary == 1
    assert found.wavenumbers[0] < -1000
    assert format_wavenumber(-1426.04) == "1426.0i"
    assert format_wavenumber(1426.04) == "1426.0"
    assert format_wavenumber(-0.01) == "0.0"
    assert found.zero_point_energy == pytest.approx(0.5 * CM_TO_EV * found.wavenumbers[1:].sum())


def test_deuterium_lowers_the_zero_point_energy_by_the_square_root_of_the_mass():
    record = label("H2", [[0, 0, 0], [0, 0, 0.74]])
    light, heavy = (vibrations(record.hessian, record.positions, np.full(2, m)) for m in (1.008, 2.016))
    assert len(light) == 1
    assert light.zero_point_energy / heavy.zero_point_energy == pytest.approx(np.sqrt(2))
    # of the displacement of unit norm, 1/sqrt(2) on each atom, not of the distance
    assert light.reduced_masses()[0] == pytest.approx(1.008)


def test_one_atom_has_no_vibrations():
    found = vibrations(np.zeros((3, 3)), np.zeros((1, 3)), np.ones(1))
    assert len(found) == 0
    assert found.zero_point_energy == 0
    errors = compare_vibrations(found, found)
    assert (errors.n, errors.frequency_mae, errors.wasserstein) == (0, None, None)


def test_a_partial_hessian_moves_against_atoms_of_infinite_mass():
    positions, _, hessian = spring_network(5, 2, stretched=0.0)
    masses = np.array([1.0, 12.0, 14.0, 16.0, 18.0])
    active = np.array([0, 2])
    rows = (3 * active[:, None] + np.arange(3)).ravel()
    partial = vibrations(hessian[np.ix_(rows, rows)], positions, masses, active=active)
    heavy = masses.copy()
    heavy[[1, 3, 4]] = 1e14
    full = np.linalg.eigvalsh(hessian / np.sqrt(np.outer(np.repeat(heavy, 3), np.repeat(heavy, 3))))
    from nequip_hessian.curvature import signed_wavenumbers

    np.testing.assert_allclose(partial.wavenumbers, signed_wavenumbers(full)[-6:], rtol=1e-6)


def test_turned_modes_belong_to_the_turned_molecule():
    positions, _, hessian = spring_network(4, 5, stretched=0.0)
    masses = np.array([1.0, 12.0, 14.0, 16.0])
    rotation = Rotation.random(random_state=0).as_matrix()
    big = np.kron(np.eye(4), rotation)
    direct = vibrations(big @ hessian @ big.T, positions @ rotation.T, masses)
    turned = turn_modes(vibrations(hessian, positions, masses), rotation)
    partner, overlap = match_modes(direct, turned)
    assert partner.tolist() == list(range(6))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-9)


def test_an_animation_swings_along_the_mode_and_back():
    record = label("H2", [[0, 0, 0], [0, 0, 0.74]])
    atoms = Atoms(record.numbers, record.positions)
    mode = vibrations(record.hessian, record.positions, masses_of(record.numbers)).displacements()[0]
    lengths = [frame.get_distance(0, 1) for frame in animate_mode(atoms, mode, frames=20, amplitude=0.1)]
    assert lengths[0] == pytest.approx(0.74)
    assert max(lengths) == pytest.approx(0.94)
    assert min(lengths) == pytest.approx(0.54)


def test_vibrations_of_a_model_differ_from_the_reference_by_real_amounts():
    record = hydrogen_cyanide()["reactant"]
    masses = masses_of(record.numbers)
    atoms = Atoms(record.numbers, record.positions)
    reference = vibrations(record.hessian, record.positions, masses)
    model = vibrations(xtb("GFN1-xTB").get_hessian(atoms), record.positions, masses)
    assert len(reference) == len(model) == 4
    assert 10 < compare_vibrations(reference, model).frequency_mae < 400
