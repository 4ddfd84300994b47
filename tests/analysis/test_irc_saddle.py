import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from browser import check_page
from scipy.interpolate import CubicSpline
from xtb_models import HCN_TO_HNC_TS, hydrogen_cyanide

from nequip_hessian.adapters import PysisyphusCalculator, geometric_engine, geometric_hessian
from nequip_hessian.analysis.connectivity import bond_changes, bonds, exchanged, fragments, identify, species
from nequip_hessian.analysis.irc import intrinsic_reaction_coordinate
from nequip_hessian.analysis.prediction import atoms_of
from nequip_hessian.analysis.saddle import compare_hessian, distinct, judge, perturbed, search_saddle
from nequip_hessian.analysis.steepest_descent import steepest_descent_step
from nequip_hessian.analysis.superpose import rmsd
from nequip_hessian.cli import main
from nequip_hessian.curvature import normal_modes
from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.potentials import dipole_derivatives, load_potential
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2


@pytest.fixture(scope="module")
def xtb():
    return load_potential("tblite")


@pytest.fixture(scope="module")
def members():
    return {role: atoms_of(record) for role, record in hydrogen_cyanide().items()}


@pytest.fixture(scope="module")
def ends(members):
    return {name: members[name] for name in ("reactant", "product")}


@pytest.fixture(scope="module")
def path(members, xtb):
    return intrinsic_reaction_coordinate(members["transition_state"], xtb, step=0.1)


# -- connectivity ---------------------------------------------------------------------------


def test_bonds_and_molecules_of_a_geometry():
    atoms = Atoms("OH2CO", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [5, 0, 0], [6.13, 0, 0]])
    matrix = bonds(atoms.numbers, atoms.positions)
    assert np.argwhere(np.triu(matrix)).tolist() == [[0, 1], [0, 2], [3, 4]]
    assert fragments(matrix) == [[0, 1, 2], [3, 4]]
    assert species(atoms) == "H2O + CO"
    other = matrix.copy()
    other[0, 1] = other[1, 0] = False
    assert bond_changes(atoms.numbers, matrix, other) == ([], ["O0-H1"])


def test_like_atoms_exchanged_are_told_from_the_same_minimum(members, ends):
    assert identify(members["reactant"], ends).name == "reactant"
    water = Atoms("OHHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [4, 0, 0]])
    swapped = Atoms("OHHH", water.positions[[0, 1, 3, 2]])
    found = identify(swapped, {"reactant": water})
    assert found.name is None
    assert "like atoms exchanged" in found.remark
    first, second = (bonds(a.numbers, a.positions) for a in (water, swapped))
    assert exchanged(water.numbers, first, second)
    assert not exchanged(water.numbers, first, np.zeros((4, 4), dtype=bool))


def test_conformers_are_told_apart_by_their_distance():
    trans = Atoms("HOOH", [[0, 0.9, 0.3], [0, 0, 0], [1.45, 0, 0], [1.45, -0.9, 0.3]])
    cis = trans.copy()
    cis.positions[3] = [1.45, 0.9, 0.3]
    known = {"reactant": trans, "product": cis}
    assert identify(cis, known).name == "product"
    near = cis.copy()
    near.positions += np.random.default_rng(0).normal(scale=0.03, size=(4, 3))
    assert identify(near, known).name == "product"


# -- the reaction coordinate ----------------------------------------------------------------


def test_a_step_on_a_quadratic_surface_has_the_asked_arc_length_and_follows_the_gradient():
    hessian, gradient = np.diag([4.0, 0.5, -1.0]), np.array([1.0, 0.5, 0.1])
    move = steepest_descent_step(gradient, hessian, 0.3)
    # the same by many small steps along the gradient
    x, walked = np.zeros(3), 0.0
    while walked < 0.3:
        slope = gradient + hessian @ x
        x -= 1e-5 * slope / np.linalg.norm(slope)
        walked += 1e-5
    np.testing.assert_allclose(move, x, atol=1e-4)
    bottom = steepest_descent_step(np.array([1.0, 0.5]), np.diag([4.0, 0.5]), 100.0)
    np.testing.assert_allclose(bottom, [-0.25, -1.0], atol=1e-6)
    assert np.all(steepest_descent_step(np.zeros(2), np.eye(2), 1.0) == 0)


def test_both_sides_of_a_real_transition_state_lead_to_the_minima(path, ends):
    assert path.failure is None
    found = {identify(side.minimum.atoms, ends).name for side in (path.forward, path.reverse)}
    assert found == {"reactant", "product"}
    for side, sign in ((path.forward, 1), (path.reverse, -1)):
        assert np.all(np.diff(sign * side.arc) > 0)
        assert np.all(np.diff(side.energies) < 0)
        assert side.n_imaginary == 0
        assert side.energies[-1] - side.minimum.energy < 2e-3
    assert np.all(np.diff(path.arc) > 0)
    assert path.arc[np.argmax(path.energies)] == 0
    assert len(path.frames()) == len(path.arc) == len(path.forward) + len(path.reverse) + 1
    turned = path.turned()
    np.testing.assert_allclose(turned.arc, -path.arc[::-1])
    np.testing.assert_allclose(turned.energies, path.energies[::-1])


def test_the_path_runs_along_the_mass_weighted_gradient(path):
    root = np.sqrt(np.repeat(path.transition_state.get_masses(), 3))
    positions = path.positions.reshape(len(path.arc), -1)
    tangents = (positions[2:] - positions[:-2]) * root
    gradients = (path.all_forces.reshape(len(path.arc), -1) / root)[1:-1]
    cosine = np.abs(np.sum(tangents * gradients, axis=1)) / np.linalg.norm(tangents, axis=1)
    cosine /= np.linalg.norm(gradients, axis=1)
    # a step's length off the start, where the gradient is none, and before the stiff bottom of the valleys
    inner = (np.abs(path.arc[1:-1]) > 0.15) & (np.abs(path.arc[1:-1]) < 1.05)
    assert inner.sum() == 18
    assert cosine[inner].min() > 0.99


def test_arc_length_is_that_of_the_points_and_half_the_step_gives_the_same_path(path, members, xtb):
    root = np.sqrt(path.transition_state.get_masses())[:, None]
    lengths = np.linalg.norm((np.diff(path.positions, axis=0) * root).reshape(len(path.arc) - 1, -1), axis=1)
    np.testing.assert_allclose(np.diff(path.arc), lengths, atol=1e-9)
    fine = intrinsic_reaction_coordinate(members["transition_state"], xtb, step=0.05, points=12, hessian_every=4)
    middle = slice(1, -1)
    coarse = CubicSpline(path.arc, path.energies)(fine.arc[middle])
    assert np.max(np.abs(fine.energies[middle] - coarse)) < 0.01
    assert path.arc[-1] > fine.arc[-1]


def test_isotopes_change_the_path_as_they_should(members, xtb):
    heavy = members["transition_state"].copy()
    masses = heavy.get_masses()
    masses[0] = 2.014
    heavy.set_masses(masses)
    light, deuterated = (
        intrinsic_reaction_coordinate(a, xtb, step=0.1, points=2) for a in (members["transition_state"], heavy)
    )
    assert deuterated.wavenumbers[0] / light.wavenumbers[0] == pytest.approx(1 / np.sqrt(2), abs=0.06)


class Wrong(Calculator):
    """GFN2-xTB that breaks after some calls."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, inner, calls):
        super().__init__()
        self.inner, self.left = inner, calls

    def get_hessian(self, atoms, indices=None):
        return self.inner.get_hessian(atoms, indices)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("SCF broke")
        probe = self.atoms.copy()
        probe.calc = self.inner
        self.results = {"energy": probe.get_potential_energy(), "forces": probe.get_forces()}


def test_what_goes_wrong_is_a_reason_not_a_traceback(members, xtb):
    with pytest.raises(ConfigError, match="no imaginary mode"):
        intrinsic_reaction_coordinate(members["reactant"], xtb)
    moved = perturbed(members["transition_state"], 2, 0.05)[1]
    with pytest.raises(ConfigError, match="no stationary point of the model"):
        intrinsic_reaction_coordinate(moved, xtb)
    with pytest.raises(ConfigError, match="two or more atoms"):
        intrinsic_reaction_coordinate(Atoms("H"), xtb)
    broken = intrinsic_reaction_coordinate(members["transition_state"], Wrong(xtb, 5))
    assert "forward side: RuntimeError: SCF broke" in broken.failure
    assert 0 < len(broken.forward) < 5
    search = search_saddle(members["product"], Wrong(xtb, 0))
    assert "SCF broke" in search.failure
    assert not search.converged


# -- saddle searches ------------------------------------------------------------------------


def test_sella_finds_the_transition_state_with_the_hessian_and_without(members, xtb, path, ends):
    start = perturbed(members["transition_state"], 2, 0.12, seed=3)[1]
    assert rmsd(start.positions, np.array(HCN_TO_HNC_TS)) > 0.05
    with_hessian, without = compare_hessian(start, xtb)
    for search in (with_hessian, without):
        assert search.failure is None
        assert search.converged
        assert search.modes.n_imaginary == 1
        assert rmsd(search.atoms.positions, np.array(HCN_TO_HNC_TS)) < 5e-3
        assert search.largest_force < 0.005
    assert (with_hessian.hessian_calls, without.hessian_calls) == (1, 0)
    assert with_hessian.gradient_calls < without.gradient_calls
    assert distinct([with_hessian, without]) == [0, 0]
    good = judge(with_hessian, path=path, ends=ends, reference=members["transition_state"], barriers=(2.5, 2.4))
    assert good.success
    assert good.connects
    assert good.rmsd < 5e-3
    assert good.barrier_error == pytest.approx(0.1)
    wrong = judge(with_hessian, path=path, ends={"reactant": ends["reactant"], "product": ends["reactant"]})
    assert not wrong.success
    assert wrong.connects is False


def test_a_search_that_does_not_arrive_says_why(members, xtb):
    start = perturbed(members["transition_state"], 2, 0.2, seed=1)[1]
    short = search_saddle(start, xtb, steps=1)
    assert "not converged after 1 steps, largest force" in short.failure
    assert distinct([short]) == [None]
    minimum = judge(short)
    assert not minimum.first_order
    with pytest.raises(ConfigError, match="fmax above 0"):
        search_saddle(start, xtb, fmax=0.0)


# -- other people's optimisers --------------------------------------------------------------


def test_geometric_finds_the_transition_state_from_our_hessian(members, xtb, tmp_path, monkeypatch):
    from geometric.optimize import run_optimizer

    monkeypatch.chdir(tmp_path)  # it writes beside its input
    start = perturbed(members["transition_state"], 2, 0.03, seed=2)[1]
    hess_data = geometric_hessian(xtb, start)
    assert isinstance(hess_data, list)  # geomeTRIC asks for its truth, which an array has not
    np.testing.assert_allclose(np.array(hess_data) * HARTREE_PER_BOHR2, xtb.get_hessian(start), atol=1e-3)
    engine = geometric_engine(xtb, start)
    done = run_optimizer(
        customengine=engine, transition=True, hess_data=hess_data, coordsys="cart", input="ts.log", maxiter=60
    )
    assert rmsd(done.xyzs[-1], np.array(HCN_TO_HNC_TS)) < 5e-3
    assert len(done.xyzs) < 12


def test_the_duck_for_pysisyphus_speaks_atomic_units_and_takes_lower_case(members, xtb):
    atoms = perturbed(members["transition_state"], 2, 0.05)[1]
    atoms.calc = xtb
    duck = PysisyphusCalculator(xtb)
    coords = atoms.positions.ravel() / BOHR
    answer = duck.get_forces(["h", "c", "n"], coords)
    assert answer["energy"] == pytest.approx(atoms.get_potential_energy() / HARTREE)
    np.testing.assert_allclose(answer["forces"] * HARTREE_PER_BOHR, atoms.get_forces().ravel(), atol=1e-4)
    assert np.abs(answer["forces"]).max() > 0.01
    assert duck.get_energy(["h", "c", "n"], coords)["energy"] == pytest.approx(answer["energy"])
    saddle = members["transition_state"]
    hessian = duck.get_hessian(["h", "c", "n"], saddle.positions / BOHR)["hessian"]
    assert hessian.shape == (9, 9)
    waves = normal_modes(hessian * HARTREE_PER_BOHR2, saddle.positions, saddle.get_masses())[0]
    assert waves[0] == pytest.approx(-1426, abs=3)
    with pytest.raises(ConfigError, match="9 coordinates"):
        duck.get_energy(["h", "c", "n"], coords[:6])


# -- any calculator is a model --------------------------------------------------------------


def test_a_model_is_a_name(xtb):
    from ase.build import molecule

    from nequip_hessian.errors import EngineError

    atoms = molecule("H2O")
    atoms.calc = load_potential("ase:tblite.ase:TBLite", options={"verbosity": 0, "accuracy": 0.01})
    reference = atoms.copy()
    reference.calc = xtb
    assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(atoms.calc.get_hessian(atoms), xtb.get_hessian(atoms), atol=1e-3)
    block = np.ix_(*[[0, 1, 2, 6, 7, 8]] * 2)
    np.testing.assert_allclose(xtb.get_hessian(atoms, [0, 2]), xtb.get_hessian(atoms)[block], atol=1e-3)
    charged = atoms.copy()
    charged.info["charge"] = 1
    charged.info["multiplicity"] = 2
    charged.calc = xtb
    assert 10 < charged.get_potential_energy() - reference.get_potential_energy() < 20
    derivatives = dipole_derivatives(xtb, atoms)
    np.testing.assert_allclose(derivatives.reshape(3, 3, 3).sum(axis=0), 0, atol=1e-4)  # neutral: no net charge moves
    assert np.abs(derivatives).max() > 0.2
    with pytest.raises(EngineError, match="not found"):
        load_potential("ase:no.such:Thing")
    with pytest.raises(OptionError, match="GFN1-xTB"):
        load_potential("tblite:GFN9")
    with pytest.raises(ConfigError, match="options"):
        load_potential("model.nequip.zip", options={"a": 1})


# -- the commands ---------------------------------------------------------------------------


def test_the_commands_ts_and_irc_write_what_they_say(members, tmp_path, capsys):
    import json

    from ase.io import read, write

    for name, atoms in members.items():
        write(tmp_path / f"{name}.xyz", atoms)
    start = perturbed(members["transition_state"], 2, 0.1)[1]
    write(tmp_path / "guess.xyz", start)
    ends = [f"--{name}={tmp_path / name}.xyz" for name in ("reactant", "product")]
    assert main(["ts", "tblite", str(tmp_path / "guess.xyz"), "--compare", "-o", str(tmp_path / "ts")]) == 0
    assert (
        main(["irc", "tblite", str(tmp_path / "ts" / "ts.xyz"), *ends, "--step=0.1", "-o", str(tmp_path / "irc")]) == 0
    )
    printed = capsys.readouterr().out
    assert "the reactant: same bonds" in printed
    assert "formed H0-N2; broken H0-C1" in printed
    document = json.loads((tmp_path / "irc" / "irc.json").read_text(encoding="utf-8"))
    assert document["sides"]["reverse"]["leads_to"]["name"] == "reactant"
    frames = read(tmp_path / "irc" / "irc.extxyz", index=":")
    assert len(frames) == len(document["energies_eV"])
    assert [f.info["path_coordinate"] for f in frames] == pytest.approx(document["arc_sqrt_u_angstrom"])
    for name in ("ts", "irc"):
        check_page(tmp_path / name / "report.html", tmp_path / "browser" / name)
    searches = json.loads((tmp_path / "ts" / "ts.json").read_text(encoding="utf-8"))
    assert len(searches["compared"][0]) == 2
    assert searches["searches"][0]["wavenumbers_cm"][0] == pytest.approx(-1426, abs=5)
    wrong = [f"--{name}={tmp_path / 'product'}.xyz" for name in ("reactant", "product")]
    assert main(["irc", "tblite", str(tmp_path / "ts" / "ts.xyz"), *wrong, "--step=0.2"]) == 1
    assert "no side leads to the" in capsys.readouterr().err
    assert main(["irc", "tblite", str(tmp_path / "product.xyz")]) == 1
    assert "no imaginary mode" in capsys.readouterr().err
    assert main(["ts", "tblite", str(tmp_path / "guess.xyz"), "--steps", "1"]) == 1
    assert "not converged" in capsys.readouterr().err
