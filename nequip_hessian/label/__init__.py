"""Engines that turn geometries into energy, force and Hessian labels, and the pool that runs them.

The call is `nequip_hessian.label.run.label`; the engines are `PyscfEngine` in
`label.pyscf`, `TbliteEngine` in `label.tblite` and `AseEngine` in `label.ase`.
"""
