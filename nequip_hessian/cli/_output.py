"""Where a verb writes: looked at before the calculation, not after it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from nequip_hessian.errors import OptionError

_INPUTS: Final = ("geometry", "reactant", "product", "reference", "compare", "ir", "cell", "store")


def interrupted(verb: str, *, kept: bool) -> int:
    """Say after Ctrl-C how to go on; returns the exit status."""
    where = "the same command goes on where it was" if kept else "with -o it would go on from there"
    print(f"nequip-hessian {verb}: interrupted; {where}", file=sys.stderr)
    return 130


def inputs_of(args: argparse.Namespace) -> list[str]:
    """Everything that a command line names to be read: models in files, geometries, outputs, stores."""
    from nequip_hessian.evaluation.models import model_text
    from nequip_hessian.potentials import PotentialSource

    models = [args.model] if "model" in args else [model_text(entry) for entry in args.models]
    files = [text for text in models if not PotentialSource(text).foreign]
    named = [getattr(args, name, None) for name in _INPUTS]
    return files + [name for name in named if isinstance(name, str) and name]  # --compare of ts names no file


def folder_to_write(args: argparse.Namespace) -> Path | None:
    """Make sure that this verb may put its results into the folder that -o names, if it does.

    The folder is made by `claim_folder`, when the rest of the command line has been found right.

    Raises:
        OptionError, ConfigError: as `require_results_folder`.
    """
    from nequip_hessian.outputs import require_results_folder

    return None if args.output is None else require_results_folder(args.output, args.verb, inputs_of(args))


def files_to_write(args: argparse.Namespace, *names: str) -> None:
    """Make sure that files of results are no inputs, are different, and can be written.

    Args:
        args: the command line; names: its options that name such files, where they are given

    Raises:
        OptionError: two options name one file; else, with ConfigError, as `require_output_file`.
    """
    from nequip_hessian.outputs import require_output_file

    inputs, seen = inputs_of(args), set[str]()
    for name in names:
        file, option = getattr(args, name), "-o" if name == "output" else f"--{name}"
        if file is None:
            continue
        require_output_file(file, option, inputs)
        if os.path.realpath(file) in seen:
            raise OptionError(f"{option} {file}: another option names the same file; name another one")
        seen.add(os.path.realpath(file))
