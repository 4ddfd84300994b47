"""The data set that ships: it builds from its raw outputs, is valid, and holds out whole reactions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_masses

from nequip_hessian.curvature import normal_modes
from nequip_hessian.identities import diagnose
from nequip_hessian.store import HessianStore, validate

DEMO = Path(__file__).resolve().parents[2] / "datasets" / "demo"
sys.path.insert(0, str(DEMO))
import build  # noqa: E402
import irc  # noqa: E402


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.zarr"
    build.build(path)
    return HessianStore(path)


def test_it_is_valid(store):
    report = validate(store.path, level=4)
    assert report.valid, report.messages


def test_each_reaction_is_complete_and_of_the_right_order(store):
    reactions = store.reactions()
    assert len(reactions) >= 8
    for reaction in reactions:
        ends = [store[i] for i in (reaction.reactant, reaction.product)]
        top = store[reaction.transition_state]
        assert top.energy > max(end.energy for end in ends)
        for record, imaginary in ((ends[0], 0), (top, 1), (ends[1], 0)):
            waves, _ = normal_modes(record.hessian, record.positions, atomic_masses[record.numbers])
            assert int(np.sum(waves < -50)) == int(np.sum(waves < 0)) == imaginary, record.label
            assert np.abs(record.forces).max() < 0.003
        arcs = [store.path_coordinate[i] for i in reaction.path]
        energies = [store[i].energy for i in reaction.path]
        assert arcs == sorted(arcs)
        # Down on both sides of the transition state.
        assert np.argmax(energies) == arcs.index(0.0)
        assert arcs[0] < 0 < arcs[-1]
        # The path leads from reactant to product: its ends are closer in energy to them than to the top.
        for end, energy in zip(ends, (energies[0], energies[-1]), strict=True):
            assert end.energy - 0.01 < energy < top.energy


def test_hessians_obey_the_rotational_identity(store):
    determined = 0
    for i in np.flatnonzero(store.has_hessian):
        diagnosis = diagnose(store[i].hessian, store[i].positions, store[i].forces)
        assert diagnosis.verdict in ("ok", "undetermined"), (store[i].label, diagnosis)
        determined += diagnosis.verdict == "ok"
    assert determined >= 12  # all off-equilibrium points of the held-out reactions


def test_no_species_of_a_held_out_reaction_is_in_training(store):
    codes, parts = store.split("demo")
    assert parts == build.PARTS
    species: dict[str, set] = {}
    for i in range(len(store)):
        record = store[i]
        part = parts[codes[i]].partition("_")[0]
        if record.role is not None:
            # Sorted distances by element pair name a molecule whatever its orientation and order of atoms.
            distances = np.linalg.norm(record.positions[:, None] - record.positions[None], axis=-1)
            key = (record.formula, tuple(np.round(np.sort(distances[np.triu_indices(len(record), 1)]), 2)))
            species.setdefault(part, set()).add(key)
    assert not species["train"] & species["test"]
    assert not species["train"] & species["val"]
    elements = [
        {int(z) for i in np.flatnonzero(chosen) for z in store[i].numbers} for chosen in (codes == 0, codes >= 2)
    ]
    assert elements[1] <= elements[0]


def test_training_points_off_equilibrium_have_no_hessian(store):
    codes, parts = store.split("demo")
    for i in range(len(store)):
        stationary = store[i].role is not None
        held_out = parts[codes[i]].startswith("test")
        assert store.has_hessian[i] == (stationary or held_out)


def test_one_level_of_theory(store):
    assert [(level.method, level.basis, level.program) for level in store.levels] == [("b3lyp", "def2-svp", "PySCF")]


def test_all_raw_outputs_belong_to_a_reaction():
    names = set(json.loads((DEMO / "reactions.json").read_text())["reactions"])
    assert {folder.name for folder in (DEMO / "raw").iterdir()} <= names
    assert sum(file.stat().st_size for file in (DEMO / "raw").rglob("*") if file.is_file()) < 4e6


def test_quadratic_step_is_steepest_descent():
    rng = np.random.default_rng(4)
    hessian = rng.normal(size=(5, 5))
    hessian = hessian + hessian.T
    gradient, point, walked = rng.normal(size=5), np.zeros(5), 0.0
    while walked < 0.1:
        slope = gradient + hessian @ point
        point -= 1e-5 * slope / np.linalg.norm(slope)
        walked += 1e-5
    np.testing.assert_allclose(irc.steepest_descent_step(gradient, hessian, 0.1), point, atol=2e-3)


def test_bofill_update_meets_the_secant_condition():
    rng = np.random.default_rng(5)
    hessian = rng.normal(size=(6, 6))
    step, change = rng.normal(size=6), rng.normal(size=6)
    updated = irc.bofill_update(hessian + hessian.T, step, change)
    np.testing.assert_allclose(updated @ step, change, atol=1e-12)
    np.testing.assert_allclose(updated, updated.T, atol=1e-12)
