"""Cost of Hessian training: time and peak memory of every way over those of the energy-force step, from one run.

    python benchmarks/training.py datasets/reactions-xtb/small.zarr.zip [--model allegro] [--compile] [--json FILE]
    python benchmarks/training.py --table FILE        # the markdown of a run that was saved

One batch of labelled molecules from a store; a step is the forward pass, the loss and the backward pass, of the
plain NequIP or Allegro model for the energy-force step. Steps of all rows take turns, so that other work on the
machine hits all alike, and the median of each row's ratio to the energy-force step of its turn is given. Columns:

    time     CPU time (on a GPU: elapsed time between synchronisations) over that of the energy-force step
    memory   highest resident (on a GPU: allocated) memory during a step above what was in use before, over the same of
             the energy-force step

Below the line the full matrix as published codes take it, of the same model: molecule by molecule with
torch.autograd.functional.hessian (a forward pass for the rows of each molecule; DeePMD-kit and SchNetPack go that
way), and row by row of each molecule's own forces (HORM, for all rows in place of its two). Rows that were not
measured say so. Last, what the loader costs for a geometry: the neighbour list, the packed Hessian, one product.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nequip.data import AtomicDataDict
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.train import EnergyForceLoss
from nequip.utils.global_state import set_global_state
from tqdm import tqdm

from nequip_hessian.curvature import packed_product
from nequip_hessian.data import HessianDataset
from nequip_hessian.model.builders import AllegroModel, NequIPGNNModel
from nequip_hessian.train import EnergyForceHessianLoss

SYMBOLS = ["H", "C", "N", "O"]
R_MAX = 5.0
COEFFS = {"total_energy": 1.0, "forces": 1.0, "hessian": 0.01}
Batch = dict[str, torch.Tensor]
Step = Callable[[], object]
NOT_MEASURED = "not measured"
PROBES: dict[str, dict[str, Any]] = {
    "k1": {"mode": "random", "k": 1},
    "quarter": {"mode": "random", "k": 1, "probe_fraction": 0.25},
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
    ("k = 1, finite_difference", "finite", "auto", None),
    ("k = 1, forward_difference", "forward", "auto", None),
    *((f"k = {k}, {way}", f"k{k}", way, None) for k in (2, 4, 8) for way in ("loop", "copies")),
    ("full, loop", "full", "loop", None),
    ("full, copies", "full", "copies", None),
    ("full, loop, little memory", "full", "loop", 1.0),
    ("full, copies, little memory", "full", "copies", 1.0),
)
COMPILED: tuple[tuple[str, str], ...] = (
    ("k = 1", "k1"),
    ("k = 1, probe_fraction 0.25", "quarter"),
    ("k = 4", "k4"),
    ("full", "full"),
)


def settings(kind: str) -> dict[str, Any]:
    """A NequIP model of 3 layers, l = 1, 32 features, or an Allegro model of 2 layers, l = 2; float64."""
    common: dict[str, Any] = {
        "seed": 1,
        "model_dtype": "float64",
        "type_names": SYMBOLS,
        "r_max": R_MAX,
        "avg_num_neighbors": 8.0,
        "per_type_energy_scales": 1.0,
        "per_type_energy_shifts": 0.0,
    }
    if kind == "nequip":
        return {**common, "num_layers": 3, "l_max": 1, "num_features": 32}
    return {
        **common,
        "l_max": 2,
        "num_layers": 2,
        "num_scalar_features": 32,
        "num_tensor_features": 8,
        "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed"},
        "radial_chemical_embed_dim": 32,
        "scalar_embed_mlp_hidden_layers_width": 32,
        "allegro_mlp_hidden_layers_width": 32,
        "readout_mlp_hidden_layers_width": 16,
    }


def plain_model(kind: str, **options: Any) -> Any:
    """The model of NequIP or Allegro, without anything of ours."""
    if kind == "nequip":
        from nequip.model import NequIPGNNModel as Plain
    else:
        from allegro.model import AllegroModel as Plain
    return Plain(**settings(kind), **options)


def our_model(kind: str, **options: Any) -> Any:
    """The same with products."""
    return (NequIPGNNModel if kind == "nequip" else AllegroModel)(**settings(kind), **options)


class Clock:
    """CPU time of this process, or on a GPU the time between synchronisations; and the memory above the start."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def seconds(self) -> float:
        """Now."""
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def peak(self, step: Step) -> float:
        """Bytes that a step needs above what was in use before it."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            return float(torch.cuda.max_memory_allocated() - before)
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
        before = _status("VmRSS")
        step()
        return _status("VmHWM") - before


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024.0 * float(line.split()[1])
    raise OSError(f"/proc/self/status: no {name}")


def step_of(model: Any, loss: Any, batch: Batch) -> Step:
    """Forward pass, loss, backward pass."""

    def step() -> None:
        loss(model(dict(batch)), batch)["weighted_sum"].backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def molecules_apart(model: Any, batch: Batch, *, functional: bool) -> Step:
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


def make_rows(args: argparse.Namespace, batches: dict[str, Batch], clock: Clock) -> dict[str, Step]:
    """The steps of all rows, each with a model of its own that shares nothing with others."""
    energy_forces = EnergyForceLoss(type_names=SYMBOLS)
    loss = EnergyForceHessianLoss(COEFFS, type_names=SYMBOLS)
    device = args.device
    steps: dict[str, Step] = {
        "energies and forces": step_of(plain_model(args.model).to(device), energy_forces, batches["plain"])
    }
    unit = clock.peak(steps["energies and forces"]) / 1e9
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


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rows of one model on one machine."""
    set_global_state()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    device = torch.device(args.device)
    clock = Clock(device)

    def dataset(hessian: dict[str, Any] | None) -> HessianDataset:
        transforms = [ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)]
        return HessianDataset(args.store, hessian=hessian, seed=1, transforms=transforms)

    bare = dataset(None)
    chosen = choose(bare, *args.atoms, args.batch)
    batches = {}
    for name, hessian in {"plain": None, **PROBES}.items():
        batch = AtomicDataDict.batched_from_list(dataset(hessian)[chosen])
        if name == "full":  # the batch's own largest molecule, not the store's
            width = 9 * int(batch["num_atoms"].max())
            for key in ("hessian_probe", "hessian_product"):
                batch[key] = batch[key][:, :width].contiguous()
        batches[name] = {key: value.to(device) for key, value in batch.items()}
    steps = make_rows(args, batches, clock)
    wanted = {name: step for name, step in steps.items() if not args.only or any(part in name for part in args.only)}
    wanted = {"energies and forces": steps["energies and forces"], **wanted}
    first = "energies and forces"
    for step in wanted.values():  # compiles, and measures the graphs where the memory is given
        step()
    memory = {name: clock.peak(step) for name, step in wanted.items()}
    times: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in tqdm(range(args.repeats), file=sys.stderr, disable=None, desc="repeats"):
        for name, step in wanted.items():
            start = clock.seconds()
            step()
            times[name].append(clock.seconds() - start)
    return {
        "date": str(datetime.now(tz=UTC).date()),
        "hardware": _hardware(device),
        "torch": torch.__version__,
        "model": args.model,
        "batch": {"molecules": args.batch, "atoms": int(batches["plain"]["num_atoms"].sum())},
        "degrees_of_freedom": 3 * int(batches["plain"]["num_atoms"].max()),
        "energy_force_step": {"seconds": float(np.median(times[first])), "bytes": memory[first]},
        "rows": [
            {
                "name": name,
                "time": float(np.median(np.array(times[name]) / np.array(times[first]))),
                "memory": memory[name] / memory[first],
            }
            if name in wanted
            else {"name": name, "time": None, "memory": None}
            for name in [*steps, *([] if args.compile else [f"compiled: {n}" for n, _ in COMPILED])]
        ],
        "loader": loader_microseconds(bare, chosen),
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"one thread of a CPU ({platform.machine()}), shared with other work"


def table(found: dict[str, Any]) -> str:
    """The markdown of a run."""
    step, batch = found["energy_force_step"], found["batch"]
    lines = [
        f"{found['date']}, {found['hardware']}, torch {found['torch']}, {found['model']}, float64: "
        f"{batch['molecules']} molecules, {batch['atoms']} atoms, at most {found['degrees_of_freedom']} degrees of "
        f"freedom; energy-force step {step['seconds']:.3g} s, {step['bytes'] / 1e6:.0f} MB",
        "",
        "| step | time | memory |",
        "|---|---|---|",
    ]
    for row in found["rows"]:
        numbers = [NOT_MEASURED if row[key] is None else f"{row[key]:.2f}" for key in ("time", "memory")]
        lines.append(f"| {row['name']} | {numbers[0]} | {numbers[1]} |")
    lines.append("")
    lines.append("Loader, a geometry: " + ", ".join(f"{n} {v:.0f} µs" for n, v in found["loader"].items()))
    return "\n".join(lines)


def main() -> None:
    """Measure, or print a saved run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", help="a Hessian store of molecules of H, C, N, O")
    parser.add_argument("--model", choices=["nequip", "allegro"], default="nequip")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=8, help="molecules (default 8)")
    parser.add_argument("--atoms", type=int, nargs=2, default=[8, 14], metavar=("FROM", "TO"), help="default 8 14")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compiled rows too (minutes)")
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose names contain one of these")
    parser.add_argument("--json", type=Path, help="save the numbers here")
    parser.add_argument("--table", type=Path, help="print the table of a saved run and measure nothing")
    args = parser.parse_args()
    if args.table is not None:
        print(table(json.loads(args.table.read_text())))
        return
    if args.store is None:
        parser.error("give a store, or --table with a saved run")
    found = measure(args)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
