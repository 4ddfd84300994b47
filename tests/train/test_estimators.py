"""Expectation and variance of every way to supervise, against theory; the model is a matrix."""

import numpy as np
import pytest
import torch
from algebra import draws, geometry, predict, symmetric, theory
from ase import Atoms
from ase.build import molecule
from nequip.data import AtomicDataDict

from nequip_hessian.curvature import mass_weight, normal_modes, project_out, rigid_motions
from nequip_hessian.data import HessianProbes
from nequip_hessian.errors import ConfigError
from nequip_hessian.train import HessianMeanSquaredError, MassWeightedHessianMeanSquaredError

pytestmark = pytest.mark.filterwarnings("ignore:.*do not sum to zero")  # random matrices are no Hessians

COUNT = 3000


def bent(name="H2O"):
    atoms = molecule(name)
    atoms.rattle(0.05, seed=1)
    return atoms


def agree(found, expected, variance):
    assert found.mean() == pytest.approx(expected, abs=5 * np.sqrt(variance / len(found)) + 1e-12 * expected)
    assert found.var() == pytest.approx(variance, rel=0.25)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"mode": "random", "k": 2}, "rademacher"),
        ({"mode": "random", "k": 1, "distribution": "sphere"}, "sphere"),
        ({"mode": "columns", "k": 2}, "columns"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("project", [False, True])
def test_expectation_and_variance(options, name, weighted, project):
    atoms = bent()
    reference, model = symmetric(9, 0), symmetric(9, 1)
    difference, masses = model - reference, atoms.get_masses()
    if weighted:
        difference = mass_weight(difference, masses)
    if project:
        difference = project_out(difference, rigid_motions(atoms.positions, masses if weighted else np.ones(3)))
    transform = HessianProbes(**options, seed=1, mass_weighted=weighted, project=project)
    metric = MassWeightedHessianMeanSquaredError() if weighted else HessianMeanSquaredError()
    found = draws(metric, transform, geometry(atoms, reference), model, COUNT)
    expected, variance = theory(difference, name, options["k"])
    if project and name == "columns":
        # P e_i are columns of A = P dH P only in their squares' sum: |A e_i|^2, as for any A
        assert found.mean() == pytest.approx(expected, abs=5 * np.sqrt(variance / COUNT))
        return
    agree(found, expected, variance)


@pytest.mark.parametrize("weighted", [False, True])
def test_full_matrix_is_exact_projected_or_mass_weighted(weighted):
    atoms = bent()
    reference, model = symmetric(9, 0), symmetric(9, 1)
    masses = atoms.get_masses()
    difference = mass_weight(model - reference, masses) if weighted else model - reference
    inner = project_out(difference, rigid_motions(atoms.positions, masses if weighted else np.ones(3)))
    metric = MassWeightedHessianMeanSquaredError() if weighted else HessianMeanSquaredError()
    for project, matrix in ((False, difference), (True, inner)):
        transform = HessianProbes("full", max_atoms=4, mass_weighted=weighted, project=project)
        (found,) = draws(metric, transform, geometry(atoms, reference), model, 1)
        assert found == pytest.approx(np.mean(matrix**2), rel=1e-12)


def test_rigid_motions_of_the_reference_do_not_matter_where_they_are_projected_out():
    """A linear molecule has five; noise in them changes the plain term and not the projected one."""
    atoms = molecule("CO2")
    basis = rigid_motions(atoms.positions, np.ones(3))
    assert basis.shape == (9, 5)
    reference = symmetric(9, 0)
    noisy = reference + basis @ symmetric(5, 3) @ basis.T
    for project in (False, True):
        transform = HessianProbes("full", max_atoms=3, project=project)
        metric = HessianMeanSquaredError()
        values = [draws(metric, transform, geometry(atoms, h), symmetric(9, 1), 1)[0] for h in (reference, noisy)]
        assert (values[0] == pytest.approx(values[1], rel=1e-12)) == project


@pytest.mark.parametrize("weighted", [False, True])
def test_modes_give_the_error_along_the_lowest_normal_modes(weighted):
    """Deterministic: no variance; (1/n)|dH v|^2 with v the normalised Cartesian modes, imaginary ones first."""
    atoms = bent("NH3")
    n = 12
    reference, model, masses = symmetric(n, 0), symmetric(n, 1), atoms.get_masses()
    wavenumbers, modes = normal_modes(reference, atoms.positions, masses)
    assert wavenumbers[0] < 0 < wavenumbers[-1]
    difference = model - reference
    errors = []
    for column in modes[:, :3].T:
        if weighted:
            errors.append(np.sum((mass_weight(difference, masses) @ column) ** 2) / n)
        else:
            v = column / np.sqrt(np.repeat(masses, 3))
            errors.append(np.sum((difference @ v) ** 2) / n / np.sum(v**2))
    metric = MassWeightedHessianMeanSquaredError() if weighted else HessianMeanSquaredError()
    transform = HessianProbes("modes", 3, mass_weighted=weighted)
    found = draws(metric, transform, geometry(atoms, reference), model, 3)
    np.testing.assert_allclose(found, np.mean(errors), rtol=1e-10)
    # more modes than there are: the six of them, the rest is padding
    many = HessianProbes("modes", 9)(geometry(atoms, reference))
    assert torch.isfinite(many["hessian_product"]).sum() == 6 * n


def test_masses_of_the_data_are_used():
    atoms = bent()
    reference, model = symmetric(9, 0), symmetric(9, 1)
    heavy = np.array([16.0, 2.0, 2.0])
    transform = HessianProbes("full", max_atoms=3, mass_weighted=True)
    data = geometry(atoms, reference, hessian_mass=heavy)
    (found,) = draws(MassWeightedHessianMeanSquaredError(), transform, data, model, 1)
    assert found == pytest.approx(np.mean(mass_weight(model - reference, heavy) ** 2), rel=1e-12)


def test_stored_probes_are_drawn_without_replacement():
    atoms = bent()
    reference, model, n, stored = symmetric(9, 0), symmetric(9, 1), 9, 5
    rows = np.random.default_rng(2).normal(size=(stored, n))  # of any length: the term must not depend on it
    data = {
        "pos": torch.tensor(atoms.positions),
        "hessian_probe": torch.tensor(rows.reshape(stored, 3, 3).transpose(1, 0, 2).reshape(3, -1)),
        "hessian_product": torch.tensor((rows @ reference).reshape(stored, 3, 3).transpose(1, 0, 2).reshape(3, -1)),
    }
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    each = np.sum((units @ (model - reference)) ** 2, axis=1) / n
    (everything,) = draws(HessianMeanSquaredError(), HessianProbes("stored", stored), data, model, 1)
    assert everything == pytest.approx(each.mean(), rel=1e-12)
    found = draws(HessianMeanSquaredError(), HessianProbes("stored", 2, seed=1), data, model, COUNT)
    agree(found, each.mean(), each.var() / 2 * (stored - 2) / (stored - 1))


def test_a_fraction_of_the_geometries_gives_the_same_term_on_average():
    """Simple random sampling without replacement: variance (1 - f) S^2 / m for m = f n of n geometries."""
    names = ["H2O", "HCN", "CO2", "OH"]
    all_atoms = [bent(name) for name in names]
    references = [symmetric(3 * len(a), i) for i, a in enumerate(all_atoms)]
    models = [symmetric(3 * len(a), 10 + i) for i, a in enumerate(all_atoms)]
    errors = np.array([np.mean((m - r) ** 2) for m, r in zip(models, references, strict=True)])
    transform = HessianProbes("full", max_atoms=3, probe_fraction=0.5, seed=3)
    metric, found = HessianMeanSquaredError(), []
    for _ in range(800):
        chosen = transform.carriers(4)
        assert chosen.sum() == 2
        batch = AtomicDataDict.batched_from_list(
            [
                transform.apply(geometry(a, r), carries=bool(c))
                for a, r, c in zip(all_atoms, references, chosen, strict=True)
            ]
        )
        found.append(float(metric(predict(batch, models), batch)))
    agree(np.array(found), errors.mean(), 0.5 * errors.var(ddof=1) / 2)


def test_a_fraction_and_sparse_labels_together():
    """Half of the geometries labelled, half of those with a probe: the scale is that of a fully labelled set."""
    atoms, reference, model = bent(), symmetric(9, 0), symmetric(9, 1)
    transform = HessianProbes("full", max_atoms=3, probe_fraction=0.5, labelled_fraction=0.5, seed=3)
    metric, found = HessianMeanSquaredError(), []
    for _ in range(400):
        plain = {k: v for k, v in geometry(atoms, reference).items() if k != "hessian"}
        batch = AtomicDataDict.batched_from_list([transform(geometry(atoms, reference)), transform(plain)])
        found.append(float(metric(predict(batch, [model, model]), batch)))
    exact = np.mean((model - reference) ** 2)
    assert set(np.round(np.array(found) / exact, 10)) == {0.0, 2.0}
    assert np.mean(found) == pytest.approx(exact, rel=0.25)


def test_partial_hessian():
    """Its n is 3 x the atoms that move, nothing is projected, and the modes are those of the block."""
    atoms = bent("NH3")
    active = np.array([0, 2])
    rows = np.concatenate([3 * active[:, None] + np.arange(3)]).ravel()
    reference, model = symmetric(6, 0), symmetric(12, 1)
    difference = model[np.ix_(rows, rows)] - reference
    data = geometry(atoms, reference, hessian_active=active)
    metric = HessianMeanSquaredError()
    for project in (False, True):
        (found,) = draws(metric, HessianProbes("full", max_atoms=4, project=project), data, model, 1)
        assert found == pytest.approx(np.mean(difference**2), rel=1e-12)
    found = draws(metric, HessianProbes("random", 1, seed=0), data, model, COUNT)
    agree(found, *theory(difference, "rademacher", 1))
    masses = atoms.get_masses()[active]
    _, modes = normal_modes(reference, atoms.positions[active], masses, project=False)
    v = modes[:, 0] / np.sqrt(np.repeat(masses, 3))
    (found,) = draws(metric, HessianProbes("modes", 1), data, model, 1)
    assert found == pytest.approx(np.sum((difference @ v) ** 2) / 6 / np.sum(v**2), rel=1e-10)


def test_a_crystal_has_three_rigid_motions():
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [2.8, 0.1, 0]], cell=[5.6] * 3, pbc=True)
    reference, model = symmetric(6, 0), symmetric(6, 1)
    data = geometry(atoms, reference, pbc=torch.tensor([True] * 3))
    inner = project_out(model - reference, rigid_motions(atoms.positions, np.ones(2), periodic=True))
    (found,) = draws(HessianMeanSquaredError(), HessianProbes("full", max_atoms=2, project=True), data, model, 1)
    assert found == pytest.approx(np.mean(inner**2), rel=1e-12)
    modes = HessianProbes("modes", 5)(data)
    assert torch.isfinite(modes["hessian_product"]).sum() == 3 * 6


def test_probes_and_loss_must_agree_on_mass_weighting():
    atoms, reference, model = bent(), symmetric(9, 0), symmetric(9, 1)
    for metric, weighted in ((HessianMeanSquaredError(), True), (MassWeightedHessianMeanSquaredError(), False)):
        with pytest.raises(ConfigError, match="mass-weighted"):
            draws(metric, HessianProbes(mass_weighted=weighted), geometry(atoms, reference), model, 1)


def test_modes_are_kept_within_the_memory_given():
    first, second = bent("H2O"), bent("HCN")
    transform = HessianProbes("modes", 1, cache_mb=0.0002)  # 200 bytes: one geometry's 2 x 9 numbers
    for _ in range(2):
        a = transform(geometry(first, symmetric(9, 0)))
        b = transform(geometry(second, symmetric(9, 1)))
    assert len(transform._cache) == 1
    # what is held is what would be computed
    fresh = HessianProbes("modes", 1)
    for kept, atoms, seed in ((a, first, 0), (b, second, 1)):
        torch.testing.assert_close(kept["hessian_probe"], fresh(geometry(atoms, symmetric(9, seed)))["hessian_probe"])


def test_taylor_labels_are_exact_for_a_quadratic_surface():
    atoms, hessian = bent(), symmetric(9, 0)
    force = np.random.default_rng(1).normal(size=9)

    def surface(d):
        return 1.5 - force @ d + 0.5 * d @ hessian @ d, force - hessian @ d

    data = geometry(atoms, hessian, total_energy=torch.tensor([1.5]), forces=torch.tensor(force.reshape(3, 3)))
    transform = HessianProbes(method="taylor", displacement=0.1, seed=1)
    moves = []
    for _ in range(200):
        out = transform(dict(data))
        assert not [key for key in out if key.startswith("hessian")]
        moves.append((out["pos"] - data["pos"]).numpy().ravel())
        energy, expected = surface(moves[-1])
        assert out["total_energy"].item() == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(out["forces"].numpy().ravel(), expected, atol=1e-12)
    assert np.std(moves) == pytest.approx(0.1, rel=0.05)
    np.testing.assert_array_equal(data["pos"].numpy(), atoms.positions)
    half = HessianProbes(method="taylor", probe_fraction=0.5, seed=1)
    moved = [not torch.equal(half(dict(data))["pos"], data["pos"]) for _ in range(400)]
    assert np.mean(moved) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ConfigError, match="before NeighborListTransform"):
        transform({**data, "edge_index": torch.zeros(2, 0, dtype=torch.long)})
    with pytest.raises(ConfigError, match="partial Hessian"):
        transform({**data, "hessian": torch.zeros(6, 6), "hessian_active": np.array([0, 2])})
