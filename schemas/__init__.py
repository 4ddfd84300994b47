"""Versioned JSON Schemas and the normative text (SPEC.md) of the hessian_zarr convention."""
