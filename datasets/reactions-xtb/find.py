"""Find reactions: `python datasets/reactions-xtb/find.py --rounds 2 --processes 2`.

Each attempt leaves one line in the journal, so a run that was stopped goes on where it was; the attempts of a round
and their seeds follow from the molecules, the rounds before and `--seed` alone, not from the order of completion.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from graphs import Graph, change_name, connectivity_name, fragments, from_connectivity, from_smiles, rearrangements
from tqdm import tqdm

from nequip_hessian.cli._numbers import whole
from nequip_hessian.errors import HessianDataError

HERE = Path(__file__).parent
JOURNAL = HERE / "journal"
PER_MOLECULE, PER_SPECIES = 10, 4


def read_molecules(path: Path) -> list[Graph]:
    """Starting molecules, one SMILES a line; lines that start with # are comments."""
    graphs: dict[str, Graph] = {}
    for text in map(str.strip, path.open()):
        if text and not text.startswith("#"):
            graph = from_smiles(text)
            graphs.setdefault(connectivity_name(graph.numbers, graph.bonds), graph)
    return list(graphs.values())


def read_journal(folder: Path) -> list[list[dict[str, Any]]]:
    """Records of every round, one list a round; a line cut by a crash is left out.

    Raises:
        HessianDataError: a line that is no record of an attempt.
    """
    rounds = []
    while True:
        plain, packed = (folder / f"round-{len(rounds)}.jsonl{ending}" for ending in ("", ".gz"))
        if not plain.exists() and not packed.exists():
            return rounds
        records: dict[str, dict[str, Any]] = {}
        for path in (packed, plain):
            if path.exists():
                with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
                    for line in stream:
                        if line.endswith("\n"):
                            record = _record(line, path)
                            records[record["key"]] = record
        rounds.append(sorted(records.values(), key=lambda record: record["key"]))


def _record(line: str, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record["key"], str) and isinstance(record["stage"], str):
            return record
    except (ValueError, KeyError):
        pass
    raise HessianDataError(f"{path}: expected a record of an attempt a line, found {line.strip()[:60]!r}")


def natural(text: str) -> int:
    """A whole number of 0 or more, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, found {text!r}")
    return int(text)


def species_of(records: list[dict[str, Any]]) -> dict[str, Graph]:
    """Molecules of one fragment at the ends of confirmed reactions, by connectivity, with bond orders."""
    from search import as_bonds

    found: dict[str, Graph] = {}
    for record in records:
        if record["stage"] != "confirmed":
            continue
        for name, state in zip(record["names"], ("reactant_state", "product_state"), strict=True):
            if name in found or "." in name:
                continue
            numbers = np.array(record["numbers"])
            graph = from_connectivity(numbers, as_bonds(numbers, np.array(record[state]["positions"])))
            if graph is not None and len(fragments(graph.bonds)) == 1:
                found[name] = graph
    return dict(sorted(found.items()))


def tasks_of_round(
    index: int, molecules: list[Graph], done: list[list[dict[str, Any]]], seed: int
) -> list[tuple[str, Graph, Graph, int]]:
    """Attempts of a round: (key, reactant, product, conformer), one of each molecule in turn.

    Even rounds take further rearrangements of the starting molecules, odd ones those of the species that the
    rounds before have found.
    """
    known = {connectivity_name(graph.numbers, graph.bonds) for graph in molecules}
    if index % 2 == 0:
        sources, per, start = molecules, PER_MOLECULE, PER_MOLECULE * (index // 2)
    else:
        earlier = species_of([r for records in done[: max(index - 2, 0)] for r in records]) if index > 1 else {}
        new = species_of([r for records in done[:index] for r in records])
        sources = [graph for name, graph in new.items() if name not in known and name not in earlier]
        per, start = PER_SPECIES, 0
    queues = []
    for graph in sources:
        name = connectivity_name(graph.numbers, graph.bonds)
        products = list(rearrangements(graph).values())
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(products))
        queues.append([(graph, products[i]) for i in order[start : start + per]])
    taken = [pair for step in range(per) for queue in queues for pair in queue[step : step + 1]]
    return [(f"{change_name(a, b)}|0", a, b, 0) for a, b in taken]


def _work(task: tuple[str, Graph, Graph, int], seed: int) -> dict[str, Any]:
    from search import attempt

    start = time.process_time()
    record = attempt(*task[1:], seed)
    return {**record, "cpu_seconds": round(time.process_time() - start, 2)}


def run_round(index: int, tasks: list[tuple[str, Graph, Graph, int]], args: argparse.Namespace) -> bool:
    """Run what is missing from a round; False where the time was up first."""
    path = args.journal / f"round-{index}.jsonl"
    done = {
        record["key"] for records in read_journal(path.parent)[int(path.stem.split("-")[1]) :] for record in records
    }
    left = [task for task in tasks if task[0] not in done]
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(left), desc=path.stem, mininterval=5)
    waiting, queue = set[Future[dict[str, Any]]](), iter(left)
    drop_cut_line(path)
    with path.open("a") as journal, ProcessPoolExecutor(args.processes) as pool:
        while True:
            for task in _some(queue, 2 * args.processes - len(waiting), args.until):
                waiting.add(pool.submit(_work, task, args.seed))
            if not waiting:
                break
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                journal.write(json.dumps(future.result()) + "\n")
                bar.update()
            journal.flush()
    bar.close()
    return next(queue, None) is None


def drop_cut_line(path: Path) -> None:
    """Cut a file after its last whole line: a crash may have left half a record."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _some(queue: Iterator[Any], count: int, until: float) -> list[Any]:
    return [task for _, task in zip(range(count), queue, strict=False)] if time.time() < until else []


def main() -> int:
    """Run rounds until they are done or the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=whole, default=4, help="rounds to reach; default %(default)s")
    parser.add_argument("--processes", type=whole, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--seed", type=natural, default=20261122, help="0 or more; default: %(default)s")
    parser.add_argument("--journal", type=Path, default=JOURNAL, help="folder of results; default: beside this file")
    parser.add_argument("--molecules", type=Path, default=HERE / "molecules.smi", help="SMILES to start from")
    parser.add_argument("--hours", type=float, default=1e6, help="start no attempt after so long; default: no limit")
    args = parser.parse_args()
    args.until = time.time() + 3600 * args.hours
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        molecules = read_molecules(args.molecules)
    except (OSError, ValueError) as exc:
        print(f"find.py: error: {args.molecules}: {exc}", file=sys.stderr)
        return 1
    if not molecules:
        print(f"find.py: error: {args.molecules}: expected one SMILES a line, found none", file=sys.stderr)
        return 1
    try:
        args.journal.mkdir(parents=True, exist_ok=True)
        return rounds(args, molecules)
    except HessianDataError as exc:
        print(f"find.py: error: {exc}", file=sys.stderr)
    except OSError as exc:
        print(f"find.py: error: --journal {args.journal}: {exc.strerror or exc}", file=sys.stderr)
    return 1


def rounds(args: argparse.Namespace, molecules: list[Graph]) -> int:
    """Run round after round."""
    for index in range(args.rounds):
        tasks = tasks_of_round(index, molecules, read_journal(args.journal), args.seed)
        print(f"round {index}: {len(tasks)} attempts", flush=True)
        if not run_round(index, tasks, args):
            print("time is up; run again to go on")
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
