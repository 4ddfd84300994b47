"""`nequip-hessian neb`: a reaction path between two minima."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian neb model.nequip.zip reactant.xyz product.xyz -o neb/
  nequip-hessian neb tblite reactant.xyz product.xyz --images 13 --fmax 0.02

the highest image (neb/ts_guess.xyz) is a guess for nequip-hessian ts

exit status: 0 converged, with a maximum and an imaginary mode there; 1 not (what there is is written all the same)
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._potential import add_potential_arguments, add_state_arguments

    parser = subparsers.add_parser(
        "neb",
        help="a reaction path between two minima",
        description="Minimise both ends, then relax a nudged elastic band between them: geodesic first guess, improved "
        "tangents, climbing image.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    parser.add_argument("reactant", metavar="REACTANT", help="file with the reactant")
    parser.add_argument("product", metavar="PRODUCT", help="file with the product, atoms in the same order")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write the band, a guess and a page there")
    parser.add_argument("--images", type=int, default=9, help="with both ends (default: 9)")
    parser.add_argument("--fmax", type=float, default=0.05, help="largest NEB force, eV/Å (default: 0.05)")
    parser.add_argument(
        "--steps",
        type=int,
        default=400,
        help="of the climbing band, at most; before it up to half as many without climbing (default: 400)",
    )
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Relax the band, print the table, write what was asked for."""
    from nequip_hessian.cli._output import folder_to_write

    folder_to_write(args.output)
    from tqdm import tqdm

    from nequip_hessian.analysis.path import reaction_path
    from nequip_hessian.cli._potential import geometry, potential
    from nequip_hessian.errors import OptionError
    from nequip_hessian.report.job import band_table, write_neb

    if args.images < 3 or args.steps < 1 or not args.fmax > 0:
        raise OptionError("neb: expected 3 or more images, one or more steps and fmax above 0")
    reactant, product = (geometry(args, path) for path in (args.reactant, args.product))
    calculator = potential(args)
    with tqdm(desc="neb", unit=" steps", disable=None, leave=False) as bar:
        path = reaction_path(
            reactant, product, calculator, images=args.images, fmax=args.fmax, steps=args.steps, on_step=bar.update
        )
    print(band_table(path))
    if args.output:
        origin = {name: getattr(args, name) for name in ("model", "reactant", "product", "images", "fmax", "steps")}
        write_neb(Path(args.output), path, reactant, origin)
    if path.failure:
        print(f"nequip-hessian neb: {path.failure}", file=sys.stderr)
    return 1 if path.failure else 0
