"""Funnel table and histograms of the search: `python datasets/reactions-xtb/report.py`.

Prints Markdown, writes barriers.svg and sizes.svg, and puts both into README.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from find import HERE, JOURNAL, read_journal
from selection import accepted, formula

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "reactions-xtb"
from matplotlib import pyplot as plt  # noqa: E402

START, END = "<!-- made by report.py: do not edit -->", "<!-- end -->"
STAGES = (
    ("tried", "rearrangements tried"),
    ("ends", "both ends are minima, and different molecules"),
    ("band", "a band with a barrier"),
    ("transition state", "a first-order saddle (one mode beyond 50i cm-1)"),
    ("path", "path down both sides, ends not the same molecule"),
    ("confirmed", "one closed-shell configuration, barrier below 5 eV"),
)


def funnel_table(counts: Counter[str]) -> str:
    """How many attempts passed each stage, and why the others did not."""
    order = [stage for stage, _ in STAGES]
    stopped: dict[str, Counter[str]] = {stage: Counter() for stage in order}
    for name, count in counts.items():
        stage, _, reason = name.partition(": ")
        if reason and stage in stopped:
            stopped[stage][reason] += count
    lines = ["| stage | passed | of those, ended next because |", "|---|---:|---|"]
    left = counts["tried"]
    for stage, title in STAGES:
        reasons = ", ".join(f"{reason} {count}" for reason, count in stopped[stage].most_common())
        lines.append(f"| {title} | {left} | {reasons} |")
        left -= sum(stopped[stage].values())
    refused = ", ".join(f"{k[9:]} {v}" for k, v in sorted(counts.items()) if k.startswith("refused: "))
    kept = counts["accepted"] + counts["conformational"]
    lines.append(f"| kept | {kept} | duplicates {counts['duplicate']}, {refused or 'none refused'} |")
    lines.append(f"| of which conformational | {counts['conformational']} | |")
    return "\n".join(lines)


def facts(records: list[dict[str, Any]]) -> str:
    """Barriers, sizes and compositions in a few lines."""
    barriers = np.array([record["barrier"] for record in records])
    atoms = np.array([len(record["numbers"]) for record in records])
    heavy = np.array([sum(n > 1 for n in record["numbers"]) for record in records])
    walked = Counter(method for record in records for method in record["method"])
    return "\n".join(
        [
            f"- reactions: {len(records)}, compositions: {len({formula(r) for r in records})}, "
            f"different molecules or pairs at their ends: {len({n for r in records for n in r['names']})}",
            f"- barrier: {barriers.min():.2f} to {barriers.max():.2f} eV, median {np.median(barriers):.2f}, "
            f"below 3 eV: {np.mean(barriers < 3):.0%}",
            f"- atoms: {atoms.min()} to {atoms.max()}, mean {atoms.mean():.1f}; "
            f"heavy atoms: {heavy.min()} to {heavy.max()}",
            f"- sides of paths: {walked['IRC']} walked, {walked['relaxed']} where the walk failed and the geometry was "
            "pushed along the mode and minimised",
        ]
    )


def histogram(values: Any, bins: Any, label: str, path: Path) -> None:
    """One histogram as SVG."""
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    axes.hist(values, bins=bins, color="0.45", edgecolor="white")
    axes.set(xlabel=label, ylabel="reactions")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    """Print the tables and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--journal", type=Path, default=JOURNAL, help="folder of attempts; default: the one shipped")
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder for the figures; default: this one")
    args = parser.parse_args()
    records, counts = accepted(read_journal(args.journal))
    if not records:
        parser.error(f"--journal {args.journal}: expected a folder of attempts with reactions among them, found none")
    text = "\n\n".join([funnel_table(counts), facts(records)])
    print(text)
    args.output.mkdir(parents=True, exist_ok=True)
    histogram([r["barrier"] for r in records], np.arange(0, 5.26, 0.25), "barrier / eV", args.output / "barriers.svg")
    sizes = [len(r["numbers"]) for r in records]
    histogram(sizes, np.arange(2.5, max(sizes) + 1), "atoms", args.output / "sizes.svg")
    if args.output == HERE:
        fill(HERE / "README.md", f"{text}\n\n![barriers](barriers.svg) ![atoms](sizes.svg)")
    return 0


def fill(path: Path, text: str) -> None:
    """Replace what is between the two marks of a Markdown file."""
    before, mark, rest = path.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"report.py: error: {path}: expected the marks {START} and {END}")
    path.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    raise SystemExit(main())
