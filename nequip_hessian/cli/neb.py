"""`nequip-hessian neb`: a reaction path between two minima."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

SETTINGS = ("images", "fmax", "steps")

_EPILOG = """\
examples:
  nequip-hessian neb model.nequip.zip reactant.xyz product.xyz -o neb/
  nequip-hessian neb tblite reactant.xyz product.xyz --images 13 --fmax 0.02

the highest image (neb/ts_guess.xyz) is a guess for nequip-hessian ts
interrupted, the same command goes on where it was

exit status: 0 converged, with a maximum and an imaginary mode there; 1 not (what there is is written all the same)
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import positive, whole, whole_number
    from nequip_hessian.cli._potential import (
        add_potential_arguments,
        add_state_arguments,
        add_workers_argument,
    )

    parser = subparsers.add_parser(
        "neb",
        help="a reaction path between two minima",
        description="Minimise both ends, then relax a nudged elastic band between them: geodesic first guess, improved "
        "tangents, climbing image.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    add_workers_argument(parser)
    parser.add_argument("reactant", metavar="REACTANT", help="file with the reactant")
    parser.add_argument("product", metavar="PRODUCT", help="file with the product, atoms in the same order")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write the band, a guess and a page there")
    parser.add_argument("--images", type=whole_number(3), default=9, help="with both ends (default: 9)")
    parser.add_argument("--fmax", type=positive, default=0.05, help="largest NEB force, eV/Å (default: 0.05)")
    parser.add_argument(
        "--steps",
        type=whole,
        default=400,
        help="of the climbing band, at most; before it up to half as many without climbing (default: 400)",
    )
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Relax the band, print the table, write what was asked for."""
    from nequip_hessian.cli._output import folder_to_write, interrupted

    out = folder_to_write(args)
    from nequip_hessian.cli._potential import geometry, potential_source
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.report.job import band_table, write_neb

    reactant, product = (geometry(args, path) for path in (args.reactant, args.product))
    source = potential_source(args, args.workers)
    if out is not None:
        claim_folder(out, args.verb)
    try:
        path = _search(source, reactant, product, {name: getattr(args, name) for name in SETTINGS}, out)
    except KeyboardInterrupt:
        return interrupted("neb", kept=out is not None)
    if len(path.energies):
        print(band_table(path))
    if out is not None:
        origin = {name: getattr(args, name) for name in ("model", "reactant", "product", *SETTINGS)}
        write_neb(out, path, reactant, origin)
    if path.failure:
        print(f"nequip-hessian neb: {path.failure}", file=sys.stderr)
    return 1 if path.failure else 0


def _search(source: Any, reactant: Any, product: Any, settings: dict[str, Any], out: Path | None) -> Any:
    from tqdm import tqdm

    from nequip_hessian import __version__
    from nequip_hessian.analysis.cache import Cache
    from nequip_hessian.analysis.jobs import job_name
    from nequip_hessian.analysis.path import reaction_path

    calculator, answers = source.load(), None
    if out is not None:
        ends = [job_name("end", atoms, settings) for atoms in (reactant, product)]
        answers = Cache(out / "cache", {"model": source.identity, "ends": ends, "version": __version__}).answers("band")
    with tqdm(desc="neb", unit=" steps", disable=None, leave=False) as bar:
        return reaction_path(reactant, product, calculator, on_step=bar.update, answers=answers, **settings)
