"""Funnel table and histograms of the search: `python datasets/reactions-xtb/report.py`.

Prints Markdown, writes barriers.svg, sizes.svg and reactions.csv, and puts table and figures into README.md.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from build import SEED, names_of
from find import HERE, JOURNAL, read_journal
from selection import accepted, by_reaction, formula, kind_of, shared_minima

from nequip_hessian.errors import HessianDataError

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "reactions-xtb"
from matplotlib import pyplot as plt  # noqa: E402

START, END = "<!-- made by report.py: do not edit -->", "<!-- end -->"
STAGES = (
    ("tried", "rearrangements tried"),
    ("ends", "both ends are minima, and different molecules"),
    ("band", "a band with a barrier"),
    ("transition state", "a first-order saddle (one mode beyond 50i cm-1)"),
    ("path", "path down both sides"),
    ("confirmed", "one closed-shell configuration, barrier below 5 eV"),
)


def funnel_table(counts: Counter[str], records: list[dict[str, Any]]) -> str:
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
    kinds = Counter(map(kind_of, records))
    lines.append(f"| of which conformational, no change of bonds | {kinds['conformational']} | |")
    lines.append(f"| of which degenerate, both ends one minimum by symmetry | {kinds['degenerate']} | |")
    return "\n".join(lines)


def held_out(records: list[dict[str, Any]]) -> str:
    """What test reactions of the scheme `reaction` have in common with the others."""
    parts = by_reaction(records, SEED)
    shared = shared_minima(records, parts)
    small = {part for r, p in zip(records, parts, strict=True) if p in ("train", "val") for part in fragments(r)}
    tests = [r for r, p in zip(records, parts, strict=True) if p == "test"]
    touched = sum(bool(fragments(r) & small) for r in tests)
    ends = {name for r, p in zip(records, parts, strict=True) if p in ("train", "val") for name in r["names"]}
    whole = sum(bool(ends & set(r["names"])) for r in tests)
    return (
        f"- of {len(tests)} test reactions {touched} have a fragment of at most two heavy atoms that is also one of a "
        f"training or validation reaction, {whole} a whole end of the same molecules, and "
        f"{len({i for i, _ in shared})} one that is the same minimum\n{how_hard(records, parts)}"
    )


def how_hard(records: list[dict[str, Any]], parts: list[str]) -> str:
    """Barriers of the training and the test reactions of the scheme `reaction`."""
    found = []
    for title, part in (("training", "train"), ("test", "test")):
        members = [r for r, p in zip(records, parts, strict=True) if p == part]
        barriers = np.array([r["barrier"] for r in members])
        same = np.mean([kind_of(r) != "reaction" for r in members])
        found.append(
            f"{title} reactions: median barrier {np.median(barriers):.2f} eV, below 3 eV {np.mean(barriers < 3):.0%}, "
            f"conformational or degenerate {same:.0%}"
        )
    return "- " + "; ".join(found)


def fragments(record: dict[str, Any]) -> set[str]:
    """Names of the molecules at both ends."""
    return {part for name in record["names"] for part in name.split(".")}


def write_list(records: list[dict[str, Any]], path: Path) -> None:
    """Every reaction of the data set in a line."""
    parts = by_reaction(records, SEED)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["name", "kind", "part", "atoms", "barrier_eV", "reverse_barrier_eV"])
        for name, record, part in zip(names_of(records), records, parts, strict=True):
            barriers = [f"{record[which]:.3f}" for which in ("barrier", "reverse")]
            writer.writerow([name, kind_of(record), part, len(record["numbers"]), *barriers])


def facts(records: list[dict[str, Any]]) -> str:
    """Barriers, sizes and compositions in a few lines."""
    barriers = np.array([record["barrier"] for record in records])
    atoms = np.array([len(record["numbers"]) for record in records])
    heavy = np.array([sum(n > 1 for n in record["numbers"]) for record in records])
    walked = Counter(method for record in records for method in record["method"])
    bonds = np.array([record["barrier"] for record in records if kind_of(record) == "reaction"])
    return "\n".join(
        [
            f"- reactions: {len(records)}, compositions: {len({formula(r) for r in records})}, "
            f"different molecules or pairs at their ends: {len({n for r in records for n in r['names']})}",
            f"- barrier: {barriers.min():.2f} to {barriers.max():.2f} eV, median {np.median(barriers):.2f}, "
            f"below 3 eV: {np.mean(barriers < 3):.0%}; of those that change bonds {bonds.min():.2f} to "
            f"{bonds.max():.2f} eV, median {np.median(bonds):.2f}, below 3 eV: {np.mean(bonds < 3):.0%}",
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
    try:
        records, counts = accepted(read_journal(args.journal))
    except (HessianDataError, OSError, KeyError) as exc:
        parser.error(f"--journal: {exc}")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"--output {args.output}: expected a folder, found a file")
    if not records:
        parser.error(f"--journal {args.journal}: expected a folder of attempts with reactions among them, found none")
    text = "\n\n".join([funnel_table(counts, records), f"{facts(records)}\n{held_out(records)}"])
    print(text)
    args.output.mkdir(parents=True, exist_ok=True)
    histogram([r["barrier"] for r in records], np.arange(0, 5.26, 0.25), "barrier / eV", args.output / "barriers.svg")
    sizes = [len(r["numbers"]) for r in records]
    histogram(sizes, np.arange(2.5, max(sizes) + 1), "atoms", args.output / "sizes.svg")
    write_list(records, args.output / "reactions.csv")
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
