import numpy as np
import pytest
import torch
from nequip.data import AtomicDataDict
from nequip.model import NequIPGNNModel as PlainNequIP
from nequip.train import EnergyForceLoss
from small_models import NEQUIP, SYMBOLS, frame, rattled

import nequip_hessian.model as ours
from nequip_hessian.data import HessianProbes
from nequip_hessian.errors import ConfigError
from nequip_hessian.model.matrix import hessians
from nequip_hessian.train import (
    EnergyForceHessianLoss,
    EnergyForceHessianMetrics,
    HessianMeanAbsoluteError,
    HessianMeanSquaredError,
    HessianRootMeanSquaredError,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*do not sum to zero")  # random matrices are no Hessians

NAMES = ["CH3OH", "HCN", "H2O"]


@pytest.fixture(scope="module")
def references():
    """A random symmetric reference Hessian for each molecule."""
    result = {}
    for seed, name in enumerate(NAMES):
        n = 3 * len(rattled(name))
        matrix = np.random.default_rng(seed).normal(size=(n, n))
        result[name] = (matrix + matrix.T) / 2
    return result


def labelled(name, reference, probes, missing=()):
    """Model inputs with labels; `missing` names the labels to leave out."""
    data = frame(rattled(name))
    n = len(data["pos"])
    data["total_energy"] = torch.full((1, 1), np.nan if "energy" in missing else 0.3)
    data["forces"] = torch.full((n, 3), np.nan if "forces" in missing else 0.1)
    if "hessian" not in missing:
        data["hessian"] = torch.tensor(reference)
    return probes(data)


def batch_of(names, references, probes, missing=None):
    missing = missing or {}
    return AtomicDataDict.batched_from_list(
        [labelled(name, references[name], probes, missing.get(i, ())) for i, name in enumerate(names)]
    )


def exact_loss(model, references, names=NAMES):
    """Mean over geometries of (1/n^2)||dH||_F^2, from full matrices."""
    return np.mean([np.mean((hessians(model, frame(rattled(n)))[0].numpy() - references[n]) ** 2) for n in names])


def hessian_term(model, batch, **options):
    metric = HessianMeanSquaredError(**options)
    return metric(model(dict(batch)), dict(batch))


def test_full_matrix_loss_is_the_mean_squared_element(references):
    model = ours.NequIPGNNModel(**NEQUIP)
    batch = batch_of(NAMES, references, HessianProbes("full", max_atoms=6))
    assert hessian_term(model, batch).item() == pytest.approx(exact_loss(model, references), rel=1e-12)


@pytest.mark.parametrize(("mode", "k"), [("columns", 1), ("columns", 4), ("random", 1), ("random", 4)])
def test_sampled_losses_have_the_same_expectation(references, mode, k):
    model = ours.NequIPGNNModel(**NEQUIP)
    names = ["HCN", "H2O"]
    probes = HessianProbes(mode, k, seed=1)
    found = [hessian_term(model, batch_of(names, references, probes)).item() for _ in range(100)]
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(exact_loss(model, references, names), abs=4 * error)
    assert error < 0.2 * np.mean(found)


def test_third_derivatives_are_those_of_the_loss(references):
    """Parameter gradients of the Hessian loss against central differences of the loss itself."""
    model = ours.NequIPGNNModel(**NEQUIP)
    batch = batch_of(NAMES, references, HessianProbes("random", 2, seed=3))
    hessian_term(model, batch).backward()
    rng = np.random.default_rng(0)
    checked = 0
    for parameter in model.parameters():
        if parameter.grad is None or not parameter.numel():
            continue
        index = np.unravel_index(int(rng.integers(parameter.numel())), parameter.shape)
        values = []
        for shift in (1e-4, -1e-4):
            with torch.no_grad():
                parameter[index] += shift
            values.append(hessian_term(model, batch).item())
            with torch.no_grad():
                parameter[index] -= shift
        slope = (values[0] - values[1]) / 2e-4
        assert parameter.grad[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)
        checked += 1
    assert checked >= 8


def test_sparse_labels_keep_their_scale(references):
    """Averaged over which geometry is labelled, the term equals that of a fully labelled set."""
    model = ours.NequIPGNNModel(**NEQUIP)
    full = HessianProbes("full", max_atoms=6)
    third = HessianProbes("full", max_atoms=6, labelled_fraction=1 / 3)
    every = hessian_term(model, batch_of(NAMES, references, full)).item()
    shares = []
    for kept in range(3):
        missing = {i: ("hessian",) for i in range(3) if i != kept}
        shares.append(hessian_term(model, batch_of(NAMES, references, third, missing)).item())
    assert np.mean(shares) == pytest.approx(every, rel=1e-12)
    one = hessian_term(
        model, batch_of(NAMES, references, third, {0: ("hessian",), 1: ("hessian",)}), normalise="labelled"
    )
    assert one.item() == pytest.approx(exact_loss(model, references, ["H2O"]), rel=1e-12)


def test_a_batch_without_labels_is_zero_with_a_graph(references):
    model = ours.NequIPGNNModel(**NEQUIP)
    nothing = dict.fromkeys(range(3), ("hessian", "energy", "forces"))
    batch = batch_of(NAMES, references, HessianProbes("random", 2, labelled_fraction=0.5), nothing)
    loss = EnergyForceHessianLoss(type_names=SYMBOLS)
    terms = loss(model(dict(batch)), dict(batch))
    for name, value in terms.items():
        assert value.item() == 0.0, name
    terms["weighted_sum"].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("missing", [("energy",), ("forces",), ("hessian",)])
def test_any_label_may_be_missing_in_some_geometries(references, missing):
    model = ours.NequIPGNNModel(**NEQUIP)
    probes = HessianProbes("random", 1, labelled_fraction=2 / 3)
    batch = batch_of(NAMES, references, probes, {1: missing})
    loss = EnergyForceHessianLoss(type_names=SYMBOLS)
    value = loss(model(dict(batch)), dict(batch))["weighted_sum"]
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_energy_and_force_terms_are_those_of_nequip(references):
    model = ours.NequIPGNNModel(**NEQUIP)
    batch = batch_of(NAMES, references, HessianProbes("random", 1))
    out = model(dict(batch))
    mine = EnergyForceHessianLoss(coeffs={"total_energy": 1.0, "forces": 2.0, "hessian": 1.0}, type_names=SYMBOLS)
    theirs = EnergyForceLoss(coeffs={"total_energy": 1.0, "forces": 2.0}, type_names=SYMBOLS)
    first, second = mine(out, dict(batch)), theirs(out, dict(batch))
    for name in ("per_atom_energy_mse", "forces_mse"):
        assert first[name].item() == pytest.approx(second[name].item(), rel=1e-12)
    shares = [first["per_atom_energy_mse"], 2 * first["forces_mse"], first["hessian_mse"]]
    assert first["weighted_sum"].item() == pytest.approx(sum(s.item() for s in shares) / 4, rel=1e-12)


def test_a_missing_prediction_is_an_error_never_a_zero(references):
    batch = batch_of(NAMES, references, HessianProbes("random", 1))
    plain = PlainNequIP(**NEQUIP)
    with pytest.raises(ConfigError, match="predicts no Hessian products"):
        hessian_term(plain, batch)
    # a compiled plain model hands its inputs back, label and all
    out = {**dict(batch), **plain(dict(batch)), "hessian_product": batch["hessian_product"]}
    for metric in (HessianMeanSquaredError(), HessianRootMeanSquaredError()):
        with pytest.raises(ConfigError, match="predicts no Hessian products"):
            metric(out, dict(batch))
    unlabelled = {k: v for k, v in batch.items() if not k.startswith("hessian")}
    with pytest.raises(ConfigError, match="set `hessian:` in the data section"):
        HessianMeanSquaredError()(out, unlabelled)


def test_metrics_over_batches_equal_one_batch(references):
    model = ours.NequIPGNNModel(**NEQUIP).eval()
    full = HessianProbes("full", max_atoms=6, labelled_fraction=0.9)
    exact = [hessians(model, frame(rattled(n)))[0].numpy() - references[n] for n in NAMES]
    for metric, expected in (
        (HessianRootMeanSquaredError(), np.sqrt(np.mean([np.mean(d**2) for d in exact]))),
        (HessianMeanAbsoluteError(), np.mean([np.mean(np.abs(d)) for d in exact])),
    ):
        for name in NAMES:
            batch = batch_of([name], references, full)
            metric.update(model(dict(batch)), dict(batch))
        empty = batch_of(["H2O"], references, full, {0: ("hessian",)})
        metric.update(model(dict(empty)), dict(empty))
        assert metric.compute().item() == pytest.approx(expected, rel=1e-10)


def test_mean_absolute_error_of_a_random_product_is_refused(references):
    model = ours.NequIPGNNModel(**NEQUIP)
    batch = batch_of(["H2O"], references, HessianProbes("random", 1))
    with pytest.raises(ConfigError, match="random probes"):
        HessianMeanAbsoluteError()(model(dict(batch)), dict(batch))


@pytest.mark.parametrize(
    "coeffs",
    [
        {"total_energy": 1.0, "forces": 1.0},
        {"total_energy": 1.0, "forces": 1.0, "hessian": 0.0},
        {"total_energy": 1.0, "forces": 1.0, "hessian": -1.0},
        {"total_energy": 1.0, "forces": 1.0, "hessian": 1.0, "stress": 1.0},
    ],
)
def test_coefficients_that_would_be_ignored_are_errors(coeffs):
    with pytest.raises(ConfigError, match="coeffs"):
        EnergyForceHessianLoss(coeffs=coeffs)


def test_metric_names_are_checked():
    with pytest.raises(ConfigError, match="unknown metric hessian_rsme"):
        EnergyForceHessianMetrics(coeffs={"hessian_rsme": 1.0})
    names = set(EnergyForceHessianMetrics(type_names=SYMBOLS).keys())
    assert {"per_atom_energy_rmse", "forces_rmse", "forces_mae", "hessian_rmse"} <= names


def _rank(rank, world, path, batches, settings, queue):
    torch.set_default_dtype(torch.float64)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = ours.NequIPGNNModel(**settings)
    metric = HessianMeanSquaredError(dist_sync_on_step=True)
    value = metric(model(dict(batches[rank])), dict(batches[rank]))
    (value * world).backward()
    gradient = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    for g in gradient:
        torch.distributed.all_reduce(g)
    if rank == 0:
        queue.put((value.item(), [(g / world).numpy() for g in gradient]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_one_without_any_hessian_equal_one_process(references, tmp_path):
    probes = HessianProbes("full", max_atoms=6, labelled_fraction=2 / 3)
    whole = batch_of(NAMES, references, probes, {2: ("hessian",)})
    parts = [batch_of(NAMES[:2], references, probes), batch_of(NAMES[2:], references, probes, {0: ("hessian",)})]
    model = ours.NequIPGNNModel(**NEQUIP)
    expected = hessian_term(model, whole)
    expected.backward()
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [
        context.Process(target=_rank, args=(r, 2, tmp_path / "rendezvous", parts, NEQUIP, queue)) for r in range(2)
    ]
    for worker in workers:
        worker.start()
    value, gradient = queue.get()
    for worker in workers:
        worker.join()
    assert value == pytest.approx(expected.item(), rel=1e-12)
    for parameter, found in zip(model.parameters(), gradient, strict=True):
        wanted = np.zeros_like(found) if parameter.grad is None else parameter.grad.numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
