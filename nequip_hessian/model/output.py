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

import torch
from e3nn.util.jit import compile_mode
from nequip.data import AtomicDataDict
from nequip.nn import ForceStressOutput
from nequip.nn.compile import CompileGraphModel
from nequip.nn.graph_model import GraphModel
from nequip.nn.model_modifier_utils import model_modifier, replace_submodules

from nequip_hessian._keys import HESSIAN_DIFFERENCE_KEY, HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY
from nequip_hessian.model.differences import by_differences
from nequip_hessian.model.memory import free_memory
from nequip_hessian.model.ways import in_copies, in_loop


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


def _detach(data: AtomicDataDict.Type) -> AtomicDataDict.Type:
    return {key: value.detach() for key, value in data.items()}


class _ManyProbes:
    """Any number of probes a geometry round a graph model; in evaluation it lets go of their graphs.

    Attributes:
        product_way: `loop`, `copies`, or `auto`: the loop on a CPU, else copies (see `ways.py`)
        product_memory: bytes for the graphs of products in training; default half of what is free
    """

    training: bool
    product_way: str = "auto"
    product_memory: float | None = None
    _share = False

    def forward(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        """Return the model's outputs, with `hessian_product` (N, 3K) for `hessian_probe` (N, 3K).

        Exact, or by differences of forces where `hessian_difference` (G, 2) is given, angstrom.
        """
        if HESSIAN_PROBE_KEY not in data:
            return super().forward(data)  # type: ignore[misc]
        exact = HESSIAN_DIFFERENCE_KEY not in data
        if exact and AtomicDataDict.BATCH_KEY not in data and data[HESSIAN_PROBE_KEY].shape[1] == 3:
            return self._one_probe(data)  # one frame, one probe: nothing to copy, and it can be exported
        if HESSIAN_DIFFERENCE_KEY in data:
            out = by_differences(self, self._one_probe, data)
        elif self._looped(data):
            out = in_loop(self, super().forward, data, memory=self._memory(data))  # type: ignore[misc]
        else:
            out = in_copies(self, self._one_probe, data, share=self._share, memory=self._memory(data))
        return out if self.training else _detach(out)

    def _looped(self, data: AtomicDataDict.Type) -> bool:
        if self._share or self.product_way != "auto":
            return self.product_way == "loop"
        return data[HESSIAN_PROBE_KEY].shape[1] > 3 and data[HESSIAN_PROBE_KEY].device.type == "cpu"

    def _memory(self, data: AtomicDataDict.Type) -> float | None:
        if data[HESSIAN_PROBE_KEY].shape[1] <= 3:
            return None
        if self.product_memory is not None:
            return self.product_memory
        return free_memory(data[HESSIAN_PROBE_KEY].device) / 2

    def _one_probe(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        out = super().forward(data)  # type: ignore[misc]
        return out if self.training else _detach(out)


class HessianGraphModel(_ManyProbes, GraphModel):
    """`GraphModel` that takes any number of probes a geometry."""


class HessianCompileGraphModel(_ManyProbes, CompileGraphModel):
    """The same round `CompileGraphModel`: one compiled graph for any number of probes."""

    _share = True
