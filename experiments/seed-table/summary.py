"""What the comparison of arms says, in words made from its numbers."""

from __future__ import annotations

import math
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


def of_arms(results: list[Result], data: str, arms: tuple[str, ...]) -> dict[str, list[Result]]:
    """The runs of the table on one training set, arm by arm."""
    return {arm: select(results, data=data, fraction=1, arm=arm, model="nequip") for arm in arms}


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
    factor = _cost(pairs["mixed"])
    if factor is not None:
        lines += ["", f"For the same number of updates E-F-H takes {factor:.1f} times the CPU time of E-F."]
    return [*lines, *_same_cost(results), ""]


def _same_cost(results: list[Result]) -> list[str]:
    """E-F-H against E-F that was given the time of E-F-H."""
    arms = of_arms(results, "mixed", ("E-F long", "E-F-H"))
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
        f"{len(arms['E-F long'])} seed) leaves E-F-H with {', '.join(found)} against it "
        "([at the same cost](#at-the-same-cost)).",
    ]


def _change(pair: dict[str, list[Result]], where: str, name: str, seeds: int) -> str:
    found = [values(runs, where, name) for runs in pair.values()]
    fewer = min(map(len, found))
    return gain(name, *found) + (f" ({fewer} seed{'s' if fewer > 1 else ''})" if fewer < seeds else "")


def _cost(pair: dict[str, list[Result]]) -> float | None:
    known = [[time for _, time in timed(found)] for found in pair.values()]
    return mean(known[1]) / mean(known[0]) if all(known) else None


def in_short(results: list[Result], data: str) -> list[str]:
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
    for where, metrics in PLACES:
        pair = [bands.get(arm, []) for arm in PAIR] if where == "reactions" else [first, second]
        for name, (title, _, _) in metrics.items():
            low, high = (values(found, where, name) for found in pair)
            if min(len(low), len(high)) < 2:
                continue
            text = f"{title} {WHERE[where]}".strip() + f" ({gain(name, low, high)})"
            if name in BETTER_HIGH:
                low, high = high, low
            kind = "better" if max(high) < min(low) else "worse" if min(high) > max(low) else "undecided"
            groups[kind].append(text)
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
    return [*lines, *_best_of_energies(arms), ""]


def _best_of_energies(arms: dict[str, list[Result]]) -> list[str]:
    """Where the arm that never saw a force has the lowest mean."""
    if not all(arms.values()):
        return []
    found = []
    for where, metrics in PLACES:
        for name, (title, _, _) in metrics.items():
            means = {arm: mean(v) for arm, runs in arms.items() if (v := values(runs, where, name))}
            if len(means) == len(arms) and min(means, key=lambda arm: means[arm]) == "E" and name not in BETTER_HIGH:
                found.append(f"{title} {WHERE[where]}".strip())
    return [f"- E alone has the lowest mean of the three arms in: {'; '.join(found)}."] if found else []
