"""Loaded at `import nequip` (entry point group `nequip.extension`): registers our data fields."""

from nequip.data import register_fields

from nequip_hessian import _keys

register_fields(
    node_fields=[
        _keys.HESSIAN_PROBE_KEY,
        _keys.HESSIAN_PRODUCT_KEY,
        _keys.HESSIAN_ROW_WEIGHT_KEY,
        _keys.HESSIAN_RIGID_KEY,
    ],
    graph_fields=[_keys.HESSIAN_WEIGHT_KEY, _keys.HESSIAN_DIFFERENCE_KEY],
)
