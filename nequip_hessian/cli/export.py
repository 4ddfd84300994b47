"""`nequip-hessian export`: geometries of a store in the files of other programs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from nequip_hessian.cli._show import plain

_FORMATS = ("orca-hess", "fchk", "xtb", "turbomole", "geometric", "phonopy", "deepmd-npy", "extxyz", "qcschema")

_EPILOG = """\
examples:
  nequip-hessian export store.zarr --format extxyz -o all.xyz
  nequip-hessian export store.zarr --format orca-hess --select 12 -o ts.hess
  nequip-hessian export store.zarr --format fchk --select role=transition_state -o checkpoints/
  nequip-hessian export store.zarr --format geometric --select label=rxn7_ts -o start/
  nequip-hessian export store.zarr --format deepmd-npy --select random:train -o systems/

exit status:
  0 everything chosen was written; 3 the format has no place for some of it, the rest was written; 1 nothing was written
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="geometries of a store in the files of other programs",
        description="Write geometries of a Hessian store with their Hessians as ORCA .hess, formatted checkpoint, xtb, "
        "Turbomole, geomeTRIC, phonopy, DeePMD-kit, extended XYZ or QCSchema files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", help="store directory or zip file")
    parser.add_argument("--format", required=True, choices=_FORMATS, help="the format to write")
    parser.add_argument("-o", "--output", required=True, metavar="PATH", help="file or folder to write")
    parser.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="WHICH",
        help="indices (0,4,10-19), kind=, role=, group=, label=, scheme:part or hessian; several must all fit "
        "(default: all geometries)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file, or a folder that an export made")


def run(args: argparse.Namespace) -> int:
    """Export, say what went where, and return the exit status."""
    from nequip_hessian.export import export

    result = export(args.store, args.output, args.format, select=args.select, overwrite=args.overwrite)
    for index, reason in result.refused:
        print(plain(f"nequip-hessian export: geometry {index} left out: {reason}"), file=sys.stderr)
    if result.lost:
        lost = ", ".join(f"{name.replace('_', ' ')} of {count}" for name, count in result.lost.items())
        print(f"nequip-hessian export: {args.format} has no place for: {lost}", file=sys.stderr)
    total = len(result.places) + len(result.refused)
    print(plain(f"{len(result.places)} of {total} geometries written to {result.output}"))
    return 3 if result.refused else 0
