"""The result files of the runs: which figures they hold, and their numbers."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from plan import PLANS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STORE = ROOT / "datasets" / "reactions-xtb" / "reactions-xtb.zarr"
NO_MODEL = "no-model.json"  # of baseline.py
OUTCOMES = "outcomes.json"
ARMS = ("E", "E-F", "E-F-H")
PARTS = {"test": "reactants, transition states, products", "test_irc": "reaction paths", "test_displaced": "displaced"}
ERRORS = {
    "shifted_energy_rmse": ("energy RMSE", "meV", 1000),
    "shifted_energy_mae": ("energy MAE", "meV", 1000),
    "force_rmse": ("force RMSE", "meV/Å", 1000),
    "force_mae": ("force MAE", "meV/Å", 1000),
    "hessian_rmse": ("Hessian RMSE", "eV/Å²", 1),
    "hessian_mae": ("Hessian MAE", "eV/Å²", 1),
}
STATIONARY = {
    "frequency_mae": ("frequency MAE", "cm⁻¹", 1),
    "frequency_low_mae": ("frequency MAE below 400 cm⁻¹", "cm⁻¹", 1),
    "zpe_mae": ("zero-point energy MAE", "meV", 1000),
    "imaginary_agreement": ("number of imaginary modes agrees", "%", 100),
    "projected_cosine_1": ("\\|cos\\| of the lowest mode", "", 1),
}
REACTIONS = {
    "single_point_barrier_mae": ("barrier MAE at the reference geometries", "meV", 1000),
    "barrier_mae": ("NEB barrier MAE (bands that converged in every arm)", "meV", 1000),
    "neb_failure_rate": ("NEBs that failed", "%", 100),
    "ts_rmsd": ("RMSD of the transition state (the same bands)", "Å", 1),
}
SHARES = ("imaginary_agreement", "neb_failure_rate")  # whose change is told in points
COSINES = ("projected_cosine_1",)  # whose change is told as it is
PAIRED = ("barrier_mae", "ts_rmsd")  # of converged bands: over those that converged with both arms
BETTER_HIGH = ("imaginary_agreement", "projected_cosine_1")
DATA = {  # training sets, in the order of the page
    "mixed": "stationary points, and off-equilibrium energies and forces in every arm",
    "stationary": "stationary points only (the published set-up: forces there are zero)",
}

Result = dict[str, Any]


def read_results(folder: Path) -> list[Result]:
    """All results, by name."""
    runs = [path for path in sorted(folder.glob("*.json")) if path.name not in (OUTCOMES, NO_MODEL)]
    return [json.loads(path.read_text()) | {"file": path.name} for path in runs]


def baseline(folder: Path) -> list[Result]:
    """The figures of predicting nothing, as the only run of an arm; none where baseline.py has not run."""
    file = folder / NO_MODEL
    return [json.loads(file.read_text())] if file.exists() else []


def figure_of(result: Result, where: str, name: str) -> float | None:
    """One figure of a result; `where` is a part, `stationary` or `reactions`."""
    figures = result[where] if where in ("stationary", "reactions") else result["figures"].get(where, {})
    return figures[name]["value"] if name in figures else None


def of_plan(results: list[Result], plan: str) -> list[Result]:
    """Results of one experiment."""
    names = {run.name for run in PLANS[plan]()}
    return [r for r in results if r["file"].removesuffix(".json") in names]


def select(results: list[Result], **wanted: Any) -> list[Result]:
    """Results whose run has these fields."""
    return [r for r in results if all(r["run"][name] == value for name, value in wanted.items())]


def values(results: list[Result], where: str, name: str) -> list[float]:
    """One figure of several results, those that have it."""
    found = [figure_of(r, where, name) for r in results]
    return [v for v in found if v is not None and math.isfinite(v)]


def shown(numbers: list[float], scale: float) -> str:
    """Mean and standard deviation over seeds, three significant digits."""
    if not numbers:
        return "–"
    scaled = [scale * v for v in numbers]
    spread = f" ± {_plain(stdev(scaled), 2)}" if len(scaled) > 1 else ""
    return _plain(mean(scaled), 3) + spread


def _plain(value: float, digits: int) -> str:
    """Number with so many significant digits, never in powers of ten."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits - 0.5 else f"{value:.0f}"


def gain(name: str, first: list[float], second: list[float]) -> str:
    """Change of the mean of a figure from first to second: in percent, of shares in points."""
    if not first or not second or mean(first) == 0:
        return "–"
    if name in SHARES:
        return f"{100 * (mean(second) - mean(first)):+.1f} points"
    if name in COSINES:
        return f"{mean(second) - mean(first):+.2f}"
    return f"{100 * (mean(second) / mean(first) - 1):+.0f} %"


def with_common_bands(groups: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """The results that searched bands, errors of converged bands restricted to reactions that converged in every arm.

    Bands of hard reactions converge with one arm and not with the other; means over different reactions would compare
    the reactions. Arms are paired seed by seed.
    """
    searched = {arm: [r for r in found if r["reaction_list"]] for arm, found in groups.items()}
    searched = {arm: found for arm, found in searched.items() if found}
    restricted: dict[str, list[Result]] = {}
    for arm, found in searched.items():
        restricted[arm] = []
        for result in found:
            partners = [r for others in searched.values() for r in others if r["run"]["seed"] == result["run"]["seed"]]
            common = set.intersection(*(converged(r) for r in partners)) if len(partners) == len(searched) else set()
            bands = [band for band in result["reaction_list"] if band["name"] in common]
            figures = {name: figure for name, figure in result["reactions"].items() if name not in PAIRED}
            if bands:
                errors = [abs(band[end]) for band in bands for end in ("forward_error", "reverse_error")]
                figures["barrier_mae"] = {"value": mean(errors), "count": len(bands), "unit": "eV"}
                rmsd = mean(band["ts_rmsd"] for band in bands)
                figures["ts_rmsd"] = {"value": rmsd, "count": len(bands), "unit": "Å"}
            restricted[arm].append(result | {"reactions": figures})
    return restricted


def converged(result: Result) -> set[str]:
    """Names of the reactions whose band converged."""
    return {band["name"] for band in result["reaction_list"] if band["failure"] is None}


def unchanged(names: list[str]) -> int:
    """How many of these reactions the data set marks as conformational or degenerate."""
    with (STORE.parent / "reactions.csv").open() as stream:
        kinds = {row["name"]: row["kind"] for row in csv.DictReader(stream)}
    return sum(kinds[name] != "reaction" for name in names)


def timed(results: list[Result]) -> list[tuple[Result, float]]:
    """The runs whose CPU seconds are known: of no piece of them was the cost lost when it was killed."""
    return [(r, r["training"]["cpu_seconds"]) for r in results if not r["training"].get("pieces_of_unknown_cost")]
