"""Cost of Hessian training: time and peak memory of every way over those of the energy-force step, from one run.

    python benchmarks/training.py datasets/reactions-xtb/small.zarr.zip [--model allegro] [--compile] [--json FILE]
                                  [--write docs/training.md]
    python benchmarks/training.py --table FILE [--write docs/training.md]     # of a run that was saved

One batch of labelled molecules from a store; a step is the forward pass, the loss and the backward pass, of the
plain NequIP or Allegro model for the energy-force step. Steps of all rows take turns, so that other work on the
machine hits all alike, and the median of each row's ratio to the energy-force step of its turn is given. Rows that take
long are run in every third turn only. Columns:

    time     CPU time (on a GPU: elapsed time between synchronisations) over that of the energy-force step
    memory   most memory that a step held at one time above what was in use before it (see measuring.py), over the same
             of the energy-force step; median of three steps

Below the line the full matrix as published codes take it, of the same model: molecule by molecule with
torch.autograd.functional.hessian (a forward pass for the rows of each molecule; DeePMD-kit and SchNetPack go that
way), and row by row of each molecule's own forces (HORM, for all rows in place of its two). Rows that were not
measured say so. Last, what the loader costs for a geometry: the neighbour list, the packed Hessian, one product.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Work, add_write_option, machine, peak_bytes, seconds, write_block
from nequip.data import AtomicDataDict
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.train import EnergyForceLoss
from nequip.utils.global_state import set_global_state
from tqdm import tqdm
from untrained import DESCRIPTIONS, R_MAX, SYMBOLS, dataset, our_model, plain_model

from nequip_hessian.curvature import packed_product
from nequip_hessian.data import HessianDataset
from nequip_hessian.train import EnergyForceHessianLoss

SCRIPT = {"nequip": "benchmarks/training.py", "allegro": "benchmarks/training.py --model allegro"}
COEFFS = {"total_energy": 1.0, "forces": 1.0, "hessian": 0.01}
Batch = dict[str, torch.Tensor]
NOT_MEASURED = "not measured"
PROBES: dict[str, dict[str, Any]] = {
    "k1": {"mode": "random", "k": 1},
    "quarter": {"mode": "random", "k": 1, "probe_fraction": 0.25},
    "quarter finite": {"mode": "random", "k": 1, "probe_fraction": 0.25, "method": "finite_difference"},
    "quarter forward": {"mode": "random", "k": 1, "probe_fraction": 0.25, "method": "forward_difference"},
    "finite": {"mode": "random", "k": 1, "method": "finite_difference"},
    "forward": {"mode": "random", "k": 1, "method": "forward_difference"},
    "k2": {"mode": "random", "k": 2},
    "k4": {"mode": "random", "k": 4},
    "k8": {"mode": "random", "k": 8},
    "full": {"mode": "full"},
}
# name, probes, way, memory in units of the energy-force step's (None: all that is free)
ROWS: tuple[tuple[str, str, str, float | None], ...] = (
    ("k = 1", "k1", "auto", None),
    ("k = 1, probe_fraction 0.25", "quarter", "auto", None),
    ("k = 1, probe_fraction 0.25, finite_difference", "quarter finite", "auto", None),
    ("k = 1, probe_fraction 0.25, forward_difference", "quarter forward", "auto", None),
    ("k = 1, finite_difference", "finite", "auto", None),
    ("k = 1, forward_difference", "forward", "auto", None),
    *((f"k = {k}, {way}", f"k{k}", way, None) for k in (2, 4, 8) for way in ("loop", "copies")),
    ("full, loop", "full", "loop", None),
    ("full, copies", "full", "copies", None),
    ("full, loop, budget of 1.2 energy-force steps", "full", "loop", 1.2),
    ("full, loop, budget of 2 energy-force steps", "full", "loop", 2.0),
    ("full, copies, budget of 1.2 energy-force steps", "full", "copies", 1.2),
)
LONG = ("full", "of each molecule")  # rows that are not run in every turn
BATCH = 8
COMPILED: tuple[tuple[str, str], ...] = (
    ("k = 1", "k1"),
    ("k = 1, probe_fraction 0.25", "quarter"),
    ("k = 4", "k4"),
    ("full", "full"),
)


def step_of(model: Any, loss: Any, batch: Batch) -> Work:
    """Forward pass, loss, backward pass."""

    def step() -> None:
        loss(model(dict(batch)), batch)["weighted_sum"].backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def molecules_apart(model: Any, batch: Batch, *, functional: bool) -> Work:
    """The full-matrix step molecule by molecule: `functional.hessian`, or each row from the molecule's own forces."""
    frames = [AtomicDataDict.frame_from_batched(batch, i) for i in range(len(batch["num_atoms"]))]
    loss = EnergyForceLoss(type_names=SYMBOLS)

    def hessian(frame: Batch) -> torch.Tensor:
        inputs = {k: v for k, v in frame.items() if not k.startswith("hessian")}
        if functional:

            def energy(position: torch.Tensor) -> torch.Tensor:
                return model.model.func({**inputs, "pos": position})["total_energy"].sum()

            found = torch.autograd.functional.hessian(energy, inputs["pos"], create_graph=True)
        else:
            position = inputs["pos"].detach().requires_grad_(True)
            total = model.model.func({**inputs, "pos": position})["total_energy"].sum()
            (gradient,) = torch.autograd.grad(total, position, create_graph=True)
            rows = [torch.autograd.grad(g, position, create_graph=True)[0] for g in gradient.reshape(-1)]
            found = torch.stack(rows)
        return found.reshape(inputs["pos"].numel(), -1)

    def step() -> None:
        value = loss(model({k: v for k, v in batch.items() if not k.startswith("hessian")}), batch)["weighted_sum"]
        for frame in frames:
            n = frame["pos"].numel()
            # columns of unit vectors: the labels of mode full are the rows of the matrix
            label = frame["hessian_product"].view(n // 3, -1, 3)[:, :n].transpose(0, 1).reshape(n, n)
            value = value + COEFFS["hessian"] * (hessian(frame) - label).square().mean() / len(frames)
        value.backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def loader_microseconds(source: HessianDataset, indices: np.ndarray[Any, Any], repeats: int = 200) -> dict[str, float]:
    """Time of a geometry's neighbour list, packed Hessian and one product, median, microseconds."""
    mapper, neighbours = ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)
    bare = [mapper(source._read(int(i))) for i in indices]
    times: dict[str, list[float]] = {"neighbour list": [], "packed Hessian and one product": []}
    rng = np.random.default_rng(0)
    for turn in range(repeats):
        index, data = int(indices[turn % len(indices)]), bare[turn % len(indices)]
        start = time.perf_counter()
        neighbours(dict(data))
        times["neighbour list"].append(time.perf_counter() - start)
        n = 3 * len(data["pos"])
        probe = rng.choice([-1.0, 1.0], (1, n)) / np.sqrt(n)
        start = time.perf_counter()
        packed = source.store.packed(index)
        packed_product(packed, probe.astype(packed.dtype))
        times["packed Hessian and one product"].append(time.perf_counter() - start)
    return {name: 1e6 * float(np.median(found)) for name, found in times.items()}


def choose(source: HessianDataset, smallest: int, largest: int, count: int) -> np.ndarray[Any, Any]:
    """Labelled geometries of `smallest` to `largest` atoms, one of the largest among them."""
    atoms = np.diff(source.store.atom_offset)
    fit = np.flatnonzero(source.store.has_hessian & (atoms >= smallest) & (atoms <= largest))
    if len(fit) < count:
        raise SystemExit(f"only {len(fit)} labelled geometries of {smallest} to {largest} atoms; give another --atoms")
    big = fit[atoms[fit] == atoms[fit].max()][:1]
    rest = np.random.default_rng(0).choice(np.setdiff1d(fit, big), count - 1, replace=False)
    return np.concatenate([big, rest])


def make_rows(args: argparse.Namespace, batches: dict[str, Batch]) -> dict[str, Work]:
    """The steps of all rows, each with a model of its own that shares nothing with others."""
    energy_forces = EnergyForceLoss(type_names=SYMBOLS)
    loss = EnergyForceHessianLoss(COEFFS, type_names=SYMBOLS)
    device = args.device
    steps: dict[str, Work] = {
        "energies and forces": step_of(plain_model(args.model).to(device), energy_forces, batches["plain"])
    }
    steps["energies and forces"]()
    unit = np.median([peak_bytes(steps["energies and forces"], device) for _ in range(5)]) / 1e9
    steps["energies and forces, our model"] = step_of(our_model(args.model).to(device), energy_forces, batches["plain"])
    for name, probes, way, memory in ROWS:
        model = our_model(args.model, product_way=way, product_memory_gb=None if memory is None else memory * unit)
        steps[name] = step_of(model.to(device), loss, batches[probes])
    for name, functional in (("functional.hessian of each molecule", True), ("rows of each molecule", False)):
        steps[name] = molecules_apart(plain_model(args.model).to(device), batches["full"], functional=functional)
    if args.compile:
        compiled = our_model(args.model, compile_mode="compile").to(device)
        plain = plain_model(args.model, compile_mode="compile").to(device)
        steps["compiled: energies and forces"] = step_of(plain, energy_forces, batches["plain"])
        for name, probes in COMPILED:
            steps[f"compiled: {name}"] = step_of(compiled, loss, batches[probes])
    return steps


def make_batches(args: argparse.Namespace, chosen: np.ndarray[Any, Any]) -> dict[str, Batch]:
    """The same geometries with the probes of each way."""
    batches = {}
    for name, hessian in {"plain": None, **PROBES}.items():
        batch = AtomicDataDict.batched_from_list(dataset(args.store, hessian)[chosen])
        if name == "full":  # the batch's own largest molecule, not the store's
            width = 9 * int(batch["num_atoms"].max())
            for key in ("hessian_probe", "hessian_product"):
                batch[key] = batch[key][:, :width].contiguous()
        batches[name] = {key: value.to(args.device) for key, value in batch.items()}
    return batches


def take_turns(steps: dict[str, Work], device: str, repeats: int) -> dict[str, float]:
    """Median of the ratio of each step's time to that of the first step in the same turn, and that of the first."""
    first, *_ = steps
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in tqdm(range(repeats), file=sys.stderr, disable=None, desc="turns"):
        unit = seconds(steps[first], device)
        times[first].append(unit)
        for name, step in steps.items():
            if name != first and (turn % 3 == 0 or not any(part in name for part in LONG)):
                times[name].append(seconds(step, device) / unit)
    return {name: float(np.median(found)) for name, found in times.items()}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rows of one model on one machine."""
    set_global_state()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    bare = dataset(args.store, None)
    chosen = choose(bare, *args.atoms, args.batch)
    batches = make_batches(args, chosen)
    steps = make_rows(args, batches)
    first = "energies and forces"
    wanted = {name: step for name, step in steps.items() if not args.only or any(part in name for part in args.only)}
    wanted = {first: steps[first], **wanted}
    memory = {}
    for name, step in tqdm(wanted.items(), file=sys.stderr, disable=None, desc="memory"):
        step()  # the first one also brings code into memory, or compiles
        memory[name] = float(np.median([peak_bytes(step, args.device) for _ in range(3)]))
    times = take_turns(wanted, args.device, args.repeats)
    step_seconds, times[first] = times[first], 1.0
    slower = {}
    for name in (first, "k = 1") if args.device == "cpu" else ():
        if name in wanted:
            found = [[seconds(wanted[name], allocator=one) for one in ("gives back", "keeps")] for _ in range(3)]
            slower[name] = float(np.median([a / b for a, b in found]))
    names = list(wanted) if args.only else [*steps, *([] if args.compile else [f"compiled: {n}" for n, _ in COMPILED])]
    return {
        "where": machine(args.device),
        "model": args.model,
        "batch": {"molecules": args.batch, "atoms": int(batches["plain"]["num_atoms"].sum())},
        "degrees_of_freedom": 3 * int(batches["plain"]["num_atoms"].max()),
        "turns": args.repeats,
        "glibc": slower,
        "energy_force_step": {"seconds": step_seconds, "bytes": memory[first]},
        "rows": [
            {"name": name, "time": times.get(name), "memory": memory[name] / memory[first] if name in memory else None}
            for name in names
        ],
        "loader": loader_microseconds(bare, chosen),
    }


def table(found: dict[str, Any]) -> str:
    """The markdown of a run."""
    step, batch = found["energy_force_step"], found["batch"]
    lines = [
        f"{found['where']}. {DESCRIPTIONS[found['model']]}, float64; {batch['molecules']} molecules, {batch['atoms']} "
        f"atoms, at most {found['degrees_of_freedom']} degrees of freedom; energy-force step {step['seconds']:.3g} s, "
        f"{step['bytes'] / 1e6:.0f} MB; {found['turns']} turns.",
        "",
        "| step | time | memory |",
        "|---|---:|---:|",
    ]
    for row in found["rows"]:
        numbers = [NOT_MEASURED if row[key] is None else f"{row[key]:.2f}" for key in ("time", "memory")]
        lines.append(f"| {row['name']} | {numbers[0]} | {numbers[1]} |")
    lines.append("")
    lines.append("Loader, a geometry: " + ", ".join(f"{n} {v:.0f} µs" for n, v in found["loader"].items()) + ".")
    if found.get("glibc"):
        ratios = ", ".join(f"{name} {ratio:.1f}" for name, ratio in found["glibc"].items())
        lines += ["", f"Where glibc hands freed memory back to the system, steps take longer, times: {ratios}."]
    return "\n".join(lines)


def main() -> None:
    """Measure, or print a saved run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", help="a Hessian store of molecules of H, C, N, O")
    parser.add_argument("--model", choices=["nequip", "allegro"], default="nequip")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"molecules (default {BATCH})")
    parser.add_argument("--atoms", type=int, nargs=2, default=[8, 14], metavar=("FROM", "TO"), help="default 8 14")
    parser.add_argument("--repeats", type=int, default=4, help="turns (default 4)")
    parser.add_argument("--compile", action="store_true", help="compiled rows too (minutes)")
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose names contain one of these")
    parser.add_argument("--json", type=Path, help="save the numbers here")
    parser.add_argument("--table", type=Path, help="print the table of a saved run and measure nothing")
    add_write_option(parser)
    args = parser.parse_args()
    if args.table is None and args.store is None:
        parser.error("give a store, or --table with a saved run")
    found = measure(args) if args.table is None else json.loads(args.table.read_text())
    if args.table is None and args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    if args.write is not None:
        molecules = found["batch"]["molecules"]
        block = SCRIPT[found["model"]] + (f" --batch {molecules}" if molecules != BATCH else "")
        write_block(args.write, block, table(found))


if __name__ == "__main__":
    main()
