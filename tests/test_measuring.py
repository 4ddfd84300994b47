"""What the benchmarks share: peak memory against allocations that are known, and blocks of pages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from measuring import machine, write_block

BENCHMARKS = str(Path(__file__).resolve().parents[1] / "benchmarks")
SIZE = 1_000_000  # float64 elements: 8 MB


HELD = """
def work():
    first = torch.ones(1_000_000, dtype=torch.float64)
    second = first * 2
    del first
    third = second + 1  # the second and the third at one time, never three
    del second
    return third.sum()
"""

KEPT = """
def work():
    value = weight = torch.ones(1_000_000, dtype=torch.float64, requires_grad=True)
    for _ in range(4):
        value = value.sin()  # each keeps its input for the backward pass
    value.sum().backward()
"""

MEASURE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from measuring import peak_bytes
{work}
work()  # code of libraries comes into memory when it first runs
print([peak_bytes(work) for _ in range(2)])  # what an earlier call let go of is not in it
"""


def peaks_of(work):
    """In a process of its own: one that did much before holds free memory that can be used unseen."""
    command = [sys.executable, "-c", MEASURE.format(work=work), BENCHMARKS]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_peak_is_what_was_held_at_one_time():
    for peak in peaks_of(HELD):
        assert peak == pytest.approx(16 * SIZE, rel=0.05)


def test_the_peak_has_what_autograd_keeps():
    """The weight and four inputs of the backward pass, and a gradient or two besides."""
    for peak in peaks_of(KEPT):
        assert 5 * 8 * SIZE * 0.95 < peak < 9 * 8 * SIZE


def test_a_block_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "one\n<!-- made by a.py -->\nold\n<!-- end -->\ntwo\n<!-- made by a.py --b -->\nkept\n<!-- end -->\n"
    )
    write_block(page, "a.py", "new\n")
    expected = "one\n<!-- made by a.py -->\nnew\n<!-- end -->\ntwo\n<!-- made by a.py --b -->\nkept\n<!-- end -->\n"
    assert page.read_text() == expected
    with pytest.raises(SystemExit, match="expected a block"):
        write_block(page, "c.py", "new")
    assert page.read_text() == expected
    assert torch.__version__ in machine()
