"""Every way to supervise Hessians against the gradient of the full matrix: error and CPU time, from one run.

    python benchmarks/estimators.py out/demo.zarr [--geometries 24] [--draws 48] [--steps 30] [--write docs/training.md]

A small NequIP model is trained for a few steps on energies, forces and products; then, at those weights and
for one batch of labelled geometries, the gradient of the Hessian term with respect to all parameters is taken in
each way, many times with fresh probes. Columns:

    bias    |mean gradient - full-matrix gradient| / |full-matrix gradient|, and what chance alone makes of it with
            so many draws; of the differences of forces against the exact products of the same probes, without chance
    noise   root mean square of |gradient - full-matrix gradient| / |full-matrix gradient| of a single step
    time    CPU time of a step (energies, forces and Hessian term, forward and backward) over that of an
            energy-force step of the same model on the same batch

For `taylor` the gradient is that of the force error on displaced geometries less that on the geometries
themselves, over (displacement^2 n): what the method has to say about L_H.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import add_write_option, machine, seconds, write_block
from nequip.data import AtomicDataDict
from nequip.train import EnergyForceLoss
from nequip.utils.global_state import set_global_state
from tqdm import tqdm
from untrained import DESCRIPTIONS, SYMBOLS, dataset, our_model

from nequip_hessian.data import HessianDataset
from nequip_hessian.train import EnergyForceHessianLoss, HessianMeanSquaredError

SCRIPT = "benchmarks/estimators.py"
MODEL = "small nequip"
WAYS: tuple[dict[str, Any], ...] = (
    {"mode": "full"},
    {"mode": "random", "k": 1},
    {"mode": "random", "k": 2},
    {"mode": "random", "k": 4},
    {"mode": "random", "k": 1, "distribution": "sphere"},
    {"mode": "columns", "k": 1},
    {"mode": "columns", "k": 4},
    {"mode": "random", "k": 1, "probe_fraction": 0.5},
    {"mode": "random", "k": 1, "probe_fraction": 0.25},
    {"mode": "random", "k": 1, "method": "finite_difference", "step": 0.01},
    {"mode": "random", "k": 1, "method": "forward_difference", "step": 0.01},
    {"mode": "random", "k": 1, "method": "forward_difference", "step": 0.05},
    {"mode": "modes", "k": 3},
)
DISPLACEMENTS = (0.01, 0.02, 0.05, 0.1)
Batch = dict[str, torch.Tensor]


def gradient(model: Any, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Flat gradient of a loss with respect to all parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad and p.numel()]
    found = torch.autograd.grad(loss(), parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])


def train_a_little(model: Any, data: HessianDataset, steps: int) -> None:
    """A few steps of Adam on energies, forces and products, so that the model is no random one."""
    loss = EnergyForceHessianLoss({"total_energy": 1e-6, "forces": 1.0, "hessian": 0.01}, type_names=SYMBOLS)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = AtomicDataDict.batched_from_list(data[rng.choice(len(data), 8, replace=False)])
        optimiser.zero_grad()
        loss(model(dict(batch)), dict(batch))["weighted_sum"].backward()
        optimiser.step()


def taylor_gradient(model: Any, moved: Batch, still: Batch, displacement: float) -> torch.Tensor:
    """Gradient that displaced geometries give for L_H (see the module)."""

    def term(batch: Batch) -> torch.Tensor:
        error = (model(dict(batch))["forces"] - batch["forces"]).square().sum(dim=1)
        n = 3.0 * batch["num_atoms"].reshape(-1).to(error.dtype)
        per_geometry = torch.zeros_like(n).index_add(0, batch["batch"], error)
        return (per_geometry / n**2).mean() / displacement**2

    return gradient(model, lambda: term(moved)) - gradient(model, lambda: term(still))


def row(
    name: str,
    gradients: list[torch.Tensor],
    exact: torch.Tensor,
    ratio: float,
    paired: list[torch.Tensor] | None = None,
) -> str:
    """One row of the table; `paired` are exact gradients with the same probes."""
    stacked = torch.stack(gradients)
    size = exact.norm()
    noise = float((stacked - exact).norm(dim=1).square().mean().sqrt() / size)
    if paired is None:
        bias = float((stacked.mean(dim=0) - exact).norm() / size)
        chance = float((stacked - stacked.mean(dim=0)).norm(dim=1).square().sum().sqrt() / len(stacked) / size)
        text = f"{bias:.2f} (chance {chance:.2f})" if len(gradients) > 1 else f"{bias:.2f}"
    else:
        text = f"{float((stacked - torch.stack(paired)).mean(dim=0).norm() / size):.1e}"
    return f"| {name} | {text} | {noise:.2f} | {ratio:.1f} |"


def median_seconds(step: Callable[[Batch], object], batches: list[Batch]) -> float:
    """Median CPU time of a step over the batches."""
    return float(np.median([seconds(lambda b=batch: step(b)) for batch in batches]))


def measure(args: argparse.Namespace) -> str:
    """Train a little, take all gradients, and return the markdown."""
    model = our_model(MODEL)
    train_a_little(model, dataset(args.store, {"mode": "random"}), args.steps)
    full = dataset(args.store, {"mode": "full"})
    labelled = np.flatnonzero(full.store.has_hessian)
    if len(labelled) < args.geometries:
        raise SystemExit(f"{args.store}: {len(labelled)} labelled geometries; give --geometries of no more")
    chosen = np.random.default_rng(1).choice(labelled, args.geometries, replace=False)

    def batch_of(source: HessianDataset) -> Batch:
        return AtomicDataDict.batched_from_list(copy.deepcopy(source[chosen]))

    whole = batch_of(full)
    # every chosen geometry is labelled: the weight that a sparse store would give them is taken out
    weight = float(whole["hessian_weight"].max())
    still = batch_of(dataset(args.store, None))
    plain, term = EnergyForceLoss(type_names=SYMBOLS), HessianMeanSquaredError()
    loss = EnergyForceHessianLoss(type_names=SYMBOLS)
    exact = gradient(model, lambda: term(model(dict(whole)), whole)) / weight
    base = median_seconds(lambda b: gradient(model, lambda: plain(model(dict(b)), b)["weighted_sum"]), [still] * 7)
    rows = []
    for way in tqdm(WAYS, disable=None, desc="ways"):
        draws = 1 if way["mode"] in ("full", "modes") else args.draws
        ways = [way] if "method" not in way else [way, {"mode": way["mode"], "k": way["k"]}]
        drawn = [[batch_of(source) for _ in range(draws)] for source in (dataset(args.store, w) for w in ways)]
        found = [[gradient(model, lambda b=b: term(model(dict(b)), b)) / weight for b in batches] for batches in drawn]
        spent = median_seconds(
            lambda b: gradient(model, lambda: loss(model(dict(b)), b)["weighted_sum"]), (drawn[0] * 3)[:7]
        )
        name = "`{" + ", ".join(f"{key}: {value}" for key, value in way.items()) + "}`"
        rows.append(row(name, found[0], exact, spent / base, found[1] if len(found) > 1 else None))
    for displacement in DISPLACEMENTS:
        source = dataset(args.store, {"method": "taylor", "displacement": displacement})
        found = [taylor_gradient(model, batch_of(source), still, displacement) for _ in range(args.draws)]
        rows.append(row(f"`{{method: taylor, displacement: {displacement}}}`", found, exact, 1.0))
    atoms = still["num_atoms"].reshape(-1)
    head = (
        f"{machine()}. {DESCRIPTIONS[MODEL]}, float64; {args.geometries} molecules of {int(atoms.min())} to "
        f"{int(atoms.max())} atoms, {args.draws} draws; energy-force step {base:.3f} s of CPU."
    )
    return "\n".join(
        [head, "", "| `hessian:` | bias of the gradient | noise of one step | time |", "|---|---|---|---|", *rows]
    )


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="a Hessian store of molecules of H, C, N, O")
    parser.add_argument("--geometries", type=int, default=24)
    parser.add_argument("--draws", type=int, default=48)
    parser.add_argument("--steps", type=int, default=30)
    add_write_option(parser)
    args = parser.parse_args()
    set_global_state()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = measure(args)
    print(text)
    if args.write is not None:
        write_block(args.write, SCRIPT, text)


if __name__ == "__main__":
    main()
