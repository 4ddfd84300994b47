"""Ways to more than one Hessian-vector product a geometry, and to fewer than one.

    split        only some frames carry a probe: these and the others go through the model apart, so that
                 no frame pays for a product that it does not give
    loop         one forward pass for all frames of about one size, and backward passes through its forces
    copies       one copy of a frame for each of its probes, many in one pass; a traced graph then does
                 not know k

Copies fill a GPU and are all that a compiled graph can do; on a CPU the loop shares the forward pass and is the
cheaper one. Graphs of products that would not fit the memory given are not kept
but made again in the backward pass, group by group. Differences of forces are in `differences.py`.

This module travels inside packaged models: it imports torch, nequip.data and what this package lets travel only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from nequip.data import AtomicDataDict

from nequip_hessian._keys import HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.model.memory import MAX_EDGES_PER_PASS, Recomputed, chunks, frame_edges, graph_bytes
from nequip_hessian.model.replicate import frame_index, gather_frames, join_frames
from nequip_hessian.model.sizes import products_at_once, size_groups

Forward = Callable[[AtomicDataDict.Type], AtomicDataDict.Type]


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


def _products_of_frames(carries: torch.Tensor) -> torch.Tensor:
    """(G,) int64 number of probes up to the last one that a frame carries."""
    rank = torch.arange(1, len(carries) + 1, device=carries.device).unsqueeze(1)
    return (rank * carries).amax(dim=0)


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

    return Recomputed.of(again()[0]().detach(), again, model)[0]


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
    """A forward pass of an eager model for each group of frames of about one size, and backward passes for products.

    Args:
        model: the graph model round a `HessianOutput`
        forward: batch without a probe -> outputs
        data: batch with `hessian_probe` (N, 3K)
        memory: bytes for the graphs of products; more are made again in the backward pass

    Returns:
        outputs of `data` with `hessian_product` (N, 3K), eV/angstrom^2; fields whose rows belong to nothing known are
        left out where there are several groups.
    """
    inputs, stacked, carries = given_probes(model, data)
    edges, wanted = frame_edges(inputs).to(torch.float64), _products_of_frames(carries)
    groups, _ = size_groups(edges, wanted)
    room = _room(model, inputs, [(float(edges[g].sum()), int(wanted[g].max())) for g in groups], memory)
    if room is not None:
        groups = [part for group in groups for part in _parts_within(group, edges[group], room)]
    if len(groups) == 1:
        rest = {key: value for key, value in data.items() if key != HESSIAN_PROBE_KEY}
        out = _loop_of_group(model, forward, rest, stacked, room)
    else:
        parts = []
        for frames in groups:
            batch, atoms = gather_frames(inputs, frames)
            probes = stacked[: int(wanted[frames].max()), atoms]
            part = _loop_of_group(model, forward, batch, probes, room)
            beyond = 3 * (len(stacked) - len(probes))
            part[HESSIAN_PRODUCT_KEY] = torch.nn.functional.pad(part[HESSIAN_PRODUCT_KEY], (0, beyond))
            parts.append((part, frame_index(inputs, frames)))
        out = join_frames(inputs, parts)  # never the data, which hold labels under the names of outputs
    out[HESSIAN_PROBE_KEY] = data[HESSIAN_PROBE_KEY]
    return out


def _room(
    model: Any, inputs: AtomicDataDict.Type, groups: list[tuple[float, int]], memory: float | None
) -> float | None:
    """Edges times products whose graphs fit beside those of the forces; None: all of (edges, products) do."""
    if memory is None or not (model.training and torch.is_grad_enabled()):
        return None
    forces, product = graph_bytes(model, inputs)
    left = memory - forces * sum(edges for edges, _ in groups)
    return None if product * sum(edges * n for edges, n in groups) <= left else max(left, 0.0) / product


def _parts_within(frames: torch.Tensor, edges: torch.Tensor, room: float) -> list[torch.Tensor]:
    """Cut a group of frames so that one product of each part has room, or the part is a single frame."""
    parts, held = [[0]], float(edges[0])
    for position, count in enumerate(edges.tolist()[1:], start=1):
        if held + count > room:
            parts.append([])
            held = 0.0
        parts[-1].append(position)
        held += count
    return [frames[torch.tensor(part, device=frames.device)] for part in parts]


def _loop_of_group(
    model: Any, forward: Forward, data: AtomicDataDict.Type, probes: torch.Tensor, room: float | None
) -> AtomicDataDict.Type:
    """Outputs of frames that go through the model together, with `hessian_product` (N, 3K) for probes (K, N, 3)."""
    training = model.training and torch.is_grad_enabled()
    edges = data[AtomicDataDict.EDGE_INDEX_KEY].shape[1]
    width = products_at_once(edges, probes.device)
    if room is not None:
        width = max(1, min(width, int(room / max(edges, 1))))
    with torch.enable_grad():
        position, out = forces_with_graph(model, forward, data)
        forces = out[AtomicDataDict.FORCE_KEY]
        if not len(probes):  # a zero with a graph
            return {**out, HESSIAN_PRODUCT_KEY: 0 * forces[:, :0]}
        parts = probes.split(width)
        graph = training and room is None
        products = torch.cat([_products(forces, position, some, graph=graph) for some in parts], dim=1)
    if training and not graph:

        def again() -> list[Callable[[], torch.Tensor]]:
            return [partial(_products, forces, position, some, graph=True) for some in parts]

        products, out = Recomputed.of(products.detach(), again, model, out)
    return {**out, HESSIAN_PRODUCT_KEY: products}


def forces_with_graph(
    model: Any, forward: Forward, data: AtomicDataDict.Type
) -> tuple[torch.Tensor, AtomicDataDict.Type]:
    """Run a model so that its forces can be differentiated again.

    Args:
        model: the graph model round a module of forces, `model.model`
        forward: batch without a probe -> outputs
        data: a batch, positions in angstrom

    Returns:
        positions (N, 3), angstrom, that require a gradient, and the outputs, with forces (N, 3), eV/angstrom, whose
        graph leads to them.
    """
    position = data[AtomicDataDict.POSITIONS_KEY].detach().requires_grad_(True)
    module = model.model  # keeps the graph of its forces in training mode only; the flag is its own
    training = module.training
    module.training = True
    try:
        return position, forward({**data, AtomicDataDict.POSITIONS_KEY: position})
    finally:
        module.training = training


def _products(forces: torch.Tensor, position: torch.Tensor, probes: torch.Tensor, *, graph: bool) -> torch.Tensor:
    """(N, 3K) products for probes (K, N, 3)."""
    return torch.neg(pull_back(forces, position, probes, graph=graph)).transpose(0, 1).reshape(len(position), -1)


def pull_back(outputs: torch.Tensor, position: torch.Tensor, vectors: torch.Tensor, *, graph: bool) -> torch.Tensor:
    """Vectors times the Jacobian of forces or gradients, in one vectorised pass, or one by one where that is forbidden.

    Args:
        outputs: (N, 3) forces or energy gradients, eV/angstrom, with a graph, which is kept
        position: (N, 3), angstrom
        vectors: (K, N, 3)
        graph: whether the products get a graph of their own

    Returns:
        (K, N, 3), eV/angstrom^2: row k is vectors[k] . d outputs / d position; zero where nothing depends on positions.
    """
    if not outputs.requires_grad:  # atoms without neighbours
        return torch.zeros_like(vectors)
    options: dict[str, Any] = {"create_graph": graph, "retain_graph": True, "allow_unused": True}
    if len(vectors) > 1:
        try:
            (found,) = torch.autograd.grad([outputs], [position], [vectors], is_grads_batched=True, **options)
        except RuntimeError:  # a kernel that torch cannot vectorise; anything else comes up again below
            pass
        else:
            return torch.zeros_like(vectors) if found is None else found
    rows = [torch.autograd.grad([outputs], [position], [v], **options)[0] for v in vectors]
    return torch.stack([torch.zeros_like(v) if r is None else r for r, v in zip(rows, vectors, strict=True)])


def _carries(stacked: torch.Tensor, inputs: AtomicDataDict.Type) -> torch.Tensor:
    """(K, G) boolean: which frames carry a probe; a padded one is all zero and so is its product."""
    atoms = (stacked != 0).any(dim=2).to(torch.long)
    counts = torch.zeros(
        len(stacked), len(inputs[AtomicDataDict.NUM_NODES_KEY]), dtype=torch.long, device=stacked.device
    )
    return counts.index_add(1, inputs[AtomicDataDict.BATCH_KEY], atoms) > 0
