"""Which frames of a batch share a backward pass, and how many products one pass makes.

The full matrix of a molecule takes 3N products, so in a batch the small ones are done long before the largest: frames
of about one size go through the model together. And a product of few edges is mostly the cost of calling: several
are made in one vectorised pass. Travels inside packaged models, see `ways.py`.
"""

from typing import Final

import torch

EDGES_PER_BACKWARD: Final = 3000
"""Edges times products of one vectorised pass on a CPU: more was no faster, and holds more memory (measured)."""
EDGES_PER_BACKWARD_CUDA: Final = 200_000
_CALL: Final = 250.0
"""Cost of calling a pass, in edges whose product would take as long (measured on a CPU: 200 to 300)."""
_FORCES: Final = 1.5
"""Cost of calling an energy-force pass over that of calling one that makes products."""


def products_at_once(edges: float, device: torch.device) -> int:
    """How many products of a batch of so many edges go through one vectorised pass."""
    limit = EDGES_PER_BACKWARD_CUDA if device.type == "cuda" else EDGES_PER_BACKWARD
    return max(1, int(limit / max(edges, 1.0)))


def loop_cost(edges: float, n_products: int, device: torch.device) -> float:
    """Cost of a group of frames, an energy-force pass and its products, in edges whose product would take as long."""
    passes = -(-n_products // products_at_once(edges, device))
    return _CALL * (_FORCES + passes) + edges * n_products


def size_groups(edges: torch.Tensor, n_products: torch.Tensor) -> tuple[list[torch.Tensor], float]:
    """Cut a batch into groups of frames with about the same number of products, so that all cost the least.

    Args:
        edges: (G,) edges of each frame
        n_products: (G,) products that each frame takes

    Returns:
        (n,) int64 frame indices of each group, the whole batch in order where one group is best; and their cost in
        edges whose product would take as long.
    """
    numbers, which = torch.unique(n_products, return_inverse=True)
    held = torch.zeros(len(numbers), dtype=torch.float64).index_add(0, which.cpu(), edges.to("cpu", torch.float64))
    sums = [0.0, *torch.cumsum(held, 0).tolist()]
    counts = numbers.tolist()
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the sizes before `end`, and where their last group begins
    for end in range(1, len(counts) + 1):
        costs = [
            (best[start][0] + loop_cost(sums[end] - sums[start], counts[end - 1], edges.device), start)
            for start in range(end)
        ]
        best.append(min(costs))
    groups, end = [], len(counts)
    while end:
        start = best[end][1]
        groups.append(torch.nonzero((which >= start) & (which < end)).view(-1))
        end = start
    return groups, best[-1][0]
