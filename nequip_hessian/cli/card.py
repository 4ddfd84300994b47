"""`nequip-hessian card`: write the dataset card of a store, or check one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from nequip_hessian.cli._show import plain
from nequip_hessian.errors import OptionError, StoreError
from nequip_hessian.places import beside, refuse_same

EXAMPLES = """examples:
  nequip-hessian card store.zarr -o card.yaml --title "Small reactions" --version-of-data 1.0 \\
      --description "B3LYP Hessians of nine reactions" --license CC-BY-4.0 --author "Ada Lovelace"
  nequip-hessian card store.zarr --check card.yaml
  nequip-hessian card new.zarr -o card.yaml --from card.yaml --overwrite     keep what the authors wrote
exit status: 0 written, or the card is right; 1 it is not; 2 wrong usage"""


_OF_WRITING = {
    "old": "--from",
    **{name: f"--{name}" for name in ("title", "description", "license", "citation", "id", "author", "doi", "defect")},
    "version": "--version-of-data",
    "overwrite": "--overwrite",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "card",
        help="write the dataset card of a Hessian store, or check one against its store",
        description="Write card.yaml: title, version, description, authors, licence, citation and known defects, "
        "which only the authors know, and levels of theory, elements, counts, labels, splits and a checksum of all "
        "values, which follow from the store. --check holds a card against schema and store.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="store directory or zip file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-o", "--output", metavar="FILE", help="the card to write; - prints it")
    what.add_argument("--check", metavar="FILE", help="the card to check")
    parser.add_argument("--from", dest="old", metavar="FILE", help="card whose authored members are kept")
    for name in ("title", "description", "license", "citation", "id"):
        parser.add_argument(f"--{name}", metavar="SPDX" if name == "license" else "TEXT")
    parser.add_argument("--version-of-data", dest="version", metavar="TEXT", help="e.g. 1.0")
    parser.add_argument("--author", action="append", default=[], metavar="NAME", help="once for each author")
    parser.add_argument("--doi", action="append", default=[], metavar="DOI", help="once for each")
    parser.add_argument("--defect", action="append", default=[], metavar="TEXT", help="a known defect of the data")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that is there")


def run(args: argparse.Namespace) -> int:
    """Write or check."""
    return _check(args) if args.check else _write(args)


def _check(args: argparse.Namespace) -> int:
    given = [option for name, option in _OF_WRITING.items() if getattr(args, name)]
    if given:
        raise OptionError(f"--check reads a card, {', '.join(given)} would change one: say one of them")
    from nequip_hessian.store.card import check_card, read_card

    found = check_card(read_card(args.check), args.path)
    for line in found:
        print(plain(f"{args.check}: {line}"))
    if not found:
        print(plain(f"{args.check}: right for {args.path}"))
    return 1 if found else 0


def _write(args: argparse.Namespace) -> int:
    from nequip_hessian.store.card import make_card, read_card, to_yaml

    target = None if args.output == "-" else Path(args.output)
    new = None if target is None else beside(target, ".new", prefix=".")
    if target is not None and os.path.lexists(target):
        refuse_same(target, args.path)
        if not args.overwrite:
            raise StoreError(f"{target}: exists already; name another file or say --overwrite")
        read_card(target)  # replaces cards only
    text = to_yaml(make_card(args.path, _authored(args)))
    if target is None or new is None:
        sys.stdout.write(text)
        return 0
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, target)
    except OSError as exc:
        raise StoreError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    print(plain(f"{args.path} -> {target}"))
    return 0


def _authored(args: argparse.Namespace) -> dict[str, Any]:
    from nequip_hessian.store.card import AUTHORED, read_card

    old = {key: value for key, value in read_card(args.old).items() if key in AUTHORED} if args.old else {}
    given: dict[str, Any] = {
        name: getattr(args, name) for name in ("title", "description", "license", "citation", "id", "version")
    }
    given |= {"authors": [{"name": name} for name in args.author], "doi": args.doi, "known_defects": args.defect}
    return {**old, **{key: value for key, value in given.items() if value}}
