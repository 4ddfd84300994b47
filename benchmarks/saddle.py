"""What a model's Hessian costs, and what it saves in a search for a transition state, from one run.

    python benchmarks/saddle.py [MODEL ...] [--store STORE] [--split SCHEME[:PART]] [--reactions 3] [--starts 2]
                                [--repeats 3] [--write PAGE]

First table: the full Hessian of a small NequIP model (2 layers, l = 1, 16 features, float64, not trained: the cost does
not depend on the weights) against central differences of its forces, 6N of them in batches, for alkane chains of 8 to
41 atoms; median CPU seconds, their ratio, and the largest difference of the two Hessians, over the largest element.
One part in a thousand is the most that the error of the differences may be: beyond it the exit status is 1.

Second table, for each MODEL (NAME=MODEL or MODEL: a NequIP file, tblite, or ase:NAME; default: tblite): transition
states of the test reactions of a store (of the part that --split names), searched with Sella from the labelled one
with random displacements, with the model's Hessian and without, from the same starts. Sums over the starts from which
both found one: steps, force calls, Hessians, CPU seconds, and their ratio. A Hessian by differences of forces counts as
one Hessian; its force calls are in the seconds only.

`--write PAGE` puts both tables of this run between their marks in a page of the documentation (docs/comparison.md).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from nequip_hessian.analysis.outcomes import SPREAD
from nequip_hessian.analysis.prediction import atoms_of, evaluate_atoms
from nequip_hessian.analysis.saddle import SaddleSearch, perturbed, search_saddle
from nequip_hessian.analysis.selection import complete_reactions, select
from nequip_hessian.curvature import SECOND_ORDER, difference_hessian, displaced
from nequip_hessian.evaluate import Model, load_models
from nequip_hessian.store import HessianStore

STEP = 0.002  # angstrom
SIZES = (2, 4, 6, 13)  # carbon atoms of the chains: 8, 14, 20 and 41 atoms
LARGEST_ERROR = 1e-3  # relative, of the differences
MARKS = ("<!-- made by benchmarks/saddle.py -->\n", "<!-- end -->\n")


def chain(carbons: int) -> Atoms:
    """A zigzag alkane CnH2n+2, angstrom; near enough to one for timing."""
    places, symbols = [], []
    for k in range(carbons):
        side = 1 if k % 2 else -1
        centre = np.array([1.27 * k, 0.42 * side, 0.0])
        around = [[0.0, 0.63 * side, 0.89], [0.0, 0.63 * side, -0.89]]
        if k == 0:
            around.append([-0.89, -0.63 * side, 0.0])
        if k == carbons - 1:
            around.append([0.89, -0.63 * side, 0.0])
        places += [centre, *(centre + np.array(shift) for shift in around)]
        symbols += ["C", *["H"] * len(around)]
    return Atoms(symbols, np.array(places))


def untrained() -> Any:
    """An ASE calculator with a small NequIP model."""
    import torch
    from nequip.integrations.utils import basic_transforms
    from nequip.utils.global_state import set_global_state

    from nequip_hessian.calculator import HessianCalculator
    from nequip_hessian.model import NequIPGNNModel

    set_global_state()
    torch.set_num_threads(1)
    symbols = ["H", "C"]
    model = NequIPGNNModel(
        seed=1,
        model_dtype="float64",
        type_names=symbols,
        r_max=4.5,
        num_layers=2,
        l_max=1,
        num_features=16,
        avg_num_neighbors=8.0,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
    )
    model.eval()
    transforms = basic_transforms(model.metadata, 4.5, symbols, {name: name for name in symbols})
    return HessianCalculator(model=model, device="cpu", transforms=transforms)


def by_differences(calculator: Any, atoms: Atoms) -> np.ndarray:
    """The Hessian from 6N forces, in batches where the calculator can."""
    moved = []
    for positions in displaced(atoms.positions, STEP, SECOND_ORDER):
        moved.append(atoms.copy())
        moved[-1].positions = positions
    return np.asarray(
        difference_hessian([forces for _, forces in evaluate_atoms(calculator, moved)], STEP, SECOND_ORDER)
    )


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds, after one call that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return statistics.median(found)


def hessians(repeats: int, sizes: Sequence[int]) -> tuple[list[str], float]:
    """The first table, and the largest relative difference in it."""
    calculator = untrained()
    rows = ["| atoms | full Hessian / CPU s | 6N forces / CPU s | 6N forces over full | largest relative difference |"]
    rows.append("|---:|---:|---:|---:|---:|")
    worst = 0.0
    for carbons in tqdm(sizes, desc="Hessians", disable=None, leave=False):
        atoms = chain(carbons)
        exact = calculator.get_hessian(atoms)
        error = float(np.max(np.abs(by_differences(calculator, atoms) - exact)) / np.max(np.abs(exact)))
        worst = max(worst, error)
        first = seconds(lambda atoms=atoms: calculator.get_hessian(atoms), repeats)
        second = seconds(lambda atoms=atoms: by_differences(calculator, atoms), repeats)
        rows.append(f"| {len(atoms)} | {first:.3f} | {second:.3f} | {second / first:.2f} | {error:.1e} |")
        print(rows[-1], flush=True)
    return rows, worst


def _timed(start: Atoms, calculator: Any, with_hessian: bool) -> tuple[SaddleSearch, float]:
    begun = time.process_time()
    search = search_saddle(start, calculator, with_hessian=with_hessian)
    return search, time.process_time() - begun


def searches(model: Model, store: HessianStore, part: Sequence[str], reactions: int, starts: int) -> list[str]:
    """Two rows of the second table."""
    calculator, rows = model.calculator, []
    chosen = complete_reactions(store, select(store, part)[0], reactions)
    states = [atoms_of(store[r.transition_state]) for r in chosen if r.transition_state is not None]
    guesses = [guess for state in states for guess in perturbed(state, starts + 1, SPREAD)[1:]]
    found: dict[bool, list[tuple[SaddleSearch, float]]] = {True: [], False: []}
    for guess in tqdm(guesses, desc=model.name, disable=None, leave=False):
        for use in (True, False):
            found[use].append(_timed(guess, calculator, use))
    both = [k for k in range(len(guesses)) if not any(found[use][k][0].failure for use in (True, False))]
    spent = {use: sum(found[use][k][1] for k in both) for use in (True, False)}
    for use, name in ((True, "with"), (False, "without")):
        good = sum(search.failure is None for search, _ in found[use])
        counts = [sum(getattr(found[use][k][0], n) for k in both) for n in ("steps", "gradient_calls", "hessian_calls")]
        ratio = f"{spent[use] / spent[True]:.2f}" if spent[True] else "–"
        cells = [model.name, name, f"{good} of {len(guesses)}", *map(str, counts), f"{spent[use]:.1f}", ratio]
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    return rows


def write_into(page: Path, tables: Sequence[Sequence[str]]) -> None:
    """Replace what stands between the marks of a page, table by table."""
    begin, end = MARKS
    pieces = page.read_text(encoding="utf-8").split(begin)
    if len(pieces) != len(tables) + 1 or any(end not in piece for piece in pieces[1:]):
        raise SystemExit(f"{page}: expected {len(tables)} times the lines {begin.strip()} and {end.strip()}")
    text = pieces[0]
    for piece, rows in zip(pieces[1:], tables, strict=True):
        text += begin + "\n".join(rows) + "\n" + end + piece.partition(end)[2]
    page.write_text(text, encoding="utf-8")


def main() -> int:
    """Run both, print Markdown, write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tblite"], metavar="MODEL")
    parser.add_argument("--store", default="datasets/reactions-xtb/small.zarr.zip", help="labelled transition states")
    parser.add_argument("--split", default="reaction:test", metavar="SCHEME:PART", help="default: reaction:test")
    parser.add_argument("--reactions", type=int, default=3)
    parser.add_argument("--starts", type=int, default=2, help="from each transition state (default: 2)")
    parser.add_argument("--repeats", type=int, default=3, help="of each timing (default: 3)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="carbon atoms of the chains")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page whose tables are replaced")
    args = parser.parse_args()
    models = load_models(args.models)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    costs, error = hessians(args.repeats, args.sizes)
    saved = ["| model | Hessian | found | steps | force calls | Hessians | CPU s | CPU s over with |"]
    saved.append("|---|---|---:|---:|---:|---:|---:|---:|")
    for model in models:
        saved += searches(model, HessianStore(args.store), [args.split], args.reactions, args.starts)
    print("\n".join(["", *costs, "", *saved]))
    if args.write:
        write_into(args.write, (saved, costs))
    if error > LARGEST_ERROR:
        print(
            f"Hessian and differences of forces disagree by {error:.1e}, wanted below {LARGEST_ERROR:g}",
            file=sys.stderr,
        )
    return int(error > LARGEST_ERROR)


if __name__ == "__main__":
    sys.exit(main())
