"""`nequip-hessian split`: a leakage-safe split scheme, kept in the store."""

from __future__ import annotations

import argparse

from nequip_hessian.cli._show import plain
from nequip_hessian.errors import OptionError

EXAMPLES = """examples:
  nequip-hessian split store.zarr                                     scheme 'group': 0.8, 0.1, 0.1
  nequip-hessian split store.zarr --scheme size --fractions train=0.5 test=0.2 val=0.1 --seed 7
  nequip-hessian split store.zarr --by species --scheme new_molecules
in the YAML of a training: split: group
exit status: 0 done, 1 refused (the store is as it was), 2 wrong usage"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "split",
        help="make a split into training, validation and test parts, and keep it in the store",
        description="Send whole groups (reactions, molecules, trajectories) to train, val and test, so that nothing "
        "leaks, and store the scheme. A geometry that occurs in two groups ties them together.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="store directory or zip file; it is replaced in one step")
    parser.add_argument("--scheme", help="name of the scheme (default: the rule)")
    parser.add_argument(
        "--fractions",
        nargs="+",
        type=_share,
        metavar="PART=SHARE",
        default=[("train", 0.8), ("val", 0.1), ("test", 0.1)],
        help="shares of the geometries (default: train=0.8 val=0.1 test=0.1); what is left of 1 is unused",
    )
    parser.add_argument(
        "--by",
        choices=("group", "composition", "species"),
        default="group",
        help="what stays together: groups; also all of one composition; also all that share a connected molecule",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order in which groups are taken (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a scheme of this name")


def _share(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected e.g. train=0.8, found {text!r}") from None


def run(args: argparse.Namespace) -> int:
    """Split and print how many geometries each part has."""
    from nequip_hessian.store.annotate import split

    names = [name for name, _ in args.fractions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"--fractions: expected each part once, found {', '.join(twice)} more than once")
    order = {"train": 0, "val": 1, "test": 2}
    shares = dict(sorted(args.fractions, key=lambda pair: order.get(pair[0], 3)))
    scheme = args.scheme or args.by
    found = split(args.path, scheme, shares, rule=args.by, seed=args.seed, overwrite=args.overwrite)
    total = sum(found.values())
    parts = ", ".join(f"{part} {count} ({count / total:.1%})" for part, count in found.items())
    print(plain(f"{args.path}: split {scheme} by {args.by}: {parts}"))
    return 0
