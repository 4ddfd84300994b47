"""`nequip-hessian convert`: outputs of quantum-chemistry programs to a Hessian store."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from nequip_hessian.cli._executor import add_executor_options, check_share
from nequip_hessian.cli._show import plain

if TYPE_CHECKING:
    from nequip_hessian.executors import Executor

_EPILOG = """\
examples:
  nequip-hessian convert job.fchk -o store.zarr
  nequip-hessian convert calculations/ -o store.zarr
  nequip-hessian convert 'runs/*/freq.log' extra/ts.hess -o store.zarr --report report.json
  nequip-hessian convert jobs.tar.gz more.zip ts.log.gz -o store.zarr
  nequip-hessian convert @files.txt -o store.zarr --dtype float32 --project asr
  nequip-hessian convert calculations/ -o store.zarr --resume
  nequip-hessian convert calculations/ -o store.zarr --workers 8
  nequip-hessian convert calculations/ -o store.zarr --dask tcp://head:8786
  nequip-hessian convert calculations/ -o store.zarr --rank $SLURM_ARRAY_TASK_ID --world 16   (in each task 0 to 15)
  nequip-hessian convert calculations/ -o store.zarr --finalize                               (after all of them)
  nequip-hessian convert calculations/ -o store.zarr.zip --profile publish --license CC-BY-4.0

exit status:
  0 everything was taken; 3 something was refused, the store holds the rest; 1 nothing was taken, nothing is written
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "convert",
        help="outputs of quantum-chemistry programs to a Hessian store",
        description="Read Hessians from the outputs of quantum-chemistry and solid-state programs and from published "
        "data sets (docs/formats.md lists them), hold each against the exact identities and the frequencies printed "
        "beside it, and write what is sound to a store.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, 'pattern', folder, archive, or @list of such")
    parser.add_argument("-o", "--output", required=True, metavar="STORE", help="the store to write, e.g. store.zarr")
    parser.add_argument(
        "--format", metavar="NAME", help="format of all inputs (default: by content); a wrong one lists all"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="of the stored Hessians (default: the source's)"
    )
    parser.add_argument(
        "--project", choices=("none", "asr", "asr+rot"), default="none", help="restore exact identities (default: none)"
    )
    parser.add_argument(
        "--group",
        choices=("auto", "folder", "file", "formula", "none"),
        default="auto",
        help="which geometries belong together (default: auto, by folder or role word in the file name)",
    )
    parser.add_argument(
        "--without-hessian", action="store_true", help="also take geometries with energy or forces but no Hessian"
    )
    parser.add_argument("--license", metavar="SPDX", help="licence of the data, e.g. CC-BY-4.0, written into the store")
    parser.add_argument(
        "--profile",
        choices=("local", "remote", "publish"),
        default="local",
        help="how the store lies on disk: local (read by memory map), remote (compressed shards), publish (one zip)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    parser.add_argument("--resume", action="store_true", help="go on with a conversion that was killed")
    add_executor_options(parser, "default: one a core, at most 8, where the inputs have 64 MiB or more; else 1")
    parser.add_argument("--report", metavar="FILE", help="JSON report (default: STORE.report.json)")
    parser.add_argument(
        "--rows", type=_rows, default=60, metavar="N", help="geometries in the printed table (default: 60)"
    )


def _rows(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of rows, 0 or more, found {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Convert, print the table, and return the exit status."""
    from nequip_hessian.convert import convert

    check_share(args)
    if args.rank is not None:
        return _share(args)
    kept = ("verb", "inputs", "output", "rows", "workers", "dask", "rank", "world")
    options = {key: value for key, value in vars(args).items() if key not in kept}
    report = convert(args.inputs, args.output, executor=_executor(args), **options)
    if report.output is not None or len(report.entries) > 1:
        print(plain(report.table(args.rows)))
    for line in report.refusals():
        print(plain(f"nequip-hessian convert: refused: {line}"), file=sys.stderr)
    if report.output is None and not report.counts["refused"]:
        print("nequip-hessian convert: error: no Hessian found, nothing written", file=sys.stderr)
    return report.exit_status


def _share(args: argparse.Namespace) -> int:
    from nequip_hessian.convert import convert_share

    names = ("format", "project", "without_hessian", "overwrite")
    options = {name: getattr(args, name) for name in names}
    report = convert_share(args.inputs, args.output, args.rank, args.world, executor=_executor(args), **options)
    earlier = f", {report.already} more by an earlier run" if report.already else ""
    done = f"share {args.rank} of {args.world}: {report.read} of {report.files} inputs read{earlier}"
    print(plain(f"{done}; after all shares, --finalize in place of --rank and --world writes {args.output}"))
    return 0


def _executor(args: argparse.Namespace) -> Executor:
    from nequip_hessian.conversion.shares import total_size
    from nequip_hessian.executors import Executor, default_workers
    from nequip_hessian.gather import gather

    workers = args.workers
    if workers is None:
        workers = 1 if args.dask is not None or args.finalize else default_workers(total_size(gather(args.inputs)))
    return Executor(workers, dask=args.dask)
