"""What the benchmarks share: where and when they ran, time, peak memory, and blocks of a page that they write.

Imports torch and the standard library only, so that it also runs in environments of other packages.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

Work = Callable[[], object]


def machine(device: str = "cpu") -> str:
    """Date, hardware, load and version of torch, for the line above a table."""
    today = datetime.now(tz=UTC).date()
    if device != "cpu":
        return f"{today}, {torch.cuda.get_device_name()}, torch {torch.__version__}"
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return (
        f"{today}, {names[0] if names else platform.machine()} with {os.cpu_count()} cores, {threads} thread"
        f"{'s' if threads > 1 else ''} used, load {os.getloadavg()[0]:.1f} at the end, torch {torch.__version__}"
    )


def seconds(work: Work, device: str = "cpu") -> float:
    """CPU seconds of this process that some work takes; on a GPU elapsed seconds between synchronisations."""
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(work: Work, device: str = "cpu") -> float:
    """Most bytes that tensors made by some work held at one time.

    Counted from every allocation and release of torch, on a CPU as on a GPU, so that neither what the process
    keeps for later use nor other work on the machine is in it: the resident set of a process is no such measure,
    because memory that was freed stays in it and is used again.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return float(torch.cuda.max_memory_allocated() - before)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    found = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = peak = 0
    for _, count in sorted((e.start_ns(), e.nbytes()) for e in found if e.name() == "[memory]"):
        held += count
        peak = max(peak, held)
    return float(peak)


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """The option of every benchmark whose table stands in a page."""
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page whose block of this table is replaced")


def write_block(page: Path, script: str, text: str) -> None:
    """Replace what stands between `<!-- made by SCRIPT -->` and the next `<!-- end -->` of a page.

    Args:
        page: a Markdown file
        script: what the mark names, e.g. `benchmarks/training.py`
        text: Markdown

    Raises:
        SystemExit: the page has no such marks.
    """
    begin, end = f"<!-- made by {script} -->", "<!-- end -->"
    before, mark, rest = page.read_text().partition(begin)
    _, closing, behind = rest.partition(end)
    if not mark or not closing:
        raise SystemExit(f"{page}: expected a block between {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{behind}")
