"""How figures read in tables and sentences: units people use, three significant digits, never without n."""

from __future__ import annotations

import math
from typing import Final

from nequip_hessian.analysis.bootstrap import Interval
from nequip_hessian.analysis.outcome_figures import (
    GAS_METRICS,
    GIBBS_METRICS,
    IRC_METRICS,
    MD_METRICS,
    SADDLE_METRICS,
)
from nequip_hessian.analysis.reactions import REACTION_METRICS
from nequip_hessian.analysis.relaxed import RELAXED_METRICS
from nequip_hessian.analysis.summary import METRICS, Figure, Metric
from nequip_hessian.units import KCAL_PER_MOL

ALL_METRICS: Final[dict[str, Metric]] = {
    **METRICS,
    **RELAXED_METRICS,
    **GAS_METRICS,
    **GIBBS_METRICS,
    **REACTION_METRICS,
    **SADDLE_METRICS,
    **IRC_METRICS,
    **MD_METRICS,
    "consistency": Metric("1", "Hessian against differences of the model's own forces (largest relative error)"),
}

_COUNTED: Final = (
    (("force_mae", "force_rmse"), "force components"),
    (("hessian_rmse", "projected_hessian_rmse"), "matrix elements"),
    (tuple(f"{kind}frequency{part}_mae" for kind in ("", "relaxed_") for part in ("", "_low", "_high")), "modes"),
    (("imaginary_mae",), "modes"),
    (tuple(name for name in ALL_METRICS if "barrier" in name), "barriers"),
    (tuple(RELAXED_METRICS), "minima"),
    (tuple(GAS_METRICS), "stationary points"),
    ((*REACTION_METRICS, *IRC_METRICS), "reactions"),
    (tuple(SADDLE_METRICS), "searches"),
    (tuple(MD_METRICS), "molecules"),
)


def counted(name: str) -> str:
    """What the number of cases of a figure counts."""
    return next((what for names, what in _COUNTED if name in names), "geometries")


INTERVALS: Final = (
    "In brackets the 95 % interval of a change under another choice of test molecules (paired bootstrap over groups); "
    "where it holds zero, the models are not told apart. How another seed of a training would change it is another "
    "question. "
)

NO_CONTEST: Final = ("consistency",)
"""Figures that are rounding or a fault: no model is better by them."""

_RATES: Final = ("failure_rate", "agreement", "first_order", "relative", "_success", "survival")
_KCAL: Final = ("barrier", "zpe", "enthalpy_correction", "gibbs", "irc_profile")

SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Energies and forces": (
        "energy_per_atom_mae",
        "shifted_energy_per_atom_mae",
        "shifted_energy_mae",
        "shifted_energy_rmse",
        "energy_mae",
        "force_mae",
        "force_rmse",
        "failure_rate",
    ),
    "Hessians": (
        "hessian_mae",
        "hessian_rmse",
        "hessian_relative",
        "eigenvalue_mae",
        "eigenvalue_mae_atomic",
        "eigenvalue_1_mae",
        "eigenvalue_2_mae",
        "cosine_1",
        "cosine_2",
        "projected_hessian_mae",
        "projected_hessian_rmse",
        "projected_hessian_relative",
        "projected_eigenvalue_mae",
        "projected_eigenvalue_1_mae",
        "projected_eigenvalue_2_mae",
        "projected_cosine_1",
        "projected_cosine_2",
        "imaginary_agreement",
        "negative_agreement",
        "consistency",
    ),
    "Vibrations at stationary points": (
        "frequency_mae",
        "frequency_low_mae",
        "frequency_high_mae",
        "imaginary_mae",
        "zpe_mae",
        "wasserstein",
        "relaxed_frequency_mae",
        "relaxed_frequency_low_mae",
        "relaxed_frequency_high_mae",
        "relaxed_zpe_mae",
        "relaxed_rmsd",
        "relaxed_failure_rate",
    ),
    "Thermochemistry at stationary points": (*GAS_METRICS, *GIBBS_METRICS),
    "Reactions": tuple(REACTION_METRICS),
    "Transition-state searches": tuple(SADDLE_METRICS),
    "Intrinsic reaction coordinates": tuple(IRC_METRICS),
    "Molecular dynamics": tuple(MD_METRICS),
}
"""What the page shows, in this order."""

KEY_METRICS: Final = (
    "energy_per_atom_mae",
    "shifted_energy_per_atom_mae",
    "force_mae",
    "hessian_mae",
    "frequency_mae",
    "imaginary_agreement",
    "projected_cosine_1",
    "barrier_mae",
    "single_point_barrier_mae",
    "neb_failure_rate",
    "gibbs_barrier_mae",
    "saddle_success",
    "saddle_barrier_mae",
    "irc_success",
    "md_failure_temperature",
    "failure_rate",
)
"""What the summary and the printed table show."""


def number(value: float, digits: int = 3) -> str:
    """Print with `digits` significant digits, without an exponent between 0.001 and 100 000."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -3 or magnitude > 4:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(digits - 1 - magnitude, 0)}f}"


def shown(name: str, value: float) -> tuple[float, str]:
    """Return a figure in the unit it is read in: meV, kcal/mol, per cent; unit last."""
    unit = ALL_METRICS[name].unit
    if any(part in name for part in _RATES):
        return 100 * value, "%"
    if any(part in name for part in _KCAL):
        return value / KCAL_PER_MOL, "kcal/mol"
    if unit == "eV/K":
        return 1000 * value / KCAL_PER_MOL, "cal/(mol K)"
    if unit in ("eV/atom", "eV/Å", "eV/atom/ps") or (unit == "eV" and abs(value) < 1):
        return 1000 * value, f"m{unit}"
    return value, "" if unit == "1" else unit


def cell(name: str, figure: Figure) -> str:
    """Print a figure with its unit; a dash where there is no case. Energies of reactions also in eV."""
    if figure.value is None:
        return "–"
    value, unit = shown(name, figure.value)
    text = f"{number(value)} {unit}".strip()
    return f"{text} ({number(figure.value)} eV)" if unit == "kcal/mol" else text


def by_points(name: str) -> bool:
    """Whether a figure changes by points or as it is, not by per cent: rates, agreements and cosines."""
    metric = ALL_METRICS[name]
    return metric.unit == "1" and (metric.better == "higher" or "failure_rate" in name)


def change(name: str, baseline: Figure, figure: Figure, interval: Interval | None = None) -> tuple[str, str]:
    """Return the change against the baseline as text, and `better`, `worse` or `same`.

    Rates, agreements and cosines change by points, everything else by per cent, and by a factor from eleven on.
    Empty where either is missing. With an interval, that too; a change whose interval holds zero is `same`.
    """
    if baseline.value is None or figure.value is None or name in NO_CONTEST:
        return "", "same"
    difference = figure.value - baseline.value
    if by_points(name):
        text = f"{100 * difference:+.0f} points" if any(p in name for p in _RATES) else f"{difference:+.2f}"
        visible = abs(difference) >= 0.005
    elif baseline.value == 0:
        return "", "same"
    else:
        relative = 100 * difference / baseline.value
        text, visible = f"{relative:+.0f} %", abs(relative) >= 0.5
        if relative >= 1000:  # a baseline that is the reference itself, say
            text = f"× {number(figure.value / baseline.value)}"
    if not visible:
        return "no change", "same"
    improved = (difference > 0) == (ALL_METRICS[name].better == "higher")
    verdict = "better" if improved else "worse"
    if interval is not None:
        text += _range(name, interval)
        verdict = verdict if interval.decided else "same"
    return text.replace("-", "−"), verdict


def _range(name: str, interval: Interval) -> str:
    if by_points(name):
        low, high = interval.difference
        scale, digits = (100, 0) if any(part in name for part in _RATES) else (1, 2)
    elif interval.relative is None or max(interval.relative) >= 10:
        return ""
    else:
        (low, high), scale, digits = interval.relative, 100, 0
    return f" ({scale * low:+.{digits}f} to {scale * high:+.{digits}f})"
