"""What engines return, against analytic derivatives, other steps, other drivers and the exact identities."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.morse import MorsePotential
from ase.vibrations import Vibrations
from tblite.ase import TBLite

from nequip_hessian.curvature import normal_modes
from nequip_hessian.errors import EngineError, MissingExtraError, OptionError
from nequip_hessian.identities import diagnose, translation_residual
from nequip_hessian.label.ase import AseEngine
from nequip_hessian.label.differences import central_differences
from nequip_hessian.label.geometries import record_from_atoms
from nequip_hessian.label.pyscf import PyscfEngine
from nequip_hessian.label.tblite import TbliteEngine
from nequip_hessian.units import HARTREE


def geometry(atoms: Atoms, **info):
    atoms = atoms.copy()
    atoms.info.update(info)
    return record_from_atoms(atoms, "test")


def symmetric(matrix):
    return (matrix + matrix.T) / 2


def bent(name: str, seed: int = 1, amount: float = 0.06) -> Atoms:
    atoms = molecule(name)
    atoms.rattle(amount, seed=seed)
    return atoms


class Spring(Calculator):
    """Harmonic pairs 0-1, 1-2, ... with a Hessian written down by hand; `stiffness` eV/angstrom^2, rest length 1."""

    implemented_properties = ("energy", "forces")

    def __init__(self, stiffness: float) -> None:
        super().__init__()
        self.stiffness = stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        bonds = np.diff(atoms.positions, axis=0)
        lengths = np.linalg.norm(bonds, axis=1)
        pulls = self.stiffness * (1 - 1 / lengths)[:, None] * bonds
        forces = np.zeros_like(atoms.positions)
        forces[:-1] += pulls
        forces[1:] -= pulls
        self.results = {"energy": 0.5 * self.stiffness * float(np.sum((lengths - 1) ** 2)), "forces": forces}

    def get_hessian(self, atoms):
        n = len(atoms)
        blocks = np.zeros((n, 3, n, 3))
        for i, bond in enumerate(np.diff(atoms.positions, axis=0)):
            length = np.linalg.norm(bond)
            unit = bond / length
            block = self.stiffness * (np.eye(3) * (1 - 1 / length) + np.outer(unit, unit) / length)
            for a, b, sign in ((i, i, 1), (i + 1, i + 1, 1), (i, i + 1, -1), (i + 1, i, -1)):
                blocks[a, :, b, :] += sign * block
        return blocks


SPRING = f"{__name__}:Spring"


def test_central_differences_of_a_quadratic_are_exact():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(12, 12))
    matrix = matrix + matrix.T
    found = central_differences(lambda r: -(matrix @ r.ravel()).reshape(-1, 3), rng.normal(size=(4, 3)), 0.01)
    np.testing.assert_allclose(found, matrix, atol=1e-10)


def test_ase_differences_match_the_analytic_hessian():
    atoms = Atoms("HOHC", [[0, 0, 0], [1.1, 0.2, 0], [1.4, 1.3, 0.1], [0.5, 1.9, 1.0]])
    record = geometry(atoms)
    numerical = AseEngine(SPRING, {"stiffness": 20.0}).calculate(record, hessian=True)
    own = AseEngine(SPRING, {"stiffness": 20.0}, displacement=None).calculate(record, hessian=True)
    np.testing.assert_allclose(numerical.hessian, own.hessian, atol=2e-3)
    finer = AseEngine(SPRING, {"stiffness": 20.0}, displacement=0.001).calculate(record, hessian=True)
    # The truncation error of central differences falls with the square of the step.
    ratio = np.abs(numerical.hessian - own.hessian).max() / np.abs(finer.hessian - own.hessian).max()
    assert 20 < ratio < 30
    assert diagnose(own.hessian, record.positions, own.forces).verdict == "ok"


def test_two_atoms_against_the_second_derivative_of_a_morse_curve():
    depth, rho, rest, length = 1.5, 6.0, 1.2, 1.35
    engine = AseEngine("ase.calculators.morse:MorsePotential", {"epsilon": depth, "rho0": rho, "r0": rest}, 0.001)
    record = geometry(Atoms("N2", [[0, 0, 0], [0, 0, length]]))
    labels = engine.calculate(record, hessian=True)
    decay = np.exp(rho * (1 - length / rest))
    curvature = 2 * depth * (rho / rest) ** 2 * decay * (2 * decay - 1)
    slope = -2 * depth * rho / rest * decay * (decay - 1)
    assert labels.hessian[5, 5] == pytest.approx(curvature, rel=1e-3)
    assert labels.hessian[2, 5] == pytest.approx(-curvature, rel=1e-3)
    assert labels.hessian[3, 3] == pytest.approx(slope / length, rel=1e-3)
    assert labels.forces[1, 2] == pytest.approx(-slope, rel=1e-6)
    assert MorsePotential.__name__ in engine.level(True).method


def test_one_atom_has_no_curvature():
    record = geometry(Atoms("He"))
    for engine in (TbliteEngine(), PyscfEngine("hf", "sto-3g"), AseEngine("ase.calculators.lj:LennardJones")):
        labels = engine.calculate(record, hessian=True)
        assert labels.hessian.shape == (3, 3)
        np.testing.assert_allclose(labels.hessian, 0, atol=1e-6)


def test_periodic_cell_through_ase():
    atoms = bulk("Al", cubic=True)
    atoms.rattle(0.05, seed=2)
    record = geometry(atoms)
    engine = AseEngine("emt")
    engine.check(record)
    labels = engine.calculate(record, hessian=True)
    assert translation_residual(labels.hessian) < 1e-5
    direction = np.random.default_rng(1).normal(size=atoms.positions.shape)
    direction /= np.linalg.norm(direction)
    sides = []
    for sign in (1, -1):
        moved = geometry(Atoms(atoms.numbers, atoms.positions + sign * 0.004 * direction, cell=atoms.cell, pbc=True))
        sides.append(engine.calculate(moved, hessian=False).forces)
    np.testing.assert_allclose(
        (labels.hessian @ direction.ravel()).reshape(-1, 3), (sides[1] - sides[0]) / 0.008, atol=2e-3
    )


@pytest.mark.parametrize("engine", [TbliteEngine(), PyscfEngine("hf", "sto-3g")])
def test_molecular_engines_refuse_periodic_cells(engine):
    with pytest.raises(EngineError, match="periodic"):
        engine.check(geometry(bulk("Al")))


def test_tblite_against_ase_vibrations(tmp_path):
    """Another driver, step and frequency analysis over the same method."""
    atoms = molecule("CH3OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.008)
    vibrations.run()
    reference = vibrations.get_frequencies()
    record = geometry(atoms)
    labels = TbliteEngine().calculate(record, hessian=True)
    found, _ = normal_modes(symmetric(labels.hessian), record.positions, atoms.get_masses(), project=False)
    np.testing.assert_allclose(found[-11:], reference.real[-11:], atol=1.0)
    assert 3300 < found[-1] < 3800  # the O-H stretch
    assert labels.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)


def test_tblite_identities_and_smaller_step():
    record = geometry(bent("H2CO"))
    labels = TbliteEngine().calculate(record, hessian=True)
    finer = TbliteEngine(displacement=0.0025).calculate(record, hessian=True)
    assert diagnose(symmetric(labels.hessian), record.positions, labels.forces).verdict == "ok"
    assert np.abs(labels.hessian - finer.hessian).max() < 5e-3 * np.abs(labels.hessian).max()


def test_tblite_hears_of_charge_and_spin():
    atoms = molecule("NH3")
    energies = [
        TbliteEngine().calculate(geometry(atoms, charge=q, multiplicity=m), hessian=False).energy
        for q, m in ((0, 1), (1, 2), (0, 3))
    ]
    reference = atoms.copy()
    reference.calc = TBLite(method="GFN2-xTB", verbosity=0, charge=1, multiplicity=2)
    assert energies[1] == pytest.approx(reference.get_potential_energy(), abs=1e-3)
    assert energies[2] > energies[0] + 3
    assert TbliteEngine("GFN1-xTB").calculate(geometry(atoms), hessian=False).energy != pytest.approx(energies[0])


def test_elements_an_engine_cannot_do():
    record = geometry(Atoms("UO", [[0, 0, 0], [0, 0, 1.8]]), multiplicity=3)
    with pytest.raises(EngineError, match="no parameters for U"):
        TbliteEngine().check(record)
    with pytest.raises(EngineError, match="basis"):
        PyscfEngine("hf", "def2-svp").check(record)


def test_hartree_fock_water_against_differences_of_its_own_gradients():
    record = geometry(bent("H2O"))
    engine = PyscfEngine("hf", "sto-3g")
    labels = engine.calculate(record, hessian=True)
    numerical = central_differences(
        lambda r: engine.calculate(record.replace(positions=r), hessian=False).forces,
        np.array(record.positions),
        0.003,
    )
    np.testing.assert_allclose(labels.hessian, numerical, atol=3e-3)
    assert translation_residual(symmetric(labels.hessian)) < 1e-6
    assert diagnose(symmetric(labels.hessian), record.positions, labels.forces).verdict == "ok"


def test_density_functional_grid_level_mends_the_translational_identity():
    record = geometry(bent("HF", amount=0.04))
    coarse, fine = (
        translation_residual(PyscfEngine("lda,vwn", "sto-3g", grid_level=level).calculate(record, True).hessian)
        for level in (0, 4)
    )
    assert fine < 0.05 < coarse


def test_triplet_oxygen_is_unrestricted():
    atoms = Atoms("O2", [[0, 0, 0], [0, 0, 1.217]])
    engine = PyscfEngine("hf", "sto-3g")
    triplet, singlet = geometry(atoms, multiplicity=3), geometry(atoms, multiplicity=1)
    labels = engine.calculate(triplet, hessian=True)
    assert labels.energy < engine.calculate(singlet, hessian=False).energy - 1
    moved = [
        engine.calculate(triplet.replace(positions=np.array([[0, 0, -d], [0, 0, 1.217]])), False).forces[0, 2]
        for d in (0.003, -0.003)
    ]
    assert labels.hessian[2, 2] == pytest.approx((moved[0] - moved[1]) / 0.006, rel=1e-3)
    # ROHF/UHF STO-3G total energy of O2 near its bond length: about -147.63 Eh
    assert labels.energy / HARTREE == pytest.approx(-147.63, abs=0.02)


def test_spin_that_does_not_fit_is_refused():
    for engine in (TbliteEngine(), PyscfEngine("hf", "sto-3g")):
        with pytest.raises(EngineError, match="multiplicity 2"):
            engine.check(geometry(molecule("H2O"), multiplicity=2))
        engine.check(geometry(molecule("OH")))  # a doublet by default


def test_scf_that_does_not_converge_is_an_error(monkeypatch):
    engine = PyscfEngine("hf", "sto-3g", max_cycle=1)
    monkeypatch.setattr("pyscf.soscf.newton_ah._CIAH_SOSCF.max_cycle", 1, raising=False)
    with pytest.raises(EngineError, match="not converged"):
        engine.calculate(geometry(Atoms("CN", [[0, 0, 0], [0, 0, 2.4]])), hessian=False)


def test_a_charge_the_calculator_would_not_know_is_refused():
    record = geometry(molecule("NH3"), charge=1)
    with pytest.raises(EngineError, match="charge 1"):
        AseEngine("ase.calculators.lj:LennardJones").check(record)
    options = {"method": "GFN2-xTB", "charge": 1, "multiplicity": 2, "verbosity": 0}
    engine = AseEngine("tblite.ase:TBLite", options)
    engine.check(record)
    direct = TbliteEngine(accuracy=1.0).calculate(record, hessian=False)
    assert engine.calculate(record, hessian=False).energy == pytest.approx(direct.energy, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: AseEngine("nowhere.at.all:Thing"), "not found"),
        (lambda: AseEngine("nosuchcalculator"), "not found"),
        (lambda: TbliteEngine("GFN9-xTB"), "GFN2-xTB"),
        (lambda: TbliteEngine(displacement=-1.0), "displacement"),
        (lambda: PyscfEngine("nosuchfunctional"), "nosuchfunctional"),
        (lambda: PyscfEngine(grid_level=12), "grid level"),
    ],
)
def test_settings_that_cannot_be(make, match):
    with pytest.raises((EngineError, OptionError), match=match):
        make()


def test_a_missing_package_names_the_extra(monkeypatch):
    for package, make in (("tblite", TbliteEngine), ("pyscf", PyscfEngine)):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(MissingExtraError, match=r'pip install "nequip-hessian\[label\]"'):
            make()
