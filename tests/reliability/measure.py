"""Measure the faults at length: `python tests/reliability/measure.py [--quick] [--output docs/reliability.md]`.

Writes a page with what was done and what came of it. Exit status 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faults
import mutations
from faults import ROOT, Result

CASES = ROOT.parent / "shared" / "cases"
Step = tuple[str, str, Callable[[Path], Result]]
LATER = "not yet measured"


def steps(quick: bool) -> list[Step]:
    """What is done: title, what must come of it, and the function."""
    return [
        ("SIGKILL at random moments of a conversion, up to three in a row, then `--resume`",
         "the store of an undisturbed conversion, bit for bit; never one that opens with half a record",
         lambda folder: faults.killed_conversions(folder, 3 if quick else 100, files=4)),
        ("Disk full: files may not grow beyond a limit", "one line and nothing left behind, or the store",
         lambda folder: faults.full_disk(folder, 3 if quick else 25)),
        ("The same of `merge`, `repack` and `export` to each format", "one line and nothing left behind, or all of it",
         lambda folder: faults.full_disk_of_verbs(folder, 3 if quick else 12)),
        ("The same of `label`", "one line and at most the journal, from which it goes on, or the store",
         lambda folder: faults.full_disk_of_labels(folder, 2 if quick else 12)),
        ("Target on a read-only file system, or below a file", "one line, status 1", faults.read_only_target),
        ("Two conversions to one target at the same time", "one whole store, one clear refusal",
         lambda folder: faults.two_writers(folder, 3 if quick else 200)),
        ("One byte changed in values or metadata of a store", "`validate --level 3` finds it",
         lambda folder: faults.flipped_bytes(folder, 100 if quick else 1000)),
        ("Every zipped store of the tests, cut at random lengths", "invalid, in words, or the same store",
         lambda folder: faults.changed_stores(folder, 2 if quick else 50, mutations.cut)),
        ("Every zipped store of the tests, one to five random bytes changed", "invalid, in words, or the same store",
         lambda folder: faults.changed_stores(folder, 2 if quick else 50, mutations.mutate)),
        *_changed_inputs("One input of each format", 3 if quick else 50, made),
        *_changed_inputs("Public outputs, where they are", 1 if quick else 50, public),
        ("Zip files with keys that lead out of the store", "rule HZ-2.11, nothing written outside",
         faults.hostile_zips),
        ("Labels of a store with tags, escapes, paths, line ends, or very long: `info`, a page, `validate`, `export`",
         "nothing raw comes out, nothing is written outside", faults.hostile_labels),
        ("Archives of outputs with names that lead out, links, devices, bombs, false sizes, given to `convert`",
         "refused in words, or what is sound in them taken; nothing written outside", faults.hostile_archives),
        ("One large geometry checked as by `convert`, written, validated to level 4, read and exported",
         "the same numbers; CPU seconds and peak memory of each",
         lambda folder: faults.large_geometry(folder, 300 if quick else 3000)),
        ("Very many geometries: open, then 1000 random Hessians", "right, without reading the data",
         lambda folder: faults.many_offsets(folder, 100_000 if quick else 10_000_000)),
    ]  # fmt: skip


def _changed_inputs(title: str, each: int, inputs: Callable[[Path], list[mutations.Input]]) -> list[Step]:
    wanted = "an error or a warning of one line, or the same record; what is silent is counted"
    changes = (
        ("cut at random lengths", mutations.cut),
        ("one to five random bytes changed", mutations.mutate),
        ("one digit of a number changed to another digit", mutations.exchange_digit),
    )
    return [
        (f"{title}, {text}", wanted, lambda folder, one=one: mutations.measured(inputs(folder), one, each, folder))
        for text, one in changes
    ]


def made(folder: Path) -> list[mutations.Input]:
    """One sound input of each format, from what ships with the tests."""
    return mutations.sound(folder / "sound")


def public(folder: Path) -> list[mutations.Input]:
    """Outputs that this project did not write, up to 200 kB; none where their folder is not there."""
    listed = CASES / "expected.json"
    cases = json.loads(listed.read_text()).values() if listed.is_file() else []
    paths = [CASES / case["file"] for case in cases if case["expect"] == "convert"]
    return [mutations.Input.of(path) for path in mutations.convertible(paths, 200_000)]


def page(rows: list[tuple[Step, Result | None, float]], quick: bool) -> str:
    """The page as Markdown."""
    system = f"{platform.system()}, Python {platform.python_version()}"
    lines = [
        "# What goes wrong, and what comes of it",
        "",
        "Made by `python tests/reliability/measure.py`, which does each thing and counts. A brief version runs with",
        "the tests; one of them alone, briefly:",
        "",
        "```bash",
        "python tests/reliability/measure.py --quick --only 'One large' --output out/reliability.md",
        "```",
        "",
        f"{'A brief run' if quick else 'A full run'}: {system}.",
        "",
        "| what was done | what must come of it | counts | failed |",
        "|---|---|---|---|",
    ]
    for (title, wanted, _), result, _seconds in rows:
        if result is None:
            lines.append(f"| {title} | {wanted} | | {LATER} |")
            continue
        counts = ", ".join(f"{key} {value}" for key, value in result.items() if key != "failed")
        lines.append(f"| {title} | {wanted} | {counts} | {result['failed']} |")
    return "\n".join([*lines, "", *NOTES]) + "\n"


NOTES = [
    "Kills: a conversion writes beside its target, in `TARGET.unfinished`, in batches that are on disk before the",
    "journal says so; the target appears by one rename, after every file and folder has been flushed to disk. Killed",
    "in the one moment between the store and its report, the store is whole and the report missing;",
    "`TARGET.unfinished` and, of shares, `TARGET.parts` may be left then, and can be deleted.",
    "",
    "Changed inputs are read and checked as `convert` does. *Unchanged*: the same atoms, positions and Hessian, to",
    "1e-4 of its largest element. *Warned*: another Hessian or geometry, with a warning that the sound input does",
    "not have, most often that one number contradicts all others by the identities of translation and rotation: it",
    "is named, with its error. *Silent*: another Hessian or geometry, and nothing said. Silent are digits below the",
    "noise of the source (grids, differences of gradients, few decimals), and numbers that stand in the file once",
    "and take part in no identity: of partial Hessians (only their symmetry is known, and frequencies where they",
    "are printed), positions in periodic cells (no rotation), elements and positions of molecules of three atoms or",
    "fewer. Energies and charges are not counted.",
    "",
    "A reading that takes longer than a minute counts as failed. An input of several records is compared record by",
    "record; another number of records is counted as silent. Data sets are changed in one of their files.",
    "",
    "Changed bytes: every array has a SHA-256 of its values, and the metadata have one of all that means something.",
    "What changes nothing is counted apart: the padding behind the last row of a chunk, a blank for another blank, a",
    "fill value (no chunk may be missing), an option of a codec that plays no part in reading.",
    "",
    "A store never names a file outside itself and holds no code and no pickles. Symbolic links below a store are",
    "followed as the file system does; treat a store from someone else as you would any archive.",
]


def main(argv: list[str] | None = None) -> int:
    """Do it all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a brief version, about a minute")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "reliability.md")
    parser.add_argument("--only", default="", help="only what has this in its title")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep results here and do not repeat them; the page has all rows"
    )
    args = parser.parse_args(argv)
    rows: list[tuple[Step, Result | None, float]] = []
    for number, step in enumerate(steps(args.quick)):
        kept = args.keep / f"{number}.json" if args.keep else None
        if kept is not None and kept.exists():
            result, seconds = json.loads(kept.read_text())
        elif args.only in step[0]:
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                result = step[2](Path(folder))
            seconds = time.perf_counter() - start
            if kept is not None:
                kept.write_text(json.dumps([result, seconds]))
        elif kept is not None:  # the page of what there is says what there is not
            rows.append((step, None, 0.0))
            continue
        else:
            continue
        rows.append((step, result, seconds))
        print(f"{step[0]}: {result} in {seconds:.0f} s", flush=True)
    args.output.write_text(page(rows, args.quick))
    return int(any(result["failed"] for _, result, _ in rows if result is not None))


if __name__ == "__main__":
    sys.exit(main())
