"""What the benchmarks share: peak memory against allocations that are known, and blocks of pages."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from measuring import machine, peak_bytes, write_block

SIZE = 1_000_000  # float64 elements: 8 MB


def test_the_peak_is_what_was_held_at_one_time():
    def work():
        first = torch.ones(SIZE, dtype=torch.float64)
        second = first * 2
        del first
        third = second + 1  # the second and the third at one time, never three
        del second
        return third.sum()

    work()  # code of libraries comes into memory when it first runs
    for _ in range(2):  # what an earlier call let go of is not in it
        assert peak_bytes(work) == pytest.approx(16 * SIZE, rel=0.05)


def test_the_peak_has_what_autograd_keeps():
    weight = torch.ones(SIZE, dtype=torch.float64, requires_grad=True)

    def work():
        value = weight
        for _ in range(4):
            value = value.sin()  # each keeps its input for the backward pass
        value.sum().backward()
        weight.grad = None

    assert 4 * 8 * SIZE * 0.95 < peak_bytes(work) < 7 * 8 * SIZE


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
