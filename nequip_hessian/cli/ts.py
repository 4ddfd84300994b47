"""`nequip-hessian ts`: transition states with a model's Hessian."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian ts model.nequip.zip guess.xyz -o ts/
  nequip-hessian ts tblite guess.xyz --starts 10 --spread 0.1 -o ts/       (ten perturbed starts)
  nequip-hessian ts last.ckpt guesses.extxyz --starts 20 --workers 8 -o ts/ (interrupted, it goes on where it was)
  nequip-hessian ts last.ckpt guesses.extxyz --compare                     (with and without the Hessian)
  nequip-hessian ts last.ckpt guess.xyz --irc --reactant r.xyz --product p.xyz -o ts/

needs: pip install "nequip-hessian[ts]"

exit status: 0 a transition state was found (and connects what it should); 1 none was, or it does not
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import not_negative, positive, seed, whole
    from nequip_hessian.cli._potential import add_potential_arguments, add_state_arguments

    parser = subparsers.add_parser(
        "ts",
        help="transition states with a model's Hessian",
        description="Search transition states from one guess or several with Sella and the model's own Hessian. "
        "Found: forces converged and exactly one imaginary mode below -20 cm⁻¹.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    parser.add_argument("geometry", metavar="GUESS", help="file with one or more guesses")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write transition states, tables and a page there")
    parser.add_argument("--starts", type=whole, default=1, metavar="N", help="N starts from each guess (default: 1)")
    parser.add_argument(
        "--spread", type=not_negative, default=0.1, help="random displacement of the further starts, Å (default: 0.1)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of these displacements (default: 0)")
    parser.add_argument("--no-hessian", action="store_true", help="Sella finds the lowest mode itself, from forces")
    parser.add_argument("--compare", action="store_true", help="from each start with and without the Hessian")
    parser.add_argument(
        "--hessian-every",
        type=whole,
        metavar="N",
        help="take the Hessian every N steps (default: where the mode is lost)",
    )
    parser.add_argument("--internal", action="store_true", help="internal coordinates")
    parser.add_argument("--fmax", type=positive, default=0.005, help="largest force at the end, eV/Å (default: 0.005)")
    parser.add_argument("--steps", type=whole, default=200, help="at most so many (default: 200)")
    parser.add_argument(
        "--workers", type=whole, default=1, metavar="N", help="processes of one thread each (default: 1)"
    )
    parser.add_argument("--irc", action="store_true", help="follow the reaction coordinate of the lowest one found")
    for name in ("reactant", "product"):
        parser.add_argument(f"--{name}", metavar="FILE", help=f"the {name} it should connect (implies --irc)")
    parser.add_argument("--reference", metavar="FILE", help="transition state to compare with: RMSD")
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Search, print the table, follow the path if wanted, write what was asked for."""
    from nequip_hessian.cli._output import folder_to_write, interrupted

    folder_to_write(args)
    from nequip_hessian.analysis.saddle import perturbed
    from nequip_hessian.analysis.saddle_jobs import run_searches
    from nequip_hessian.cli._potential import geometries, potential_source, same_atoms
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.report.irc import drop_irc
    from nequip_hessian.report.saddle import comparison_rows, saddle_table, write_saddles
    from nequip_hessian.report.single import align

    guesses = geometries(args, args.geometry)
    others = same_atoms(args, ("reactant", "product", "reference"), guesses)
    starts = [start for guess in guesses for start in perturbed(guess, args.starts, args.spread, args.seed)]
    source = potential_source(args)
    calculator = source.load()
    settings = {name: getattr(args, name) for name in ("hessian_every", "internal", "fmax", "steps")}
    kept: dict[str, Any] = {"workers": args.workers}
    if args.output:
        claim_folder(args.output, args.verb)
        kept |= {"folder": Path(args.output) / "cache", "identity": {"model": source.identity}}
    uses = [True, False] if args.compare else [not args.no_hessian]
    repeated, flags = [start for start in starts for _ in uses], [use for _ in starts for use in uses]
    try:
        found = run_searches(repeated, flags, calculator, source, settings, **kept)
    except KeyboardInterrupt:
        return interrupted("ts", kept=bool(args.output))
    pairs = list(zip(found[::2], found[1::2], strict=True)) if args.compare else []
    searches = [pair[args.no_hessian] for pair in pairs] or found
    print(saddle_table(searches))
    if pairs:
        print("\n" + align(comparison_rows(pairs)))
    for index, search in enumerate(searches):
        if search.failure:
            print(f"nequip-hessian ts: start {index}: {search.failure}", file=sys.stderr)
    status, sections = _follow(args, others, calculator, searches)
    if args.output:
        if not sections:
            drop_irc(Path(args.output) / "irc")
        origin = {"Model": args.model, "Guess": args.geometry, "starts": args.starts, "spread": args.spread, **settings}
        write_saddles(Path(args.output), searches, pairs, origin, sections)
    return status


def _follow(
    args: argparse.Namespace, others: dict[str, Any], calculator: Any, searches: list[Any]
) -> tuple[int, list[str]]:
    """The reaction coordinate of the lowest transition state, judged; exit status and sections of the page."""
    from nequip_hessian.analysis.irc import intrinsic_reaction_coordinate
    from nequip_hessian.analysis.saddle import judge
    from nequip_hessian.cli.irc import known_minima
    from nequip_hessian.report.irc import from_reactant, irc_section, irc_table, write_irc
    from nequip_hessian.report.saddle import verdict_lines

    found = [search for search in searches if search.failure is None]
    if not found:
        return 1, []
    best = min(found, key=lambda search: search.energy)
    reference = others.pop("reference", None)
    known = known_minima(args, others, calculator)
    path = None
    if args.irc or known:
        path = intrinsic_reaction_coordinate(best.atoms, calculator, hessian=best.hessian)
        path = from_reactant(path, known)
        print("\n" + irc_table(path, known))
        if args.output:
            write_irc(Path(args.output) / "irc", path, known, {"Model": args.model})
    verdict = judge(best, path=path, ends=known, reference=reference)
    for line in verdict_lines(verdict):
        print(line)
    for reason in verdict.reasons:
        print(f"nequip-hessian ts: {reason}", file=sys.stderr)
    failed = not verdict.success or (path is not None and path.failure is not None)
    return int(failed), [] if path is None else [irc_section(path, known)]
