import numpy as np
import pytest
from ase.build import molecule
from molecules import xtb, xtb_hessian
from scipy.spatial.transform import Rotation
from springs import spring_network

from nequip_hessian.identities import diagnose, find_frame, rotation_fit, translation_residual
from nequip_hessian.units import BOHR, HARTREE_PER_BOHR2


@pytest.fixture(scope="module")
def methanol():
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    hessian = xtb_hessian(atoms)
    return atoms.positions, xtb(atoms)[1], (hessian + hessian.T) / 2


@pytest.mark.parametrize("seed", range(4))
def test_identities_are_exact_for_a_closed_form_hessian(seed):
    positions, forces, hessian = spring_network(6, seed)
    assert translation_residual(hessian) < 1e-11
    fit = rotation_fit(hessian, positions + 100.0, forces)
    assert fit.scale == pytest.approx(1, abs=1e-9)
    assert fit.residual < 1e-9
    assert fit.determined


def test_a_sound_label_is_ok_and_its_faults_are_named(methanol):
    positions, forces, hessian = methanol
    assert diagnose(hessian, positions, forces).verdict == "ok"
    assert diagnose(hessian, positions, -forces).verdict == "sign"
    assert "gradients" in diagnose(hessian, positions, -forces).message
    unit = diagnose(hessian / HARTREE_PER_BOHR2, positions, forces)
    assert unit.verdict == "unit"
    assert "Eh/a0^2" in unit.message
    assert diagnose(hessian / BOHR**2, positions, forces).verdict == "unit"
    both = diagnose(hessian / HARTREE_PER_BOHR2, positions, -forces)
    assert both.verdict == "unit"
    assert "sign" in both.message


def test_frame_and_order_are_told_apart(methanol):
    positions, forces, hessian = methanol
    rotation = Rotation.from_rotvec([0.4, 1.0, -2.0]).as_matrix()
    turned = diagnose(hessian, positions @ rotation.T, forces @ rotation.T)
    assert turned.verdict in ("unit", "frame")
    stationary = diagnose(hessian, positions @ rotation.T, None)
    assert stationary.verdict == "frame" or "frame" in stationary.message or stationary.verdict == "order"
    swapped = diagnose(hessian, positions[::-1], forces[::-1])
    assert swapped.verdict not in ("ok", "undetermined")


def test_the_turn_between_two_frames_is_found():
    positions, _, hessian = spring_network(6, 2, stretched=0.0)
    rotation = Rotation.from_rotvec([0.4, 1.0, -2.0]).as_matrix()
    found = find_frame(hessian, positions @ rotation.T, np.zeros_like(positions))
    assert found is not None
    np.testing.assert_allclose(found @ rotation, np.eye(3), atol=1e-6)
    diagnosis = diagnose(hessian, positions @ rotation.T, np.zeros_like(positions))
    assert diagnosis.verdict == "frame"
    order = diagnose(hessian, positions[[1, 0, 2, 3, 4, 5]], np.zeros_like(positions))
    assert order.verdict == "order"


def test_at_a_stationary_point_nothing_is_called_ok():
    positions, forces, hessian = spring_network(5, 1, stretched=0.0)
    assert np.abs(forces).max() < 1e-12
    for given in (forces, None):
        diagnosis = diagnose(hessian, positions, given)
        assert diagnosis.verdict == "undetermined"
    assert "not fixed" in diagnosis.message


def test_noisy_forces_are_undetermined_never_ok():
    positions, _, hessian = spring_network(5, 1, stretched=0.0)
    noise = 1e-4 * np.random.default_rng(0).normal(size=positions.shape)
    assert diagnose(hessian, positions, noise).verdict == "undetermined"


def test_a_damaged_matrix_is_inconsistent():
    positions, _, hessian = spring_network(5, 1, stretched=0.0)
    broken = hessian.copy()
    broken[0, 0] += 50.0
    assert diagnose(broken, positions, None).verdict == "inconsistent"


def test_one_atom_says_nothing():
    assert diagnose(np.zeros((3, 3)), np.zeros((1, 3)), np.zeros((1, 3))).verdict == "undetermined"


def test_noise_of_the_matrix_itself_is_no_fault_of_unit_and_hides_none():
    """Of 60 molecules with small forces, a few have a clean but wrong scale by noise alone; a real factor stays one."""
    verdicts, with_fault = [], []
    for seed in range(60):
        positions, forces, hessian = spring_network(6, seed, stretched=0.02)
        noise = np.random.default_rng(seed).normal(scale=0.1, size=hessian.shape)
        noisy = hessian + (noise + noise.T) / 2
        verdicts.append(diagnose(noisy, positions, forces).verdict)
        with_fault.append(diagnose(noisy / HARTREE_PER_BOHR2, positions, forces).verdict)
    assert set(verdicts) == {"ok", "undetermined"}
    assert set(with_fault) == {"unit"}
