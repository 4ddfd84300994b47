"""Exact Hessians of many geometries: what goes into a batch, which products are asked for, and how many at once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from nequip.data import AtomicDataDict
from nequip.utils import torch_default_dtype

from nequip_hessian.compiled import compiled_products, join_frames
from nequip_hessian.errors import HessianDataWarning
from nequip_hessian.model.matrix import Plan, Products, collect, dense_plan, eager_products, graph_bytes, sparse_plan
from nequip_hessian.model.sizes import products_at_once
from nequip_hessian.reach import measure_hops, probe_chain
from nequip_hessian.sparsity import block_pattern

_log = logging.getLogger(__name__)

ATOMS_PER_BATCH = 128
"""Atoms of several geometries that are evaluated in one pass on a CPU, where larger batches are no faster."""
ATOMS_PER_BATCH_CUDA = 4096

MEMORY_BUDGET = 2 * 2**30
"""Bytes that the graph of a batch of several geometries may hold on a CPU; on a GPU half of what is free."""

INPUT_DTYPE = torch.float64
"""NequIP makes its inputs in torch's default dtype, which other code in the process may have set to float32:
positions would silently lose half their digits, and a compiled file would return NaN."""

_MOST_AT_ONCE = 64  # products in one vectorised pass

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-4}  # of a sparse Hessian against a product, relative


class ExactHessians:
    """The part of `HessianCalculator` that asks a model for products.

    Attributes:
        compiled: the model is a file of nequip-compile
        products: it gives exact Hessian products (eager models, and files of the target `hessian`)
        sparse: leave out blocks that are exactly zero where that needs fewer products
        memory_budget: bytes that the graph of several geometries may hold; None: by device
        dtype: of the model
    """

    compiled = False
    products = True
    sparse = True
    memory_budget: int | None = None
    dtype = torch.float64
    _hops: int | None = -1  # not yet measured
    _bytes_per_edge: float | None = None

    model: Any
    device: Any
    transforms: Any
    species: Any
    atoms_to_data: Any

    def hops(self) -> int | None:
        """Steps of the neighbour list beyond which blocks of a Hessian are zero, measured at the first call.

        None: there is no such number, or none could be measured; Hessians are dense then.
        """
        if self._hops == -1:
            self._hops = self._measure_hops()
            _log.info("second derivatives reach %s hops", self._hops)
        return self._hops

    def exact_hessians(self, frames: list[AtomicDataDict.Type], chosen: Sequence[npt.NDArray[np.int64]]) -> list[Any]:
        """Hessians of a batch in the model's unit: arrays (3n, 3n), or bsr_array where that took fewer products.

        Args:
            frames: model inputs, one geometry each
            chosen: for each the (n,) atoms to cover
        """
        counts = [len(frame[AtomicDataDict.POSITIONS_KEY]) for frame in frames]
        plans = [self.plan_products(frame, atoms) for frame, atoms in zip(frames, chosen, strict=True)]
        like = torch.cat([frame[AtomicDataDict.POSITIONS_KEY] for frame in frames])
        with torch_default_dtype(INPUT_DTYPE):
            products = self._products(frames)
            found = collect(products, like, counts, plans, _TOLERANCE[self.dtype])
            if any(hessian is None for hessian in found):
                warnings.warn(
                    "a sparse Hessian did not give a random product: the model reaches farther than was measured; "
                    "all blocks are computed (and from now on: sparse = False)",
                    HessianDataWarning,
                    stacklevel=4,
                )
                self.sparse = False
                found = collect(products, like, counts, [dense_plan(atoms) for atoms in chosen])
        return found

    def _products(self, frames: list[AtomicDataDict.Type]) -> Products:
        if self.compiled:
            return compiled_products(self.model, join_frames(frames))
        data = AtomicDataDict.batched_from_list(frames)
        return eager_products(self.model, data, self._at_once(data))

    def _at_once(self, data: AtomicDataDict.Type) -> int:
        """Products in one vectorised pass: on a GPU, which one alone does not fill, as many as the memory allows."""
        edges = data[AtomicDataDict.EDGE_INDEX_KEY].shape[1]
        if not data[AtomicDataDict.POSITIONS_KEY].is_cuda:
            return min(_MOST_AT_ONCE, products_at_once(edges, torch.device("cpu")))
        if self._bytes_per_edge is None:
            return 1
        return max(1, min(_MOST_AT_ONCE, int(self._budget() / (self._bytes_per_edge * max(edges, 1)))))

    def plan_products(self, data: AtomicDataDict.Type, atoms: npt.NDArray[np.int64]) -> Plan:
        """Which products the Hessian of the given (n,) atoms of one frame takes."""
        edges = data[AtomicDataDict.EDGE_INDEX_KEY].cpu().numpy().astype(np.int64)
        n_atoms = len(data[AtomicDataDict.POSITIONS_KEY])
        # what is within one hop of everything is within any number of hops of it
        if not self.sparse or block_pattern(edges, n_atoms, 1).nnz == n_atoms**2:
            return dense_plan(atoms)
        hops = self.hops()
        if hops is None:
            return dense_plan(atoms)
        plan = sparse_plan(atoms, edges, n_atoms, hops)
        _log.info("Hessian of %d atoms: %d products of %d", len(atoms), plan.n_products, 3 * len(atoms))
        return plan

    def _measure_hops(self) -> int | None:
        cutoff = float(self.transforms[-1].r_max)
        for symbol in self.species:
            for part in (1.0, 0.7, 0.5, 0.35):  # cutoffs of single pairs of elements may be shorter
                data = self.atoms_to_data(probe_chain(symbol, part * cutoff))
                if data[AtomicDataDict.EDGE_INDEX_KEY].shape[1] < 2 * len(data[AtomicDataDict.POSITIONS_KEY]):
                    continue
                with torch_default_dtype(INPUT_DTYPE):
                    return measure_hops(data, lambda frame: self._products([frame]))
        return None

    def batches(self, geometries: Sequence[Atoms]) -> Iterator[list[AtomicDataDict.Type]]:
        """Inputs of the geometries, in batches that fit the memory; one geometry at least."""
        batch: list[AtomicDataDict.Type] = []
        held, edges_held, periodic = 0, 0, False
        for atoms in geometries:
            data = self.atoms_to_data(atoms)
            edges = data[AtomicDataDict.EDGE_INDEX_KEY].shape[1]
            if self._bytes_per_edge is None and not self.compiled and edges:
                with torch_default_dtype(INPUT_DTYPE):
                    self._bytes_per_edge = graph_bytes(self.model, data) / edges
            need = (edges_held + edges) * (self._bytes_per_edge or 0.0)
            alone = self.compiled and (periodic or bool(atoms.pbc.any()))  # a joined frame has one cell
            full = held + len(atoms) > self._atoms_per_batch() or need > self._budget()
            if batch and (full or alone):
                yield batch
                batch, held, edges_held = [], 0, 0
            periodic = bool(atoms.pbc.any())
            batch.append(data)
            held, edges_held = held + len(atoms), edges_held + edges
        if batch:
            yield batch

    def _atoms_per_batch(self) -> int:
        return ATOMS_PER_BATCH_CUDA if self.device.type == "cuda" else ATOMS_PER_BATCH

    def _budget(self) -> int:
        if self.memory_budget is not None:
            return self.memory_budget
        return torch.cuda.mem_get_info(self.device)[0] // 2 if self.device.type == "cuda" else MEMORY_BUDGET
