"""Builders for a YAML's `_target_`: NequIP's and Allegro's own models with Hessian products added.

All keys, defaults, weights and checkpoints of the originals hold; one line of a
configuration differs.
"""

from typing import Any

import torch
from hydra.utils import get_method
from nequip.model.nequip_models import NequIPGNNModel as _PlainNequIPGNNModel
from nequip.model.utils import _TRAIN_TIME_COMPILE_KEY, get_current_compile_mode, model_builder
from nequip.nn.graph_model import (
    MODEL_DTYPE_KEY,
    PER_EDGE_TYPE_CUTOFF_KEY,
    R_MAX_KEY,
    TYPE_NAMES_KEY,
    GraphModel,
)
from nequip.utils import dtype_from_name, torch_default_dtype

from nequip_hessian.errors import ConfigError, MissingExtraError
from nequip_hessian.model.output import HessianCompileGraphModel, HessianGraphModel, HessianOutput

WAYS = ("auto", "loop", "copies")

_builder = model_builder(wrapper_class=HessianGraphModel, compile_wrapper_class=HessianCompileGraphModel)


def add_hessian_output(module: Any) -> HessianOutput:
    """Swap a model's top force module for `HessianOutput` round the same energy model.

    Args:
        module: what a NequIP model builder returns before wrapping; recognised by its class NAME,
            because the classes inside a packaged model are other objects

    Raises:
        ConfigError: the top module is not a `ForceStressOutput` (an ensemble, a wrapper), or its
            derivatives are switched off.
    """
    name = type(module).__name__
    if name not in ("ForceStressOutput", "HessianOutput"):
        raise ConfigError(
            f"Hessian products need a model whose top module is ForceStressOutput, found {name}: "
            "give a single NequIP or Allegro model, not an ensemble or a wrapper round one"
        )
    if not module.do_derivatives:
        raise ConfigError("Hessian products need do_derivatives: true, found false")
    return HessianOutput(func=module.func)


def give_products(model: Any) -> None:
    """Turn a plain graph model into one that takes one probe a geometry, in place and with the same weights.

    Args:
        model: NequIP's `GraphModel`, built, or loaded from a package or a checkpoint

    Raises:
        ConfigError: see `add_hessian_output`.
    """
    with torch_default_dtype(dtype_from_name(model.metadata[MODEL_DTYPE_KEY])):
        module = add_hessian_output(model.model)
    model.model = module.train(model.training)
    model.irreps_in.update(module.irreps_in)
    model.model_input_fields = list(model.irreps_in)


def set_products(model: Any, way: str, memory_gb: float | None) -> Any:
    """Say how a graph model makes several products, and what memory their graphs may take in training.

    Args:
        model: what a builder returns; where it is a part of a larger model nothing is set
        way: `loop`, `copies` or `auto`
        memory_gb: gigabytes; None: half of what is free

    Raises:
        ConfigError: an unknown way, a memory not above 0, or the loop with a compiled model.
    """
    if way not in WAYS:
        raise ConfigError(f"product_way: expected one of {', '.join(WAYS)}, found {way!r}")
    if memory_gb is not None and (
        not isinstance(memory_gb, int | float) or isinstance(memory_gb, bool) or not memory_gb > 0
    ):
        raise ConfigError(f"product_memory_gb: expected a number above 0 in gigabytes, found {memory_gb!r}")
    if isinstance(model, HessianCompileGraphModel) and way == "loop":
        raise ConfigError(
            "product_way: loop differentiates the forces once more, which a compiled graph cannot; use copies or auto "
            "with compile_mode: compile"
        )
    if isinstance(model, HessianGraphModel | HessianCompileGraphModel):
        model.product_way = way
        model.product_memory = None if memory_gb is None else 1e9 * memory_gb
    return model


@_builder
def _nequip(**kwargs: Any) -> GraphModel:
    return add_hessian_output(_PlainNequIPGNNModel(**kwargs))


@_builder
def _allegro(**kwargs: Any) -> GraphModel:
    try:
        plain = get_method("allegro.model.AllegroModel")
    except Exception as exc:  # hydra wraps the ImportError in one of its own
        raise MissingExtraError('AllegroModel needs nequip-allegro: pip install "nequip-hessian[allegro]"') from exc
    return add_hessian_output(plain(**kwargs))


def NequIPGNNModel(product_way: str = "auto", product_memory_gb: float | None = None, **kwargs: Any) -> GraphModel:
    """Build `nequip.model.NequIPGNNModel` (all its arguments) with Hessian products.

    Args:
        product_way: how several products of a geometry are made. `loop`: one forward pass for frames of about
            one size, and backward passes that make several products each; `copies`: a copy of the frame for
            each; `auto`: the loop on a CPU, copies on a GPU and in a compiled model
        product_memory_gb: gigabytes for the graphs of products in training; what does not fit is computed
            twice. Default half of the memory that is free
        **kwargs: those of `nequip.model.NequIPGNNModel`

    Returns:
        the model; with `hessian_probe` (N, 3K) in the input it also gives `hessian_product`, eV/angstrom^2.

    Raises:
        ConfigError: see `set_products`.
    """
    model: GraphModel = set_products(_nequip(**kwargs), product_way, product_memory_gb)
    return model


def AllegroModel(product_way: str = "auto", product_memory_gb: float | None = None, **kwargs: Any) -> GraphModel:
    """Build `allegro.model.AllegroModel` (all its arguments) with Hessian products.

    Args:
        product_way, product_memory_gb: as for `NequIPGNNModel`
        **kwargs: those of `allegro.model.AllegroModel`

    Raises:
        ConfigError: see `set_products`.
        MissingExtraError: nequip-allegro is not installed.
    """
    model: GraphModel = set_products(_allegro(**kwargs), product_way, product_memory_gb)
    return model


def HessianModel(
    model: dict[str, Any],
    compile_mode: str | None = None,
    product_way: str = "auto",
    product_memory_gb: float | None = None,
) -> torch.nn.Module:
    """Add Hessian products to a trained model, to fine-tune it on Hessians.

    Args:
        model: configuration of the model to load, `_target_: nequip.model.ModelFromPackage` or
            `nequip.model.ModelFromCheckpoint`
        compile_mode: `eager` or `compile`; default `eager`
        product_way, product_memory_gb: as for `NequIPGNNModel`

    Returns:
        the model with cutoff, type names and dtype of the loaded one.

    Raises:
        ConfigError: `model` names another builder, or several models were loaded.
    """
    config = dict(model)
    target = config.pop("_target_", None)
    if target is None or target.rsplit(".", 1)[-1] not in ("ModelFromPackage", "ModelFromCheckpoint"):
        raise ConfigError(
            "HessianModel: expected `model:` with _target_ nequip.model.ModelFromPackage or ModelFromCheckpoint, "
            f"found {target!r}; to train from scratch use nequip_hessian.model.NequIPGNNModel or AllegroModel"
        )
    loaded = get_method(target)(**config)
    if isinstance(loaded, torch.nn.ModuleDict):
        if len(loaded) != 1:
            raise ConfigError(f"HessianModel: expected a single model, found {len(loaded)}: {', '.join(loaded)}")
        loaded = next(iter(loaded.values()))
    current, overridden = get_current_compile_mode(return_override=True)
    mode = current if overridden or compile_mode is None else compile_mode
    wrapper = HessianCompileGraphModel if mode == _TRAIN_TIME_COMPILE_KEY else HessianGraphModel
    wrapped: torch.nn.Module = set_products(_wrap_loaded(loaded, wrapper), product_way, product_memory_gb)
    return wrapped


def _wrap_loaded(loaded: Any, wrapper: type[GraphModel]) -> GraphModel:
    metadata = loaded._metadata
    names = metadata[TYPE_NAMES_KEY].split(" ")
    settings = {
        MODEL_DTYPE_KEY: metadata[MODEL_DTYPE_KEY],
        TYPE_NAMES_KEY: names,
        R_MAX_KEY: metadata[R_MAX_KEY],
    }
    with torch_default_dtype(dtype_from_name(settings[MODEL_DTYPE_KEY])):
        module = add_hessian_output(loaded.model)
        result = wrapper(model=module, model_config=settings, model_input_fields=module.irreps_in)
    # Per-pair cutoffs are kept in their packed text form; the builder's form is a nested dictionary.
    if PER_EDGE_TYPE_CUTOFF_KEY in metadata:
        result._metadata[PER_EDGE_TYPE_CUTOFF_KEY] = metadata[PER_EDGE_TYPE_CUTOFF_KEY]
    return result
