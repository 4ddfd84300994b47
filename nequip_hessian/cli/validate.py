"""`nequip-hessian validate`: check a Hessian store, or compare two."""

from __future__ import annotations

import argparse
import json

from nequip_hessian.cli._show import plain

EXAMPLES = """examples:
  nequip-hessian validate store.zarr                 all four levels
  nequip-hessian validate store.zarr --level 2       metadata only, reads no numbers
  nequip-hessian validate store.zarr.zip --json      one JSON object: valid, message, rule, messages
  nequip-hessian validate --same old.zarr new.zarr   same arrays and attributes?
exit status: 0 valid (or the same), 1 not, 2 wrong usage"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "validate",
        help="check a Hessian store in four levels, or compare two",
        description="Check a Hessian store: 1 attributes, 2 hierarchy, 3 values, 4 physics. Each message names the "
        "rule, the array, the geometry, what was expected and what was found.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", nargs="+", help="store directory, zip file or address (two with --same)")
    parser.add_argument("--level", type=int, choices=(1, 2, 3, 4), default=4, help="highest level (default: 4)")
    parser.add_argument("--same", action="store_true", help="compare two stores instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print errors only, no warnings and no summary")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Validate or compare; 0 where all is well."""
    if len(args.path) != (2 if args.same else 1):
        args.usage_error(f"expected {'two stores' if args.same else 'one store'}, found {len(args.path)}")
    return _compare(args) if args.same else _validate(args)


def _compare(args: argparse.Namespace) -> int:
    from nequip_hessian.store import differences

    found = differences(*args.path)
    if args.json:
        print(json.dumps({"same": not found, "differences": found}))
    elif found or not args.quiet:
        print("\n".join(map(_short, found)) if found else "the same")
    return 1 if found else 0


def _short(text: str, most: int = 400) -> str:
    """Return a line that fits a screen; --json has the whole."""
    shown = plain(text)
    return shown if len(shown) <= most else f"{shown[:most]} ... (--json has it all)"


def _validate(args: argparse.Namespace) -> int:
    from nequip_hessian.store import validate

    report = validate(args.path[0], args.level)
    if args.json:
        print(json.dumps(report.as_dict()))
        return 0 if report.valid else 1
    for line in map(str, report.errors) if args.quiet else report.lines():
        print(plain(line))
    if not args.quiet:
        verdict = "valid" if report.valid else "NOT valid"
        print(
            plain(f"{report.path}: {verdict} (levels 1 to {report.reached} checked, ")
            + f"{sum(report.counts.values())} messages)"
        )
    return 0 if report.valid else 1
