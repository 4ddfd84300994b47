"""Loaded at `import nequip` (entry point group `nequip.extension`): registers our data fields
and the target of `nequip-compile`.
"""

from nequip.data import register_fields

from nequip_hessian import _keys
from nequip_hessian.model import target

register_fields(
    node_fields=[
        _keys.HESSIAN_PROBE_KEY,
        _keys.HESSIAN_PRODUCT_KEY,
        _keys.HESSIAN_ROW_WEIGHT_KEY,
        _keys.HESSIAN_RIGID_KEY,
    ],
    graph_fields=[_keys.HESSIAN_WEIGHT_KEY, _keys.HESSIAN_DIFFERENCE_KEY, _keys.HESSIAN_GEOMETRY_KEY],
)

target.register()
