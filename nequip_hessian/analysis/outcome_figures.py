"""Figures over many searches, reaction coordinates, gases and trajectories; definitions where each is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from nequip_hessian.analysis.gas_errors import GasErrors
from nequip_hessian.analysis.md import Dynamics
from nequip_hessian.analysis.outcomes import IrcErrors, SaddleErrors
from nequip_hessian.analysis.summary import Figure, Metric

SADDLE_METRICS: Final[dict[str, Metric]] = {
    "saddle_success": Metric("1", "Transition states found that connect reactant and product", "higher"),
    "saddle_first_order": Metric("1", "Searches converged on one imaginary mode", "higher"),
    "saddle_rmsd": Metric("Å", "RMSD of the found from the labelled transition state"),
    "saddle_barrier_mae": Metric("eV", "Barrier MAE at the found transition state"),
    "saddle_steps": Metric("1", "Steps of a search with the model's Hessian"),
    "saddle_steps_plain": Metric("1", "Steps of the same searches without it"),
    "saddle_gradients": Metric("1", "Force calls of a search with the model's Hessian"),
    "saddle_gradients_plain": Metric("1", "Force calls of the same searches without it"),
    "saddle_hessians": Metric("1", "Hessian calls of a search"),
    "saddle_plain_first_order": Metric("1", "Searches without the Hessian converged on one imaginary mode", "higher"),
}

IRC_METRICS: Final[dict[str, Metric]] = {
    "irc_success": Metric("1", "Reaction coordinates that connect reactant and product", "higher"),
    "irc_ts_rmsd": Metric("Å", "RMSD of the model's from the labelled transition state"),
    "irc_barrier_mae": Metric("eV", "Barrier MAE of the reaction coordinate"),
    "irc_profile_mae": Metric("eV", "Energy along the reaction coordinate, barrier removed, MAE"),
    "irc_path_rmsd": Metric("Å", "RMSD of the labelled geometries from the reaction coordinate"),
}

GAS_METRICS: Final[dict[str, Metric]] = {
    "enthalpy_correction_mae": Metric("eV", "Enthalpy correction MAE"),
    "entropy_mae": Metric("eV/K", "Entropy MAE"),
    "gibbs_correction_mae": Metric("eV", "Gibbs correction MAE"),
    "thermochemistry_failure_rate": Metric("1", "Stationary points with another number of imaginary modes, or none"),
}

GIBBS_METRICS: Final[dict[str, Metric]] = {
    "gibbs_barrier_mae": Metric("eV", "Gibbs barrier MAE at the reference geometries"),
}

MD_METRICS: Final[dict[str, Metric]] = {
    "md_survival": Metric("1", "Molecules whole at the end of the temperature ramp", "higher"),
    "md_failure_temperature": Metric("K", "Temperature at which a bond fails (the last one where none does)", "higher"),
    "md_drift": Metric("eV/atom/ps", "Drift of the total energy, constant-energy dynamics"),
    "md_fluctuation": Metric("eV/atom", "Fluctuation of the total energy about its drift"),
    "md_failure_rate": Metric("1", "Molecules without dynamics"),
}


def _figures(metrics: dict[str, Metric], values: dict[str, Sequence[float | None]]) -> dict[str, Figure]:
    figures = {}
    for name, metric in metrics.items():
        known = [abs(value) for value in values[name] if value is not None]
        figures[name] = Figure(float(np.mean(known)) if known else None, len(known), metric.unit)
    return figures


def summarise_saddles(errors: Sequence[SaddleErrors]) -> dict[str, Figure]:
    """Join searches; counts with and without the Hessian over the starts from which both converged."""
    good = [e for e in errors if e.failure is None]
    both = [e for e in errors if e.n_imaginary == 1 and e.converged and e.plain_failure is None and e.plain_steps]
    return _figures(
        SADDLE_METRICS,
        {
            "saddle_success": [float(e.failure is None) for e in errors],
            "saddle_first_order": [float(e.converged and e.n_imaginary == 1) for e in errors],
            "saddle_rmsd": [e.rmsd for e in good],
            "saddle_barrier_mae": [v for e in good for v in (e.forward_error, e.reverse_error)],
            "saddle_steps": [float(e.steps) for e in both],
            "saddle_steps_plain": [float(e.plain_steps) for e in both],
            "saddle_gradients": [float(e.gradient_calls) for e in both],
            "saddle_gradients_plain": [float(e.plain_gradient_calls) for e in both],
            "saddle_hessians": [float(e.hessian_calls) for e in both],
            "saddle_plain_first_order": [float(e.plain_failure is None and e.plain_steps > 0) for e in errors],
        },
    )


def summarise_ircs(errors: Sequence[IrcErrors]) -> dict[str, Figure]:
    """Join reaction coordinates."""
    return _figures(
        IRC_METRICS,
        {
            "irc_success": [float(e.failure is None) for e in errors],
            "irc_ts_rmsd": [e.ts_rmsd for e in errors],
            "irc_barrier_mae": [v for e in errors for v in (e.forward_error, e.reverse_error)],
            "irc_profile_mae": [e.profile_mae for e in errors],
            "irc_path_rmsd": [e.path_rmsd for e in errors],
        },
    )


def summarise_gases(points: Sequence[GasErrors]) -> dict[str, Figure]:
    """Join thermochemistry of stationary points."""
    return _figures(
        GAS_METRICS,
        {
            "enthalpy_correction_mae": [e.enthalpy_correction for e in points],
            "entropy_mae": [e.entropy for e in points],
            "gibbs_correction_mae": [e.gibbs_correction for e in points],
            "thermochemistry_failure_rate": [float(e.failure is not None) for e in points],
        },
    )


def summarise_gibbs_barriers(errors: Sequence[Sequence[float | None]]) -> dict[str, Figure]:
    """Join errors of Gibbs barriers, (forward, reverse) in eV of each reaction."""
    return _figures(GIBBS_METRICS, {"gibbs_barrier_mae": [error for pair in errors for error in pair]})


def summarise_dynamics(found: Sequence[Dynamics]) -> dict[str, Figure]:
    """Join trajectories; a molecule that survives the ramp counts with the ramp's last temperature."""
    run = [d for d in found if d.failure is None]
    return _figures(
        MD_METRICS,
        {
            "md_survival": [float(d.survived) for d in found],
            "md_failure_temperature": [d.temperature for d in run],
            "md_drift": [d.drift for d in run],
            "md_fluctuation": [d.fluctuation for d in run],
            "md_failure_rate": [float(d.failure is not None) for d in found],
        },
    )
