"""Real records of every shape the store knows: GFN2-xTB molecules, ions, an argon crystal, one atom."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.data import atomic_masses
from molecules import GFN2, labelled, xtb, xtb_hessian
from tblite.ase import TBLite

from nequip_hessian.curvature import normal_modes
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store import StoreWriter

LJ = LevelOfTheory("Lennard-Jones", program="ase", hessian="finite_difference", displacement=1e-3)


def _differences(atoms: Atoms, calculator, step: float) -> np.ndarray:
    rows = []
    for index in np.ndindex(len(atoms), 3):
        pair = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[index] += sign * step
            moved.calc = calculator
            pair.append(moved.get_forces().ravel())
        rows.append((pair[1] - pair[0]) / (2 * step))
    return np.array(rows)


def _crystal() -> LabelledGeometry:
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    calculator = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True)
    hessian = _differences(atoms, calculator, 1e-3)
    atoms.calc = calculator
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell),
        pbc=True,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        hessian=hessian,
        kind="displaced",
        label="argon crystal, 4 atoms",
        level=LJ,
    )


def _ion() -> LabelledGeometry:
    atoms = Atoms("OH3", [[0, 0, 0.1], [0.95, 0, -0.2], [-0.48, 0.82, -0.2], [-0.48, -0.82, -0.2]])
    calculator = TBLite(method="GFN2-xTB", charge=1, verbosity=0, accuracy=0.01)
    hessian = _differences(atoms, calculator, 0.005)
    atoms.calc = calculator
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        hessian=hessian,
        charge=1,
        multiplicity=1,
        label="H₃O⁺",
        level=GFN2,
    )


def _rich() -> LabelledGeometry:
    """Water with each optional label."""
    record = labelled("H2O", 5, rattle=0.02)
    atoms = Atoms(record.numbers, record.positions)
    masses = atomic_masses[atoms.numbers]
    hessian = np.asarray(record.hessian)
    rng = np.random.default_rng(3)
    probes = rng.normal(size=(2, 9))
    probes /= np.linalg.norm(probes, axis=1)[:, None]
    dipoles = []
    for index in np.ndindex(3, 3):
        pair = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[index] += sign * 0.005
            moved.calc = TBLite(method="GFN2-xTB", verbosity=0)
            pair.append(moved.get_dipole_moment())
        dipoles.append((pair[0] - pair[1]) / 0.01)
    return record.replace(
        masses=masses,
        probes=probes.reshape(2, 3, 3),
        products=(probes @ hessian).reshape(2, 3, 3),
        dipole_derivatives=np.array(dipoles),
        born_charges=np.array(dipoles).reshape(3, 3, 3),
        frequencies=normal_modes(hessian, record.positions, masses)[0],
        frequencies_projected=True,
        label="water, all labels",
    )


def _partial() -> LabelledGeometry:
    record = labelled("CH3OH", 2)
    active = np.array([1, 3, 4])
    rows = (3 * active[:, None] + np.arange(3)).ravel()
    return record.replace(hessian=np.asarray(record.hessian)[np.ix_(rows, rows)], active=active, label="methanol, part")


def _reaction() -> list[LabelledGeometry]:
    """HCN to HNC: the hydrogen on its way round, ends first and last."""
    found = []
    angles = np.linspace(0, np.pi, 5)
    for index, angle in enumerate(angles):
        atoms = Atoms("HCN", [[-1.07, 0, 0], [0, 0, 0], [1.16, 0, 0]])
        radius = 1.65 - 0.4 * np.sin(angle)
        atoms.positions[0] = [0.58 - radius * np.cos(angle), radius * np.sin(angle), 0]
        energy, forces = xtb(atoms)
        role = {0: "reactant", 2: "transition_state", 4: "product"}.get(index)
        found.append(
            LabelledGeometry(
                numbers=atoms.numbers,
                positions=atoms.positions,
                energy=energy,
                forces=forces,
                hessian=xtb_hessian(atoms) if role else None,
                kind="path",
                role=role,
                group="HCN to HNC",
                path_coordinate=float(index - 2),
                label=f"point {index}",
                level=GFN2,
            )
        )
    return [found[i] for i in (2, 0, 4, 3, 1)]  # not in the order of the path


@pytest.fixture(scope="session")
def records() -> list[LabelledGeometry]:
    one = Atoms("Ne", [[0.1, 0.2, 0.3]])
    energy, forces = xtb(one)
    argon = LabelledGeometry(
        numbers=one.numbers, positions=one.positions, energy=energy, forces=forces, hessian=np.zeros((3, 3)), level=GFN2
    )
    bare = LabelledGeometry(numbers=molecule("CH4").numbers, positions=molecule("CH4").positions)
    partly = labelled("NH3", 1)
    forces = np.array(partly.forces)
    forces[1] = np.nan  # a single force that the source did not have
    return [
        labelled("N2", 1),
        argon,
        labelled("CO2", 1, rattle=0.0),
        bare,
        _ion(),
        _crystal(),
        _rich(),
        partly.replace(forces=forces, hessian=None),
        _partial(),
        *_reaction(),
        labelled("C2H6", 1).replace(charge=None, multiplicity=None, energy=None),
    ]


def _write(path, records, splits=None, **options):
    with StoreWriter(path, attributes={"license": "CC0-1.0"}, **options) as writer:
        writer.extend(records)
        for scheme, (parts, codes) in (splits or {}).items():
            writer.set_split(scheme, parts, codes)
    return path


@pytest.fixture(scope="session")
def originals(tmp_path_factory, records):
    """Each profile's store of all records, written once and copied by the tests that change it."""
    folder = tmp_path_factory.mktemp("originals")
    return {
        profile: _write(folder / f"{profile}.{'zip' if profile == 'publish' else 'zarr'}", records, profile=profile)
        for profile in ("local", "remote", "publish")
    }


@pytest.fixture
def write(tmp_path, records, originals):
    """Write records (default: all) to a new store and return its path."""

    def make(name="a.zarr", these=None, **options):
        path = tmp_path / name
        if these is None and set(options) <= {"profile"}:
            original = originals[options.get("profile", "local")]
            return shutil.copytree(original, path) if original.is_dir() else shutil.copyfile(original, path)
        return _write(path, records if these is None else these, **options)

    return make
