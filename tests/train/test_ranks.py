"""Two processes give loss and gradient of one process with the same global batch, whatever the probes."""

import pytest
import torch
from nequip.data import AtomicDataDict
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from small_models import NEQUIP, R_MAX, SYMBOLS

import nequip_hessian.model as ours
from nequip_hessian.data import HessianDataset
from nequip_hessian.train import EnergyForceHessianLoss, HessianEveryNSteps

COEFFS = {"total_energy": 1.0, "forces": 1.0, "hessian": 0.01}
CASES = {
    "fraction": {"mode": "random", "k": 2, "probe_fraction": 0.4},
    "full": {"mode": "full"},
    "difference": {"mode": "columns", "method": "finite_difference"},
    "memory": {"mode": "full"},  # graphs made again in the backward pass
    "step without Hessians": {"mode": "random"},
    "step with": {"mode": "random"},
}


def cases(store):
    """For each case the global batch, and its uneven parts of two ranks: the second holds unlabelled ones only."""
    transforms = [ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)]
    found = {}
    for name, hessian in CASES.items():
        data = HessianDataset(store, hessian=hessian, seed=1, transforms=transforms)
        labelled = data.store.has_hessian
        picked = [i for i in range(12) if labelled[i]][:5] + [i for i in range(12) if not labelled[i]][:2]
        frames = data[picked]
        parts = [frames[:5], frames[5:]]
        found[name] = [AtomicDataDict.batched_from_list(part) for part in (frames, *parts)]
    return found


class At:
    """What `HessianEveryNSteps` asks the trainer."""

    def __init__(self, step):
        self.global_step = step


def loss_and_gradients(name, batch, world):
    model = ours.NequIPGNNModel(**NEQUIP)
    model.product_memory = 1.0 if name == "memory" else 1e12
    batch = dict(batch)
    if name.startswith("step"):
        HessianEveryNSteps(2, compensate=True).on_train_batch_start(At(2 if name == "step with" else 3), None, batch, 0)
    loss = EnergyForceHessianLoss(COEFFS, type_names=SYMBOLS)
    for metric in loss.values():
        metric.dist_sync_on_step = True  # as NequIP's training module does
    value = loss(model(dict(batch)), batch)["weighted_sum"]
    (value * world).backward()
    return value.item(), [None if p.grad is None else p.grad for p in model.parameters()]


def _rank(rank, path, batches, queue):
    from nequip.utils.global_state import set_global_state

    torch.set_num_threads(1)
    set_global_state()
    torch.set_default_dtype(torch.float64)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    for name, parts in batches.items():
        value, gradients = loss_and_gradients(name, parts[1 + rank], 2)
        there = [g is not None for g in gradients]
        # SimpleDDPStrategy averages the gradients that there are: both ranks must have the same ones
        for g in gradients:
            if g is not None:
                torch.distributed.all_reduce(g)
        queue.put((name, rank, value, there, [None if g is None else (g / 2).numpy() for g in gradients]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one_process(small_store, tmp_path):
    batches = cases(small_store)
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_rank, args=(r, tmp_path / "meet", batches, queue)) for r in range(2)]
    for worker in workers:
        worker.start()
    found = {(name, rank): rest for name, rank, *rest in (queue.get() for _ in range(2 * len(batches)))}
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for name, (whole, *_) in batches.items():
        value, gradients = loss_and_gradients(name, whole, 1)
        there = [g is not None for g in gradients]
        for rank in range(2):
            other, others_there, others = found[name, rank]
            assert other == pytest.approx(value, rel=1e-12), name
            assert others_there == there, name
            for one, two in zip(gradients, others, strict=True):
                if one is not None:
                    torch.testing.assert_close(torch.from_numpy(two), one, rtol=1e-9, atol=1e-12)
