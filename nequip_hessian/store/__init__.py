"""The Hessian store: a Zarr v3 layout for labelled geometries, its reader, writer and validator."""

from nequip_hessian.store.reactions import Reaction
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.report import Message, ValidationReport
from nequip_hessian.store.validator import differences, validate
from nequip_hessian.store.writer import StoreWriter

__all__ = ["HessianStore", "Message", "Reaction", "StoreWriter", "ValidationReport", "differences", "validate"]
