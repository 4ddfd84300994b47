"""How a batch is cut into groups of frames that share backward passes."""

import itertools

import pytest
import torch

from nequip_hessian.model import sizes


def test_groups_of_sizes_cost_the_least():
    """Against every way to cut a sorted list of sizes; the sum of the costs is what is returned."""
    edges = torch.tensor([182, 70, 72, 56, 90, 600, 71, 0])
    wanted = torch.tensor([42, 27, 27, 24, 30, 3, 27, 0])
    groups, cost = sizes.size_groups(edges, wanted)
    assert torch.equal(torch.cat(groups).sort().values, torch.arange(8))
    device = torch.device("cpu")

    def price(cut):
        return sum(sizes.loop_cost(float(edges[g].sum()), int(wanted[g].max()), device) for g in cut)

    assert price(groups) == pytest.approx(cost)
    values = sorted(set(wanted.tolist()))
    for marks in itertools.product([False, True], repeat=len(values) - 1):
        cut = [[values[0]]]
        for value, new in zip(values[1:], marks, strict=True):
            cut = [*cut, [value]] if new else [*cut[:-1], [*cut[-1], value]]
        assert cost <= price([torch.isin(wanted, torch.tensor(part)) for part in cut]) + 1e-9
    assert cost < 0.8 * price([torch.ones(8, dtype=torch.bool)])


def test_a_pass_holds_no_more_edges_than_given_and_one_product_at_least():
    cpu = torch.device("cpu")
    assert sizes.products_at_once(70, cpu) * 70 <= sizes.EDGES_PER_BACKWARD < (sizes.products_at_once(70, cpu) + 1) * 70
    assert sizes.products_at_once(10 * sizes.EDGES_PER_BACKWARD, cpu) == 1
    assert sizes.products_at_once(0, cpu) >= 1
