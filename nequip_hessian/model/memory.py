"""Graphs of Hessian products and the memory they take.

In training each product keeps its graph until the backward pass: twenty to forty times the graph of an energy-force
step for the full matrix of a small molecule. Where that is too much, products are computed without a graph and made
again, a group at a time, when their gradient is asked for. Travels inside packaged models, see `ways.py`.
"""

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import torch
from nequip.data import AtomicDataDict

from nequip_hessian._keys import HESSIAN_PROBE_KEY
from nequip_hessian.model.replicate import gather_frames

MAX_EDGES_PER_PASS: Final = 50_000
"""Edges in one forward pass over copied frames; more copies than that go through in chunks."""

Groups = Callable[[], list[Callable[[], torch.Tensor]]]


class Recomputed(torch.autograd.Function):
    """Products whose values are known and whose graph is made in the backward pass, group after group.

    The gradient with respect to the parameters is exact; none is passed on to positions and probes.
    """

    @staticmethod
    def of(
        values: torch.Tensor, groups: Groups, model: Any, held: AtomicDataDict.Type | None = None
    ) -> tuple[torch.Tensor, AtomicDataDict.Type]:
        """Give values the gradient of what the groups compute.

        Args:
            values: (N, 3K) products, eV/angstrom^2, without a graph
            groups: gives functions that make column blocks (N, 3k) of them with a graph, in order
            model: its parameters are those that the gradient is taken for
            held: outputs whose graph the groups use: it is gone through, and let go of, after them only

        Returns:
            the values with their gradient (N, 3K), and `held`, to be used in place of what was given.
        """
        parameters = [p for p in model.parameters() if p.requires_grad and p.numel()]
        keys = [key for key, value in (held or {}).items() if value.requires_grad]
        kept = [] if held is None else [held[key] for key in keys]
        found = Recomputed.apply(values, groups, len(kept), *kept, *parameters)
        return found[0], {**(held or {}), **dict(zip(keys, found[1:], strict=True))}

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, groups: Groups, n_held: int, *tensors: torch.Tensor) -> Any:
        """Return the values (N, 3K), eV/angstrom^2, and the first `n_held` of the tensors, as they are.

        Args:
            ctx: autograd's own
            values: (N, 3K), eV/angstrom^2
            groups: see `of`
            n_held: how many of `tensors` are outputs to be passed through
            *tensors: outputs, then parameters
        """
        ctx.set_materialize_grads(False)
        ctx.groups, ctx.parameters = groups, tensors[n_held:]
        return values.clone(), *(tensor.view_as(tensor) for tensor in tensors[:n_held])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        """Sum of the gradients of the groups, each with a graph of its own that is dropped at once.

        Args:
            ctx: autograd's own
            *gradients: (N, 3K) of the values, loss units / (eV/angstrom^2), then those of the outputs passed
                through; None where the loss does not depend on one

        Returns:
            for each argument of `forward` its gradient or None: outputs as given, parameters the sum of the groups.
        """
        gradient, *passed = gradients
        sums: list[torch.Tensor | None] = [None] * len(ctx.parameters)
        start = 0
        if gradient is None:
            return (None, None, None, *passed, *sums)
        for group in ctx.groups():
            with torch.enable_grad():
                products = group()
            block = gradient[:, start : start + products.shape[1]]
            start += products.shape[1]
            if not products.requires_grad:
                continue
            # what groups share stays; what is a group's own goes with its products
            found = torch.autograd.grad(products, ctx.parameters, block, retain_graph=True, allow_unused=True)
            del products
            sums = [s if g is None else g if s is None else s + g for s, g in zip(sums, found, strict=True)]
        return (None, None, None, *passed, *sums)


def frame_edges(inputs: AtomicDataDict.Type) -> torch.Tensor:
    """(G,) int64 number of edges of each frame."""
    edge_frame = inputs[AtomicDataDict.BATCH_KEY][inputs[AtomicDataDict.EDGE_INDEX_KEY][0]]
    return torch.bincount(edge_frame, minlength=len(inputs[AtomicDataDict.NUM_NODES_KEY]))


def chunks(inputs: AtomicDataDict.Type, frames: torch.Tensor, cap: int) -> list[slice]:
    """Cut the list of copied frames so that no pass holds more than `cap` edges (one copy at least)."""
    edges = frame_edges(inputs)[frames].tolist()
    cuts, held = [0], 0
    for index, count in enumerate(edges):
        if held and held + count > cap:
            cuts.append(index)
            held = 0
        held += count
    cuts.append(len(edges))
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a device now."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + unused)
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def graph_bytes(model: Any, inputs: AtomicDataDict.Type) -> tuple[float, float]:
    """Bytes an edge that the graph of the forces keeps, and that of one product.

    Measured once for a model, on copies of the batch's frame with most edges: what autograd saves, each storage once.
    It is the eager model's, also where a compiled one is used, whose graphs are the smaller ones: nothing is traced.
    """
    found = getattr(model, "_graph_bytes", None)
    if found is None:
        largest = int(frame_edges(inputs).argmax())
        copies, _ = gather_frames(inputs, torch.tensor([largest, largest], device=inputs["pos"].device))
        probe = torch.ones_like(copies[AtomicDataDict.POSITIONS_KEY])
        edges = max(1, copies[AtomicDataDict.EDGE_INDEX_KEY].shape[1])
        forces = _saved(lambda: model.model(dict(copies)))
        both = _saved(lambda: model.model({**copies, HESSIAN_PROBE_KEY: probe}))
        found = (forces / edges, max(both - forces, 1.0) / edges)
        model._graph_bytes = found
    return found


def _saved(run: Callable[[], Any]) -> float:
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    del out
    return float(sum(seen.values()))
