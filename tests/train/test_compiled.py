"""Every way to supervise in one compiled model: losses and gradients of eager training, and no graph too many."""

import pytest
import torch
from nequip.data import AtomicDataDict
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from small_models import ALLEGRO, NEQUIP, R_MAX, SYMBOLS

import nequip_hessian.model as ours
from nequip_hessian.data import HessianDataset
from nequip_hessian.train import EnergyForceHessianLoss, EnergyForceMassWeightedHessianLoss

# entries of `hessian:` and how many graphs the model has compiled after it
STEPS = (
    ({"mode": "random", "k": 1}, 1),
    ({"mode": "full"}, 1),
    ({"mode": "random", "k": 3, "project": True}, 1),
    ({"mode": "columns", "k": 2, "mass_weighted": True}, 1),
    ({"mode": "modes", "k": 2}, 1),
    # forces without a product: geometries without a probe, displaced ones, and steps of `HessianEveryNSteps`
    ({"mode": "random", "probe_fraction": 0.3}, 2),
    ({"mode": "random", "method": "finite_difference"}, 2),
    ({"method": "taylor"}, 2),
)


def batch_of(store, hessian):
    transforms = [ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)]
    data = HessianDataset(store, hessian=hessian, seed=1, transforms=transforms)
    return AtomicDataDict.batched_from_list(data[list(range(8))])


def loss_and_gradients(model, batch, hessian):
    kind = EnergyForceMassWeightedHessianLoss if hessian.get("mass_weighted") else EnergyForceHessianLoss
    loss = kind(type_names=SYMBOLS)
    model.zero_grad()
    out = model(dict(batch))
    if hessian.get("method") == "taylor":
        value = (out["forces"] ** 2).sum() + out["total_energy"].sum()
    else:
        value = loss(out, batch)["weighted_sum"]
    value.backward()
    return value.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["nequip", "allegro"])
def test_every_option_compiled_equals_eager(kind, small_store):
    builder, settings = {"nequip": (ours.NequIPGNNModel, NEQUIP), "allegro": (ours.AllegroModel, ALLEGRO)}[kind]
    settings = {**settings, "num_layers": 1}
    eager, compiled = builder(**settings), builder(**settings, compile_mode="compile")
    for hessian, graphs in STEPS:
        batch = batch_of(small_store, hessian)
        value, gradients = loss_and_gradients(eager, batch, hessian)
        other, others = loss_and_gradients(compiled, batch, hessian)
        assert other == pytest.approx(value, rel=1e-9), hessian
        for one, two in zip(gradients, others, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)
        assert len(compiled._compiled_cache[0]) == graphs, hessian
