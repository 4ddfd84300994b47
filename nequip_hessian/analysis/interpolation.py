"""First guess of a reaction path between two geometries.

Geodesic interpolation (Zhu, Thompson, Martinez, J. Chem. Phys. 2019, 150, 164103) through the package
geodesic-interpolate where it is installed and succeeds, else the image dependent pair potential (Smidstrup,
Pedersen, Stokbro, Jonsson, J. Chem. Phys. 2014, 140, 214106) of ASE.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.mep import NEB, idpp_interpolate

from nequip_hessian.analysis.superpose import superpose
from nequip_hessian.curvature import principal_moments

NUDGE: Final = 0.05
"""Random displacement, angstrom, that takes a collinear path off its line, where no force could."""


def interpolate(reactant: Atoms, product: Atoms, images: int) -> tuple[npt.NDArray[np.float64], str]:
    """Guess a path.

    Args:
        reactant, product: end points, atoms in the same order, angstrom
        images: number of geometries with both end points

    Returns:
        Positions (images, N, 3), angstrom, the first and last congruent with the end points; and the
        name of what made them: `geodesic` or `idpp`.
    """
    try:
        path, name = _geodesic(reactant, product, images), "geodesic"
    except ImportError:
        path, name = _idpp(reactant, product, images), "idpp"
    except (ValueError, RuntimeError, IndexError, np.linalg.LinAlgError):
        path, name = _idpp(reactant, product, images), "idpp"
    if not np.all(np.isfinite(path)):
        path, name = _idpp(reactant, product, images), "idpp"
    return _leave_line(path, reactant.get_masses()), name


def _geodesic(reactant: Atoms, product: Atoms, images: int) -> npt.NDArray[np.float64]:
    from geodesic_interpolate.geodesic import Geodesic
    from geodesic_interpolate.interpolation import redistribute

    symbols = reactant.get_chemical_symbols()
    ends = [reactant.positions, superpose(product.positions, reactant.positions)]
    # the package draws its trial displacements from NumPy's global generator and logs at INFO
    state, quiet = np.random.get_state(), logging.root.manager.disable
    np.random.seed(0)
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            raw = redistribute(symbols, ends, images, tol=1e-2)
            smoother = Geodesic(symbols, raw, 1.7, threshold=3.0, friction=1e-2)
            (smoother.sweep if len(symbols) > 35 else smoother.smooth)(tol=2e-3, max_iter=15)
    finally:
        np.random.set_state(state)
        logging.disable(quiet)
    path = np.array(smoother.path, dtype=np.float64)
    if path.shape != (images, len(symbols), 3):
        raise ValueError(f"geodesic interpolation: expected {images} images, found shape {path.shape}")
    return path


def _idpp(reactant: Atoms, product: Atoms, images: int) -> npt.NDArray[np.float64]:
    band = [reactant.copy() for _ in range(images)]
    band[-1].positions = superpose(product.positions, reactant.positions)
    neb = NEB(band, method="improvedtangent")
    neb.interpolate(method="linear")
    # off the line first: the pair potential has no gradient across it
    start = _leave_line(np.array([image.positions for image in band]), reactant.get_masses(), nudge=0.3)
    for image, positions in zip(band, start, strict=True):
        image.positions = positions
    idpp_interpolate(neb, traj=None, log=None, fmax=0.1, steps=200)
    return np.array([image.positions for image in band])


def _leave_line(
    path: npt.NDArray[np.float64], masses: npt.NDArray[np.float64], nudge: float = NUDGE
) -> npt.NDArray[np.float64]:
    moments = np.array([principal_moments(positions, masses) for positions in path])
    if path.shape[1] < 3 or np.any(moments[:, 0] > 1e-3 * moments[:, 2]):
        return path
    # one fixed bend, the same for all images, largest in the middle
    bend = np.random.default_rng(0).normal(scale=nudge, size=path.shape[1:])
    weight = np.sin(np.linspace(0.0, np.pi, len(path)))
    return path + weight[:, None, None] * bend
