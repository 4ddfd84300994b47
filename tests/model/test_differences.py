"""Products by differences of forces against the exact ones, and the order of their error."""

import numpy as np
import pytest
import torch
from nequip.data import AtomicDataDict
from small_models import ALLEGRO, NEQUIP, frame, rattled, with_probes

import nequip_hessian.model as ours
from nequip_hessian.model import differences
from nequip_hessian.model.replicate import gather_frames


def batch_of(names, n_probes):
    frames = [
        with_probes(frame(rattled(name), keep_cell=name == "Al4"), n_probes, seed) for seed, name in enumerate(names)
    ]
    return AtomicDataDict.batched_from_list(frames)


def with_difference(batch, a, b):
    n_frames = len(batch["num_atoms"])
    return {**batch, "hessian_difference": torch.tensor([[a, b]]).repeat(n_frames, 1)}


def error(model, batch, exact, a, b):
    found = model(with_difference(batch, a, b))["hessian_product"]
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", ["NequIP", "Allegro"])
def test_the_error_falls_with_the_second_and_the_first_power_of_the_step(name):
    model = (ours.NequIPGNNModel(**NEQUIP) if name == "NequIP" else ours.AllegroModel(**ALLEGRO)).eval()
    batch = batch_of(["H2O", "CH3OH"], 2)
    exact = model(dict(batch))["hessian_product"]
    central = [error(model, batch, exact, h, -h) for h in (0.02, 0.01)]
    forward = [error(model, batch, exact, h, 0.0) for h in (0.002, 0.001)]
    assert central[1] < 1e-3
    assert central[0] / central[1] == pytest.approx(4.0, rel=0.1)
    assert forward[0] / forward[1] == pytest.approx(2.0, rel=0.1)


def test_other_outputs_and_frames_without_a_probe_are_left_alone():
    model = ours.NequIPGNNModel(**NEQUIP).eval()
    batch = batch_of(["Al4", "Al4"], 2)
    batch["hessian_probe"][4:, 3:] = 0.0
    plain = model({k: v for k, v in batch.items() if k != "hessian_probe"})
    out = model(with_difference(batch, 1e-3, -1e-3))
    for key in ("total_energy", "forces", "stress"):
        torch.testing.assert_close(out[key], plain[key], rtol=1e-12, atol=1e-12)
    assert (out["hessian_product"][4:, 3:] == 0).all()
    exact = model(dict(batch))["hessian_product"]
    torch.testing.assert_close(out["hessian_product"], exact, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="two different displacements"):
        model(with_difference(batch, 0.01, 0.01))


@pytest.mark.parametrize("cap", [0, 30, 60])
@pytest.mark.parametrize("b", [-1e-3, 0.0])
@pytest.mark.parametrize("names", [["H2O", "HCN", "CH3OH"], ["Al4", "Al4"]], ids=["molecules", "crystals"])
def test_one_pass_and_many_give_the_same(names, cap, b, monkeypatch):
    model = ours.NequIPGNNModel(**NEQUIP).eval()
    batch = batch_of(names, 3)
    batch["hessian_probe"][:3, 3:6] = 0.0
    together = model(with_difference(batch, 1e-3, b))
    passes = []
    monkeypatch.setattr(differences, "MAX_EDGES_PER_PASS", cap)
    monkeypatch.setattr(differences, "gather_frames", lambda *args: passes.append(args) or gather_frames(*args))
    apart = model(with_difference(batch, 1e-3, b))
    assert len(passes) > 2
    assert set(apart) == set(together)
    for key, value in apart.items():
        torch.testing.assert_close(value, together[key], rtol=1e-9, atol=1e-9)


def test_parameter_gradients_are_those_of_the_exact_product_to_the_order_of_the_step():
    model = ours.NequIPGNNModel(**NEQUIP)
    batch = batch_of(["H2O", "HCN"], 1)
    found = []
    for data in (batch, with_difference(batch, 0.002, -0.002)):
        model.zero_grad()
        model(dict(data))["hessian_product"].square().mean().backward()
        found.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]).numpy())
    assert np.linalg.norm(found[1] - found[0]) < 1e-4 * np.linalg.norm(found[0])
