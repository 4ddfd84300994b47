"""Hessians at inference: products, time and memory against the number of atoms, and against what others do.

    python benchmarks/inference.py [--atoms 50 100 200] [--limit 10] [--out out/inference] [--write docs/inference.md]
                                   [--compiled out/nequip_hessian.nequip.pt2]

Models are small and untrained (NequIP: 2 layers, l = 1, 16 features; Allegro: 1 layer, l = 1; cutoff 4 angstrom,
float64): cost does not depend on weights. One thread. Times are CPU seconds of the process (wall seconds on a GPU), and
also given as a multiple of one force call on the same geometry and model, which can be compared between machines.

Large geometries: a polyethylene chain and diamond-structure silicon. `sparse` asks for the products of the
colouring, `dense` for 3N. What would take longer than `--limit` seconds is scaled from 6 products, and marked with ~.
Where colouring needs no fewer products it is not used, and the row says so. Above `--timed-atoms` products are
counted and nothing is timed.

Small molecules: the full matrix of one molecule of 14 atoms and of a batch of them, by

    batch         one product for row i of every molecule (this package)
    rows          each molecule on its own, 3N calls of torch.autograd.grad
    functional    each molecule on its own, torch.autograd.functional.hessian of the energy
    vectorised    each molecule on its own, all rows in one torch.autograd.grad(is_grads_batched=True)
    differences   6N force calls (central differences), all molecules displaced in one batch
    compiled      a file of nequip-compile --target hessian, with --compiled

Memory is the most that was held at one time above what was in use before (see measuring.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from measuring import add_write_option, machine, peak_bytes, seconds, write_block
from nequip.data import AtomicDataDict
from untrained import calculator

from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.model.matrix import eager_products

SYMBOLS = ["H", "C", "O", "Si"]
R_MAX = 4.0
KINDS = {"NequIP": "small nequip", "Allegro": "small allegro"}
SCRIPT = "benchmarks/inference.py"
PROBED = 6  # products that stand for all of a dense Hessian that would take too long
MOLECULES = 4


def chain(n_atoms: int) -> Atoms:
    """A polyethylene chain of about `n_atoms` atoms."""
    units = max(1, n_atoms // 3)
    side = np.where(np.arange(units) % 2, -1.0, 1.0)
    carbon = np.stack([1.27 * np.arange(units), 0.42 * side, np.zeros(units)], axis=1)
    out = np.stack([np.zeros(units), 0.6 * side, np.full(units, 0.9)], axis=1)
    positions = np.stack([carbon, carbon + out, carbon + out * [1, 1, -1]], axis=1).reshape(-1, 3)
    return Atoms(["C", "H", "H"] * units, positions)


def silicon(n_atoms: int) -> Atoms:
    """A silicon crystal of about `n_atoms` atoms, as near to a cube as cubic cells of 8 atoms make it."""
    sides = range(1, 9)
    choices = [(a, a + (k > 1), a + (k > 0)) for a in sides for k in range(3)]
    nearest = min(choices, key=lambda c: abs(8 * c[0] * c[1] * c[2] - n_atoms))
    return bulk("Si", cubic=True).repeat(nearest)


GEOMETRIES: dict[str, Callable[[int], Atoms]] = {"polyethylene chain": chain, "silicon crystal": silicon}


def best(work: Callable[[], object], device: str, repeat: int = 3) -> float:
    """The shortest of a few runs."""
    return min(seconds(work, device) for _ in range(repeat))


def product_seconds(calc: HessianCalculator, atoms: Atoms, device: str) -> float:
    """Time of one product."""
    data = AtomicDataDict.batched_from_list([calc.atoms_to_data(atoms)])
    probes = torch.zeros(PROBED, len(atoms), 3, dtype=torch.float64, device=device)
    for index, probe in enumerate(probes):
        probe[index // 3, index % 3] = 1.0
    products = eager_products(calc.model, data)
    return seconds(lambda: products(probes), device) / PROBED


def large(kind: str, name: str, n_atoms: int, limit: float, timed: int, device: str) -> dict[str, Any]:
    """One row of the table of large geometries."""
    atoms = GEOMETRIES[name](n_atoms)
    atoms.rattle(0.02, seed=1)
    calc = calculator(KINDS[kind], SYMBOLS, R_MAX, device)
    calc.hops()
    found: dict[str, Any] = {}
    planning = seconds(lambda: found.update(plan=calc.plan(atoms)), device)
    plan = found["plan"]
    sparse = plan.pattern is not None
    row: dict[str, Any] = {
        "model": kind, "geometry": name, "atoms": len(atoms), "hops": calc.hops(), "device": device, "plan": planning,
        "products": {"dense": 3 * len(atoms), "sparse": plan.n_products + 1 if sparse else None}, "time": {},
    }  # fmt: skip
    if len(atoms) > timed:
        return row
    row["force"] = best(lambda: calc.evaluate_many([atoms]), device)
    one = product_seconds(calc, atoms, device)
    for way, products in row["products"].items():
        if products is None:
            continue
        spent, measured = one * products + (planning if way == "sparse" else 0.0), False
        if spent <= limit:
            calc.sparse = way == "sparse"
            spent, measured = seconds(lambda: calc.get_sparse_hessian(atoms), device), True
        row["time"][way] = {"seconds": spent, "measured": measured}
    return row


def energy_of(calc: HessianCalculator, data: Any, positions: torch.Tensor) -> torch.Tensor:
    """Energy as a function of positions, without forces."""
    module = calc.model.model
    inputs = AtomicDataDict.with_batch_({**data, AtomicDataDict.POSITIONS_KEY: positions})
    return module.func(inputs)[AtomicDataDict.TOTAL_ENERGY_KEY].sum()


def by_rows(calc: HessianCalculator, atoms: Atoms, vectorised: bool = False) -> torch.Tensor:
    """One molecule: gradient, then a row at a time, or all rows vectorised."""
    data = calc.atoms_to_data(atoms)
    positions = data[AtomicDataDict.POSITIONS_KEY].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy_of(calc, data, positions), positions, create_graph=True)
    unit = torch.eye(positions.numel(), dtype=positions.dtype, device=positions.device).view(-1, *positions.shape)
    if vectorised:
        return torch.autograd.grad(gradient, positions, unit, is_grads_batched=True)[0]
    return torch.stack([torch.autograd.grad(gradient, positions, row, retain_graph=True)[0] for row in unit])


def by_functional(calc: HessianCalculator, atoms: Atoms) -> torch.Tensor:
    """One molecule: torch.autograd.functional.hessian of the energy."""
    data = calc.atoms_to_data(atoms)
    start = data[AtomicDataDict.POSITIONS_KEY]
    return torch.autograd.functional.hessian(lambda x: energy_of(calc, data, x), start)


def by_differences(calc: HessianCalculator, molecules: list[Atoms]) -> list[np.ndarray]:
    """Central differences of forces, all displaced molecules in batches."""
    from nequip_hessian.curvature import SECOND_ORDER, difference_hessian, displaced

    moved = [Atoms(a.numbers, x) for a in molecules for x in displaced(a.positions, 1e-3, SECOND_ORDER)]
    forces = iter([f for _, f in calc.evaluate_many(moved)])
    return [difference_hessian([next(forces) for _ in range(6 * len(a))], 1e-3, SECOND_ORDER) for a in molecules]


def ways(calc: HessianCalculator, compiled: HessianCalculator | None) -> dict[str, Callable[[list[Atoms]], Any]]:
    """The ways to the full matrices of small molecules."""
    table: dict[str, Callable[[list[Atoms]], Any]] = {
        "batch": calc.get_hessians,
        "rows": lambda molecules: [by_rows(calc, a) for a in molecules],
        "vectorised": lambda molecules: [by_rows(calc, a, vectorised=True) for a in molecules],
        "functional": lambda molecules: [by_functional(calc, a) for a in molecules],
        "differences": lambda molecules: by_differences(calc, molecules),
    }
    if compiled is not None:
        table["compiled"] = compiled.get_hessians
    return table


def small(kind: str, device: str, path: str | None, count: int) -> list[dict[str, Any]]:
    """Rows of one molecule and of a batch, by each way; matrices are compared first."""
    calc = calculator(KINDS[kind], SYMBOLS, R_MAX, device)
    compiled = HessianCalculator.from_file(path, device=device) if path else None
    batch = []
    for seed in range(count):
        batch.append(molecule("trans-butane"))  # C4H10, 14 atoms
        batch[-1].rattle(0.05, seed=seed)
    rows, water = [], molecule("H2O")
    for molecules in (batch[:1], batch):
        reference = calc.get_hessians(molecules)
        force = best(lambda m=molecules: calc.evaluate_many(m), device, 5)
        for way, work in ways(calc, compiled).items():
            answers: list[Any] = []
            work([water])  # what is done once is done
            spent = seconds(lambda w=work, m=molecules, a=answers: a.extend(w(m)), device)
            arrays = [np.asarray(getattr(a, "cpu", lambda a=a: a)()).reshape(42, 42) for a in answers]
            off = max(float(np.abs(a - r).max()) for a, r in zip(arrays, reference, strict=True))
            row = {"model": kind, "molecules": len(molecules), "way": way, "time": spent, "force": force}
            rows.append({**row, "off": None if way == "compiled" else off, "device": device})
    return rows


def memory(kind: str, device: str, name: str, n_atoms: int) -> dict[str, Any]:
    """Peak memory, MiB, of forces, of a dense Hessian (a few of its products: more need no more) and a sparse one."""
    calc = calculator(KINDS[kind], SYMBOLS, R_MAX, device)
    atoms = GEOMETRIES[name](n_atoms)
    atoms.rattle(0.02, seed=1)
    calc.hops()
    row: dict[str, Any] = {"model": kind, "geometry": name, "atoms": len(atoms), "device": device}
    row["forces"] = peak_bytes(lambda: calc.evaluate_many([atoms]), device) / 2**20
    calc.sparse = False
    row["dense"] = peak_bytes(lambda: calc.get_sparse_hessian(atoms, range(min(16, len(atoms)))), device) / 2**20
    calc.sparse = True
    row["sparse"] = peak_bytes(lambda: calc.get_sparse_hessian(atoms), device) / 2**20
    return row


def _in_force_calls(row: dict[str, Any], way: str) -> str:
    if row["products"][way] is None:
        return "not used: no fewer products"
    if way not in row["time"]:
        return "not timed"
    mark = "" if row["time"][way]["measured"] else "~"
    return f"{mark}{row['time'][way]['seconds'] / row['force']:.0f}x"


def large_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown of the large geometries."""
    lines = [
        "| model | geometry | atoms | products, dense | sparse | force call, s | dense | sparse | colouring, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        products = [str(number or "the same") for number in r["products"].values()]
        force = f"{r['force']:.3f}" if "force" in r else ""
        times = [_in_force_calls(r, way) for way in ("dense", "sparse")]
        cells = [r["model"], r["geometry"], str(r["atoms"]), *products, force, *times, f"{r['plan']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def small_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown of the small molecules."""
    lines = [
        "| model | molecules | way | CPU seconds | force calls | largest deviation, eV/Å² |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        off = "another model's file" if r["off"] is None else f"{r['off']:.0e}"
        cells = (r["model"], r["molecules"], r["way"], f"{r['time']:.4f}", f"{r['time'] / r['force']:.1f}", off)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def memory_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown of peak memory."""
    lines = ["| model | geometry | atoms | forces, MiB | dense Hessian | sparse Hessian |", "|---|---|---|---|---|---|"]
    for r in rows:
        cells = (r["model"], r["geometry"], r["atoms"], *(f"{r[what]:.0f}" for what in ("forces", "dense", "sparse")))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def report(results: dict[str, Any]) -> str:
    """All tables as Markdown."""
    lines = [results["where"], "", *large_table(results["large"])]
    lines += ["", "One molecule of 14 atoms, and a batch of them:", "", *small_table(results["small"])]
    lines += ["", "Most memory held at one time, above what was in use before:", "", *memory_table(results["memory"])]
    if not results["gpu"]:
        lines += ["", "On a GPU: not measured."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000])
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that one Hessian may take (default 10)")
    parser.add_argument("--timed-atoms", type=int, default=1000, help="largest geometry that is timed (default 1000)")
    parser.add_argument("--memory-atoms", type=int, default=200)
    parser.add_argument("--compiled", help="a file of nequip-compile --target hessian, of a model of C and H")
    parser.add_argument("--out", type=Path, help="folder for inference.json and inference.md")
    parser.add_argument("--molecules", type=int, default=MOLECULES, help="molecules of the batch (default 4)")
    add_write_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    results: dict[str, Any] = {"large": [], "small": [], "memory": [], "gpu": len(devices) > 1}
    for device in devices:
        for kind in ("NequIP", "Allegro"):
            results["small"] += small(kind, device, args.compiled if kind == "NequIP" else None, args.molecules)
            for name in GEOMETRIES:
                for n_atoms in args.atoms:
                    results["large"].append(large(kind, name, n_atoms, args.limit, args.timed_atoms, device))
                    print(large_table(results["large"][-1:])[-1], flush=True)
                results["memory"].append(memory(kind, device, name, args.memory_atoms))
    results["where"] = f"{machine(devices[-1])}, float64."
    text = report(results)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "inference.json").write_text(json.dumps(results, indent=1))
        (args.out / "inference.md").write_text(text)
    if args.write:
        write_block(args.write, SCRIPT, text)


if __name__ == "__main__":
    main()
