"""What the comparison of arms says, in words made from its numbers."""

from __future__ import annotations

import math

from reading import BETTER_HIGH, ERRORS, PARTS, REACTIONS, STATIONARY, Result, gain, select, values

WHERE = {**{part: f"on {title}" for part, title in PARTS.items()}, "stationary": "", "reactions": ""}


def in_short(results: list[Result], data: str) -> list[str]:
    """E-F-H against E-F: which errors are lower, higher, or not told apart.

    Lower (higher) means that every seed with Hessians is below (above) every seed without. Everything else is not told
    apart: runs of one arm differ as much.
    """
    groups: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
    arms = [select(results, data=data, fraction=1, arm=arm, model="nequip") for arm in ("E-F", "E-F-H")]
    seeds = min(len(found) for found in arms)
    if seeds < 2:
        return []
    places = [(part, ERRORS) for part in PARTS] + [("stationary", STATIONARY), ("reactions", REACTIONS)]
    for where, metrics in places:
        for name, (title, _, _) in metrics.items():
            first, second = (values(found, where, name) for found in arms)
            if min(len(first), len(second)) < 2:
                continue
            text = f"{title} {WHERE[where]}".strip() + f" ({gain(first, second)})"
            higher = name in BETTER_HIGH
            if max(second) < min(first):
                groups["worse" if higher else "better"].append(text)
            elif min(second) > max(first):
                groups["better" if higher else "worse"].append(text)
            else:
                groups["undecided"].append(text)
    words = {
        "better": "Better with Hessians in every seed",
        "worse": "Worse with Hessians in every seed",
        "undecided": "Not told apart (the ranges of the seeds overlap)",
    }
    chance = math.comb(2 * seeds, seeds)  # orders in which the runs of two equal arms can come out
    lines = [
        f"E-F-H against E-F, {seeds} seeds each (of two equal arms, the second is better in every seed by chance once "
        f"in {chance}):",
        "",
    ]
    lines += [f"- {words[kind]}: {'; '.join(found) if found else 'nothing'}." for kind, found in groups.items()]
    return [*lines, ""]
