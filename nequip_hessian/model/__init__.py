"""Models that give Hessian-vector products; what a YAML names in `_target_`.

The builders are looked up on first use and not imported here: `nequip-package`
follows every import statement of this package, and only `output.py` and what
it needs may travel with a model.
"""

import importlib

__all__ = ["AllegroModel", "HessianModel", "NequIPGNNModel"]


def __getattr__(name: str) -> object:
    """Return a builder of `builders.py`."""
    if name in __all__:
        return getattr(importlib.import_module("nequip_hessian.model.builders"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
