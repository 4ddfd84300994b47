"""The target `hessian` of `nequip-compile --mode aotinductor`: energy, forces, stress and one Hessian product.

It takes one frame. Copies of a geometry, or molecules without a cell, that share no edges make up one frame as
well, so many products go through one call although the compiled graph knows of no batch (see
`nequip_hessian.compiled`).
"""

from __future__ import annotations

import sys
from typing import Any, Final

import torch
from nequip.data import AtomicDataDict
from nequip.scripts._compile_utils import (
    ASE_OUTPUTS,
    PAIR_NEQUIP_INPUTS,
    register_compile_targets,
    single_frame_batch_map_settings,
    single_frame_data_settings,
)

from nequip_hessian._keys import HESSIAN_PROBE_KEY, HESSIAN_PRODUCT_KEY

HESSIAN_TARGET_NAME: Final = "hessian"
_PROBE_NORM: Final = 0.01
"""NequIP holds compiled against eager outputs with one absolute tolerance for all fields: elements of a Hessian are
about a hundred times those of forces, so a product with this probe is about as large as a force."""


def _data_settings(data: AtomicDataDict.Type) -> AtomicDataDict.Type:
    """Example inputs of one frame with a probe; and the plain model that is about to be compiled gets its product.

    `nequip-compile` hands the model to none of a target's functions, so it is taken from the caller's variables.

    Raises:
        ConfigError: an ensemble, or another model without one force module at its top.
    """
    model: Any = sys._getframe(1).f_locals.get("model")
    if getattr(model, "is_graph_model", False) and HESSIAN_PROBE_KEY not in model.model_input_fields:
        from nequip_hessian.model.builders import give_products

        give_products(model)
    data = single_frame_data_settings(data)
    positions = data[AtomicDataDict.POSITIONS_KEY]
    probe = torch.linspace(-1.0, 1.0, positions.numel(), dtype=positions.dtype, device=positions.device)
    data[HESSIAN_PROBE_KEY] = (_PROBE_NORM * probe / probe.norm()).view_as(positions)
    return data


HESSIAN_TARGET: Final[dict[str, Any]] = {
    "input": [*PAIR_NEQUIP_INPUTS, HESSIAN_PROBE_KEY],
    "output": [*ASE_OUTPUTS, HESSIAN_PRODUCT_KEY],
    "batch_map_settings": single_frame_batch_map_settings,
    "data_settings": _data_settings,
}


def register() -> None:
    """Make the target known to `nequip-compile`."""
    register_compile_targets({HESSIAN_TARGET_NAME: HESSIAN_TARGET})
