import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from scipy.spatial.transform import Rotation
from xtb_models import hydrogen_cyanide, xtb

from nequip_hessian.analysis import interpolation
from nequip_hessian.analysis.consistency import consistency_error, difference_hessian
from nequip_hessian.analysis.optimisation import relax, relax_all
from nequip_hessian.analysis.parity import reference_path
from nequip_hessian.analysis.path import distance_to_path, path_length, reaction_path
from nequip_hessian.analysis.prediction import Prediction, atoms_of
from nequip_hessian.analysis.reactions import reaction_errors, summarise_reactions
from nequip_hessian.analysis.superpose import rmsd, superpose
from nequip_hessian.errors import ConfigError


class Batched:
    """GFN2-xTB that counts calls and answers a whole band at once."""

    def __init__(self):
        self.inner = xtb("GFN2-xTB")
        self.calls = self.geometries = 0
        self.get_hessian = self.inner.get_hessian

    def evaluate_many(self, images):
        self.calls += 1
        self.geometries += len(images)
        found = []
        for atoms in images:
            probe = atoms.copy()
            probe.calc = self.inner
            found.append((probe.get_potential_energy(), probe.get_forces()))
        return found

    def __getattr__(self, name):  # ASE's optimisers of the end points use it as a plain calculator
        return getattr(self.inner, name)


@pytest.fixture(scope="module")
def members():
    return hydrogen_cyanide()


@pytest.fixture(scope="module")
def path(members):
    return reaction_path(atoms_of(members["reactant"]), atoms_of(members["product"]), xtb("GFN2-xTB"))


def test_the_model_that_made_the_labels_finds_their_transition_state(members, path):
    assert path.failure is None
    assert path.converged
    assert path.guess == "geodesic"
    assert path.n_imaginary == 1
    energies = {role: record.energy for role, record in members.items()}
    answers = {role: Prediction(energy) for role, energy in energies.items()}
    errors = reaction_errors("HCN to HNC", members, [], answers, path)
    assert errors.reference_forward == pytest.approx(energies["transition_state"] - energies["reactant"])
    assert errors.single_forward == 0
    assert abs(errors.forward_error) < 2e-3
    assert abs(errors.reverse_error) < 2e-3
    assert errors.ts_rmsd < 0.02
    assert errors.path_rmsd < 0.02
    assert max(errors.reactant_rmsd, errors.product_rmsd) < 0.01
    figures = summarise_reactions([errors])
    assert figures["barrier_mae"].n == 2
    assert figures["neb_failure_rate"].value == 0
    assert figures["first_order"].value == 1


def test_everything_of_the_path_comes_back(path):
    assert path.positions.shape == (9, 3, 3)
    frames = path.images(np.array([1, 6, 7]))
    again = frames[4].copy()
    again.calc = xtb("GFN2-xTB")
    assert frames[4].get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(frames[4].get_forces(), again.get_forces(), atol=1e-4)
    lengths = path_length(path.positions)
    assert lengths[0] == 0
    assert np.all(np.diff(lengths) > 0)


def test_the_fallback_without_geodesic_finds_the_same_barrier(members, path, monkeypatch):
    def missing(*args):
        raise ImportError("geodesic_interpolate")

    monkeypatch.setattr(interpolation, "_geodesic", missing)
    other = reaction_path(atoms_of(members["reactant"]), atoms_of(members["product"]), xtb("GFN2-xTB"))
    assert other.guess == "idpp"
    assert other.failure is None
    assert other.barrier_forward == pytest.approx(path.barrier_forward, abs=2e-3)


def test_all_images_are_evaluated_in_one_batch(members):
    model = Batched()
    found = reaction_path(atoms_of(members["reactant"]), atoms_of(members["product"]), model)
    assert found.failure is None
    assert model.calls <= found.steps + 3
    assert model.geometries >= 7 * found.steps


def test_interpolation_keeps_the_ends_and_the_global_random_state(members):
    ends = [atoms_of(members[role]) for role in ("reactant", "product")]
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    guess, name = interpolation.interpolate(*ends, 7)
    assert np.random.random() == expected
    assert name == "geodesic"
    assert guess.shape == (7, 3, 3)
    for image, atoms in ((guess[0], ends[0]), (guess[-1], ends[1])):
        assert rmsd(image, atoms.positions, mirror=False) < 1e-3


def test_no_path_where_there_can_be_none(members):
    reactant = atoms_of(members["reactant"])
    same = reaction_path(reactant, reactant, xtb("GFN2-xTB"))
    assert "same minimum" in same.failure
    other = reaction_path(reactant, reactant[[1, 0, 2]], xtb("GFN2-xTB"))
    assert "another order of CHN: atom 0 (from 0) is" in other.failure
    one = reaction_path(Atoms("H"), Atoms("H"), xtb("GFN2-xTB"))
    assert "one atom" in one.failure
    figures = summarise_reactions([reaction_errors("x", members, [], {}, same)])
    assert figures["neb_failure_rate"].value == 1
    assert figures["barrier_mae"].n == 0


class Wrong(Calculator):
    """A potential that breaks down as asked."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, how):
        super().__init__()
        self.how = how

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.how == "raises":
            raise RuntimeError("no")
        distance = self.atoms.get_distance(0, 1)
        # endless slope: no minimum anywhere
        direction = (self.atoms.positions[1] - self.atoms.positions[0]) / distance
        value = np.nan if self.how == "nan" else 1.0
        self.results = {"energy": -distance * value, "forces": np.array([-direction, direction]) * value}


@pytest.mark.parametrize(("how", "reason"), [("raises", "no"), ("nan", "NaN"), ("slope", "largest force")])
def test_a_minimisation_that_cannot_end_is_a_failure_with_its_reason(how, reason):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    outcome = relax(atoms, Wrong(how), steps=20)
    assert not outcome.converged
    assert reason in outcome.failure
    assert atoms.get_distance(0, 1) == pytest.approx(0.8)
    path = reaction_path(atoms, Atoms("H2", [[0, 0, 0], [0, 0, 1.8]]), Wrong(how), steps=20)
    assert "the reactant could not be minimised" in path.failure


def test_minimisation_of_a_diatomic_finds_the_bottom():
    model = xtb("GFN2-xTB")
    start = Atoms("H2", [[0, 0, 0], [0, 0, 0.9]])
    before, outcomes = relax_all([start, Atoms("H", [[0, 0, 0]])], model, fmax=1e-3)
    low = outcomes[0]
    assert low.converged
    assert low.energy < before[0]
    for change in (-0.01, 0.01):
        moved = low.atoms.copy()
        moved.set_distance(0, 1, low.atoms.get_distance(0, 1) + change)
        moved.calc = model
        assert moved.get_potential_energy() > low.energy
    with pytest.raises(ConfigError, match="fmax above 0"):
        relax_all([start], model, fmax=0.0)


def test_superposition_undoes_rotation_shift_and_mirror():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 3))
    b = a @ Rotation.random(random_state=2).as_matrix().T + [1.0, -2.0, 3.0]
    np.testing.assert_allclose(superpose(a, b), b, atol=1e-12)
    assert rmsd(a, b) < 1e-12
    mirrored = b * [1, 1, -1]
    assert rmsd(a, mirrored, mirror=True) < 1e-12
    assert rmsd(a, mirrored, mirror=False) > 0.1


def test_distance_to_a_path_is_zero_on_its_lines_and_grows_off_them():
    rng = np.random.default_rng(1)
    first = rng.normal(size=(5, 3))
    images = np.array([first, first + 0.2 * rng.normal(size=(5, 3))])
    images[1] = superpose(images[1], images[0])
    assert distance_to_path(0.5 * (images[0] + images[1]), images) < 1e-9
    off = images[0] + 0.3 * rng.normal(size=(5, 3))
    assert 0.01 < distance_to_path(off, images) <= rmsd(images[0], off)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_reference_profile_runs_from_reactant_to_product_whatever_the_sign(members, path, sign):
    points = []
    for k in range(1, 8):
        if k == path.highest:
            continue
        s = float(path_length(path.positions)[k] - path_length(path.positions)[path.highest])
        points.append(
            members["reactant"].replace(
                positions=path.positions[k],
                energy=float(path.energies[k]),
                hessian=None,
                kind="path",
                role=None,
                path_coordinate=sign * s,
            )
        )
    points.sort(key=lambda r: r.path_coordinate)
    profile = reference_path("HCN to HNC", members, points)
    assert profile.roles[0] == "reactant"
    assert profile.roles[-1] == "product"
    assert profile.distance[profile.roles.index("transition_state")] == 0
    np.testing.assert_allclose(profile.energies[1:4], (path.energies - path.energies[0])[1:4], atol=1e-3)
    assert profile.energies.argmax() == profile.roles.index("transition_state")


def test_a_model_whose_hessian_is_not_the_derivative_of_its_forces_is_seen(members):
    model = xtb("GFN2-xTB")
    atoms = atoms_of(members["transition_state"])
    assert consistency_error(atoms, model) < 1e-3

    class Head:
        def evaluate_many(self, images):
            return Batched().evaluate_many(images)

        def get_hessian(self, atoms, indices=None):
            return 1.1 * difference_hessian(atoms, model)

    assert consistency_error(atoms, Head()) == pytest.approx(0.1, abs=1e-3)
