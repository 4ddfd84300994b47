"""`nequip-hessian repack`: the same store in another form on disk."""

from __future__ import annotations

import argparse

from nequip_hessian.cli._show import plain

EXAMPLES = """examples:
  nequip-hessian repack store.zarr -o store.zarr.zip --profile publish   one file to upload
  nequip-hessian repack store.zarr.zip -o store.zarr                     back to a directory, to train from
  nequip-hessian repack store.zarr -o small.zarr --dtype float32         half the size
  nequip-hessian repack old.zarr -o old.zarr --overwrite                 present form of the metadata"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "repack",
        help="write a Hessian store anew with other chunks, compression or precision",
        description="Write a store anew: as a directory that is read by memory map (local), as compressed shards "
        "(remote) or as one zip file (publish). Unless --dtype changes the precision, every value stays bit for bit.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="store directory or zip file")
    parser.add_argument("-o", "--output", required=True, metavar="STORE", help="the store to write")
    parser.add_argument("--profile", choices=("local", "remote", "publish"), default="local", help="on disk")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="of Hessians and stored products")
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")


def run(args: argparse.Namespace) -> int:
    """Repack and say what changed."""
    from nequip_hessian.store.repack import repack

    changed = repack(args.path, args.output, profile=args.profile, dtype=args.dtype, overwrite=args.overwrite)
    what = f"other values in {', '.join(changed)}" if changed else "all values as they were"
    print(plain(f"{args.path} -> {args.output} ({args.profile}): {what}"))
    return 0
