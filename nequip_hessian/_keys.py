"""Names of the data fields that this package adds to NequIP's `AtomicDataDict`.

N atoms in a batch, G geometries, K probes a geometry. Probe c of an atom fills
columns 3c to 3c + 2.
"""

from typing import Final

# (N, 3K) | dimensionless | probes v, norm 1 over the geometry; zero where a geometry has fewer than K
# (with HESSIAN_ROW_WEIGHT_KEY: u^-1/2, v = M^-1/2 u for u of norm 1)
HESSIAN_PROBE_KEY: Final[str] = "hessian_probe"
# (N, 3K) | eV/angstrom^2 | products H v; as a label NaN where there is none, as a prediction never NaN
HESSIAN_PRODUCT_KEY: Final[str] = "hessian_product"
# (G, 1) | dimensionless | weight in the loss: 1 / (share of geometries that carry a probe), 0 for one that does not
HESSIAN_WEIGHT_KEY: Final[str] = "hessian_weight"
# (G, 2) | angstrom | displacements a, b along the probe: H v = -(F(x + a v) - F(x + b v)) / (a - b); absent: exact
HESSIAN_DIFFERENCE_KEY: Final[str] = "hessian_difference"
# (G, 1) | index of the geometry in its store, int64; for messages only
HESSIAN_GEOMETRY_KEY: Final[str] = "hessian_geometry"
# (N, 1) | u^-1/2 | m^-1/2 of each atom: rows of a mass-weighted residual; absent: not mass-weighted
HESSIAN_ROW_WEIGHT_KEY: Final[str] = "hessian_row_weight"
# (N, 18) | dimensionless | up to six orthonormal rigid motions, motion c in columns 3c to 3c + 2, zero where
# there are fewer; they are projected out of the residual; absent: nothing is projected
HESSIAN_RIGID_KEY: Final[str] = "hessian_rigid"
# any customary shape, or packed (n(n+1)/2,) | eV/angstrom^2 | the label before probes are drawn; never batched
HESSIAN_KEY: Final[str] = "hessian"
# (n_active,) | atom indices of a partial Hessian; never batched
HESSIAN_ACTIVE_KEY: Final[str] = "hessian_active"
# (N,) | u | masses for `modes`, `mass_weighted` and `project`; never batched
HESSIAN_MASS_KEY: Final[str] = "hessian_mass"
