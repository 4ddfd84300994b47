"""A minimum that a model turns into another species is a failure, not an error of its barrier or frequencies."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from nequip_hessian.analysis.connectivity import other_species
from nequip_hessian.analysis.outcomes import follow_irc, search_reaction
from nequip_hessian.analysis.path import ReactionPath
from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.reactions import reaction_errors, summarise_reactions
from nequip_hessian.analysis.relaxed import RelaxedMinimum, relaxed_errors, relaxed_minimum, summarise_relaxed
from nequip_hessian.potentials import ForeignPotential
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

LEVEL = LevelOfTheory("EMT", program="ase")


def pair(distance, **fields):
    """Two nitrogen atoms, labelled with EMT; at 2.2 angstrom they are no molecule and nothing holds them apart."""
    atoms = Atoms("N2", [[0, 0, 0], [0, 0, distance]])
    model = ForeignPotential(EMT(), "EMT")
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        charge=0,
        multiplicity=1,
        energy=model.get_potential_energy(atoms),
        forces=model.get_forces(atoms),
        hessian=model.get_hessian(atoms),
        level=LEVEL,
        **fields,
    )


@pytest.fixture(scope="module")
def members():
    return {
        "reactant": pair(1.0, kind="minimum"),
        "transition_state": pair(1.5, kind="transition_state"),
        "product": pair(2.2, kind="minimum"),
    }


def test_bonds_formed_and_broken_are_named(members):
    near, far = np.asarray(members["reactant"].positions), np.asarray(members["product"].positions)
    assert other_species([7, 7], near, near) is None
    assert other_species([7, 7], near, 1.02 * near) is None
    assert other_species([7, 7], near, far) == "relaxes to another species with this model (broken N0-N1)"
    assert other_species([7, 7], far, near) == "relaxes to another species with this model (formed N0-N1)"


def test_no_search_succeeds_where_the_model_has_no_such_product(members):
    reason = "the product relaxes to another species with this model (formed N0-N1)"
    found = search_reaction("n2", members, ForeignPotential(EMT(), "EMT"), np.full(2, 14.0), starts=1)
    assert [error.start for error in found] == ["interpolated", "perturbed 1"]
    assert {error.failure for error in found} == {reason}
    assert all(error.forward_error is None for error in found)
    assert follow_irc("n2", members, [], ForeignPotential(EMT(), "EMT"), np.full(2, 14.0)).failure is not None


def test_a_band_between_other_species_is_a_failed_one(members):
    ends = [np.asarray(members[role].positions) for role in ("reactant", "transition_state", "reactant")]
    energies = np.array([0.0, 1.0, 0.5])
    band = ReactionPath(np.array(ends), energies, np.zeros((3, 2, 3)), converged=True, n_imaginary=1)
    answers = {role: Prediction(record.energy, record.forces, None) for role, record in members.items()}
    error = reaction_errors("n2", members, [], answers, band)
    assert error.failure == "the product relaxes to another species with this model (formed N0-N1)"
    assert error.forward_error is None
    assert error.single_forward == pytest.approx(0)  # the reference geometries stay what they are
    figures = summarise_reactions([error])
    assert (figures["neb_failure_rate"].value, figures["barrier_mae"].n) == (1, 0)
    whole = ReactionPath(
        np.array([ends[0], ends[1], np.asarray(members["product"].positions)]),
        energies,
        np.zeros((3, 2, 3)),
        converged=True,
        n_imaginary=1,
    )
    assert reaction_errors("n2", members, [], answers, whole).failure is None


def test_frequencies_of_another_species_enter_no_mean(members):
    minimum = relaxed_minimum(members["product"], ForeignPotential(EMT(), "EMT"))
    assert minimum.failure is None
    error = relaxed_errors(members["product"], minimum, np.full(2, 14.0))
    assert error.failure == "relaxes to another species with this model (formed N0-N1)"
    own = np.asarray(members["reactant"].hessian)
    good = relaxed_errors(
        members["reactant"], RelaxedMinimum(np.asarray(members["reactant"].positions), own, 0), np.full(2, 14.0)
    )
    assert good.failure is None
    figures = summarise_relaxed([error, good])
    assert figures["relaxed_failure_rate"].value == 0.5
    assert figures["relaxed_frequency_mae"].value == pytest.approx(0, abs=1e-6)
    assert figures["relaxed_rmsd"].n == 1
