"""The modules that travel inside a packaged model: one Hessian-vector product, and frames for more of them.

`HessianOutput` is NequIP's `ForceStressOutput` with one thing added: given a probe
v it also returns H v = -d(F . v)/dx (Pearlmutter, Neural Comput. 1994, 6, 147).
Because frames of a batch do not interact, one product serves the whole batch.
More than one probe a geometry means copies of its frame, made by the graph
models below, so a compiled graph does not know k: training with k = 1 and
validating on the full matrix share one.

Only torch, e3nn, nequip.nn, nequip.data and `_keys` may be imported here, also
inside functions: `nequip-package` follows every import statement.
"""

from itertools import pairwise
from typing import Any

import torch
from e3nn.util.jit import compile_mode
from nequip.data import AtomicDataDict
from nequip.nn import ForceStressOutput
from nequip.nn.compile import CompileGraphModel
from nequip.nn.graph_model import GraphModel
from nequip.nn.model_modifier_utils import model_modifier, replace_submodules

from nequip_hessian._keys import HESSIAN_DIFFERENCE_KEY, HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.model.replicate import gather_frames

MAX_EDGES_PER_PASS: int = 50_000
"""Edges in one forward pass over copied frames; more copies than that go through in chunks."""


@compile_mode("unsupported")
class HessianOutput(ForceStressOutput):
    """Energy, forces, stress, and for a given probe one Hessian-vector product.

    Same parameters and state-dict keys as `ForceStressOutput`; without a probe in the input it
    does exactly what that does.

    Args:
        func: the energy model to wrap
        do_derivatives: False gives energies only, and no products
    """

    training: bool

    def __init__(self, func: torch.nn.Module, do_derivatives: bool = True) -> None:
        super().__init__(func, do_derivatives)
        self.irreps_in.update(AtomicDataDict._fix_irreps_dict({HESSIAN_PROBE_KEY: "1o"}))
        self.irreps_out.update(AtomicDataDict._fix_irreps_dict({HESSIAN_PROBE_KEY: "1o", HESSIAN_PRODUCT_KEY: "1o"}))

    def forward(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        """Add `hessian_product` (N, 3), eV/angstrom^2, where `hessian_probe` (N, 3) is given.

        Raises:
            ValueError: a probe that is not (N, 3), or a probe where no derivatives can be taken.
        """
        if HESSIAN_PROBE_KEY not in data:
            return super().forward(data)
        probe = data[HESSIAN_PROBE_KEY]
        if not self.do_derivatives or AtomicDataDict.POSITIONS_KEY not in data:
            raise ValueError("a Hessian product needs positions and a model built with do_derivatives=True")
        position = data[AtomicDataDict.POSITIONS_KEY]
        if probe.dim() != 2 or probe.shape != position.shape:
            raise ValueError(
                f"{HESSIAN_PROBE_KEY}: expected shape {tuple(position.shape)} (one probe), found {tuple(probe.shape)}; "
                "several probes go through HessianGraphModel, which copies the frames"
            )
        if not position.requires_grad:
            # an alias, so that the caller's positions do not end up requiring a gradient
            position = position.detach().requires_grad_(True)
            data[AtomicDataDict.POSITIONS_KEY] = position
        # ForceStressOutput keeps the graph of the forces in training mode only; the product needs
        # it always. The flag is this module's own; its submodules keep theirs.
        training = self.training
        self.training = True
        try:
            data = super().forward(data)
        finally:
            self.training = training
        projected = torch.sum(data[AtomicDataDict.FORCE_KEY] * probe)
        (gradient,) = torch.autograd.grad([projected], [position], create_graph=self.training)
        data[HESSIAN_PRODUCT_KEY] = torch.neg(gradient)
        return data

    @model_modifier(persistent=True, private=False)
    @classmethod
    def detach_HessianOutput(cls, model: torch.nn.Module) -> torch.nn.Module:
        """Turn the model back into NequIP's plain energy-force model with the same weights."""

        def factory(old: "HessianOutput") -> ForceStressOutput:
            return ForceStressOutput(func=old.func, do_derivatives=old.do_derivatives)

        return replace_submodules(model, cls, factory)


def _in_copies(model: Any, forward: Any, data: AtomicDataDict.Type, *, share: bool) -> AtomicDataDict.Type:
    """Run `forward` on `data` (K probes a geometry) and on copies of its frames that carry probes.

    The frames' own pass takes their first probe along where that is cheaper: a pass with a product
    costs about 2.4 times one without, so it is not where fewer than half of the frames carry one.

    Args:
        model: the graph model, for its list of input fields
        forward: batch with at most one probe -> outputs
        data: batch with `hessian_probe` (N, 3K)
        share: always take the first probe along, so that only one kind of pass is ever traced

    Returns:
        outputs of `data` with `hessian_product` (N, 3K); zero where the probe is.
    """
    inputs = {key: data[key] for key in model.model_input_fields if key in data}
    inputs = AtomicDataDict.with_batch_(inputs)
    probes = inputs[HESSIAN_PROBE_KEY]
    n_nodes, width = probes.shape
    if width == 0 or width % 3:
        raise ValueError(f"{HESSIAN_PROBE_KEY}: expected (N, 3K) with K >= 1, found {tuple(probes.shape)}")
    n_probes = width // 3
    stacked = probes.view(n_nodes, n_probes, 3).transpose(0, 1)  # (K, N, 3)
    carries = _carries(stacked, inputs)
    share = share or 2 * int(carries[0].sum()) > carries.shape[1]

    own = dict(data)
    if share:
        own[HESSIAN_PROBE_KEY] = stacked[0].contiguous()
    else:
        del own[HESSIAN_PROBE_KEY]
    out = forward(own)
    # without a product of its own the frames' pass still gives a zero with a graph
    first = out[HESSIAN_PRODUCT_KEY] if share else 0 * out[AtomicDataDict.FORCE_KEY]
    flat = torch.cat([first, first.new_zeros((n_probes - 1) * n_nodes, 3)])
    which, frames = torch.nonzero(carries[int(share) :], as_tuple=True)
    which = which + int(share)
    for part in _chunks(inputs, frames):
        copies, atoms = gather_frames(inputs, frames[part])
        rows = torch.repeat_interleave(which[part], copies[AtomicDataDict.NUM_NODES_KEY]) * n_nodes + atoms
        copies[HESSIAN_PROBE_KEY] = stacked.reshape(-1, 3)[rows]
        flat = flat.index_add(0, rows, forward(copies)[HESSIAN_PRODUCT_KEY])
    out[HESSIAN_PROBE_KEY] = probes
    out[HESSIAN_PRODUCT_KEY] = flat.view(n_probes, n_nodes, 3).transpose(0, 1).reshape(n_nodes, width)
    return out


def _by_differences(model: Any, forward: Any, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
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
    inputs = AtomicDataDict.with_batch_({key: data[key] for key in model.model_input_fields if key in data})
    probes, steps = inputs.pop(HESSIAN_PROBE_KEY), data[HESSIAN_DIFFERENCE_KEY]
    if probes.shape[1] == 0 or probes.shape[1] % 3 or (steps[:, 0] == steps[:, 1]).any():
        raise ValueError(
            f"{HESSIAN_DIFFERENCE_KEY}: expected two different displacements a geometry and probes (N, 3K), found "
            f"{steps.tolist()} and {tuple(probes.shape)}"
        )
    position = inputs[AtomicDataDict.POSITIONS_KEY].detach()
    inputs[AtomicDataDict.POSITIONS_KEY] = position
    n_nodes, n_probes = len(probes), probes.shape[1] // 3
    stacked = probes.view(n_nodes, n_probes, 3).transpose(0, 1)
    out = forward({key: value for key, value in data.items() if key != HESSIAN_PROBE_KEY})
    own = out[AtomicDataDict.FORCE_KEY]
    flat = 0 * own.repeat(n_probes, 1)
    which, frames = torch.nonzero(_carries(stacked, inputs), as_tuple=True)
    for part in _chunks(inputs, frames):
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
    out[HESSIAN_PROBE_KEY] = probes
    out[HESSIAN_PRODUCT_KEY] = flat.view(n_probes, n_nodes, 3).transpose(0, 1).reshape(n_nodes, -1)
    return out


def _carries(stacked: torch.Tensor, inputs: AtomicDataDict.Type) -> torch.Tensor:
    """(K, G) boolean: which frames carry a probe; a padded one is all zero and so is its product."""
    atoms = (stacked != 0).any(dim=2).to(torch.long)
    counts = torch.zeros(
        len(stacked), len(inputs[AtomicDataDict.NUM_NODES_KEY]), dtype=torch.long, device=stacked.device
    )
    return counts.index_add(1, inputs[AtomicDataDict.BATCH_KEY], atoms) > 0


def _chunks(inputs: AtomicDataDict.Type, frames: torch.Tensor) -> list[slice]:
    """Cut the list of copied frames so that no pass holds more than MAX_EDGES_PER_PASS edges (one copy at least)."""
    edge_frame = inputs[AtomicDataDict.BATCH_KEY][inputs[AtomicDataDict.EDGE_INDEX_KEY][0]]
    edges = torch.bincount(edge_frame, minlength=len(inputs[AtomicDataDict.NUM_NODES_KEY]))[frames].tolist()
    cuts, held = [0], 0
    for index, count in enumerate(edges):
        if held and held + count > MAX_EDGES_PER_PASS:
            cuts.append(index)
            held = 0
        held += count
    cuts.append(len(edges))
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]


def _detach(data: AtomicDataDict.Type) -> AtomicDataDict.Type:
    return {key: value.detach() for key, value in data.items()}


class _ManyProbes:
    """Any number of probes a geometry round a graph model; in evaluation it lets go of their graphs."""

    training: bool
    _share = False

    def forward(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        """Return the model's outputs, with `hessian_product` (N, 3K) for `hessian_probe` (N, 3K).

        Exact, or by differences of forces where `hessian_difference` (G, 2) is given, angstrom.
        """
        if HESSIAN_PROBE_KEY not in data:
            return super().forward(data)  # type: ignore[misc]
        if HESSIAN_DIFFERENCE_KEY in data:
            out = _by_differences(self, self._one_probe, data)
        else:
            out = _in_copies(self, self._one_probe, data, share=self._share)
        return out if self.training else _detach(out)

    def _one_probe(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        out = super().forward(data)  # type: ignore[misc]
        return out if self.training else _detach(out)


class HessianGraphModel(_ManyProbes, GraphModel):
    """`GraphModel` that takes any number of probes a geometry."""


class HessianCompileGraphModel(_ManyProbes, CompileGraphModel):
    """The same round `CompileGraphModel`: one compiled graph for any number of probes."""

    _share = True
