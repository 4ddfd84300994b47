"""Raw outputs -> store: `python datasets/demo/build.py -o out/demo.zarr`.

Converts raw/ with `nequip_hessian.convert`, which checks each record against
physics, and adds what raw outputs cannot know: licence and title, and the split
`demo` by whole reactions, as reactions.json says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from nequip_hessian.convert import convert
from nequip_hessian.curvature import normal_modes
from nequip_hessian.errors import HessianDataError
from nequip_hessian.store import HessianStore, StoreWriter

HERE = Path(__file__).parent
PARTS = ("train", "val", "test", "test_path", "test_displaced", "test_known")
ATTRIBUTES = {
    "id": "nequip-hessian-demo",
    "title": "Elementary reactions of 3 to 5 atoms with B3LYP/def2-SVP Hessians",
    "license": "MIT",
    "dataset_version": "0.1",
}


def part_of(reaction_part: str, kind: str | None, has_hessian: bool) -> str:
    """Part of the split `demo`: that of the reaction, off-equilibrium points with Hessians apart.

    In a training reaction those were never trained on (`test_known`); of a held-out one they are
    `test_path` and `test_displaced`.
    """
    if kind not in ("path", "displaced") or not has_hessian:
        return reaction_part
    return "test_known" if reaction_part == "train" else f"test_{kind}"


def convert_raw(raw: Path, target: Path) -> Path:
    """Convert a folder of raw outputs; everything must be taken.

    Raises:
        HessianDataError: a raw output was refused
    """
    report = convert([raw], target, without_hessian=True, group="none")
    refused = [entry for entry in report.entries if entry.status != "taken"]
    if refused:
        raise HessianDataError(f"{refused[0].source}: {refused[0].status}: {refused[0].reason}")
    return target


def build(
    output: Path, raw: Path = HERE / "raw", overwrite: bool = False, converted: Path | None = None
) -> Counter[str]:
    """Build the demo store.

    Args:
        output: the store to write
        raw: folder of raw outputs, one subfolder a reaction
        overwrite: replace a store that is there
        converted: a store that `nequip-hessian convert` has made of `raw`; without one it is converted here

    Returns:
        Number of geometries in each part.

    Raises:
        HessianDataError: a raw output was refused, or belongs to no reaction of reactions.json
    """
    reactions = json.loads((HERE / "reactions.json").read_text())["reactions"]
    with tempfile.TemporaryDirectory() as aside:
        plain = converted or convert_raw(raw, Path(aside) / "plain.zarr")
        store = HessianStore(plain)
        records = [store[i] for i in range(len(store))]
        unknown = sorted({str(record.group) for record in records} - set(reactions))
        if unknown:
            raise HessianDataError(f"reactions.json: expected an entry for each group, none for {', '.join(unknown)}")
        parts = [
            part_of(reactions[record.group]["part"], record.kind, record.hessian is not None) for record in records
        ]
        codes = np.array([PARTS.index(part) for part in parts], dtype=np.int8)
        with StoreWriter(output, attributes=ATTRIBUTES, overwrite=overwrite) as writer:
            writer.extend(records)
            for entry in store.attributes["provenance"]:
                writer.add_provenance(entry)
            writer.set_split("demo", list(PARTS), codes)
    return Counter(parts)


def table(output: Path) -> str:
    """A Markdown table of the reactions in a built store: part, barrier, imaginary mode, numbers of points."""
    reactions = json.loads((HERE / "reactions.json").read_text())["reactions"]
    store = HessianStore(output)
    groups = np.asarray(store.group)
    lines = [
        "| reaction | part | atoms | barrier / eV | reaction energy / eV | imaginary mode / cm-1 | Hessians | points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for reaction in store.reactions():
        start, top, end = (store[i] for i in (reaction.reactant, reaction.transition_state, reaction.product))
        mask = groups == reaction.group
        wave = normal_modes(top.hessian, top.positions, atomic_masses[top.numbers])[0][0]
        entry = reactions[reaction.label]
        hessians = int(store.has_hessian[mask].sum())
        lines.append(
            f"| {entry['title']} | {entry['part']} | {len(top)} | {top.energy - start.energy:.2f} | "
            f"{end.energy - start.energy:+.2f} | {abs(wave):.0f}i | {hessians} | {mask.sum()} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Build, and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the store to write")
    parser.add_argument("--converted", type=Path, help="the store that convert made of raw/ (default: convert here)")
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        counts = build(args.output, overwrite=args.overwrite, converted=args.converted)
    except HessianDataError as exc:
        print(f"build.py: error: {exc}", file=sys.stderr)
        return 1
    print(table(args.output))
    print(f"{sum(counts.values())} geometries: " + ", ".join(f"{part} {counts[part]}" for part in PARTS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
