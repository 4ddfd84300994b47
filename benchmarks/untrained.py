"""The small untrained models and the data that the benchmarks share; cost does not depend on weights."""

from __future__ import annotations

from typing import Any

import torch
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.integrations.utils import basic_transforms
from nequip.utils.global_state import set_global_state

from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.data import HessianDataset
from nequip_hessian.model import AllegroModel, NequIPGNNModel

SYMBOLS = ["H", "C", "N", "O"]
R_MAX = 5.0
_EMBED = {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed"}
_WIDTHS = ("scalar_embed_mlp_hidden_layers_width", "allegro_mlp_hidden_layers_width")
MODELS: dict[str, dict[str, Any]] = {
    "nequip": {"num_layers": 3, "l_max": 1, "num_features": 32},
    "small nequip": {"num_layers": 2, "l_max": 1, "num_features": 16},
    "allegro": {
        **{"l_max": 2, "num_layers": 2, "num_scalar_features": 32, "num_tensor_features": 8},
        **{"radial_chemical_embed": _EMBED, "radial_chemical_embed_dim": 32, **dict.fromkeys(_WIDTHS, 32)},
        "readout_mlp_hidden_layers_width": 16,
    },
    "small allegro": {
        **{"l_max": 1, "num_layers": 1, "num_scalar_features": 16, "num_tensor_features": 8},
        **{"radial_chemical_embed": _EMBED, "radial_chemical_embed_dim": 16},
    },
}
DESCRIPTIONS = {
    "nequip": "NequIP of 3 layers, l = 1, 32 features",
    "small nequip": "NequIP of 2 layers, l = 1, 16 features",
    "allegro": "Allegro of 2 layers, l = 2, 32 scalar and 8 tensor features",
    "small allegro": "Allegro of 1 layer, l = 1, 16 scalar and 8 tensor features",
}


def settings(name: str, symbols: list[str] = SYMBOLS, r_max: float = R_MAX, neighbours: float = 8.0) -> dict[str, Any]:
    """Arguments of a model builder for one of `MODELS`, float64; the cutoff in angstrom."""
    common = {"seed": 1, "model_dtype": "float64", "type_names": symbols, "r_max": r_max}
    scales = {"avg_num_neighbors": neighbours, "per_type_energy_scales": 1.0, "per_type_energy_shifts": 0.0}
    return {**common, **scales, **MODELS[name]}


def plain_model(name: str, **options: Any) -> Any:
    """A model of NequIP or Allegro, without anything of ours."""
    if name.endswith("nequip"):
        from nequip.model import NequIPGNNModel as Plain
    else:
        from allegro.model import AllegroModel as Plain
    return Plain(**settings(name), **options)


def our_model(name: str, **options: Any) -> Any:
    """The same with products."""
    return (NequIPGNNModel if name.endswith("nequip") else AllegroModel)(**settings(name), **options)


def calculator(name: str, symbols: list[str], r_max: float, device: str = "cpu") -> HessianCalculator:
    """A calculator round one of the models, one thread."""
    set_global_state()
    torch.set_num_threads(1)
    build = NequIPGNNModel if name.endswith("nequip") else AllegroModel
    model = build(**settings(name, symbols, r_max, neighbours=10.0)).eval()
    transforms = basic_transforms(model.metadata, r_max, symbols, {symbol: symbol for symbol in symbols})
    return HessianCalculator(model=model, device=device, transforms=transforms)


def dataset(store: str, hessian: dict[str, Any] | None) -> HessianDataset:
    """All geometries of a store of molecules of H, C, N, O with neighbour lists."""
    transforms = [ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)]
    return HessianDataset(store, hessian=hessian, seed=1, transforms=transforms)
