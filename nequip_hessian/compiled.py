"""Models compiled with `nequip-compile --mode aotinductor --target hessian`: what they take, and products from them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from nequip.data import AtomicDataDict
from nequip.utils.aoti_metadata import NEQUIP_AOTI_OUTPUTS_KEY, parse_aoti_keys

from nequip_hessian._keys import HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.model.matrix import Products

EDGES_PER_PASS: Final = 4000
"""Edges of the copies that go through a compiled model in one call on a CPU, enough to make the cost of the call small;
a GPU takes `EDGES_PER_PASS_CUDA`."""
EDGES_PER_PASS_CUDA: Final = 200_000


def gives_products(path: str | Path) -> bool:
    """Say whether a compiled file was made for the target `hessian`; False for what is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("wrapper_metadata.json"):
                    outputs = json.loads(archive.read(name)).get(NEQUIP_AOTI_OUTPUTS_KEY, "")
                    return HESSIAN_PRODUCT_KEY in parse_aoti_keys(outputs)
    except (zipfile.BadZipFile, OSError, ValueError):
        pass  # the loader says what is wrong with the file
    return False


def with_zero_probe(data: AtomicDataDict.Type) -> AtomicDataDict.Type:
    """The inputs of one frame with the probe that a compiled file wants even where no product is asked for."""
    return {**data, HESSIAN_PROBE_KEY: torch.zeros_like(data[AtomicDataDict.POSITIONS_KEY])}


def join_frames(frames: Sequence[AtomicDataDict.Type]) -> AtomicDataDict.Type:
    """One frame out of several that share no edges.

    Args:
        frames: model inputs of one geometry each; either all of one cell, or none periodic

    Returns:
        positions, types and edges one after the other; the cell is the first one's.
    """
    counts = [len(frame[AtomicDataDict.POSITIONS_KEY]) for frame in frames]
    shifts = [sum(counts[:index]) for index in range(len(frames))]
    edges = [frame[AtomicDataDict.EDGE_INDEX_KEY] + shift for frame, shift in zip(frames, shifts, strict=True)]
    joined = {AtomicDataDict.EDGE_INDEX_KEY: torch.cat(edges, dim=1)}
    for key in (AtomicDataDict.POSITIONS_KEY, AtomicDataDict.ATOM_TYPE_KEY, AtomicDataDict.EDGE_CELL_SHIFT_KEY):
        joined[key] = torch.cat([frame[key] for frame in frames])
    joined[AtomicDataDict.CELL_KEY] = frames[0][AtomicDataDict.CELL_KEY]
    return joined


def compiled_products(model: Any, data: AtomicDataDict.Type, edges_per_pass: int | None = None) -> Products:
    """Products of a compiled model, several in one call on copies of the frame.

    Args:
        model: what NequIP makes of a file of the target `hessian`
        data: model inputs of one frame, see `join_frames`
        edges_per_pass: edges of all copies in one call; default by device

    Returns:
        Probes (K, N, 3) -> products (K, N, 3), eV/angstrom^2.
    """
    n_atoms = len(data[AtomicDataDict.POSITIONS_KEY])
    n_edges = data[AtomicDataDict.EDGE_INDEX_KEY].shape[1]
    on_gpu = data[AtomicDataDict.POSITIONS_KEY].is_cuda
    limit = edges_per_pass or (EDGES_PER_PASS_CUDA if on_gpu else EDGES_PER_PASS)
    # the graph is made for two atoms and two edges or more
    copies = max(1 if n_atoms > 1 else 2, limit // max(n_edges, 1))

    def products(probes: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(probes)
        if not n_edges:  # atoms without neighbours: the energy does not depend on positions
            return out
        for first in range(0, len(probes), copies):
            part = probes[first : first + copies]
            wanted = len(part)
            if wanted * n_atoms < 2:
                part = part.repeat(2, 1, 1)
            inputs = join_frames([data] * len(part))
            inputs[HESSIAN_PROBE_KEY] = part.reshape(-1, 3)
            out[first : first + wanted] = model(inputs)[HESSIAN_PRODUCT_KEY].view(part.shape)[:wanted]
        return out

    return products
