"""One wrong number among sound ones is found and named; noise that is everywhere is not blamed on one number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from molecules import labelled

from nequip_hessian.checks import check
from nequip_hessian.curvature import symmetrise
from nequip_hessian.errors import PhysicsError
from nequip_hessian.formats import read
from nequip_hessian.misprints import find_misprint, lone_asymmetry


@pytest.fixture(scope="module")
def sound():
    """Methanol off its minimum: GFN2-xTB Hessian by differences, positions, forces."""
    record = labelled("CH3OH", 2)
    return record.replace(hessian=symmetrise(np.asarray(record.hessian))[0])


def wrong_element(record, i, j, error):
    hessian = np.array(record.hessian)
    hessian[i, j] += error
    hessian[j, i] = hessian[i, j]
    return record.replace(hessian=hessian)


def parts(record):
    return np.asarray(record.hessian), record.positions, record.forces


def test_nothing_is_wrong_with_a_sound_record(sound):
    assert find_misprint(*parts(sound)) is None
    assert not any("number" in text for text in check(sound)[1].warnings)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (7, 2), (17, 16), (11, 4)])
@pytest.mark.parametrize("error", [0.05, -2.0])
def test_wrong_element_is_named_with_its_error(sound, i, j, error):
    found = find_misprint(*parts(wrong_element(sound, i, j, error)))
    assert (found.what, found.place) == ("element", (i, j))
    assert found.error[0] == pytest.approx(error, rel=0.05)
    without_forces = find_misprint(*parts(wrong_element(sound, i, j, error))[:2], None)
    assert without_forces.place == (i, j)


@pytest.mark.parametrize("atom", range(6))
def test_wrong_position_is_named_with_its_error(sound, atom):
    positions = np.array(sound.positions)
    positions[atom, 1] += 0.02
    found = find_misprint(np.asarray(sound.hessian), positions, sound.forces)
    assert (found.what, found.place) == ("position", (atom,))
    assert np.allclose(found.error, [0, 0.02, 0], atol=2e-3)
    without = find_misprint(np.asarray(sound.hessian), positions, None)
    assert (without.what, without.place) == ("position", (atom,))
    assert np.allclose(without.error, [0, 0.02, 0], atol=4e-3)


def test_wrong_force_is_named_with_its_error(sound):
    forces = np.array(sound.forces)
    forces[3, 2] -= 0.4
    found = find_misprint(np.asarray(sound.hessian), sound.positions, forces)
    assert (found.what, found.place) == ("force", (3,))
    assert np.allclose(found.error, [0, 0, -0.4], atol=0.02)


def test_small_error_is_a_warning_and_a_large_one_a_refusal(sound):
    (text,) = (text for text in check(wrong_element(sound, 7, 2, 0.04))[1].warnings if "number" in text)
    assert "(7, 2)" in text
    with pytest.raises(PhysicsError, match=r"one number of the file is wrong: element \(7, 2\)"):
        check(wrong_element(sound, 7, 2, 0.9))


def test_noise_everywhere_is_no_misprint(sound):
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.normal(scale=0.05, size=np.shape(sound.hessian))
        assert find_misprint(np.asarray(sound.hessian) + noise + noise.T, sound.positions, sound.forces) is None


def test_two_elements_that_should_be_one(sound):
    hessian = np.array(sound.hessian)
    assert lone_asymmetry(hessian) is None
    hessian[9, 3] += 0.01
    assert "(9, 3) and (3, 9)" in lone_asymmetry(hessian)
    assert lone_asymmetry(hessian.ravel()) == lone_asymmetry(hessian)
    hessian += np.random.default_rng(1).normal(scale=0.01, size=hessian.shape)  # a program that does not symmetrise
    assert lone_asymmetry(hessian) is None


def test_asymmetry_below_the_noise_of_the_file_is_no_misprint(sound):
    """Analytic Hessians of a density functional: the grid breaks their sums more than their symmetry."""
    for path in sorted((Path(__file__).parents[1] / "datasets" / "demo" / "raw").rglob("*.json")):
        for record in read(path):
            assert not any("one number" in text for text in record.provenance.get("warnings", [])), path
    hessian = np.array(sound.hessian)[:9, :9]  # a part of the atoms: its sums are no noise
    hessian[7, 3] += 0.01
    assert "(7, 3) and (3, 7)" in lone_asymmetry(hessian)


def test_masses_too_close_for_isotopes(sound):
    masses = np.array([12.0, 15.9949, 1.00783, 1.00783, 1.00783, 1.00783])
    masses[sound.numbers == 1] = [1.00783, 1.00783, 1.00083, 1.00783]
    assert any("isotopes" in text for text in check(sound.replace(masses=masses))[1].warnings)
    masses[sound.numbers == 1] = [1.00783, 2.0141, 1.00783, 1.00783]
    assert not any("isotopes" in text for text in check(sound.replace(masses=masses))[1].warnings)
