"""Copies of the frames of a batch, one a Hessian-vector product.

Frames of a batch do not interact, so k products of a geometry are one product
of each of k copies of it. A traced graph then never knows k. This module
travels inside packaged models: it imports torch and nequip.data only.
"""

import torch
from nequip.data import AtomicDataDict
from nequip.data._key_registry import get_field_type

from nequip_hessian._keys import HESSIAN_PROBE_KEY

_DERIVED = (AtomicDataDict.BATCH_KEY, AtomicDataDict.NUM_NODES_KEY, AtomicDataDict.EDGE_INDEX_KEY)


def ragged_ranges(starts: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Concatenate the ranges start, ..., start + count - 1 of each (start, count) pair; int64 (sum of counts,)."""
    ends = torch.cumsum(counts, 0)
    total = int(ends[-1]) if len(ends) else 0
    within = torch.arange(total, device=starts.device) - torch.repeat_interleave(ends - counts, counts)
    return torch.repeat_interleave(starts, counts) + within


def gather_frames(data: AtomicDataDict.Type, frames: torch.Tensor) -> tuple[AtomicDataDict.Type, torch.Tensor]:
    """Build the batch that consists of the given frames, each as often as it is named.

    Args:
        data: a batch (with `batch` and `num_atoms`), holding model inputs only: per-atom,
            per-edge and per-frame tensors
        frames: (P,) int64 frame indices, repetitions allowed

    Returns:
        the new batch, and the (atoms,) int64 index of the old atom each new atom is a copy of.

    Raises:
        ValueError: an input that is neither per atom, per edge nor per frame.
    """
    num_atoms = data[AtomicDataDict.NUM_NODES_KEY]
    n_frames = len(num_atoms)
    atom_start = torch.cumsum(num_atoms, 0) - num_atoms
    counts = num_atoms[frames]
    atoms = ragged_ranges(atom_start[frames], counts)

    edge_index = data[AtomicDataDict.EDGE_INDEX_KEY]
    edge_frame = data[AtomicDataDict.BATCH_KEY][edge_index[0]]
    order = torch.argsort(edge_frame, stable=True)
    edge_counts = torch.bincount(edge_frame, minlength=n_frames)
    edge_start = torch.cumsum(edge_counts, 0) - edge_counts
    edges = order[ragged_ranges(edge_start[frames], edge_counts[frames])]
    # atoms move by (start of the copy) - (start of the original)
    shift = (torch.cumsum(counts, 0) - counts) - atom_start[frames]

    out: AtomicDataDict.Type = {
        AtomicDataDict.NUM_NODES_KEY: counts,
        AtomicDataDict.BATCH_KEY: torch.repeat_interleave(torch.arange(len(frames), device=frames.device), counts),
        AtomicDataDict.EDGE_INDEX_KEY: edge_index[:, edges]
        + torch.repeat_interleave(shift, edge_counts[frames]).unsqueeze(0),
    }
    index = {"node": atoms, "edge": edges, "graph": frames}
    for key, value in data.items():
        if key in _DERIVED:
            continue
        if key == AtomicDataDict.EDGE_TRANSPOSE_PERM_KEY:
            # edges sorted by (receiver, sender): the permutation that sorts them by (sender, receiver)
            receiver, sender = out[AtomicDataDict.EDGE_INDEX_KEY]
            out[key] = torch.argsort(sender * len(atoms) + receiver)
            continue
        kind = "node" if key == HESSIAN_PROBE_KEY else get_field_type(key, error_on_unregistered=False)
        if kind not in index:
            raise ValueError(f"model input {key!r} is neither per atom, per edge nor per frame: cannot copy its frames")
        out[key] = value[index[kind]]
    return out, atoms
