"""`nequip-hessian optimise`: minima on a model's surface."""

from __future__ import annotations

import argparse
import sys
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian optimise model.nequip.zip guess.xyz -o minimum.extxyz
  nequip-hessian optimise last.ckpt guesses.extxyz -o minima.extxyz --fmax 0.001
  nequip-hessian optimise last.ckpt guess.xyz --hessian hessian.npy
  nequip-hessian optimise tblite:GFN1-xTB guess.xyz -o minimum.extxyz

exit status: 0 all converged; 1 one or more did not (they are written all the same, as far as they came)
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import positive, whole
    from nequip_hessian.cli.energy import add_model_arguments

    parser = subparsers.add_parser(
        "optimise",
        help="minima on a model's surface",
        description="Minimise every geometry of a file at fixed cell: BFGS, then FIRE where that does not converge.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("geometry", metavar="GEOMETRY", help="file with one or more geometries")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the optimised geometries as extended XYZ")
    parser.add_argument("--fmax", type=positive, default=0.005, help="largest force at the end, eV/Å (default: 0.005)")
    parser.add_argument(
        "--steps", type=whole, default=500, help="at most so many steps of each optimiser (default: 500)"
    )


def run(args: argparse.Namespace) -> int:
    """Minimise, print the table, write what was asked for."""
    from nequip_hessian.cli._output import files_to_write

    files_to_write(args, "output", "hessian")
    from nequip_hessian.analysis.optimisation import relax_all
    from nequip_hessian.analysis.prediction import evaluate_hessians, unknown_elements
    from nequip_hessian.cli._potential import charged_geometries, potential
    from nequip_hessian.errors import ConfigError
    from nequip_hessian.report.single import check_hessian_file, optimisation_table, write_frames, write_hessians

    frames = charged_geometries(args, args.geometry)
    if args.hessian:
        check_hessian_file(args.hessian, len(frames))
    calculator = potential(args)
    for index, atoms in enumerate(frames):
        if unknown := unknown_elements(calculator, atoms.numbers):
            raise ConfigError(f"{args.geometry}: geometry {index}: {atoms.get_chemical_formula()}: {unknown}")
    before, outcomes = relax_all(frames, calculator, fmax=args.fmax, steps=args.steps)
    print(optimisation_table(before, outcomes))
    if args.output:
        write_frames(args.output, [o.atoms for o in outcomes], [(o.energy, o.forces) for o in outcomes])
    if args.hessian:
        write_hessians(args.hessian, evaluate_hessians(calculator, [o.atoms for o in outcomes]))
    failures = [f"geometry {i}: {o.failure}" for i, o in enumerate(outcomes) if o.failure]
    for line in failures:
        print(f"nequip-hessian optimise: {line}", file=sys.stderr)
    return 1 if failures else 0
