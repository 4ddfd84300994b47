"""`nequip-hessian merge`: several Hessian stores into one."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from nequip_hessian.cli._show import plain

if TYPE_CHECKING:
    from nequip_hessian.store.merge import MergeReport

EXAMPLES = """examples:
  nequip-hessian merge first.zarr second.zarr -o both.zarr
  nequip-hessian merge part-*.zarr -o all.zarr.zip --profile publish --license CC-BY-4.0 --title "All reactions"
  nequip-hessian merge old.zarr new.zarr -o clean.zarr --drop-duplicates"""

MOST = 10  # duplicates and renamed groups that are printed


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "merge",
        help="several Hessian stores into one",
        description="Write the geometries of several stores into one, in the order given. Equal levels of theory "
        "become one; groups of the same name and the same atoms become one, others are kept apart; geometries that "
        "occur twice at one level of theory are reported. Hessians are float64 if one store has float64.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="STORE", help="store directories or zip files")
    parser.add_argument("-o", "--output", required=True, metavar="STORE", help="the store to write")
    parser.add_argument("--drop-duplicates", action="store_true", help="leave out what occurs twice")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="of the stored Hessians")
    parser.add_argument("--profile", choices=("local", "remote", "publish"), default="local", help="on disk")
    for name in ("license", "title", "description", "id"):
        parser.add_argument(f"--{name}", metavar="SPDX" if name == "license" else "TEXT", help="of the new store")
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Merge and print what was found."""
    from nequip_hessian.store.merge import merge

    given = {name: getattr(args, name) for name in ("license", "title", "description", "id")}
    report = merge(
        args.paths,
        args.output,
        dtype=args.dtype,
        profile=args.profile,
        attributes={name: value for name, value in given.items() if value},
        drop_duplicates=args.drop_duplicates,
        overwrite=args.overwrite,
    )
    print(json.dumps(asdict(report)) if args.json else plain("\n".join(_lines(report, args.paths, args.output))))
    return 0


def _lines(report: MergeReport, paths: list[str], output: str) -> list[str]:
    lines = [f"{count} geometries from {path}" for path, count in zip(paths, report.geometries, strict=True)]
    what = "left out" if report.dropped else "kept; --drop-duplicates leaves them out"
    if report.duplicates:
        lines.append(f"duplicates: {len(report.duplicates)}, {what}")
    for first, second in report.duplicates[:MOST]:
        lines.append(f"duplicate: {second[0]} geometry {second[1]} repeats {first[0]} geometry {first[1]}")
    if len(report.duplicates) > MOST:
        lines.append(f"... and {len(report.duplicates) - MOST} more (--json lists all)")
    for first, second, label in report.contradictions[:MOST]:
        what = f"{second[0]} geometry {second[1]} is {first[0]} geometry {first[1]}, with another {label}"
        lines.append(f"contradiction: {what}; both are kept")
    if len(report.contradictions) > MOST:
        lines.append(f"... and {len(report.contradictions) - MOST} more (--json lists all)")
    for store, old, new in report.renamed[:MOST]:
        lines.append(f"renamed: group {old!r} of {store} has other atoms than the one before, now {new!r}")
    if len(report.renamed) > MOST:
        lines.append(f"... and {len(report.renamed) - MOST} more (--json lists all)")
    lines += [f"split {scheme} left out: {reason}" for scheme, reason in report.left_out.items()]
    lines += [f"split {scheme} carried over" for scheme in report.splits]
    return [
        *lines,
        *report.notes,
        f"{sum(report.geometries)} geometries, {report.levels[0]} levels of theory (of {report.levels[1]}), "
        f"{report.groups[0]} groups (of {report.groups[1]}) -> {output}",
    ]
