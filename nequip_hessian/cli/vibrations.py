"""`nequip-hessian vibrations`: normal modes with a model, beside a calculation's if wanted."""

from __future__ import annotations

import argparse
import sys
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian vibrations model.nequip.zip molecule.xyz --optimise
  nequip-hessian vibrations last.ckpt ts.xyz -o modes/        (frequencies.csv, .json, an animation a mode)
  nequip-hessian vibrations last.ckpt --compare my-orca.hess  (both side by side, matched by overlap)

Translations and rotations are projected out. Imaginary wavenumbers are printed as 1426.0i and are negative in files.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli.energy import add_model_arguments

    parser = subparsers.add_parser(
        "vibrations",
        help="normal modes with a model, beside a calculation's if wanted",
        description="Harmonic vibrations from a model's exact Hessian: wavenumbers, modes, zero-point energy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("geometry", nargs="?", metavar="GEOMETRY", help="file with one or more geometries")
    parser.add_argument("--compare", metavar="FILE", help="output of a frequency calculation to compare with")
    parser.add_argument("--optimise", action="store_true", help="minimise with the model first")
    parser.add_argument(
        "--masses", choices=("standard", "isotopic"), default="standard", help="atomic masses (default: standard)"
    )
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write frequencies and animated modes there")


def run(args: argparse.Namespace) -> int:
    """Analyse, compare, print the tables, write what was asked for."""
    from nequip_hessian.calculator import HessianCalculator

    if not args.geometry and not args.compare:
        print("nequip-hessian vibrations: give a GEOMETRY, --compare FILE, or both", file=sys.stderr)
        return 2
    calculator = HessianCalculator.from_file(args.model, device=args.device)
    if args.compare:
        from nequip_hessian.analysis.single import compare_with_file
        from nequip_hessian.report.single import comparison_table

        print("\n\n".join(comparison_table(found) for found in compare_with_file(calculator, args.compare)))
    return _analyse(args, calculator) if args.geometry else 0


def _analyse(args: argparse.Namespace, calculator: Any) -> int:
    from nequip_hessian.analysis.geometries import read_geometries
    from nequip_hessian.analysis.optimisation import relax_all
    from nequip_hessian.analysis.single import model_vibrations
    from nequip_hessian.report.single import vibration_table, write_hessians, write_vibrations

    frames = read_geometries(args.geometry)
    failures = []
    if args.optimise:
        _, outcomes = relax_all(frames, calculator)
        frames = [outcome.atoms for outcome in outcomes]
        failures = [f"geometry {i}: {o.failure}" for i, o in enumerate(outcomes) if o.failure]
    for line in failures:
        print(f"nequip-hessian vibrations: {line}", file=sys.stderr)
    if failures:
        return 1
    found = [model_vibrations(calculator, atoms, args.masses) for atoms in frames]
    print("\n\n".join(vibration_table(each) for each in found))
    for i, each in enumerate(found if args.output else []):
        write_vibrations(args.output, each, f"{i}_" if len(found) > 1 else "")
    if args.hessian:
        write_hessians(args.hessian, [each.hessian for each in found])
    return 0
