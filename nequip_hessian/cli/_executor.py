"""Options that `convert` and `label` have in common: who does the work, and which share of it."""

from __future__ import annotations

import argparse

from nequip_hessian.errors import OptionError


def add_executor_options(parser: argparse.ArgumentParser, workers: str) -> None:
    """Add `--workers`, `--dask`, `--rank`, `--world` and `--finalize`.

    Args:
        parser: of the verb
        workers: what `--workers` is without being said, for its help
    """
    group = parser.add_argument_group("where the work is done (the store is the same)")
    group.add_argument("--workers", type=int, metavar="N", help=f"processes on this machine ({workers})")
    group.add_argument(
        "--dask", metavar="SCHEDULER", help="workers of a Dask cluster: address (tcp://host:8786) or scheduler file"
    )
    group.add_argument(
        "--rank", type=int, metavar="I", help="do share I (from 0) of --world only, e.g. in a job array; no store yet"
    )
    group.add_argument("--world", type=int, metavar="N", help="number of shares")
    group.add_argument(
        "--finalize", action="store_true", help="write the store from what all shares have done; do nothing anew"
    )


def check_share(args: argparse.Namespace) -> None:
    """Raise ConfigError for options of a share that do not go together."""
    if (args.rank is None) != (args.world is None):
        raise OptionError("--rank and --world belong together: which share, and of how many")
    if args.rank is not None and args.finalize:
        raise OptionError("--rank does a share, --finalize comes after all of them: say one of them")
    if args.rank is not None and getattr(args, "resume", False):
        raise OptionError("--rank goes on by itself, --resume belongs to --finalize")
