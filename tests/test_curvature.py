import numpy as np
import pytest
from ase.build import molecule
from ase.data import atomic_masses
from ase.vibrations import VibrationsData
from scipy.spatial.transform import Rotation
from springs import spring_network

from nequip_hessian import curvature as c
from nequip_hessian.units import WAVENUMBER


def turn(positions, hessian, rotation):
    big = np.kron(np.eye(len(positions)), rotation)
    return positions @ rotation.T, big @ hessian @ big.T


@pytest.mark.parametrize("n", [1, 2, 3, 12, 45])
def test_packing_is_the_lower_triangle_row_by_row(n):
    rng = np.random.default_rng(n)
    matrix = c.symmetrise(rng.normal(size=(n, n)))[0]
    packed = c.pack(matrix)
    assert len(packed) == c.packed_size(n)
    assert c.order_of_packed(len(packed)) == n
    assert [packed[i * (i + 1) // 2 + j] for i in range(n) for j in range(i + 1)] == [
        matrix[i, j] for i in range(n) for j in range(i + 1)
    ]
    np.testing.assert_array_equal(c.unpack(packed), matrix)
    vectors = rng.normal(size=(4, n))
    np.testing.assert_allclose(c.packed_product(packed, vectors), vectors @ matrix, rtol=0, atol=1e-12)
    np.testing.assert_allclose(c.packed_product(packed, vectors[0]), matrix @ vectors[0], atol=1e-12)
    single = c.packed_product(packed.astype(np.float32), vectors.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, vectors @ matrix, atol=2e-5 * n)


def test_a_length_that_is_no_triangle_is_refused():
    with pytest.raises(ValueError, match=r"7 elements is no n\(n\+1\)/2"):
        c.order_of_packed(7)


def test_customary_shapes_come_to_the_same_matrix():
    _, _, matrix = spring_network(4, 0)
    four = matrix.reshape(4, 3, 4, 3)
    for shaped in (matrix.ravel(), four, matrix.reshape(12, 4, 3), four.transpose(0, 2, 1, 3)):
        np.testing.assert_array_equal(c.as_square(shaped, 4), matrix)
    with pytest.raises(ValueError, match=r"expected shape \(12, 12\).*found \(6, 6\)"):
        c.as_square(np.zeros((6, 6)), 4)


def test_asymmetry_is_what_symmetrising_took_away():
    matrix = np.array([[1.0, 2.0], [2.5, 4.0]])
    symmetric, asymmetry = c.symmetrise(matrix)
    assert asymmetry == 0.5
    np.testing.assert_array_equal(symmetric, [[1.0, 2.25], [2.25, 4.0]])


@pytest.mark.parametrize(
    ("name", "periodic", "motions"),
    [("H", False, 3), ("H2", False, 5), ("CO2", False, 5), ("C2H2", False, 5), ("H2O", False, 6), ("H2O", True, 3)],
)
def test_number_of_rigid_motions(name, periodic, motions):
    atoms = molecule(name)
    rng = np.random.default_rng(0)
    positions = atoms.positions @ Rotation.random(random_state=1).as_matrix().T + rng.normal(size=3)
    basis = c.rigid_motions(positions, atoms.get_masses(), periodic=periodic)
    assert basis.shape == (3 * len(atoms), motions)
    np.testing.assert_allclose(basis.T @ basis, np.eye(motions), atol=1e-12)


@pytest.mark.parametrize(("bend", "linear"), [(0.0, True), (0.05, True), (2.0, False)])
def test_near_linear_is_decided_by_the_moments_of_inertia(bend, linear):
    half = np.radians(bend / 2)
    positions = 1.16 * np.array([[-np.cos(half), np.sin(half), 0], [0, 0, 0], [np.cos(half), np.sin(half), 0]])
    masses = np.array([15.995, 12.0, 15.995])
    assert c.is_linear(positions, masses) is linear
    assert c.rigid_motions(positions, masses).shape[1] == (5 if linear else 6)
    assert c.rigid_motions(positions, masses, linear=not linear).shape[1] == (6 if linear else 5)


def test_diatomic_frequency_is_the_textbook_one():
    k, masses = 35.0, np.array([1.008, 34.97])
    axis = np.array([1.0, 2.0, -0.5]) / np.linalg.norm([1.0, 2.0, -0.5])
    block = k * np.outer(axis, axis)
    hessian = np.block([[block, -block], [-block, block]])
    wavenumbers, modes = c.normal_modes(hessian, np.array([[0.0, 0, 0], 1.3 * axis]), masses)
    reduced = masses.prod() / masses.sum()
    np.testing.assert_allclose(wavenumbers, [np.sqrt(k / reduced) * WAVENUMBER], rtol=1e-12)
    assert modes.shape == (6, 1)
    # HCl: 1 u angstrom^2 ... the conversion factor against an independent one, sqrt(N/m / kg) / (2 pi c)
    newton = k * 16.02176634 / (reduced * 1.66053906660e-27)
    assert wavenumbers[0] == pytest.approx(np.sqrt(newton) / (2 * np.pi * 2.99792458e10), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_frequencies_do_not_feel_rotation_translation_or_order(seed):
    positions, _, hessian = spring_network(5, seed)
    masses = np.array([1.0, 12.0, 16.0, 14.0, 1.0])
    reference, _ = c.normal_modes(hessian, positions, masses)
    assert len(reference) == 9
    turned, turned_hessian = turn(positions, hessian, Rotation.random(random_state=seed).as_matrix())
    np.testing.assert_allclose(c.normal_modes(turned_hessian, turned + 5.0, masses)[0], reference, atol=1e-6)
    order = np.random.default_rng(seed).permutation(5)
    dofs = (3 * order[:, None] + np.arange(3)).ravel()
    permuted = c.normal_modes(hessian[np.ix_(dofs, dofs)], positions[order], masses[order])[0]
    np.testing.assert_allclose(permuted, reference, atol=1e-6)


def test_projection_leaves_no_rigid_motion_and_nothing_else_is_touched():
    positions, _, hessian = spring_network(4, 3, stretched=0.2)
    masses = np.array([1.0, 12.0, 16.0, 14.0])
    basis = c.rigid_motions(positions, masses)
    projected = c.project_out(c.mass_weight(hessian, masses), basis)
    assert np.abs(projected @ basis).max() < 1e-12
    values = np.linalg.eigvalsh(projected)
    wavenumbers, modes = c.normal_modes(hessian, positions, masses)
    kept = np.sort(np.delete(values, np.argsort(np.abs(values))[:6]))
    np.testing.assert_allclose(c.signed_wavenumbers(kept), wavenumbers, atol=1e-6)
    np.testing.assert_allclose(modes.T @ modes, np.eye(6), atol=1e-12)
    assert np.abs(basis.T @ modes).max() < 1e-12


def test_unprojected_frequencies_are_those_of_ase():
    positions, _, hessian = spring_network(4, 5)
    atoms = molecule("NH3")
    atoms.positions = positions
    ours, _ = c.normal_modes(hessian, positions, atomic_masses[atoms.numbers], project=False)
    theirs = VibrationsData.from_2d(atoms, hessian).get_frequencies()
    theirs = np.sort(np.where(np.abs(theirs.imag) > np.abs(theirs.real), -theirs.imag, theirs.real))
    np.testing.assert_allclose(ours, theirs, atol=0.04)


@pytest.mark.parametrize(("stencil", "order"), [(c.SECOND_ORDER, 2), (c.FOURTH_ORDER, 4)])
def test_differences_of_forces_converge_with_their_order(stencil, order):
    """Forces of a Morse-like closed form; halving the step divides the error by 2 to the order."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 3))
    mix = rng.normal(size=(9, 9))

    def forces(r):
        return (-mix.T @ np.sin(mix @ r.ravel())).reshape(3, 3)

    exact = mix.T @ np.diag(np.cos(mix @ start.ravel())) @ mix
    errors = []
    for step in (0.02, 0.01):
        moved = c.displaced(start, step, stencil)
        errors.append(np.abs(c.difference_hessian(map(forces, moved), step, stencil) - exact).max())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    part = c.difference_hessian((forces(r)[[0, 2]] for r in c.displaced(start, 1e-3, stencil, [0, 2])), 1e-3, stencil)
    rows = [0, 1, 2, 6, 7, 8]
    np.testing.assert_allclose(part, exact[np.ix_(rows, rows)], atol=1e-3)
