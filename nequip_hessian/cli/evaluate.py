"""`nequip-hessian evaluate`: models against a store, as tables, plots and one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nequip_hessian.cli.md import add_ramp_arguments

_EPILOG = """\
examples:
  nequip-hessian evaluate last.ckpt store.zarr -o out/
  nequip-hessian evaluate ef=runs/ef/last.ckpt efh=runs/efh/last.ckpt store.zarr -o out/
  nequip-hessian evaluate GFN1=tblite:GFN1-xTB mace=ase:mace.calculators:mace_off store.zarr -o out/
  nequip-hessian evaluate model.nequip.zip store.zarr -o out/ --split reaction:test --no-neb --limit 100
  nequip-hessian evaluate ef.ckpt efh.ckpt store.zarr -o out/ --tasks saddle,irc,md --reactions 30 --workers 8

A store with several split schemes (nequip-hessian info) needs --split SCHEME: the one the models were trained with.
The first model is the baseline. Interrupt it whenever you like: the same command goes on where it was.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import whole
    from nequip_hessian.cli._potential import MODEL_HELP

    parser = subparsers.add_parser(
        "evaluate",
        help="models against a store: accuracy, frequencies, barriers",
        description="Compare models with the labels of a Hessian store: energies, forces, Hessians, frequencies, "
        "saddle order, minima, reaction paths, transition states and dynamics on each model's own surface.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"{MODEL_HELP}; or NAME=MODEL")
    parser.add_argument("store", metavar="STORE", help="Hessian store with the labels")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where report.html and the rest go")
    parser.add_argument(
        "--split",
        default="",
        metavar="SCHEME[:PART],...",
        help="parts to evaluate, or the scheme that the models were trained with (default: the test parts where one "
        "scheme of the store has some; everything where none has)",
    )
    parser.add_argument("--limit", type=whole, metavar="N", help="at most N geometries, evenly spread")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--calculator-options",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="keyword arguments of an ASE calculator or of tblite's, for the model of that name; repeatable",
    )
    parser.add_argument(
        "--masses", choices=("standard", "isotopic", "source"), default="standard", help="for vibrations"
    )
    parser.add_argument(
        "--tasks",
        metavar="TASK,...",
        help="accuracy (always), consistency, minima, thermochemistry, neb; and, not by default, saddle, irc, md",
    )
    parser.add_argument("--no-neb", action="store_true", help="no reaction paths")
    parser.add_argument("--no-optimise", action="store_true", help="no minima on the models' own surfaces")
    parser.add_argument(
        "--reactions", type=whole, metavar="N", help="at most N reactions, whose stationary points --limit leaves in"
    )
    parser.add_argument(
        "--workers", type=whole, default=1, metavar="N", help="processes of one thread each (default: 1)"
    )
    _add_settings(parser)


def _add_settings(parser: Any) -> None:
    from nequip_hessian.cli._numbers import positive, whole, whole_number

    parser.add_argument(
        "--neb-steps",
        type=whole,
        default=400,
        metavar="N",
        help="as --steps of neb: a path that is not converged then counts as failed (default: 400)",
    )
    parser.add_argument(
        "--images", type=whole_number(4), default=9, help="images of a reaction path with both ends (default: 9)"
    )
    parser.add_argument(
        "--starts",
        type=whole_number(0),
        default=1,
        metavar="N",
        help="perturbed starts of a saddle search (default: 1)",
    )
    parser.add_argument(
        "--spread", type=positive, default=0.05, help="their displacement, Å a coordinate (default: 0.05)"
    )
    parser.add_argument(
        "--md-molecules", type=whole, default=10, metavar="N", help="molecules of the ramp (default: 10)"
    )
    add_ramp_arguments(parser, "md-")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the report, print the table and the page's name."""
    from nequip_hessian.cli._output import folder_to_write, interrupted
    from nequip_hessian.cli.md import ramp_settings
    from nequip_hessian.evaluate import DEFAULT_TASKS, Options, evaluate, load_models
    from nequip_hessian.report import write_report
    from nequip_hessian.report.tables import text_table
    from nequip_hessian.store import HessianStore

    chosen = DEFAULT_TASKS if args.tasks is None else tuple(filter(None, args.tasks.split(",")))
    options = Options(
        split=tuple(part for part in args.split.split(",") if part),
        limit=args.limit,
        reactions=args.reactions,
        masses=args.masses,
        tasks=chosen,
        neb=not args.no_neb,
        relax=not args.no_optimise,
        images=args.images,
        neb_steps=args.neb_steps,
        starts=args.starts,
        spread=args.spread,
        molecules=args.md_molecules,
        ramp=ramp_settings(args, "md_"),
        workers=args.workers,
    )
    folder_to_write(args)
    store, out = HessianStore(args.store), Path(args.output)
    try:
        evaluation = evaluate(load_models(args.models, args.device, _calculator_options(args)), store, out, options)
    except KeyboardInterrupt:
        return interrupted("evaluate", kept=True)
    page = write_report(evaluation, out)
    print(text_table(evaluation))
    for note in evaluation.notes:
        print(f"note: {note}")
    print(f"report: {page}")
    return 0


def _calculator_options(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    from nequip_hessian.cli._potential import json_object

    pairs = [text.partition("=") for text in args.calculator_options]
    return {name: json_object("--calculator-options", text) for name, _, text in pairs}
