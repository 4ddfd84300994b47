"""Hessian-vector products from differences of forces at displaced copies of the frames.

The copies go through the model together with the frames themselves as far as they fit in one pass: of few frames a pass
is mostly the cost of calling its operations.

This module travels inside packaged models: it imports torch, nequip.data and what this package lets travel only.
"""

from typing import Any

import torch
from nequip.data import AtomicDataDict

from nequip_hessian._keys import HESSIAN_DIFFERENCE_KEY, HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.model.memory import MAX_EDGES_PER_PASS, chunks, frame_edges
from nequip_hessian.model.replicate import frame_index, gather_frames, join_frames, leading_frames
from nequip_hessian.model.ways import Forward, given_probes


def by_differences(model: Any, forward: Forward, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
    """Products from differences of forces at displaced copies of the frames: -(F(x + a v) - F(x + b v)) / (a - b).

    The neighbour list stays that of x: pairs that come within the cutoff by the displacement are left
    out, where the interaction begins with the third power of the distance from it.

    Args:
        model: the graph model, for its list of input fields
        forward: batch without a probe -> outputs
        data: batch with `hessian_probe` (N, 3K) and the displacements (a, b) in `hessian_difference` (G, 2), angstrom;
            b = 0 in all frames saves half of the copies

    Returns:
        outputs of `data` with `hessian_product` (N, 3K), eV/angstrom^2; zero where the probe is.

    Raises:
        ValueError: a = b.
    """
    steps = data[HESSIAN_DIFFERENCE_KEY]
    if (steps[:, 0] == steps[:, 1]).any():
        raise ValueError(
            f"{HESSIAN_DIFFERENCE_KEY}: expected two different displacements a geometry, found {steps.tolist()}"
        )
    inputs, stacked, carries = given_probes(model, data)
    n_probes, n_nodes, _ = stacked.shape
    ends = steps[:, :1] if bool((steps[:, 1] == 0).all()) else steps
    out, forces = _displaced(forward, inputs, stacked, carries, ends)
    atom_frame = inputs[AtomicDataDict.BATCH_KEY]
    behind = forces[1] if len(forces) == 2 else out[AtomicDataDict.FORCE_KEY] * carries[:, atom_frame, None]
    product = (behind - forces[0]) / (steps[:, 0] - steps[:, 1])[atom_frame, None]
    out[HESSIAN_PROBE_KEY] = data[HESSIAN_PROBE_KEY]
    out[HESSIAN_PRODUCT_KEY] = product.transpose(0, 1).reshape(n_nodes, 3 * n_probes)
    return out


def _displaced(
    forward: Forward,
    inputs: AtomicDataDict.Type,
    probes: torch.Tensor,
    carries: torch.Tensor,
    steps: torch.Tensor,
) -> tuple[AtomicDataDict.Type, torch.Tensor]:
    """Run frames as they are, and copies displaced by each of (G, S) steps along each of the (K, N, 3) probes.

    Returns:
        outputs of the frames, and forces of the copies (S, K, N, 3), eV/angstrom; zero where no probe is.
    """
    n_probes, n_nodes, _ = probes.shape
    position = inputs[AtomicDataDict.POSITIONS_KEY].detach()
    side, which, frame = torch.nonzero(carries.expand(steps.shape[1], -1, -1), as_tuple=True)
    whole = torch.arange(carries.shape[1], device=frame.device)
    edges = frame_edges(inputs)
    beside = int((torch.cumsum(edges[frame], 0) <= MAX_EDGES_PER_PASS - edges.sum()).sum())
    later = chunks(inputs, frame[beside:], MAX_EDGES_PER_PASS)
    out: AtomicDataDict.Type = {}
    forces = position.new_zeros(steps.shape[1] * n_probes * n_nodes, 3)
    for some in [slice(0, beside), *(slice(beside + part.start, beside + part.stop) for part in later)]:
        first = whole if not out else whole[:0]
        batch, atoms = gather_frames(inputs, torch.cat([first, frame[some]]))
        counts = batch[AtomicDataDict.NUM_NODES_KEY][len(first) :]
        n_first = len(atoms) - int(counts.sum())
        s, k, f = (torch.repeat_interleave(index[some], counts) for index in (side, which, frame))
        own, moved = atoms[:n_first], atoms[n_first:]
        displaced = position[moved] + steps[f, s].unsqueeze(1) * probes[k, moved]
        found = forward({**batch, AtomicDataDict.POSITIONS_KEY: torch.cat([position[own], displaced])})
        if not out:
            out = join_frames(inputs, [(leading_frames(found, inputs), frame_index(inputs, whole))])
        rows = (s * n_probes + k) * n_nodes + moved
        forces = forces.index_add(0, rows, found[AtomicDataDict.FORCE_KEY][n_first:])
    return out, forces.view(steps.shape[1], n_probes, n_nodes, 3)
