"""`nequip-hessian energy`: energies and forces of geometries with a model."""

from __future__ import annotations

import argparse
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian energy model.nequip.zip molecule.xyz
  nequip-hessian energy last.ckpt trajectory.extxyz -o labelled.extxyz
  nequip-hessian energy last.ckpt molecule.xyz --hessian hessian.npy
  nequip-hessian energy tblite cation.xyz --charge 1
  nequip-hessian energy ase:mace.calculators:mace_off molecule.xyz --calculator-options '{"model": "small"}'

units: eV, eV/Å; Hessian eV/Å², row and column 3*atom + xyz
"""


def add_model_arguments(parser: Any) -> None:
    """Add what all verbs that run a model on a file of geometries share."""
    from nequip_hessian.cli._potential import add_charge_arguments, add_potential_arguments

    add_potential_arguments(parser)
    parser.add_argument("--hessian", metavar="FILE", help="write the Hessian: .npy for one geometry, .npz for several")
    add_charge_arguments(parser)


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "energy",
        help="energies and forces of geometries with a model",
        description="Evaluate a NequIP or Allegro model, or any ASE calculator, at every geometry of a file ASE reads.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("geometry", metavar="GEOMETRY", help="file with one or more geometries")
    parser.add_argument("-o", "--output", metavar="FILE", help="write geometries, energies and forces as extended XYZ")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write what was asked for."""
    from nequip_hessian.cli._output import files_to_write

    files_to_write(args, "output", "hessian")
    from nequip_hessian.analysis.prediction import evaluate_hessians
    from nequip_hessian.analysis.single import single_point
    from nequip_hessian.cli._potential import charged_geometries, naming, potential
    from nequip_hessian.report.single import check_hessian_file, energy_table, write_frames, write_hessians

    frames = charged_geometries(args, args.geometry)
    if args.hessian:
        check_hessian_file(args.hessian, len(frames))
    calculator = potential(args)
    answers = []
    for index, atoms in enumerate(frames):
        with naming(args.geometry, index, len(frames)):
            answers.append(single_point(calculator, atoms))
    print(energy_table(frames, answers))
    if args.output:
        write_frames(args.output, frames, answers)
    if args.hessian:
        write_hessians(args.hessian, evaluate_hessians(calculator, frames))
    return 0
