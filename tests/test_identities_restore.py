"""Forces that a Hessian implies, and the smallest change that restores the identities."""

from __future__ import annotations

import numpy as np
import pytest
from springs import spring_network

from nequip_hessian.curvature import normal_modes
from nequip_hessian.identities import implied_forces, restore_identities, rotation_fit, translation_residual


def noise(n: int, size: float, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).normal(0, size, (n, n))
    return matrix + matrix.T


@pytest.mark.parametrize("seed", range(4))
def test_implied_forces_are_the_forces(seed):
    positions, forces, hessian = spring_network(6, seed)
    implied, remainder = implied_forces(hessian, positions + 50.0)
    assert np.allclose(implied, forces, atol=1e-9)
    assert remainder < 1e-9


def test_no_forces_explain_a_hessian_of_another_geometry():
    positions, _, _ = spring_network(6, 0)
    _, _, other = spring_network(6, 1)
    assert implied_forces(other, positions)[1] > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_restoring_a_sound_hessian_changes_nothing(seed):
    positions, forces, hessian = spring_network(6, seed)
    assert np.max(np.abs(restore_identities(hessian, positions, forces) - hessian)) < 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_restored_identities_are_exact_and_the_change_is_the_smallest(seed):
    positions, forces, hessian = spring_network(6, seed)
    noisy = hessian + noise(18, 0.1, seed)
    mended = restore_identities(noisy, positions, forces)
    assert np.array_equal(mended, mended.T)
    assert translation_residual(mended) < 1e-10
    assert rotation_fit(mended, positions, forces).residual < 1e-9
    # Every Hessian that obeys the identities, the true one for instance, is further away: the change is
    # orthogonal to what separates any two of them.
    assert np.sum((noisy - mended) * (hessian - mended)) == pytest.approx(0, abs=1e-8)
    assert np.linalg.norm(noisy - mended) < np.linalg.norm(noisy - hessian)


def test_a_bend_of_a_nearly_linear_molecule_is_not_taken_for_a_rotation():
    positions = np.array([[0.0, 1e-4, -1.16], [0.0, 0.0, 0.0], [0.0, -1e-4, 1.16]])
    masses = np.array([15.9949, 12.0, 15.9949])
    bend = np.array([0, 1, 0, 0, -2, 0, 0, 1, 0]) / np.sqrt(6)
    sideways = np.array([1, 0, 0, -2, 0, 0, 1, 0, 0]) / np.sqrt(6)
    hessian = 10.0 * (np.outer(bend, bend) + np.outer(sideways, sideways))
    mended = restore_identities(hessian, positions, None)
    before = normal_modes(hessian, positions, masses)[0]
    assert np.allclose(normal_modes(mended, positions, masses)[0], before, atol=1e-3)
    assert before[-2] > 300  # both bends are there


def test_one_atom_and_two():
    assert np.allclose(restore_identities(np.eye(3), np.zeros((1, 3)), None), 0.0)
    positions, k = np.array([[0.0, 0, 0], [0, 0, 1.0]]), np.array([0, 0, 1.0, 0, 0, -1.0])
    hessian = 30 * np.outer(k, k)
    assert np.allclose(restore_identities(hessian, positions, None), hessian, atol=1e-9)
