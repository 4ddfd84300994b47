"""`nequip-hessian reaction`: everything about one reaction, on one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian reaction model.nequip.zip reactant.xyz product.xyz -o reaction/
  nequip-hessian reaction tblite reactant.xyz product.xyz --temperature 500 -o reaction/

stages: minimise reactant and product, band, transition state, vibrations, reaction coordinate, thermochemistry.
Finished stages are kept in FOLDER/stages: after Ctrl-C or a failure the same command goes on where it was.

needs: pip install "nequip-hessian[ts]"

exit status: 0 a transition state that connects both; 1 a stage failed (the page says which and why)
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import positive, whole, whole_number
    from nequip_hessian.cli._potential import (
        add_potential_arguments,
        add_state_arguments,
        add_thermochemistry_arguments,
        add_workers_argument,
    )

    parser = subparsers.add_parser(
        "reaction",
        help="barrier, transition state, path and thermochemistry of one reaction, on one page",
        description="From reactant and product to the transition state between them, with all that belongs to it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    add_workers_argument(parser)
    parser.add_argument("reactant", metavar="REACTANT", help="file with the reactant")
    parser.add_argument("product", metavar="PRODUCT", help="file with the product, atoms in the same order")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="write the page and all files there")
    parser.add_argument("--images", type=whole_number(3), default=9, help="of the band, with both ends (default: 9)")
    parser.add_argument("--band-steps", type=whole, default=400, help="as --steps of neb (default: 400)")
    parser.add_argument("--irc-step", type=positive, default=0.05, help="u^1/2 Å (default: 0.05)")
    add_thermochemistry_arguments(parser)
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the stages, print the tables, write the page."""
    from nequip_hessian.cli._output import folder_to_write

    folder_to_write(args)
    from tqdm import tqdm

    from nequip_hessian.analysis.job import run_reaction
    from nequip_hessian.analysis.job_cache import JobCache
    from nequip_hessian.cli._potential import gas, geometry, potential
    from nequip_hessian.errors import OptionError
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.report.job import job_table, write_job

    if args.symmetry is not None:
        raise OptionError("reaction: --symmetry is for one molecule; here each symmetry number is found by itself")
    reactant, product = (geometry(args, path) for path in (args.reactant, args.product))
    calculator = potential(args, args.workers)
    folder = Path(args.output)
    claim_folder(folder, args.verb)
    cache = JobCache(folder / "stages", _key(args, reactant, product))
    with tqdm(unit=" steps", disable=None, leave=False) as bar:
        job = run_reaction(
            reactant,
            product,
            calculator,
            cache,
            images=args.images,
            band_steps=args.band_steps,
            irc_step=args.irc_step,
            on_stage=lambda name: bar.set_description(name.replace("_", " ")),
            on_step=bar.update,
        )
    gases = {name: gas(args, found.atoms, found.result, found.energy) for name, found in job.points.items()}
    print(job_table(job, gases))
    origin = {name: getattr(args, name) for name in ("model", "reactant", "product", "images", "masses", "irc_step")}
    write_job(folder, job, gases, origin)
    if job.failed:
        print(f"nequip-hessian reaction: {job.failed}: {job.reason}", file=sys.stderr)
    return 1 if job.failed else 0


def _key(args: argparse.Namespace, reactant: Any, product: Any) -> dict[str, Any]:
    """What makes kept stages valid: the model, the geometries, the settings."""
    from nequip_hessian.analysis.cache import file_checksum

    path = Path(args.model)
    key = {name: getattr(args, name) for name in ("model", "calculator_options", "images", "band_steps", "irc_step")}
    key["checksum"] = file_checksum(path) if path.exists() else None
    for name, atoms in (("reactant", reactant), ("product", product)):
        key[name] = [atoms.numbers.tolist(), atoms.positions.tolist(), atoms.get_masses().tolist()]
        key[f"{name}_state"] = [atoms.info.get("charge"), atoms.info.get("multiplicity")]
    return key
