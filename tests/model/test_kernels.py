"""Kernels with Hessian products, on a GPU; the table of docs/training.md is made by the same functions."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import kernels


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "modifier", "package"), kernels.KERNELS)
def test_a_kernel_gives_the_plain_products_or_says_why_not(kind, modifier, package):
    """What runs is right; and differences of forces, the way for kernels with two derivatives only, must run."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    cells = kernels.try_kernel(kind, modifier, "cuda")
    print(kernels.table({modifier: cells}, kind))
    for column in ("forces", "finite differences", "their gradient"):
        assert isinstance(cells[column], float), cells
    assert all(cell < 1e-6 for cell in cells.values() if isinstance(cell, float)), cells


def test_without_a_gpu_the_table_says_so():
    rows = kernels.measure(None)
    assert len(rows) == len(kernels.KERNELS)
    text = kernels.table(rows, "somewhere")
    assert text.count("not measured: no GPU") == len(kernels.KERNELS) * len(kernels.COLUMNS)


def test_what_is_compared_differs_from_zero_and_differences_are_close_to_products():
    """The oracle of the table, without a kernel: each quantity of two models of the same seed is the same."""
    batch = kernels.inputs("cpu")
    one, two = (kernels.our_model("small nequip") for _ in range(2))
    found = {column: kernels.quantity(one, batch, column) for column in kernels.COLUMNS}
    for column, value in found.items():
        torch.testing.assert_close(kernels.quantity(two, batch, column), value)
        assert value.abs().max() > 1e-3
    size = found["product"].abs().max()
    assert (found["finite differences"] - found["product"]).abs().max() < 0.01 * size
