"""`nequip-hessian md`: does a model keep a molecule together."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from nequip_hessian.errors import OptionError

_EPILOG = """\
examples:
  nequip-hessian md model.nequip.zip molecule.xyz -o md/
  nequip-hessian md tblite molecules.extxyz --maximum 1000 --hold 0.5 -o md/ --workers 4

The same command after an interruption goes on from the last temperature that was over (with -o).

exit status: 0 every molecule was whole at the end; 1 one was not, or could not be run
"""

_RAMP = (
    ("start", "first temperature, K"),
    ("increment", "temperature step, K"),
    ("maximum", "last temperature, K"),
    ("hold", "time at each temperature, ps"),
    ("timestep", "fs"),
    ("friction", "of the Langevin bath, 1/fs"),
    ("nve", "length of the run at constant energy, ps"),
    ("nve-temperature", "of the run at constant energy, K"),
)


def add_ramp_arguments(parser: Any, prefix: str = "") -> None:
    """Add temperatures and times; `evaluate` has them with a prefix."""
    from nequip_hessian.cli._numbers import positive, seed

    defaults = {
        "start": 25.0,
        "increment": 25.0,
        "maximum": 2000.0,
        "hold": 1.0,
        "timestep": 0.5,
        "friction": 0.01,
        "nve": 2.0,
        "nve-temperature": 300.0,
    }
    for name, text in _RAMP:
        value = defaults[name]
        parser.add_argument(
            f"--{prefix}{name}", type=positive, default=value, metavar="X", help=f"{text} (default: {value:g})"
        )
    parser.add_argument(f"--{prefix}seed", type=seed, default=0, help="of velocities and random forces (default: 0)")


def ramp_settings(args: argparse.Namespace, prefix: str = "") -> Any:
    """The settings that a command line holds; raises OptionError where they cannot run."""
    from nequip_hessian.analysis.md import RampSettings

    names = [*(name.replace("-", "_") for name, _ in _RAMP), "seed"]
    try:
        return RampSettings(**{name: getattr(args, f"{prefix}{name}") for name in names})
    except OptionError as exc:  # the settings do not know of the prefix
        raise OptionError(str(exc).replace("--", f"--{prefix.replace('_', '-')}")) from None


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import whole
    from nequip_hessian.cli._potential import add_potential_arguments, add_state_arguments

    parser = subparsers.add_parser(
        "md",
        help="temperature ramp to failure, and energy drift",
        description="Warm each molecule of a file with Langevin dynamics until a bond fails, and measure the drift of "
        "the total energy at constant energy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    parser.add_argument("geometry", metavar="GEOMETRY", help="file with one or more molecules")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write tables and a page there, and go on from there")
    add_ramp_arguments(parser)
    parser.add_argument(
        "--workers", type=whole, default=1, metavar="N", help="processes of one thread each (default: 1)"
    )
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run all molecules, print the table, write what was asked for."""
    from nequip_hessian.analysis.md_jobs import run_molecules
    from nequip_hessian.cli._output import folder_to_write, interrupted
    from nequip_hessian.cli._potential import geometries, potential_source
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.report.md import md_table, write_md

    out = folder_to_write(args)
    settings = ramp_settings(args)
    molecules = geometries(args, args.geometry)
    source = potential_source(args)
    kept: dict[str, Any] = {}
    if out is not None:
        claim_folder(out, args.verb)
        kept = {"folder": out / "cache", "identity": {"model": source.identity}}
    try:
        found = run_molecules(molecules, source.load(), source, settings, workers=args.workers, **kept)
    except KeyboardInterrupt:
        return interrupted("md", kept=out is not None)
    print(md_table(found))
    for one in found:
        if one.failure or one.reason:
            print(f"nequip-hessian md: {one.label}: {one.failure or one.reason}", file=sys.stderr)
    if out is not None:
        write_md(out, found, settings, {"Model": args.model, "Molecules": args.geometry})
    return int(not all(one.survived for one in found))
