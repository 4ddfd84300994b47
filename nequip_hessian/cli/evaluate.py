"""`nequip-hessian evaluate`: models against a store, as tables, plots and one HTML page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian evaluate last.ckpt store.zarr -o out/
  nequip-hessian evaluate ef=runs/ef/last.ckpt efh=runs/efh/last.ckpt store.zarr -o out/
  nequip-hessian evaluate model.nequip.zip store.zarr -o out/ --split reactions:test --no-neb --limit 100

The first model is the baseline. Interrupt it whenever you like: the same command goes on where it was.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="models against a store: accuracy, frequencies, barriers",
        description="Compare models with the labels of a Hessian store: energies, forces, Hessians, frequencies, "
        "saddle order, minima and reaction paths on each model's own surface.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model file, or NAME=FILE")
    parser.add_argument("store", metavar="STORE", help="Hessian store with the labels")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where report.html and the rest go")
    parser.add_argument(
        "--split",
        default="",
        metavar="SCHEME[:PART],...",
        help="parts to evaluate (default: the test parts where the store has a split, else everything)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N geometries, evenly spread")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--masses", choices=("standard", "isotopic", "source"), default="standard", help="for vibrations"
    )
    parser.add_argument("--no-neb", action="store_true", help="no reaction paths")
    parser.add_argument("--no-optimise", action="store_true", help="no minima on the models' own surfaces")
    parser.add_argument(
        "--neb-steps",
        type=int,
        default=400,
        metavar="N",
        help="steps after which a path counts as failed (default: 400)",
    )
    parser.add_argument("--images", type=int, default=9, help="images of a reaction path with both ends (default: 9)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the report, print the table and the page's name."""
    from nequip_hessian.evaluate import Options, evaluate, load_models
    from nequip_hessian.report import write_report
    from nequip_hessian.report.tables import text_table
    from nequip_hessian.store import HessianStore

    options = Options(
        split=tuple(part for part in args.split.split(",") if part),
        limit=args.limit,
        masses=args.masses,
        neb=not args.no_neb,
        relax=not args.no_optimise,
        images=args.images,
        neb_steps=args.neb_steps,
    )
    store, out = HessianStore(args.store), Path(args.output)
    try:
        evaluation = evaluate(load_models(args.models, args.device), store, out, options)
    except KeyboardInterrupt:
        print("nequip-hessian evaluate: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    page = write_report(evaluation, out)
    print(text_table(evaluation))
    for note in evaluation.notes:
        print(f"note: {note}")
    print(f"report: {page}")
    return 0
