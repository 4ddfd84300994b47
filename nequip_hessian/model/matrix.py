"""Full (or partial) Hessians of any NequIP-framework model, from one forward pass.

Row i of every molecule of a batch is one product: frames do not interact, so
one backward pass through the forces serves them all, and a batch costs
3 max(N) passes instead of 3 sum(N).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nequip.data import AtomicDataDict

from nequip_hessian.errors import ConfigError

_FORCE_MODULES = ("ForceStressOutput", "HessianOutput")


def force_module(model: Any) -> Any:
    """Return the module of a graph model that takes the forces, found by class name.

    Raises:
        ConfigError: there is none, or several: an ensemble, a direct-force or an energy-only model.
    """
    found = [m for m in model.modules() if type(m).__name__ in _FORCE_MODULES]
    if len(found) != 1 or not found[0].do_derivatives:
        raise ConfigError(
            f"Hessians need a model with one {_FORCE_MODULES[0]} that takes derivatives, found {len(found)} in "
            f"{type(model).__name__}"
        )
    return found[0]


def hessians(model: Any, data: AtomicDataDict.Type, atoms: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
    """Second derivatives of the energy of each frame of a batch.

    Args:
        model: graph model (eager); its parameters are not touched
        data: model inputs of one frame or a batch
        atoms: for each frame the (n,) int64 indices of the atoms to cover; default all. The cost is
            proportional to the largest n

    Returns:
        per frame (3n, 3n), eV/angstrom^2, dtype and device of the positions, symmetrised (the
        asymmetry is rounding); row and column 3*atom + xyz in the order of `atoms`.
    """
    data = AtomicDataDict.with_batch_(dict(data))
    counts = data[AtomicDataDict.NUM_NODES_KEY]
    starts = torch.cumsum(counts, 0) - counts
    chosen = [
        torch.arange(int(n), device=counts.device) if atoms is None else atoms[f].to(counts.device)
        for f, n in enumerate(counts)
    ]
    dofs = [3 * (start + index).repeat_interleave(3) for start, index in zip(starts, chosen, strict=True)]
    dofs = [d + torch.arange(3, device=d.device).repeat(len(d) // 3) for d in dofs]

    module = force_module(model)
    training = module.training
    positions = data[AtomicDataDict.POSITIONS_KEY].detach().requires_grad_(True)
    data[AtomicDataDict.POSITIONS_KEY] = positions
    module.training = True  # this module keeps the graph of its forces in training mode only
    try:
        with torch.enable_grad():
            gradient = torch.neg(model(data)[AtomicDataDict.FORCE_KEY]).reshape(-1)
    finally:
        module.training = training
    blocks = [torch.zeros(len(d), len(d), dtype=positions.dtype, device=positions.device) for d in dofs]
    if gradient.requires_grad:
        for row in range(max(len(d) for d in dofs)):
            one_hot = torch.zeros_like(gradient)
            live = [f for f, d in enumerate(dofs) if row < len(d)]
            one_hot[torch.stack([dofs[f][row] for f in live])] = 1.0
            (product,) = torch.autograd.grad(gradient, positions, one_hot, retain_graph=True, allow_unused=True)
            if product is None:  # atoms without neighbours: the energy does not depend on positions
                break
            flat = product.reshape(-1)
            for f in live:
                blocks[f][row] = flat[dofs[f]]
    return [(block + block.T) / 2 for block in blocks]
