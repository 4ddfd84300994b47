"""What the benchmarks share: where and when they ran, time, peak memory, and blocks of a page that they write.

Imports torch and the standard library only, so that it also runs in environments of other packages.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
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


def seconds(work: Work, device: str = "cpu", *, allocator: str = "keeps") -> float:
    """CPU seconds of this process that some work takes; on a GPU elapsed seconds between synchronisations.

    Args:
        work: what is measured
        device: `cpu` or a GPU's
        allocator: `keeps`: freed memory stays with the process, as with other allocators than glibc's; `gives back`:
            glibc's own state, in which larger blocks go back to the system and every page of them is made anew
    """
    if device == "cpu":
        _allocator(allocator)
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(work: Work, device: str = "cpu") -> float:
    """Most memory that some work held at one time, bytes above what was in use before.

    On a GPU what torch allocated. On a CPU the resident memory, with an allocator that hands memory back: else freed
    memory stays with the process and is used again, unseen, and the peak of one row depends on the rows
    before it. So for the time of the measurement every larger block is mapped on its own and unmapped when it is freed.
    Work that runs for the first time also has the pages of code that it brings into memory, a few megabytes.

    Raises:
        SystemExit: a CPU without Linux and glibc.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return float(torch.cuda.max_memory_allocated() - before)
    gc.collect()
    _allocator("gives all back")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
        before = _status("VmRSS")
        work()
        return _status("VmHWM") - before
    finally:
        _allocator("gives back")


_ALLOCATORS = {  # blocks of how many bytes are mapped on their own, and how much free memory is kept
    "keeps": (2**31 - 1, 2**31 - 1),
    "gives back": (32 * 1024**2, 64 * 1024**2),  # what glibc comes to by itself
    "gives all back": (64 * 1024, 0),
}


def _allocator(state: str) -> None:
    """Set what glibc does with freed memory."""
    block, keep = _ALLOCATORS[state]
    try:
        libc = ctypes.CDLL("libc.so.6")
        done = libc.mallopt(-3, block) and libc.mallopt(-1, keep)  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    except (OSError, AttributeError) as exc:
        raise SystemExit("time and memory on a CPU are measured on Linux with glibc only") from exc
    if not done:
        raise SystemExit(f"glibc did not take a threshold of {block} bytes")
    if state != "keeps":
        libc.malloc_trim(0)


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024.0 * float(line.split()[1])
    raise SystemExit(f"/proc/self/status: no {name}")


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
