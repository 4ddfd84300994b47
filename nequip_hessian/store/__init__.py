"""The Hessian store: a Zarr v3 layout for labelled geometries, its reader, writer and validator."""

from nequip_hessian.store.reactions import Reaction
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.writer import StoreWriter

__all__ = ["HessianStore", "Reaction", "StoreWriter"]
