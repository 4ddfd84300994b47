"""`nequip-hessian irc`: down both sides of a transition state."""

from __future__ import annotations

import argparse
import sys
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian irc model.nequip.zip ts.xyz -o irc/
  nequip-hessian irc tblite ts.xyz --reactant reactant.xyz --product product.xyz -o irc/
  nequip-hessian irc ase:mace.calculators:mace_off ts.xyz --calculator-options '{"model": "small"}'

With -o, every point is kept: after an interruption the same command goes on where it was.

exit status: 0 both sides end at minima (and at the given ones); 1 one does not, or the geometry is no transition state
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import positive, whole
    from nequip_hessian.cli._potential import (
        add_potential_arguments,
        add_state_arguments,
        add_workers_argument,
    )

    parser = subparsers.add_parser(
        "irc",
        help="down both sides of a transition state",
        description="Follow the intrinsic reaction coordinate from a transition state to both sides, minimise from its "
        "ends, and say which minima they are, by their bonds and by RMSD.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    add_workers_argument(parser)
    parser.add_argument("geometry", metavar="TS", help="file with a transition state of this model")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write the path, the minima and a page there")
    for name in ("reactant", "product"):
        parser.add_argument(f"--{name}", metavar="FILE", help=f"the {name} it should lead to, atoms in the same order")
    parser.add_argument("--step", type=positive, default=0.05, help="u^1/2 Å (default: 0.05)")
    parser.add_argument("--points", type=whole, default=400, help="at most so many on a side (default: 400)")
    parser.add_argument(
        "--fmax", type=positive, default=0.02, help="force at which a side has arrived, eV/Å (default: 0.02)"
    )
    parser.add_argument(
        "--hessian-every", type=whole, default=5, metavar="N", help="take the Hessian at every N points (default: 5)"
    )
    add_state_arguments(parser)


def known_minima(
    args: argparse.Namespace, ends: dict[str, Any], calculator: Any, journal: Any = None
) -> dict[str, Any]:
    """Minimise the ends that were given (`same_atoms` of _potential) with the model; by name.

    Raises:
        ConfigError: one that cannot be minimised.
    """
    from nequip_hessian.analysis.irc_job import known_minimum

    return {name: known_minimum(getattr(args, name), atoms, calculator, journal) for name, atoms in ends.items()}


def run(args: argparse.Namespace) -> int:
    """Follow both sides, print the table, write what was asked for."""
    from nequip_hessian.cli._output import folder_to_write, interrupted

    out = folder_to_write(args)
    from nequip_hessian.analysis.irc_job import open_journal
    from nequip_hessian.cli._potential import geometry, potential_source, same_atoms
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.report.irc import from_reactant, irc_failure, irc_table, write_irc

    atoms = geometry(args, args.geometry)
    ends = same_atoms(args, ("reactant", "product"), [atoms])
    source = potential_source(args, args.workers)
    calculator = source.load()
    settings = {name: getattr(args, name) for name in ("step", "points", "fmax", "hessian_every")}
    if out is not None:
        claim_folder(out, args.verb)
    journal = None if out is None else open_journal(out / "cache", source.identity, atoms, settings)
    try:
        known = known_minima(args, ends, calculator, journal)
        path = _follow(atoms, calculator, journal, settings)
    except KeyboardInterrupt:
        return interrupted("irc", kept=out is not None)
    path = from_reactant(path, known)
    print(irc_table(path, known))
    if out is not None:
        write_irc(out, path, known, {"Model": args.model, "Start": args.geometry, **settings})
    if failure := irc_failure(path, known):
        print(f"nequip-hessian irc: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _follow(atoms: Any, calculator: Any, journal: Any, settings: dict[str, Any]) -> Any:
    from tqdm import tqdm

    from nequip_hessian.analysis.irc_job import follow

    with tqdm(desc="irc", unit=" points", disable=None, leave=False) as bar:
        return follow(atoms, calculator, journal, on_step=bar.update, **settings)
