"""What the comparison of arms says, in words made from its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import mean

from reading import (
    ARMS,
    BETTER_HIGH,
    DATA,
    ERRORS,
    PARTS,
    REACTIONS,
    STATIONARY,
    Result,
    gain,
    select,
    timed,
    values,
    with_common_bands,
)

WHERE = {
    **{part: f"on {title}" for part, title in PARTS.items()},
    "test_displaced": "on displaced points",
    "stationary": "",
    "reactions": "",
}
PAIR = ("E-F", "E-F-H")
PUBLISHED = {"shifted_energy_rmse": -29, "force_rmse": -48, "hessian_rmse": -77}  # %, E-F-H against E-F, displaced
RAW = {"energy_rmse": ("energy RMSE without the composition shift", "meV", 1000)}
GLANCE = (
    ("test_displaced", "shifted_energy_rmse"),
    ("test_displaced", "energy_rmse"),
    ("test_displaced", "force_rmse"),
    ("test_displaced", "hessian_rmse"),
    ("stationary", "frequency_mae"),
    ("stationary", "zpe_mae"),
    ("stationary", "imaginary_agreement"),
    ("reactions", "single_point_barrier_mae"),
    ("reactions", "neb_failure_rate"),
)
PLACES = [*((part, ERRORS) for part in PARTS), ("stationary", STATIONARY), ("reactions", REACTIONS)]


def figures_of_page() -> Iterator[tuple[str, str, str]]:
    """Place, name and title of every figure of the tables of one training set."""
    for where, metrics in PLACES:
        for name, (title, _, _) in metrics.items():
            yield where, name, f"{title} {WHERE[where]}".strip()


def of_arms(results: list[Result], data: str, arms: tuple[str, ...]) -> dict[str, list[Result]]:
    """The runs of the table on one training set, arm by arm."""
    return {arm: select(results, data=data, fraction=1, arm=arm, model="nequip") for arm in arms}


def same_seeds(results: list[Result]) -> dict[str, list[Result]]:
    """The arms of the comparison at the same cost, only the seeds that E-F was also given the longer time with."""
    arms = of_arms(results, "mixed", ("E-F", "E-F long", "E-F-H"))
    seeds = {r["run"]["seed"] for r in arms["E-F long"]}
    return {arm: [r for r in found if r["run"]["seed"] in seeds] for arm, found in arms.items()}


def at_a_glance(results: list[Result]) -> list[str]:
    """The change from E-F to E-F-H on both training sets, beside the published one, and what it costs."""
    pairs = {data: of_arms(results, data, PAIR) for data in reversed(DATA)}
    if not all(found for pair in pairs.values() for found in pair.values()):
        return []
    seeds = {data: min(len(found) for found in pair.values()) for data, pair in pairs.items()}
    lines = [
        "## At a glance: E-F-H against E-F",
        "",
        "| | published | trained on stationary points only, as published "
        f"({seeds['stationary']} seeds) | trained on these and off-equilibrium energies and forces "
        f"({seeds['mixed']} seeds) |",
        "|---|---:|---:|---:|",
    ]
    for where, name in GLANCE:
        title = (ERRORS | STATIONARY | REACTIONS | RAW)[name][0]
        published = f"{PUBLISHED[name]:+d} %" if name in PUBLISHED else ""
        changes = [_change(pair, where, name, seeds[data]) for data, pair in pairs.items()]
        lines.append(f"| {' '.join(filter(None, (title, WHERE[where])))} | {published} | {' | '.join(changes)} |")
    lines += [
        "",
        "Published: Rodriguez, Smith and Mendoza-Cortes, JCTC 2025, 21, 6698 (arXiv 2503.07839), DFT labels of another "
        "data set, split by structure, models trained on equilibria and transition states, points displaced along "
        "normal modes.",
    ]
    lines[-1] += " ~: the ranges of the seeds overlap, or there is one seed."
    factors = {data: _cost(pair) for data, pair in pairs.items()}
    if all(factors.values()):
        told = " and ".join(f"{factor:.1f} times on `{data}`" for data, factor in factors.items())
        lines += ["", f"For the same number of updates E-F-H takes more CPU time than E-F, {told}."]
    return [*lines, *_same_cost(results), ""]


def _same_cost(results: list[Result]) -> list[str]:
    """E-F-H against E-F that was given the time of E-F-H."""
    arms = {arm: runs for arm, runs in same_seeds(results).items() if arm != "E-F"}
    if not all(arms.values()):
        return []
    wanted = [("test_displaced", name) for name in ("shifted_energy_rmse", "force_rmse", "hessian_rmse")]
    wanted += [("stationary", name) for name in ("frequency_mae", "zpe_mae")]
    found = [
        f"{(ERRORS | STATIONARY)[name][0]} {gain(name, *(values(runs, where, name) for runs in arms.values()))}"
        for where, name in wanted
    ]
    return [
        "",
        "**Where time is what is short**: E-F with as many more updates as take the time of E-F-H (on `mixed`, "
        f"{len(arms['E-F long'])} seed of each) leaves E-F-H with {', '.join(found)} against it; trainings of one arm "
        "differ by as much as most of these ([at the same cost](#at-the-same-cost)).",
    ]


def _change(pair: dict[str, list[Result]], where: str, name: str, seeds: int) -> str:
    found = [values(runs, where, name) for runs in pair.values()]
    fewer = min(map(len, found))
    apart = fewer > 1 and _verdict(name, *found) != "undecided"
    short = f" ({fewer} seed{'s' * (fewer > 1)})" if fewer < seeds else ""
    return gain(name, *found) + ("" if apart else " ~") + short


def _verdict(name: str, first: list[float], second: list[float]) -> str:
    """`better` or `worse` where each run of the second arm is so than each of the first, else `undecided`."""
    if name in BETTER_HIGH:
        first, second = second, first
    return "better" if max(second) < min(first) else "worse" if min(second) > max(first) else "undecided"


def _cost(pair: dict[str, list[Result]]) -> float | None:
    known = [[time for _, time in timed(found)] for found in pair.values()]
    return mean(known[1]) / mean(known[0]) if all(known) else None


def in_short(results: list[Result], data: str, nothing: list[Result]) -> list[str]:
    """E-F-H against E-F: which errors are lower, higher, or not told apart; and where E is the best arm.

    Lower (higher) means that each run with Hessians is below (above) each run without. Everything else is not told
    apart: runs of one arm differ as much.
    """
    arms = of_arms(results, data, ARMS)
    first, second = (arms[arm] for arm in PAIR)
    bands = with_common_bands(dict(zip(PAIR, (first, second), strict=True)))
    seeds = min(len(first), len(second))
    if seeds < 2:
        return []
    groups: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
    for where, name, title in figures_of_page():
        pair = [bands.get(arm, []) for arm in PAIR] if where == "reactions" else [first, second]
        low, high = (values(found, where, name) for found in pair)
        if min(len(low), len(high)) > 1:
            groups[_verdict(name, low, high)].append(f"{title} ({gain(name, low, high)})")
    words = {
        "better": "Each run with Hessians is better than each without",
        "worse": "Each run with Hessians is worse than each without",
        "undecided": "Not told apart (the ranges of the seeds overlap)",
    }
    chance = math.comb(2 * seeds, seeds)  # orders in which the runs of two equal arms can come out
    tested = sum(map(len, groups.values()))
    lines = [
        f"E-F-H against E-F, {seeds} seeds each. Of two equal arms one would be found better or worse like this by "
        f"chance in {2 * tested / chance:.0f} of these {tested} figures, and many of them go together:",
        "",
        *(f"- {words[kind]}: {'; '.join(found) if found else 'nothing'}." for kind, found in groups.items()),
    ]
    return [*lines, *_best_of_energies(arms), *_forces_hurt(arms), *_no_better_than_nothing(arms, nothing), ""]


def _forces_hurt(arms: dict[str, list[Result]]) -> list[str]:
    """Where the baseline of the comparison is itself worse than the arm that never saw a force."""
    if not all(arms.values()):
        return []
    found = []
    for where, name, title in figures_of_page():
        energies, forces, hessians = (values(runs, where, name) for runs in arms.values())
        if min(map(len, (energies, forces, hessians))) > 1 and _verdict(name, energies, forces) == "worse":
            found.append(f"{title} (E-F {gain(name, energies, forces)}, E-F-H {gain(name, energies, hessians)})")
    if not found:
        return []
    return [f"- Each run of E-F is worse than each of E, which makes it a weak baseline: {'; '.join(found)}."]


def _no_better_than_nothing(arms: dict[str, list[Result]], nothing: list[Result]) -> list[str]:
    """Errors that a constant energy, zero forces or a zero Hessian have as well."""
    found = []
    for where, name, title in figures_of_page():
        if where not in PARTS:
            continue
        limit = values(nothing, where, name)
        means = {arm: mean(v) for arm, runs in arms.items() if (v := values(runs, where, name))}
        bad = [arm for arm, error in means.items() if limit and error > 0.95 * limit[0]]
        if bad:
            found.append(f"{title} ({', '.join(bad)})")
    return [f"- Not better than no model by 5 %: {'; '.join(found)}."] if found else []


def _best_of_energies(arms: dict[str, list[Result]]) -> list[str]:
    """Where the arm that never saw a force has the lowest mean."""
    if not all(arms.values()):
        return []
    found = []
    for where, name, title in figures_of_page():
        means = {arm: mean(v) for arm, runs in arms.items() if (v := values(runs, where, name))}
        if len(means) == len(arms) and min(means, key=lambda arm: means[arm]) == "E" and name not in BETTER_HIGH:
            found.append(title)
    return [f"- E alone has the lowest mean of the three arms in: {'; '.join(found)}."] if found else []
