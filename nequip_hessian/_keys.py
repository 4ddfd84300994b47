"""Names of the data fields that this package adds to NequIP's `AtomicDataDict`.

N atoms in a batch, G geometries, K probes a geometry. Probe c of an atom fills
columns 3c to 3c + 2.
"""

from typing import Final

# (N, 3K) | dimensionless | probes v, norm 1 over the geometry; zero where a geometry has fewer than K
HESSIAN_PROBE_KEY: Final[str] = "hessian_probe"
# (N, 3K) | eV/angstrom^2 | products H v; as a label NaN where there is none, as a prediction never NaN
HESSIAN_PRODUCT_KEY: Final[str] = "hessian_product"
# (G, 1) | dimensionless | weight in the loss: 1 / (share of training geometries with a Hessian), 0 without one
HESSIAN_WEIGHT_KEY: Final[str] = "hessian_weight"
# any customary shape, or packed (n(n+1)/2,) | eV/angstrom^2 | the label before probes are drawn; never batched
HESSIAN_KEY: Final[str] = "hessian"
# (n_active,) | atom indices of a partial Hessian; never batched
HESSIAN_ACTIVE_KEY: Final[str] = "hessian_active"
