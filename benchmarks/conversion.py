"""Memory and time of `convert` while the input grows, and with one and two processes, in one run.

    python benchmarks/conversion.py [--least 50] [--files 2000] [--write docs/scale.md]

Memory: one file of 50, 500 and 5000 geometries (springs between nine atoms, with
exact forces and Hessians), and one Gaussian log of 1, 10 and 100 MB with one
Hessian (the rest is lines like those of a long optimisation); the peak of the
resident memory is that of the whole command. Time: 2000 extended XYZ files of ten
geometries each, and 1000 Gaussian logs of 2 MB, by one process and by two; CPU
time is that of the command and its workers together, and the gain is the ratio of
wall times, which means something on an idle machine only: the load at the
beginning stands beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "formats")]

from emitters import gaussian_log, made  # noqa: E402 - found by the line above
from measuring import add_write_option, write_block  # noqa: E402
from springs import spring_network  # noqa: E402

from nequip_hessian.formats.extxyz import write_extxyz  # noqa: E402
from nequip_hessian.record import LabelledGeometry  # noqa: E402

STEP = " Variable       Old X    -DE/DX   Delta X   Delta X   Delta X     New X\n"  # of an optimisation
CHILD = """
import resource, sys, time
from pathlib import Path
from nequip_hessian.cli import main
start = time.perf_counter()
status = main(["convert", *sys.argv[1:]])
seconds = time.perf_counter() - start
mine, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
cpu = sum(one.ru_utime + one.ru_stime for one in (mine, workers))
peak = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print("measured", status, peak[0], cpu, seconds)
"""


def write(path: Path, seeds: range, atoms: int = 9) -> None:
    """Write geometries that are all different."""

    def records():
        for seed in seeds:
            positions, forces, hessian = spring_network(atoms, seed)
            yield LabelledGeometry(numbers=[6] * atoms, positions=positions, energy=-1.0, forces=forces,
                                   hessian=hessian, label=f"springs {seed}")  # fmt: skip

    write_extxyz(path, records())


def convert(source: Path, target: Path, workers: int, *options: str) -> tuple[float, float, float]:
    """Peak memory of the command (MiB), CPU seconds of it and its workers, wall seconds."""
    command = [sys.executable, "-c", CHILD, str(source), "-o", str(target), "--workers", str(workers), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    status, peak, cpu, seconds = done.stdout.rsplit("measured", 1)[1].split()
    if status != "0":
        raise RuntimeError(done.stderr)
    return int(peak) / 1024, float(cpu), float(seconds)


def memory(folder: Path, least: int) -> list[list[str]]:
    """Rows of the table of memory."""
    rows = []
    for count in (least, 10 * least, 100 * least):
        source = folder / f"{count}.xyz"
        write(source, range(count))
        peak, cpu, _ = convert(source, folder / f"{count}.zarr", 1)
        size = source.stat().st_size
        rows.append([str(count), f"{size / 1e6:.1f}", f"{peak:.0f}", f"{cpu:.1f}"])
        print(*rows[-1], sep="  ", flush=True)
    for megabytes in (1, 10, 100):
        source = folder / f"{megabytes}.log"
        write_log(source, megabytes)
        peak, cpu, _ = convert(source, folder / f"{megabytes}MB.zarr", 1, "--without-hessian")
        rows.append(["1, Gaussian log", f"{source.stat().st_size / 1e6:.1f}", f"{peak:.0f}", f"{cpu:.1f}"])
        print(*rows[-1], sep="  ", flush=True)
    return rows


def write_log(path: Path, megabytes: float, seed: int = 1) -> None:
    """Write a Gaussian log of a frequency job behind a long optimisation."""
    first, *rest = gaussian_log(made("H2CO", seed=seed)).splitlines(keepends=True)
    with path.open("w") as file:
        file.write(first)
        for _ in range(round(megabytes * 1e6 / len(STEP))):
            file.write(STEP)
        file.writelines(rest)


def speed(folder: Path, files: int) -> list[list[str]]:
    """Rows of the table of time."""
    many, logs = folder / "many", folder / "logs"
    for source in (many, logs):
        source.mkdir()
    for number in range(files):
        write(many / f"{number}.xyz", range(10 * number, 10 * number + 10), atoms=16)
    for number in range(files // 2):
        write_log(logs / f"{number}.log", 2.0, seed=number)
    titles = {many: f"{files} files of ten geometries", logs: f"{files // 2} Gaussian logs of 2 MB"}
    rows = []
    for source, title in titles.items():
        first = 0.0
        for workers in (1, 2):
            load = os.getloadavg()[0]
            _, cpu, seconds = convert(source, folder / f"{source.name}{workers}.zarr", workers)
            first = first or seconds
            rows.append([title, str(workers), f"{cpu:.1f}", f"{seconds:.1f}", f"{first / seconds:.2f}", f"{load:.1f}"])
            print(*rows[-1], sep="  ", flush=True)
    return rows


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [header, ["---:"] * len(header), *rows]]


def main() -> None:
    """Measure, print, and put the tables into a page between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--least", type=int, default=50, help="geometries of the smallest input (default: 50)")
    parser.add_argument("--files", type=int, default=2000, help="files of the comparison of processes (default: 2000)")
    add_write_option(parser)
    args = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        sizes = memory(Path(folder), args.least)
        times = speed(Path(folder), args.files)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [f"{date.today()}, {platform.system()} {machine}.", ""]
    lines += _markdown(["geometries", "input, MB", "peak memory, MiB", "CPU, s"], sizes)
    lines += ["", *_markdown(["input", "processes", "CPU, s", "wall, s", "gain", "load before"], times)]
    text = "\n".join(lines)
    print(text, f"\nin {time.perf_counter() - begun:.0f} s")
    if args.write:
        write_block(args.write, "benchmarks/conversion.py", text)


if __name__ == "__main__":
    main()
