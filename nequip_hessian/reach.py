"""How far a second derivative reaches: measured, once a model, on a chain of atoms.

Counting layers would need to know every architecture; a product with a probe on one atom of a chain shows which atoms
answer. A model of L message-passing layers gives 2L hops, a strictly local one (Allegro) 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from nequip.data import AtomicDataDict

from nequip_hessian.model.matrix import Products
from nequip_hessian.sparsity import block_pattern

_ARM: Final = 24  # atoms on either side of the one that is moved: twelve hops, six layers


def probe_chain(symbol: str, cutoff: float) -> Atoms:
    """A crooked chain of one element in which each hop of the neighbour list covers two atoms.

    Args:
        symbol: chemical symbol
        cutoff: of that element with itself, angstrom
    """
    rng = np.random.default_rng(0)
    positions = rng.uniform(-0.02, 0.02, (2 * _ARM + 1, 3)) * cutoff
    positions[:, 0] += 0.45 * cutoff * np.arange(2 * _ARM + 1)
    return Atoms(f"{symbol}{2 * _ARM + 1}", positions)


def measure_hops(data: AtomicDataDict.Type, make_products: Callable[[AtomicDataDict.Type], Products]) -> int | None:
    """Steps of the neighbour list beyond which second derivatives are exactly zero.

    Args:
        data: model inputs of `probe_chain`
        make_products: products of these inputs

    Returns:
        The number of hops, 0 for a model without interactions; None where the answer goes on to the ends of
        the chain (a model that is not local, or a deeper one than a chain of this length can tell).
    """
    edges = data[AtomicDataDict.EDGE_INDEX_KEY].cpu().numpy()
    positions = data[AtomicDataDict.POSITIONS_KEY]
    probe = torch.zeros_like(positions)
    probe[_ARM] = torch.tensor([1.0, -0.7, 0.4], dtype=probe.dtype, device=probe.device)
    answer = make_products(data)(probe[None])[0].detach().cpu().numpy()
    moved = np.flatnonzero(np.abs(answer).max(axis=1) > 0)
    return _hops_to(edges, len(positions), moved)


def _hops_to(edges: npt.NDArray[np.integer[Any]], n_atoms: int, moved: npt.NDArray[np.int64]) -> int | None:
    for hops in range(n_atoms):
        near = block_pattern(edges, n_atoms, hops)[[_ARM]].toarray()[0]
        if near[moved].all():
            return None if near[0] or near[-1] else hops
    return None
