"""Hessians of the calculator: sparse against dense, partial, in batches, within a memory budget; products counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed
from nequip.integrations.utils import basic_transforms
from scipy.sparse import bsr_array
from small_models import ALLEGRO, NEQUIP, SYMBOLS, nequip_state  # noqa: F401 (a fixture that applies to all tests)

import nequip_hessian.exact as exact
from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.errors import ConfigError, HessianDataWarning
from nequip_hessian.model import AllegroModel, NequIPGNNModel
from nequip_hessian.sparsity import block_pattern

R_MAX = 2.5  # short, so that small geometries reach beyond 2 and 4 hops
HOPS = {"nequip": 4, "one layer": 2, "allegro": 2}


def build(kind, **changes):
    changes = {"r_max": R_MAX, **changes}
    if kind == "allegro":
        model = AllegroModel(**{**ALLEGRO, **changes})
    else:
        layers = {"num_layers": 1} if kind == "one layer" else {}
        model = NequIPGNNModel(**{**NEQUIP, **layers, **changes})
    model.eval()
    transforms = basic_transforms(model.metadata, R_MAX, SYMBOLS, {name: name for name in SYMBOLS})
    calculator = HessianCalculator(model=model, device="cpu", transforms=transforms)
    calculator.dtype = model.model_dtype
    return calculator


@pytest.fixture(params=HOPS)
def kind(request):
    return request.param


@pytest.fixture
def calculator(kind):
    return build(kind)


def polyethylene(units, *, periodic=False):
    """(CH2)n, zigzag along x; 1.27 angstrom a carbon."""
    side = np.where(np.arange(units) % 2, -1.0, 1.0)
    carbon = np.stack([1.27 * np.arange(units), 0.42 * side, np.zeros(units)], axis=1)
    out = np.stack([np.zeros(units), 0.6 * side, np.full(units, 0.9)], axis=1)
    positions = np.stack([carbon, carbon + out, carbon + out * [1, 1, -1]], axis=1).reshape(-1, 3)
    cell = [1.27 * units, 12.0, 12.0] if periodic else None
    return Atoms(["C", "H", "H"] * units, positions, cell=cell, pbc=[periodic, False, False])


def rattled(atoms, seed=0):
    atoms.rattle(0.05, seed=seed)
    return atoms


def scattered(seed):
    """Atoms at random places of a long box, 1 angstrom apart or more: clusters, gaps, lone ones."""
    rng = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    while len(places) < 22:
        trial = rng.uniform(0, [45, 4, 4])
        if all(np.linalg.norm(trial - p) > 1.0 for p in places):
            places.append(trial)
    return Atoms(rng.choice(["H", "C", "N", "O"], 22), places)


def fragments():
    both = molecule("CH3OH")
    for step in (1, 2, 3):
        other = molecule("NH3")
        other.positions += [9.0 * step, 0, 0]
        both += other
    return rattled(both)


GEOMETRIES = {
    "chain": lambda: rattled(polyethylene(11)),
    "periodic chain": lambda: rattled(polyethylene(12, periodic=True)),
    "wire": lambda: rattled(bulk("C", "diamond", a=3.57, cubic=True).repeat((3, 1, 1))),
    "one periodic atom": lambda: bulk("C", "sc", a=1.8),
    "fragments": fragments,
    "random": lambda: scattered(1),
    "random, others": lambda: scattered(2),
    "atom": lambda: Atoms("H"),
    "pair out of reach": lambda: Atoms("H2", [[0, 0, 0], [0, 0, 8]]),
    "molecule": lambda: rattled(molecule("CH3OH")),
}


@pytest.fixture
def asked(monkeypatch):
    """Number of products that eager models were asked for."""
    count = []
    make = exact.eager_products

    def counting(*arguments):
        products = make(*arguments)

        def wrapped(probes):
            count.append(len(probes))
            return products(probes)

        return wrapped

    monkeypatch.setattr(exact, "eager_products", counting)
    return count


def dense(calculator, atoms, indices=None):
    calculator.sparse = False
    try:
        return calculator.get_hessian(atoms, indices)
    finally:
        calculator.sparse = True


@pytest.mark.parametrize("name", GEOMETRIES)
def test_sparse_hessian_is_the_dense_one(calculator, name):
    atoms = GEOMETRIES[name]()
    whole = dense(calculator, atoms)
    size = max(1.0, np.abs(whole).max())
    assert np.abs(calculator.get_hessian(atoms) - whole).max() < 1e-12 * size
    blocks = calculator.get_sparse_hessian(atoms)
    assert isinstance(blocks, bsr_array)
    assert blocks.blocksize == (3, 3)
    assert np.abs(blocks.toarray() - whole).max() < 1e-12 * size
    np.testing.assert_array_equal(blocks.toarray(), blocks.toarray().T)


def test_reach_is_measured_and_blocks_beyond_it_are_exactly_zero(kind, calculator):
    assert calculator.hops() == HOPS[kind]
    atoms = rattled(Atoms("C24", np.stack([1.9 * np.arange(24), np.zeros(24), np.zeros(24)], axis=1)))
    largest = np.abs(dense(calculator, atoms).reshape(24, 3, 24, 3)).max(axis=(1, 3))
    edges = calculator.atoms_to_data(atoms)["edge_index"].numpy()
    near, less = (block_pattern(edges, 24, HOPS[kind] - step).toarray() for step in (0, 1))
    assert np.all(largest[~near] == 0)
    assert np.all(largest[near & ~less] > 0)


@pytest.mark.parametrize("name", ["chain", "periodic chain", "wire", "fragments", "random"])
def test_fewer_products_where_it_says_so(calculator, name, asked):
    atoms = GEOMETRIES[name]()
    calculator.hops()
    plan = calculator.plan(atoms)
    asked.clear()
    calculator.get_hessian(atoms)
    sparse = plan.pattern is not None
    assert sum(asked) == plan.n_products + sparse  # one product more checks the blocks
    assert sum(asked) <= 3 * len(atoms)
    if calculator.hops() == 2 and name in ("chain", "fragments"):
        assert sparse


def test_long_chain_costs_no_more_than_a_short_one():
    calculator = build("allegro")
    short, long = (calculator.plan(polyethylene(units)).n_products for units in (16, 60))
    assert long <= 1.2 * short
    assert long < 3 * 3 * 60 / 5


@pytest.mark.parametrize("name", ["molecule", "chain", "periodic chain"])
def test_partial_hessian_costs_in_proportion_to_its_atoms(calculator, name, asked):
    atoms = GEOMETRIES[name]()
    whole = dense(calculator, atoms).reshape(len(atoms), 3, len(atoms), 3)
    calculator.hops()
    for indices in ([2], [4, 1], list(range(0, len(atoms), 2))):
        asked.clear()
        found = calculator.get_hessian(atoms, indices)
        block = whole[indices][:, :, indices].reshape(3 * len(indices), -1)
        assert np.abs(found - block).max() < 1e-12 * np.abs(whole).max()
        assert sum(asked) <= 3 * len(indices)


def test_a_batch_costs_as_its_largest_molecule(calculator, asked):
    molecules = [rattled(molecule(name), seed) for seed, name in enumerate(("H2O", "CH4", "CH3OH", "NH3", "C2H2"))]
    calculator.hops()  # measured once, with one product
    asked.clear()
    together = calculator.get_hessians(molecules)
    assert sum(asked) == 3 * 6
    for atoms, hessian in zip(molecules, together, strict=True):
        np.testing.assert_allclose(hessian, calculator.get_hessian(atoms), atol=1e-12)


def test_batches_of_molecules_chains_and_crystals(calculator):
    mixed = [rattled(molecule("H2O")), GEOMETRIES["periodic chain"](), Atoms("H"), GEOMETRIES["wire"]()]
    for atoms, hessian in zip(mixed, calculator.get_hessians(mixed), strict=True):
        np.testing.assert_allclose(hessian, dense(calculator, atoms), atol=1e-12 * max(1.0, np.abs(hessian).max()))


def test_memory_budget_cuts_batches_and_changes_no_number(asked):
    calculator = build("nequip")
    molecules = [rattled(molecule("CH3OH"), seed) for seed in range(4)]
    calculator.hops()
    asked.clear()
    together = calculator.get_hessians(molecules)
    assert sum(asked) == 18
    need = calculator._bytes_per_edge * len(calculator.atoms_to_data(molecules[0])["edge_index"][0])
    for share, batches in ((2.5, 2), (0.1, 4)):  # a geometry that does not fit goes alone
        calculator.memory_budget = int(share * need)
        asked.clear()
        apart = calculator.get_hessians(molecules)
        assert sum(asked) == 18 * batches
        for one, other in zip(together, apart, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


def test_graph_is_measured_in_proportion_to_the_batch():
    from nequip.data import AtomicDataDict

    from nequip_hessian.model.matrix import graph_bytes

    calculator = build("nequip")
    frame = calculator.atoms_to_data(rattled(molecule("CH3OH")))
    one, four = (graph_bytes(calculator.model, AtomicDataDict.batched_from_list([frame] * n)) for n in (4, 16))
    assert four == pytest.approx(4 * one, rel=0.2)


def test_vectorised_products_are_those_of_the_loop(calculator):
    from nequip_hessian.model.matrix import eager_products

    frame = calculator.atoms_to_data(rattled(molecule("CH3OH")))
    probes = torch.randn(7, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loop, three = (eager_products(calculator.model, dict(frame), n)(probes) for n in (1, 3))
    torch.testing.assert_close(three, loop, atol=1e-11, rtol=0)


def test_a_model_that_reaches_farther_than_measured_gives_a_right_matrix_all_the_same():
    calculator = build("nequip")
    atoms = rattled(polyethylene(10))
    calculator._hops = 1
    with pytest.warns(HessianDataWarning, match="reaches farther"):
        found = calculator.get_hessian(atoms)
    np.testing.assert_allclose(found, dense(calculator, atoms), atol=1e-12)


def test_single_precision():
    calculator = build("allegro", model_dtype="float32")
    atoms = rattled(polyethylene(12))
    assert calculator.plan(atoms).pattern is not None
    whole = dense(calculator, atoms)
    assert np.abs(calculator.get_hessian(atoms) - whole).max() < 1e-4 * np.abs(whole).max()


def test_units_of_the_model_are_converted():
    calculator = build("one layer")
    atoms = rattled(polyethylene(10))
    plain = calculator.get_hessian(atoms)
    calculator.energy_units_to_eV, calculator.length_units_to_A = 2.0, 0.5
    for found in (calculator.get_hessian(atoms), calculator.get_sparse_hessian(atoms).toarray()):
        np.testing.assert_allclose(found, 8 * plain, atol=1e-11)


@pytest.mark.parametrize("method", ["get_hessian", "get_sparse_hessian", "plan"])
def test_bad_indices_and_elements_are_refused(method):
    calculator = build("one layer")
    for indices in ([9], [-1], [1, 1], [0.5], []):
        with pytest.raises(ConfigError, match="indices"):
            getattr(calculator, method)(molecule("H2O"), indices)
    with pytest.raises(ConfigError, match="not seen Cl"):
        getattr(calculator, method)(molecule("HCl"))


@pytest.mark.parametrize("call", ["get_potential_energy", "get_hessian", "evaluate_many"])
def test_a_position_that_is_not_finite_is_no_result(call):
    """The neighbour list drops such an atom: energy, forces and Hessian of the rest would be finite."""
    calculator = build("nequip")
    for where in ("position", "cell"):
        atoms = molecule("H2O")
        if where == "cell":
            atoms.set_cell([np.nan, 5, 5])
            atoms.pbc = True
        else:
            atoms.positions[1, 0] = np.nan
        with pytest.raises(
            CalculationFailed, match=r"finite positions and cell.*" + ("1" if where == "position" else "")
        ):
            getattr(calculator, call)([atoms] if call == "evaluate_many" else atoms)


def test_no_atoms_are_refused():
    with pytest.raises(ConfigError, match="no atoms"):
        build("nequip").get_potential_energy(Atoms())
