"""Steps of steepest descent on a quadratic surface, and how its Hessian is updated between two points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]


def bofill_update(hessian: Array, step: Array, change: Array) -> Array:
    """Update a Hessian (n, n) from a step (n,) and the change of the gradient along it (n,); any consistent units."""
    error = change - hessian @ step
    square = float(step @ step)
    if np.linalg.norm(error) < 1e-10 or square < 1e-16:
        return hessian
    overlap = float(error @ step)
    weight = overlap**2 / (float(error @ error) * square)
    symmetric_rank_one = np.outer(error, error) / overlap if abs(overlap) > 1e-12 else np.zeros_like(hessian)
    powell = (np.outer(error, step) + np.outer(step, error)) / square - overlap * np.outer(step, step) / square**2
    return np.asarray(hessian + weight * symmetric_rank_one + (1 - weight) * powell)


def steepest_descent_step(gradient: Array, hessian: Array, length: float) -> npt.NDArray[np.float64]:
    """Walk a given arc length down a quadratic surface.

    Args:
        gradient: (n,) and hessian: (n, n), both mass-weighted: eV/(angstrom u^(1/2)), eV/(angstrom^2 u)
        length: arc length, u^(1/2) angstrom

    Returns:
        (n,) displacement, u^(1/2) angstrom; it ends at the minimum of the quadratic surface where that is nearer.
    """
    values, vectors = np.linalg.eigh(hessian)
    slope = vectors.T @ gradient
    norm = float(np.linalg.norm(slope))
    if norm == 0:
        return np.zeros_like(slope)
    # in the path's own time t the surface has x_i(t) = -g_i (1 - exp(-k_i t)) / k_i; find t of this arc length
    unit = length / norm
    time = np.concatenate([[0.0], np.geomspace(1e-4 * unit, 1e6 * unit, 2000)])
    decay = np.exp(-np.clip(values[None] * time[:, None], -60.0, 700.0))
    speed = np.linalg.norm(slope[None] * decay, axis=1)
    walked = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * np.diff(time))])
    end = float(np.interp(length, walked, time))
    exponent = np.clip(values * end, -60.0, 700.0)
    flat = np.abs(exponent) < 1e-8
    travelled = np.where(flat, end, -np.expm1(-exponent) / np.where(flat, 1.0, values))
    return np.asarray(vectors @ (-slope * travelled))
