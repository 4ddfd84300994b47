"""Energies, forces and Hessians for NequIP and Allegro potentials.

This module imports nothing, so that `nequip_hessian.store` and
`nequip_hessian.formats` work where neither torch nor NequIP is installed.
"""

__version__ = "0.1.0.dev0"
