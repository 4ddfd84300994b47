"""What a model cannot do is a counted failure with its reason, for every question and in every command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.io import write
from xtb_models import HCN_TO_HNC_TS, hydrogen_cyanide, label, xtb

from nequip_hessian.analysis.accuracy import record_vibrations
from nequip_hessian.analysis.connectivity import identify
from nequip_hessian.analysis.gas_errors import gas_errors
from nequip_hessian.analysis.irc import intrinsic_reaction_coordinate
from nequip_hessian.analysis.md import RampSettings, run_dynamics
from nequip_hessian.analysis.path import _implausible
from nequip_hessian.analysis.prediction import Prediction, masses_of
from nequip_hessian.analysis.relaxed import RelaxedMinimum, relaxed_errors, summarise_relaxed
from nequip_hessian.cli import main
from nequip_hessian.errors import ModelError, OptionError, reason_of
from nequip_hessian.evaluate import Model, Options, evaluate
from nequip_hessian.evaluation.models import load_models
from nequip_hessian.potentials import ForeignPotential
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store import HessianStore, StoreWriter


class EnergyOnly(Calculator):
    """A model without forces."""

    implemented_properties = ["energy"]  # noqa: RUF012 (ASE's convention)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": -1.0}


# -- mirror images ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ammonia():
    """The two pyramids of ammonia, mirror images with the same bonds between the same atoms."""
    one = molecule("NH3")
    other = one.copy()
    other.positions *= [1, 1, -1]
    return one, other


def test_mirror_images_are_two_minima_where_both_are_known(ammonia):
    one, other = ammonia
    known = {"reactant": one, "product": other}
    assert identify(one, known).name == "reactant"
    assert identify(other, known).name == "product"
    assert identify(other, known).rmsd == pytest.approx(0, abs=1e-9)
    assert identify(other, {"reactant": one}).name == "reactant"  # the only one: as its mirror image
    assert identify(other, {"reactant": one}).rmsd == pytest.approx(0, abs=1e-9)


def test_the_inversion_of_ammonia_is_a_reaction(ammonia, tmp_path, capsys):
    files = [str(tmp_path / f"{name}.xyz") for name in ("a", "b")]
    for file, atoms in zip(files, ammonia, strict=True):
        write(file, atoms)
    assert main(["reaction", "tblite", *files, "-o", str(tmp_path / "out"), "--irc-step=0.2"]) == 0
    out = capsys.readouterr().out
    assert "Transition state found; its two sides lead to the reactant and the product given" in out
    assert "symmetry numbers 3, 6, 3" in out
    found = json.loads((tmp_path / "out" / "reaction.json").read_text())
    sides = found["irc"]["sides"]
    assert {sides[name]["leads_to"]["name"] for name in sides} == {"reactant", "product"}
    assert found["wavenumbers_cm"]["transition_state"][0] == pytest.approx(-971, abs=5)


# -- models that raise -----------------------------------------------------------------------


def test_a_reason_is_one_line():
    assert reason_of(OptionError("expected one\nfound two")) == "expected one"
    assert reason_of(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert reason_of(KeyError()) == "KeyError"


def test_what_a_foreign_calculator_raises_keeps_its_words():
    xenon = Atoms("Xe2", [[0, 0, 0], [0, 0, 3]])
    model = ForeignPotential(EMT(), "emt")
    with pytest.raises(ModelError, match=r"^emt: NotImplementedError: No EMT-potential for Xe$"):
        model.get_potential_energy(xenon)
    with pytest.raises(ModelError, match="No EMT-potential for Xe"):
        ForeignPotential(EMT(), "emt").get_hessian(xenon)
    crystal = bulk("Al")
    assert np.shape(ForeignPotential(EMT(), "emt").get_stress(crystal)) == (6,)


@pytest.mark.parametrize("verb", ["energy", "optimise", "vibrations", "irc"])
def test_an_element_a_calculator_does_not_know_is_one_line(verb, tmp_path, capsys):
    write(tmp_path / "xe.xyz", Atoms("Xe2", [[0, 0, 0], [0, 0, 3]]))
    assert main([verb, "ase:emt", str(tmp_path / "xe.xyz")]) == 1
    what = "error: geometry 0" if verb == "vibrations" else "error"
    said = f"nequip-hessian {verb}: {what}: emt: NotImplementedError: No EMT-potential for Xe\n"
    assert capsys.readouterr().err == said


class NoHessianAtMinima(Calculator):
    """GFN2-xTB whose Hessian fails at minima, as a self-consistent field may."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.inner = xtb("GFN2-xTB")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        probe = self.atoms.copy()
        probe.calc = self.inner
        self.results = {"energy": probe.get_potential_energy(), "forces": probe.get_forces()}

    def get_hessian(self, atoms, indices=None):
        probe = atoms.copy()
        probe.calc = self.inner
        if np.abs(probe.get_forces()).max() < 0.006 and np.linalg.norm(atoms.positions - HCN_TO_HNC_TS) > 0.5:
            raise RuntimeError("no convergence")
        return self.inner.get_hessian(atoms, indices)


def test_a_hessian_that_fails_where_a_side_ends_fails_the_side():
    path = intrinsic_reaction_coordinate(Atoms("HCN", HCN_TO_HNC_TS), NoHessianAtMinima(), step=0.2)
    assert "side: RuntimeError: no convergence" in path.failure
    assert len(path.forward) > 3  # what was walked is kept
    assert len(path.reverse) > 3


@pytest.fixture(scope="module")
def cyanide(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "hcn.zarr"
    with StoreWriter(path) as writer:
        writer.extend(hydrogen_cyanide().values())
    return HessianStore(path)


def test_a_model_without_forces_fails_every_question_and_ends_none(cyanide, tmp_path):
    options = Options(tasks=("accuracy", "consistency", "minima", "thermochemistry", "neb", "saddle", "irc", "md"))
    model = Model("blind", ForeignPotential(EnergyOnly(), "blind"), checksum="1")
    found = evaluate([model], cyanide, tmp_path, options)
    figures = found.all_figures(found.models[0])
    rates = ("failure_rate", "relaxed_failure_rate", "thermochemistry_failure_rate", "neb_failure_rate")
    assert {name: figures[name].value for name in (*rates, "md_failure_rate")} == dict.fromkeys(
        (*rates, "md_failure_rate"), 1
    )
    assert (figures["saddle_success"].value, figures["irc_success"].value) == (0, 0)
    reason = "blind: PropertyNotImplementedError: forces property not implemented"
    assert all(reason in error.failure for error in found.models[0].errors)
    assert sum(note.endswith(reason) for note in found.models[0].notes) == 3  # consistency of the probed geometries


def test_reactions_in_periodic_cells_are_noted_and_the_rest_is_evaluated(tmp_path):
    records = []
    for shift, role in ((0.0, "reactant"), (0.3, "transition_state"), (0.6, "product")):
        atoms = bulk("Al", cubic=True)
        atoms.positions[0, 0] += shift
        atoms.calc = model = ForeignPotential(EMT(), "EMT")
        kind = role if role == "transition_state" else "minimum"
        records.append(
            LabelledGeometry(
                numbers=atoms.numbers,
                positions=atoms.positions,
                cell=np.array(atoms.cell),
                pbc=atoms.pbc,
                energy=atoms.get_potential_energy(),
                forces=atoms.get_forces(),
                hessian=model.get_hessian(atoms),
                level=LevelOfTheory("EMT", program="ase"),
                kind=kind,
                role=role,
                group="shift",
            )
        )
    with StoreWriter(tmp_path / "al.zarr") as writer:
        writer.extend(records)
    options = Options(tasks=("minima", "thermochemistry", "neb", "saddle", "irc", "md"))
    found = evaluate(load_models(["emt=ase:emt"]), HessianStore(tmp_path / "al.zarr"), tmp_path / "out", options)
    assert "reactions in periodic cells, 1: no neb, no saddle, no irc of them" in found.notes
    figures = found.all_figures(found.models[0])
    assert figures["hessian_mae"].value < 1e-9
    assert figures["neb_failure_rate"].n == figures["saddle_success"].n == 0


# -- minima that are none --------------------------------------------------------------------


def test_imaginary_modes_at_a_minimum_are_a_failure():
    """A model whose minimum of ammonia is planar: there GFN2-xTB has one imaginary mode."""
    record = label("NH3", molecule("NH3").positions, kind="minimum")
    planar = [[0, 0, 0], *([np.cos(a), np.sin(a), 0] for a in np.deg2rad([0, 120, 240]))]
    saddle = label("NH3", planar)
    minimum = RelaxedMinimum(np.asarray(saddle.positions), np.asarray(saddle.hessian), 7)
    masses = masses_of(record.numbers)
    error = relaxed_errors(record, minimum, masses)
    assert error.failure == "1 imaginary mode where the minimisation ends: no minimum"
    assert (error.n_imaginary, error.steps) == (1, 7)
    figures = summarise_relaxed([error, relaxed_errors(record, replace(minimum, hessian=record.hessian), masses)])
    assert figures["relaxed_failure_rate"].value == 0.5
    assert figures["relaxed_zpe_mae"].n == 1
    # a reference that has the mode itself, as a loose label may, is met by it
    assert record_vibrations(saddle, saddle.hessian, masses).n_imaginary == 1
    assert relaxed_errors(saddle.replace(kind="minimum"), minimum, masses).failure is None


def test_thermochemistry_with_another_number_of_imaginary_modes_is_a_failure():
    record = label("N2", [[0, 0, 0], [0, 0, 1.1]], kind="minimum")
    wrong = Prediction(record.energy, np.asarray(record.forces), -np.asarray(record.hessian))
    found = gas_errors(record, wrong, masses_of(record.numbers))
    assert "imaginary" in found.failure
    assert found.gibbs_correction is None


# -- dynamics --------------------------------------------------------------------------------


class BreaksDown(MorsePotential):
    """A weak bond; the model gives up on it before it counts as broken."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if (self.atoms if atoms is None else atoms).get_distance(0, 1) > 1.4:
            raise RuntimeError("not converged in 250 cycles")
        super().calculate(atoms, properties, system_changes)


def test_a_model_that_raises_in_the_heat_has_a_failure_temperature():
    model = BreaksDown(epsilon=0.05, r0=1.0, rho0=3.0, rcut1=20.0, rcut2=21.0)
    settings = RampSettings(start=100, increment=100, maximum=600, hold=1.0, friction=0.05, nve=0.02)
    found = run_dynamics(Atoms("C2", [[0, 0, 0], [0, 0, 1.02]]), model, settings)
    assert found.failure is None
    assert not found.survived
    assert found.reason == "the model failed: RuntimeError: not converged in 250 cycles"
    assert 100 <= found.temperature <= 600


# -- bands -----------------------------------------------------------------------------------


def test_a_band_that_is_no_path_is_a_failure():
    """Two atoms whose distance grows by the given steps; rmsd of the images is half a step."""

    def images(*distances):
        return np.array([[[0, 0, 0], [0, 0, d]] for d in distances])

    even, hill = images(1.0, 1.1, 1.2, 1.3, 1.4), np.array([0.0, 0.5, 1.0, 0.5, 0.1])
    assert _implausible(even, hill, 1) is None
    assert _implausible(even, hill, 2) is None  # counted in `first_order`
    assert _implausible(even, np.array([0.0, 0.1, 0.2, 0.3, 0.4]), 1).startswith("no maximum between the end points")
    assert _implausible(even, hill, 0) == "the highest image has no imaginary mode: it is no saddle point"
    torn = images(1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 2.0)
    crest = np.array([0, 0.1, 0.2, 0.3, 1.0, 0.3, 0.2, 0.1, 0])
    assert _implausible(torn, crest, 1) == "the images bunch up: the largest gap is 7.4 times the mean"
