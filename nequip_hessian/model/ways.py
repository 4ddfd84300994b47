"""Ways to more than one Hessian-vector product a geometry, and to fewer than one.

    split        only some frames carry a probe: these and the others go through the model apart, so that
                 no frame pays for a product that it does not give
    loop         one forward pass; each product is one more backward pass through its forces
    copies       one copy of a frame for each of its probes, many in one pass; a traced graph then does
                 not know k
    differences  forces at displaced copies

Copies fill a GPU and are all that a compiled graph can do; on a CPU the loop shares the forward pass and is the
cheaper one where most frames carry most probes. Graphs of products that would not fit the memory given are not kept
but made again in the backward pass, group by group.

This module travels inside packaged models: it imports torch, nequip.data and what this package lets travel only.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import torch
from nequip.data import AtomicDataDict

from nequip_hessian._keys import HESSIAN_DIFFERENCE_KEY, HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.model.memory import MAX_EDGES_PER_PASS, Recomputed, chunks, frame_edges, graph_bytes
from nequip_hessian.model.replicate import frame_index, gather_frames, join_frames

Forward = Callable[[AtomicDataDict.Type], AtomicDataDict.Type]

_PRODUCT_COST: Final = 1.2
"""CPU time of one product of a frame in training over that of its energy-force step (measured: 1.1 to 1.3)."""


def given_probes(model: Any, data: AtomicDataDict.Type) -> tuple[AtomicDataDict.Type, torch.Tensor, torch.Tensor]:
    """Model inputs with `batch` and `num_atoms`, probes (K, N, 3), and which frames carry one, (K, G) boolean.

    Raises:
        ValueError: probes that are not (N, 3K).
    """
    inputs = AtomicDataDict.with_batch_({key: data[key] for key in model.model_input_fields if key in data})
    probes = inputs.pop(HESSIAN_PROBE_KEY)
    n_nodes, width = probes.shape
    if width == 0 or width % 3:
        raise ValueError(f"{HESSIAN_PROBE_KEY}: expected (N, 3K) with K >= 1, found {tuple(probes.shape)}")
    stacked = probes.view(n_nodes, width // 3, 3).transpose(0, 1)
    return inputs, stacked, _carries(stacked, inputs)


def loop_is_cheaper(inputs: AtomicDataDict.Type, carries: torch.Tensor) -> bool:
    """Whether a backward pass a probe through all frames costs less CPU time than copies of those that carry it."""
    edges = frame_edges(inputs).to(torch.float64)
    total = float(edges.sum())
    covered = float((edges * carries.any(dim=0)).sum())
    copied = float((edges * carries).sum())
    return total + _PRODUCT_COST * len(carries) * total < (total - covered) + (1.0 + _PRODUCT_COST) * copied


def in_split(
    forward: Forward, data: AtomicDataDict.Type, inputs: AtomicDataDict.Type, probe: torch.Tensor
) -> AtomicDataDict.Type:
    """Run frames that carry a probe, and frames that do not, each on their own.

    Args:
        forward: batch with or without a probe -> outputs
        data: the batch
        inputs: model inputs with `batch` and `num_atoms`
        probe: (N, 3), zero in frames that carry none

    Returns:
        outputs of all frames with `hessian_product` (N, 3); fields whose rows belong to nothing known are left out.
    """
    (carries,) = _carries(probe.unsqueeze(0), inputs)
    if bool(carries.all()):
        return forward({**data, HESSIAN_PROBE_KEY: probe})
    if not bool(carries.any()):
        out = forward({key: value for key, value in data.items() if key != HESSIAN_PROBE_KEY})
        # without a product of its own the frames' pass still gives a zero with a graph
        return {**out, HESSIAN_PRODUCT_KEY: 0 * out[AtomicDataDict.FORCE_KEY]}
    parts = []
    for some in (carries, ~carries):
        index = frame_index(inputs, torch.nonzero(some).view(-1))
        batch, atoms = gather_frames(inputs, index["graph"])
        if some is carries:
            out = forward({**batch, HESSIAN_PROBE_KEY: probe[atoms]})
        else:
            out = forward(batch)
            out[HESSIAN_PRODUCT_KEY] = 0 * out[AtomicDataDict.FORCE_KEY]
        parts.append((out, index))
    return join_frames(inputs, parts)  # never the data, which hold labels under the names of outputs


def in_copies(
    model: Any, forward: Forward, data: AtomicDataDict.Type, *, share: bool, memory: float | None
) -> AtomicDataDict.Type:
    """Run `forward` on `data` (K probes a geometry) and on copies of its frames that carry probes 1, ..., K - 1.

    Args:
        model: the graph model, for its list of input fields and its parameters
        forward: batch with at most one probe -> outputs
        data: batch with `hessian_probe` (N, 3K)
        share: frames without a probe take a zero one along unless they are the most, so that one kind of pass is
            traced and no more (a second one where labels or probes are few)
        memory: bytes for the graphs of copies; more are made again in the backward pass

    Returns:
        outputs of `data` with `hessian_product` (N, 3K); zero where the probe is.
    """
    inputs, stacked, carries = given_probes(model, data)
    n_probes, n_nodes, _ = stacked.shape
    first = stacked[0].contiguous()
    share = share and 2 * int(carries[0].sum()) >= carries.shape[1]
    out = forward({**data, HESSIAN_PROBE_KEY: first}) if share else in_split(forward, data, inputs, first)
    own = out[HESSIAN_PRODUCT_KEY]
    flat = torch.cat([own, own.new_zeros((n_probes - 1) * n_nodes, 3)])
    which, frames = torch.nonzero(carries[1:], as_tuple=True)
    cap, keep = _plan_copies(model, inputs, frames, memory)
    for part in chunks(inputs, frames, cap):
        copies, atoms = gather_frames(inputs, frames[part])
        rows = torch.repeat_interleave(which[part] + 1, copies[AtomicDataDict.NUM_NODES_KEY]) * n_nodes + atoms
        copies[HESSIAN_PROBE_KEY] = stacked.reshape(-1, 3)[rows]
        flat = flat.index_add(0, rows, _products_of(model, forward, copies, keep=keep))
    out[HESSIAN_PROBE_KEY] = data[HESSIAN_PROBE_KEY]
    out[HESSIAN_PRODUCT_KEY] = flat.view(n_probes, n_nodes, 3).transpose(0, 1).reshape(n_nodes, -1)
    return out


def _products_of(model: Any, forward: Forward, copies: AtomicDataDict.Type, *, keep: bool) -> torch.Tensor:
    if keep:
        return forward(copies)[HESSIAN_PRODUCT_KEY]

    def again() -> list[Callable[[], torch.Tensor]]:
        return [lambda: forward(dict(copies))[HESSIAN_PRODUCT_KEY]]

    return Recomputed.of(again()[0]().detach(), again, model)


def _plan_copies(
    model: Any, inputs: AtomicDataDict.Type, frames: torch.Tensor, memory: float | None
) -> tuple[int, bool]:
    """Most edges a pass, and whether the graphs of all passes may stay until the backward pass."""
    if memory is None or not len(frames) or not (model.training and torch.is_grad_enabled()):
        return MAX_EDGES_PER_PASS, True
    forces, product = graph_bytes(model, inputs)
    per_edge = forces + product
    keep = per_edge * float(frame_edges(inputs)[frames].sum()) <= memory
    return (MAX_EDGES_PER_PASS if keep else max(1, min(MAX_EDGES_PER_PASS, int(memory / per_edge)))), keep


def in_loop(model: Any, forward: Forward, data: AtomicDataDict.Type, *, memory: float | None) -> AtomicDataDict.Type:
    """One forward pass of an eager model, and a backward pass through its forces for each probe.

    Args:
        model: the graph model round a `HessianOutput`
        forward: batch without a probe -> outputs
        data: batch with `hessian_probe` (N, 3K)
        memory: bytes for the graphs of products; more are made again in the backward pass

    Returns:
        outputs of `data` with `hessian_product` (N, 3K).
    """
    inputs, stacked, _ = given_probes(model, data)
    rest = {key: value for key, value in data.items() if key != HESSIAN_PROBE_KEY}
    training = model.training and torch.is_grad_enabled()
    with torch.enable_grad():
        position, out = forces_with_graph(model, forward, rest)
        group, keep = len(stacked), True
        if training and memory is not None:
            forces, product = graph_bytes(model, inputs)
            edges = float(inputs[AtomicDataDict.EDGE_INDEX_KEY].shape[1])
            keep = (forces + product * len(stacked)) * edges <= memory
            group = max(1, int((memory / max(edges, 1.0) - forces) / product)) if not keep else group
        graph = training and keep
        rows = [_product(out[AtomicDataDict.FORCE_KEY], position, v, graph=graph) for v in stacked]
    products = torch.cat(rows, dim=1)
    if training and not keep:

        def again() -> list[Callable[[], torch.Tensor]]:
            forces = cache(partial(forces_with_graph, model, forward, rest))  # once for all groups
            return [partial(_group, forces, some) for some in stacked.split(group)]

        products = Recomputed.of(products.detach(), again, model)
    out[HESSIAN_PROBE_KEY] = data[HESSIAN_PROBE_KEY]
    out[HESSIAN_PRODUCT_KEY] = products
    return out


def _group(forces: Callable[[], tuple[torch.Tensor, AtomicDataDict.Type]], probes: torch.Tensor) -> torch.Tensor:
    position, out = forces()
    return torch.cat([_product(out[AtomicDataDict.FORCE_KEY], position, v, graph=True) for v in probes], dim=1)


def forces_with_graph(
    model: Any, forward: Forward, data: AtomicDataDict.Type
) -> tuple[torch.Tensor, AtomicDataDict.Type]:
    """Positions that require a gradient, and outputs whose forces can be differentiated with respect to them."""
    position = data[AtomicDataDict.POSITIONS_KEY].detach().requires_grad_(True)
    module = model.model  # keeps the graph of its forces in training mode only; the flag is its own
    training = module.training
    module.training = True
    try:
        return position, forward({**data, AtomicDataDict.POSITIONS_KEY: position})
    finally:
        module.training = training


def _product(forces: torch.Tensor, position: torch.Tensor, probe: torch.Tensor, *, graph: bool) -> torch.Tensor:
    if not forces.requires_grad:  # atoms without neighbours
        return torch.zeros_like(probe)
    (found,) = torch.autograd.grad([(forces * probe).sum()], [position], create_graph=graph, retain_graph=True)
    return torch.neg(found)


def by_differences(model: Any, forward: Forward, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
    """Products from differences of forces at displaced copies of the frames: -(F(x + a v) - F(x + b v)) / (a - b).

    The neighbour list stays that of x: pairs that come within the cutoff by the displacement are left
    out, where the interaction begins with the third power of the distance from it.

    Args:
        model: the graph model, for its list of input fields
        forward: batch without a probe -> outputs
        data: batch with `hessian_probe` (N, 3K) and the displacements (a, b) in `hessian_difference` (G, 2)

    Returns:
        outputs of `data` with `hessian_product` (N, 3K); zero where the probe is.
    """
    steps = data[HESSIAN_DIFFERENCE_KEY]
    if (steps[:, 0] == steps[:, 1]).any():
        raise ValueError(
            f"{HESSIAN_DIFFERENCE_KEY}: expected two different displacements a geometry, found {steps.tolist()}"
        )
    inputs, stacked, carries = given_probes(model, data)
    n_probes, n_nodes, _ = stacked.shape
    position = inputs[AtomicDataDict.POSITIONS_KEY].detach()
    inputs[AtomicDataDict.POSITIONS_KEY] = position
    out = forward({key: value for key, value in data.items() if key != HESSIAN_PROBE_KEY})
    own = out[AtomicDataDict.FORCE_KEY]
    flat = 0 * own.repeat(n_probes, 1)
    which, frames = torch.nonzero(carries, as_tuple=True)
    for part in chunks(inputs, frames, MAX_EDGES_PER_PASS):
        copies, atoms = gather_frames(inputs, frames[part])
        counts = copies[AtomicDataDict.NUM_NODES_KEY]
        rows = torch.repeat_interleave(which[part], counts) * n_nodes + atoms
        direction = stacked.reshape(-1, 3)[rows]
        a, b = (torch.repeat_interleave(steps[frames[part], side], counts)[:, None] for side in (0, 1))
        ahead = forward({**copies, AtomicDataDict.POSITIONS_KEY: position[atoms] + a * direction})
        if bool((b == 0).all()):
            behind = own[atoms]
        else:
            moved = {**copies, AtomicDataDict.POSITIONS_KEY: position[atoms] + b * direction}
            behind = forward(moved)[AtomicDataDict.FORCE_KEY]
        flat = flat.index_add(0, rows, (behind - ahead[AtomicDataDict.FORCE_KEY]) / (a - b))
    out[HESSIAN_PROBE_KEY] = data[HESSIAN_PROBE_KEY]
    out[HESSIAN_PRODUCT_KEY] = flat.view(n_probes, n_nodes, 3).transpose(0, 1).reshape(n_nodes, -1)
    return out


def _carries(stacked: torch.Tensor, inputs: AtomicDataDict.Type) -> torch.Tensor:
    """(K, G) boolean: which frames carry a probe; a padded one is all zero and so is its product."""
    atoms = (stacked != 0).any(dim=2).to(torch.long)
    counts = torch.zeros(
        len(stacked), len(inputs[AtomicDataDict.NUM_NODES_KEY]), dtype=torch.long, device=stacked.device
    )
    return counts.index_add(1, inputs[AtomicDataDict.BATCH_KEY], atoms) > 0
