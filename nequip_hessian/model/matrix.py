"""Full, partial or block-sparse Hessians of any NequIP-framework model, from as few products as possible.

Row i of every molecule of a batch is one product: frames do not interact, so
one backward pass through the forces serves them all, and a batch costs
3 max(N) passes instead of 3 sum(N). Within a large geometry, columns whose
blocks can be told apart share a product as well (`nequip_hessian.sparsity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nequip.data import AtomicDataDict
from scipy.sparse import bsr_array, csr_array
from tqdm import tqdm

from nequip_hessian.errors import ConfigError
from nequip_hessian.model.ways import pull_back
from nequip_hessian.sparsity import acyclic_colouring, block_pattern, solve_blocks

Float = npt.NDArray[np.float64]
Products = Callable[[torch.Tensor], torch.Tensor]
"""Probes (K, N, 3) -> products H v (K, N, 3), eV/angstrom^2, of all frames of a batch."""

_FORCE_MODULES = ("ForceStressOutput", "HessianOutput")
_PROBES_AT_ONCE = 32  # probes that are made and handed over together; bounds their own memory, not that of a pass


@dataclass(frozen=True)
class Plan:
    """Which columns of one frame's Hessian share a product.

    Attributes:
        atoms: (n,) indices in the frame of the atoms to cover
        colours: (n,) colour of each; atoms of one colour share three products
        pattern: (n, n) boolean, the blocks that may differ from zero; None: no two atoms share a colour
    """

    atoms: npt.NDArray[np.int64]
    colours: npt.NDArray[np.int64]
    pattern: csr_array | None = None

    @property
    def n_products(self) -> int:
        """Products that the plan needs, without the one that checks a sparse Hessian."""
        return 3 * (int(self.colours.max()) + 1)


def dense_plan(atoms: npt.NDArray[np.int64]) -> Plan:
    """Plan with one product for each degree of freedom of the given atoms."""
    return Plan(atoms, np.arange(len(atoms)))


def sparse_plan(atoms: npt.NDArray[np.int64], edges: npt.NDArray[np.int64], n_atoms: int, hops: int) -> Plan:
    """Plan by graph colouring where that needs fewer products than one for each degree of freedom, else the dense one.

    Args:
        atoms: (n,) atoms to cover
        edges: (2, E) neighbour list of the frame
        n_atoms: N, atoms of the frame
        hops: number of steps in the neighbour list beyond which blocks are zero
    """
    pattern = csr_array(block_pattern(edges, n_atoms, hops)[atoms][:, atoms])
    pattern.sort_indices()
    if pattern.nnz == len(atoms) ** 2:
        return dense_plan(atoms)
    plan = Plan(atoms, acyclic_colouring(pattern), pattern)
    return plan if plan.n_products + 1 < 3 * len(atoms) else dense_plan(atoms)


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


def gradient_graph(model: Any, data: AtomicDataDict.Type) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of the energies of a batch with its graph, so that it can be differentiated again.

    Args:
        model: graph model (eager); its parameters are not touched
        data: model inputs of one frame or a batch

    Returns:
        positions (N, 3), angstrom, that require a gradient, and dE/dx (N, 3), eV/angstrom.
    """
    module = force_module(model)
    training = module.training
    data = dict(data)
    positions = data[AtomicDataDict.POSITIONS_KEY].detach().requires_grad_(True)
    data[AtomicDataDict.POSITIONS_KEY] = positions
    module.training = True  # this module keeps the graph of its forces in training mode only
    try:
        with torch.enable_grad():
            return positions, torch.neg(model(data)[AtomicDataDict.FORCE_KEY])
    finally:
        module.training = training


def graph_bytes(model: Any, data: AtomicDataDict.Type) -> int:
    """Memory that the graph of the forces of these inputs holds, measured, bytes."""
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = gradient_graph(model, data)
    del kept
    return sum(held.values())


def eager_products(model: Any, data: AtomicDataDict.Type, at_once: int = 1) -> Products:
    """Products of an eager model: one forward pass and one graph for all of them.

    Nothing of a product outlives it, so the memory is that of the graph however many there are.

    Args:
        model: graph model (eager)
        data: model inputs of one frame or a batch
        at_once: products that go through the graph together (vectorised), at `at_once` times the memory
    """
    positions, gradient = gradient_graph(model, data)

    def products(probes: torch.Tensor) -> torch.Tensor:
        return torch.cat([pull_back(gradient, positions, some, graph=False) for some in probes.split(at_once)])

    return products


def collect(
    products: Products, like: torch.Tensor, counts: Sequence[int], plans: Sequence[Plan], tolerance: float = 1e-9
) -> list[Any]:
    """Ask for the products that the plans need and put the Hessians together.

    Args:
        products: gives H v for all frames at once
        like: (N, 3), the positions of all frames: dtype and device of the probes
        counts: number of atoms of each frame
        plans: one a frame
        tolerance: difference between a sparse Hessian times a vector and the product, relative to its largest
            element, above which the blocks cannot be those of the plan; larger than rounding

    Returns:
        per frame (3n, 3n), eV/angstrom^2, symmetric: float64 array, or bsr_array where the plan has a pattern.
        None where a sparse Hessian contradicts a random product: its blocks reach farther than the plan says.
    """
    starts = np.cumsum([0, *counts])[:-1]
    rows = [start + plan.atoms for start, plan in zip(starts, plans, strict=True)]
    passes = max(plan.n_products for plan in plans)
    sums = [np.empty((plan.n_products, len(plan.atoms), 3)) for plan in plans]
    with tqdm(total=passes, desc="Hessian", unit="product", disable=None, delay=5, leave=False) as bar:
        for first in range(0, passes, _PROBES_AT_ONCE):
            wanted = range(first, min(first + _PROBES_AT_ONCE, passes))
            found = products(_unit_probes(like, rows, plans, wanted)).detach().cpu().numpy()
            for f, plan in enumerate(plans):
                last = min(wanted.stop, plan.n_products)
                sums[f][first:last] = found[: max(last - first, 0), rows[f]]
            bar.update(len(wanted))
    hessians = [_assemble(plan, s) for plan, s in zip(plans, sums, strict=True)]
    _drop_wrong(products, like, rows, hessians, tolerance)
    return hessians


def _unit_probes(like: torch.Tensor, rows: list[Any], plans: Sequence[Plan], wanted: range) -> torch.Tensor:
    probes = np.zeros((len(wanted), len(like), 3))
    for own, plan in zip(rows, plans, strict=True):
        for k, number in enumerate(wanted):
            probes[k, own[plan.colours == number // 3], number % 3] = 1.0
    return torch.as_tensor(probes, dtype=like.dtype, device=like.device)


def _assemble(plan: Plan, sums: Float) -> Any:
    n = len(plan.atoms)
    if plan.pattern is not None:
        return solve_blocks(plan.pattern, plan.colours, sums.reshape(-1, 3, n, 3))
    square = sums.reshape(3 * n, 3 * n)  # the asymmetry is rounding
    return (square + square.T) / 2


def _drop_wrong(products: Products, like: torch.Tensor, rows: list[Any], found: list[Any], tolerance: float) -> None:
    """Put None where a sparse Hessian does not give a random product."""
    sparse = [f for f, hessian in enumerate(found) if isinstance(hessian, bsr_array)]
    if not sparse:
        return
    probe = np.zeros((1, len(like), 3))
    rng = np.random.default_rng(0)
    for f in sparse:
        probe[0, rows[f]] = rng.uniform(-1.0, 1.0, (len(rows[f]), 3))
    direct = products(torch.as_tensor(probe, dtype=like.dtype, device=like.device)).detach().cpu().numpy()[0]
    for f in sparse:
        expected = direct[rows[f]].ravel()
        off = np.abs(found[f] @ probe[0, rows[f]].ravel() - expected).max()
        if off > tolerance * max(1.0, float(np.abs(found[f].data).max())):
            found[f] = None


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
    counts = data[AtomicDataDict.NUM_NODES_KEY].tolist()
    chosen = [np.arange(n) for n in counts] if atoms is None else [a.cpu().numpy() for a in atoms]
    like = data[AtomicDataDict.POSITIONS_KEY].detach()
    found = collect(eager_products(model, data), like, counts, [dense_plan(index) for index in chosen])
    return [torch.as_tensor(matrix, dtype=like.dtype, device=like.device) for matrix in found]
