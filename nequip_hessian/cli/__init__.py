"""The command `nequip-hessian`: one module a verb, each a thin wrapper over one library call.

A verb module holds `add_parser(subparsers)` and `run(args) -> int` and imports
anything heavy inside `run`, so that `--help` answers at once. Exit status: 0
done; 1 files, data, the model or the machine do not allow it, or the input was
found invalid (the message says what); 2 the command line is wrong whatever the
files hold: argparse's own errors and every OptionError; 3 part of the input was
refused and the rest written; 130 interrupted. `main` is the one place where
errors become a status.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from nequip_hessian import __version__
from nequip_hessian.cli._show import plain
from nequip_hessian.errors import HessianDataError, OptionError

VERBS = (
    "convert",
    "export",
    "label",
    "validate",
    "info",
    "merge",
    "split",
    "repack",
    "card",
    "energy",
    "optimise",
    "vibrations",
    "neb",
    "ts",
    "irc",
    "reaction",
    "phonons",
    "md",
    "evaluate",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all verbs; used by `main` and by the documentation tests."""
    parser = argparse.ArgumentParser(
        prog="nequip-hessian",
        description="Hessian labels, Hessian-trained NequIP and Allegro models, and what the curvature bought.",
        epilog="Each verb has its own help with examples: nequip-hessian convert --help",
    )
    parser.add_argument("--version", action="version", version=f"nequip-hessian {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        module = importlib.import_module(f"nequip_hessian.cli.{verb}")
        module.add_parser(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status; user errors are one line on stderr."""
    args = build_parser().parse_args(argv)
    module = importlib.import_module(f"nequip_hessian.cli.{args.verb}")
    try:
        status = int(module.run(args))
        sys.stdout.flush()
    except HessianDataError as exc:
        print(plain(f"nequip-hessian {args.verb}: error: {exc}"), file=sys.stderr)
        return 2 if isinstance(exc, OptionError) else 1
    except FileNotFoundError as exc:
        print(plain(f"nequip-hessian {args.verb}: error: no such file: {exc.filename}"), file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe has seen enough, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        print(plain(f"nequip-hessian {args.verb}: error: {where}{exc.strerror or exc}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nequip-hessian {args.verb}: interrupted", file=sys.stderr)
        return 130
    return status
