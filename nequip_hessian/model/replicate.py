"""Copies of the frames of a batch, one a Hessian-vector product.

Frames of a batch do not interact, so k products of a geometry are one product
of each of k copies of it. A traced graph then never knows k. This module
travels inside packaged models: it imports torch and nequip.data only.
"""

import torch
from nequip.data import AtomicDataDict
from nequip.data._key_registry import get_field_type

from nequip_hessian._keys import HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY

_DERIVED = (AtomicDataDict.BATCH_KEY, AtomicDataDict.NUM_NODES_KEY, AtomicDataDict.EDGE_INDEX_KEY)


def ragged_ranges(starts: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Concatenate the ranges start, ..., start + count - 1 of each (start, count) pair; int64 (sum of counts,)."""
    ends = torch.cumsum(counts, 0)
    total = int(ends[-1]) if len(ends) else 0
    within = torch.arange(total, device=starts.device) - torch.repeat_interleave(ends - counts, counts)
    return torch.repeat_interleave(starts, counts) + within


def frame_index(data: AtomicDataDict.Type, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rows of a batch that belong to the given frames, one after the other.

    Args:
        data: a batch (with `batch` and `num_atoms`)
        frames: (P,) int64 frame indices, repetitions allowed

    Returns:
        `node`, `edge` and `graph` -> int64 rows of per-atom, per-edge and per-frame fields.
    """
    num_atoms = data[AtomicDataDict.NUM_NODES_KEY]
    atom_start = torch.cumsum(num_atoms, 0) - num_atoms
    edge_frame = data[AtomicDataDict.BATCH_KEY][data[AtomicDataDict.EDGE_INDEX_KEY][0]]
    order = torch.argsort(edge_frame, stable=True)
    edge_counts = torch.bincount(edge_frame, minlength=len(num_atoms))
    edge_start = torch.cumsum(edge_counts, 0) - edge_counts
    return {
        "node": ragged_ranges(atom_start[frames], num_atoms[frames]),
        "edge": order[ragged_ranges(edge_start[frames], edge_counts[frames])],
        "graph": frames,
    }


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
    index = frame_index(data, frames)
    atoms, edges = index["node"], index["edge"]
    num_atoms, edge_index = data[AtomicDataDict.NUM_NODES_KEY], data[AtomicDataDict.EDGE_INDEX_KEY][:, edges]
    counts = num_atoms[frames]
    copy = torch.repeat_interleave(torch.arange(len(frames), device=frames.device), counts)
    # atoms move by (start of the copy) - (start of the original)
    shift = (torch.cumsum(counts, 0) - counts) - (torch.cumsum(num_atoms, 0) - num_atoms)[frames]
    edge_counts = torch.bincount(data[AtomicDataDict.BATCH_KEY][data[AtomicDataDict.EDGE_INDEX_KEY][0]])
    edge_counts = torch.nn.functional.pad(edge_counts, (0, len(num_atoms) - len(edge_counts)))[frames]

    out: AtomicDataDict.Type = {
        AtomicDataDict.NUM_NODES_KEY: counts,
        AtomicDataDict.BATCH_KEY: copy,
        AtomicDataDict.EDGE_INDEX_KEY: edge_index + torch.repeat_interleave(shift, edge_counts).unsqueeze(0),
    }
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


def leading_frames(outputs: AtomicDataDict.Type, inputs: AtomicDataDict.Type) -> AtomicDataDict.Type:
    """Outputs of the first frames of a batch.

    Args:
        outputs: of a batch that `gather_frames` made, its first frames all those of `inputs`, in their order
        inputs: the model inputs of these frames

    Returns:
        those fields that are per atom, per edge or per frame, and empty ones.
    """
    sizes = {
        "node": len(inputs[AtomicDataDict.POSITIONS_KEY]),
        "edge": inputs[AtomicDataDict.EDGE_INDEX_KEY].shape[1],
        "graph": len(inputs[AtomicDataDict.NUM_NODES_KEY]),
    }
    kinds = {key: get_field_type(key, error_on_unregistered=False) for key in outputs}
    return {key: value[: sizes[kinds[key]]] for key, value in outputs.items() if kinds[key] in sizes}


def join_frames(
    inputs: AtomicDataDict.Type, parts: list[tuple[AtomicDataDict.Type, dict[str, torch.Tensor]]]
) -> AtomicDataDict.Type:
    """Put the outputs of parts of a batch together again.

    Args:
        inputs: the model inputs of the whole batch, kept as they are
        parts: outputs of each part, and its rows of the whole batch (`frame_index`)

    Returns:
        `inputs` and those outputs that are per atom, per edge or per frame, in the order of `inputs`.
    """
    places = {kind: torch.argsort(torch.cat([index[kind] for _, index in parts])) for kind in parts[0][1]}
    out = dict(inputs)
    for key in parts[0][0]:
        kind = "node" if key == HESSIAN_PRODUCT_KEY else get_field_type(key, error_on_unregistered=False)
        if key in inputs or kind not in places or any(key not in part for part, _ in parts):
            continue
        rows = torch.cat([part[key] for part, _ in parts])
        # a stress without a cell has no rows
        out[key] = rows[places[kind]] if len(rows) == len(places[kind]) else rows
    return out
