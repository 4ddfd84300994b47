"""What a Hessian step costs in other packages, each in an environment of its own, over its energy-force step.

    python benchmarks/peers/run.py datasets/reactions-xtb/small.zarr.zip --work out/peers [--write docs/training.md]
                                   [--only mace ...] [--batch 8] [--atoms 8 14]

The molecules are those of benchmarks/training.py. An environment is a virtual one in the working folder with the
packages of `PEERS` and no others: torch, NumPy and ASE are those of the environment that runs this script, so that all
are measured with the same torch. Installing one may take `--limit` seconds; what cannot be installed or does not run
stands in the table with the reason, and its log in the working folder. Time and memory are ratios within one package,
of a model of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from measuring import add_write_option, write_block  # noqa: E402
from training import choose  # noqa: E402
from untrained import dataset  # noqa: E402

SCRIPT = "benchmarks/peers/run.py"
PEERS: dict[str, tuple[str, ...]] = {
    "schnetpack": (
        "schnetpack==2.1.1",
        "fasteners",
        "dirsync",
        "progressbar2",
        "python-utils",
        "tensorboardX",
        "torch-ema",
    ),
    "mace": (
        *(
            "mace-torch==0.3.16",
            "e3nn==0.4.4",
            "torch-ema",
            "prettytable",
            "configargparse",
            "python-hostlist",
            "orjson",
        ),
        *("pandas", "GitPython", "gitdb", "smmap"),
    ),
    "deepmd": (
        "deepmd-kit==3.2.0",
        "mpich",
        "array-api-compat",
        "dargs",
        "mendeleev",
        "wcmatch",
        "bracex",
        "python-hostlist",
        "typeguard",
        "einops",
    ),
    "hippynn": ("hippynn==0.1.3",),
}


# e3nn 0.4.4 keeps its constants in a file that torch reads in this way only
SETTINGS = {"OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


def run(command: list[str], log: Path, limit: float | None) -> str | None:
    """Run a command with its output added to a file; None, or why it failed."""
    with log.open("a") as out:
        try:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **SETTINGS}, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return f"longer than {limit:.0f} s"
    if not done.returncode:
        return None
    lines = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line or "ERROR" in line]
    return (lines or ["no message"])[-1].strip()[:150]


def environment(name: str, folder: Path, log: Path, limit: float) -> tuple[Path, str | None]:
    """Make an environment, unless it is there: its Python, and None or why it cannot be had."""
    home, done = folder / name, folder / f"{name}.installed"
    python = home / "bin" / "python"
    if done.exists():
        return python, None
    venv.create(home, with_pip=False, clear=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    # a name that sorts last: what is installed here goes before what is shared
    (site / "zz_shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", *PEERS[name]]
    failure = run(pip, log, limit)
    if failure is None:
        done.touch()
    return python, failure


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The numbers of one peer, or why there are none."""
    log = args.work / f"{name}.log"
    log.write_text("")
    python, failure = environment(name, args.work, log, args.limit)
    if failure is not None:
        return {"failure": f"not installable here: {failure}"}
    if name == "hippynn":
        return {"failure": "its release on the package index has no Hessian terms"}
    result = args.work / f"{name}.json"
    failure = run([str(python), str(HERE / "steps.py"), name, str(args.work / "molecules.npz"), str(result)], log, None)
    return {"failure": f"does not run here: {failure}"} if failure is not None else json.loads(result.read_text())


def table(found: dict[str, dict[str, Any]], head: str) -> str:
    """The markdown."""
    lines = [head, "", "| package | Hessian step | energy-force step, s | time | memory |", "|---|---|---:|---:|---:|"]
    for name, row in found.items():
        if "failure" in row:
            lines.append(f"| {name} | not measured ({row['failure']}) | | | |")
            continue
        numbers = f"{row['seconds']:.3f} | {row['time']:.1f} | {row['memory']:.1f}"
        lines.append(f"| {name} {row['version']} | {row['what']} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Write the molecules, measure every peer, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="a Hessian store of molecules of H, C, N, O")
    parser.add_argument("--work", type=Path, required=True, help="folder for environments and logs")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--batch", type=int, default=8, help="molecules (default 8)")
    parser.add_argument("--atoms", type=int, nargs=2, default=[8, 14], metavar=("FROM", "TO"), help="default 8 14")
    parser.add_argument("--limit", type=float, default=600, help="seconds for installing one (default 600)")
    add_write_option(parser)
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    source = dataset(args.store, None)
    records = [source.store[int(index)] for index in choose(source, *args.atoms, args.batch)]
    np.savez(
        args.work / "molecules.npz",
        counts=[len(record.numbers) for record in records],
        numbers=np.concatenate([record.numbers for record in records]),
        positions=np.concatenate([record.positions for record in records]),
    )
    found = {name: measure(name, args) for name in args.only}
    where = [row["where"] for row in found.values() if "where" in row]
    sizes = f"{len(records)} molecules, {sum(len(r.numbers) for r in records)} atoms, float64"
    text = table(found, f"{where[-1] if where else 'nothing measured'}; {sizes}.")
    print(text)
    if args.write is not None:
        write_block(args.write, SCRIPT, text)


if __name__ == "__main__":
    main()
