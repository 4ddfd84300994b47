"""`nequip-hessian energy`: energies and forces of geometries with a model."""

from __future__ import annotations

import argparse
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian energy model.nequip.zip molecule.xyz
  nequip-hessian energy last.ckpt trajectory.extxyz -o labelled.extxyz
  nequip-hessian energy last.ckpt molecule.xyz --hessian hessian.npy

units: eV, eV/Å; Hessian eV/Å², row and column 3*atom + xyz
"""


def add_model_arguments(parser: Any) -> None:
    """Add what all verbs that run a model share."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint (.ckpt), package (.nequip.zip) or compiled model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--hessian", metavar="FILE", help="write the Hessian: .npy for one geometry, .npz for several")


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "energy",
        help="energies and forces of geometries with a model",
        description="Evaluate a NequIP or Allegro model at every geometry of a file that ASE reads.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("geometry", metavar="GEOMETRY", help="file with one or more geometries")
    parser.add_argument("-o", "--output", metavar="FILE", help="write geometries, energies and forces as extended XYZ")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write what was asked for."""
    from nequip_hessian.analysis.geometries import read_geometries
    from nequip_hessian.analysis.single import single_point
    from nequip_hessian.calculator import HessianCalculator
    from nequip_hessian.report.single import energy_table, write_frames, write_hessians

    frames = read_geometries(args.geometry)
    calculator = HessianCalculator.from_file(args.model, device=args.device)
    answers = [single_point(calculator, atoms) for atoms in frames]
    print(energy_table(frames, answers))
    if args.output:
        write_frames(args.output, frames, answers)
    if args.hessian:
        write_hessians(args.hessian, calculator.get_hessians(frames))
    return 0
