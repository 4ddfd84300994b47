"""`nequip-hessian label`: geometries in, a Hessian store out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nequip_hessian.cli._executor import add_executor_options, check_share
from nequip_hessian.cli._show import plain
from nequip_hessian.errors import OptionError

if TYPE_CHECKING:
    from nequip_hessian.label.engine import Engine
    from nequip_hessian.label.run import LabelReport

_DESCRIPTION = """\
Compute energies, forces and Hessians for geometries and write them to a store.

Geometries come from any file ASE reads, all frames of it; charge, multiplicity
(2S + 1), kind, role, group, label and path_coordinate are taken from a frame's
info where it has them. Labels are kept in OUTPUT.journal until the store is
written: after Ctrl-C or a kill, the same command goes on where it was.

engines:
  pyscf   Hartree-Fock and density functionals, analytic Hessian
  tblite  GFN2-xTB, GFN1-xTB, IPEA1-xTB, central differences of forces
  ase     any ASE calculator, central differences or its own get_hessian
"""

_EPILOG = """\
exit status: 0 all labelled, 1 none labelled or the input refused, 2 wrong usage,
3 some failed (the store holds the others; repeat with --overwrite to retry)

examples:
  nequip-hessian label water.xyz -o water.zarr --engine tblite
  nequip-hessian label *.xyz -o set.zarr --engine pyscf --method pbe0 --basis def2-tzvp --grid-level 5 --workers 4
  nequip-hessian label o2.xyz -o o2.zarr --engine pyscf --method hf --basis sto-3g --multiplicity 3
  nequip-hessian label cell.cif -o cell.zarr --engine ase --calculator ase.calculators.emt:EMT
  nequip-hessian label *.xyz -o set.zarr --engine tblite --dask tcp://head:8786
  nequip-hessian label *.xyz -o set.zarr --engine tblite --rank $SLURM_ARRAY_TASK_ID --world 16   (tasks 0 to 15)
  nequip-hessian label *.xyz -o set.zarr --engine tblite --finalize                               (after all of them)
  nequip-hessian label set.xyz -o set.zarr --engine ase --calculator mace.calculators:mace_mp \\
      --calculator-options '{"model": "small", "default_dtype": "float64"}' --method MACE-MP-0
"""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_ONLY = {
    "basis": ("pyscf",),
    "grid_level": ("pyscf",),
    "conv_tol": ("pyscf",),
    "calculator": ("ase",),
    "calculator_options": ("ase",),
    "reads_charge": ("ase",),
    "own_hessian": ("ase",),
    "displacement": ("tblite", "ase"),
}


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command's parser."""
    parser = subparsers.add_parser(
        "label",
        help="make energies, forces and Hessians for geometries with a quantum-chemistry engine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("geometries", nargs="+", metavar="GEOMETRIES", help="files in any format ASE reads")
    parser.add_argument("-o", "--output", required=True, help="the store to write")
    parser.add_argument("--engine", required=True, choices=("ase", "tblite", "pyscf"))
    parser.add_argument("--charge", type=int, help="total charge, e, where the file says none")
    parser.add_argument("--multiplicity", type=int, help="2S + 1 where the file says none (default: lowest)")
    parser.add_argument("--no-hessian", action="store_true", help="energies and forces only")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default 1)")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="of the stored Hessians (default float64)")
    parser.add_argument(
        "--license", metavar="SPDX", help="licence of the labels, e.g. CC-BY-4.0, written into the store"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    parser.add_argument("--json", metavar="FILE", help="write the report here too")
    add_executor_options(parser, "default 1")
    level = parser.add_argument_group("level of theory")
    level.add_argument(
        "--method",
        help="pyscf: hf or a functional (default b3lyp); tblite: default GFN2-xTB; ase: name for the store",
    )
    level.add_argument("--basis", help="pyscf: basis set (default def2-svp)")
    level.add_argument("--grid-level", type=int, help="pyscf: quadrature grid, 0 to 9 (default 4)")
    level.add_argument("--conv-tol", type=float, help="pyscf: SCF convergence, Eh (default 1e-10)")
    level.add_argument("--displacement", type=float, help="tblite, ase: step, angstrom (default 0.005)")
    level.add_argument("--calculator", help="ase: package.module:Name, or a name ASE knows, e.g. emt")
    level.add_argument("--calculator-options", help="ase: its keyword arguments, a JSON object")
    level.add_argument("--reads-charge", action="store_true", help="ase: it takes charge and spin from atoms.info")
    level.add_argument("--own-hessian", action="store_true", help="ase: use its get_hessian(atoms)")


def run(args: argparse.Namespace) -> int:
    """Label, print the report, return the exit status."""
    for name in THREAD_VARIABLES:  # threads of two processes on one core spin; the user's own setting wins
        os.environ.setdefault(name, str(args.threads))
    from nequip_hessian.label.geometries import read_geometries, source_facts
    from nequip_hessian.label.run import label

    check_share(args)
    if args.json:
        _check_json(args.json)
    engine = engine_from(args)
    if args.rank is not None:
        return _share(args, engine)
    geometries = read_geometries(args.geometries, charge=args.charge, multiplicity=args.multiplicity)
    report = label(
        geometries,
        args.output,
        engine,
        hessian=not args.no_hessian,
        workers=1 if args.workers is None else args.workers,
        threads=args.threads,
        dask=args.dask,
        finalize=args.finalize,
        dtype=args.dtype,
        overwrite=args.overwrite,
        attributes={"license": args.license} if args.license else None,
        provenance={"sources": source_facts(args.geometries)},
    )
    if args.json:
        Path(args.json).write_text(json.dumps(report.as_dict(), indent=1) + "\n")
    show(report, args.output)
    return report.status


def _check_json(name: str) -> None:
    """Refuse a file that no earlier command wrote: it would be lost."""
    file = Path(name)
    if file.is_dir() or (file.is_file() and not file.read_bytes().startswith(b'{\n "')):
        raise OptionError(f"--json {file}: is there already and is no report; name another file")


def _share(args: argparse.Namespace, engine: Engine) -> int:
    from nequip_hessian.label.geometries import read_geometries
    from nequip_hessian.label.run import label_share

    report = label_share(
        read_geometries(args.geometries, charge=args.charge, multiplicity=args.multiplicity),
        args.output,
        engine,
        args.rank,
        args.world,
        hessian=not args.no_hessian,
        workers=1 if args.workers is None else args.workers,
        threads=args.threads,
        dask=args.dask,
        overwrite=args.overwrite,
    )
    if args.json:
        Path(args.json).write_text(json.dumps(report.as_dict(), indent=1) + "\n")
    _print_some([f"failed: geometry {f.index} ({f.label}): {f.reason}" for f in report.failures], "failures")
    earlier = f", {report.reused} of them by an earlier run" if report.reused else ""
    done = f"share {args.rank} of {args.world}: {report.labelled} of {report.total} geometries have labels{earlier}"
    print(plain(f"{done}; after all shares, --finalize in place of --rank and --world writes {args.output}"))
    return 3 if report.failures else 0


def engine_from(args: argparse.Namespace) -> Engine:
    """Build the engine that the options describe.

    Raises:
        EngineError: an option that the chosen engine does not have, or a wrong value
    """
    for name, engines in _ONLY.items():
        if getattr(args, name) not in (None, False) and args.engine not in engines:
            raise OptionError(f"--{name.replace('_', '-')} belongs to --engine {' or '.join(engines)}")
    given = {name: getattr(args, name) for name in ("method", "displacement") if getattr(args, name) is not None}
    if args.engine == "tblite":
        from nequip_hessian.label.tblite import TbliteEngine

        return TbliteEngine(**given)
    if args.engine == "pyscf":
        from nequip_hessian.label.pyscf import PyscfEngine

        names = ("basis", "grid_level", "conv_tol")
        return PyscfEngine(**given, **{n: getattr(args, n) for n in names if getattr(args, n) is not None})
    from nequip_hessian.label.ase import AseEngine

    if args.calculator is None:
        raise OptionError("--engine ase needs --calculator, e.g. --calculator ase.calculators.emt:EMT")
    if args.own_hessian:
        given["displacement"] = None
    return AseEngine(args.calculator, _options(args.calculator_options), reads_charge=args.reads_charge, **given)


def _options(text: str | None) -> dict[str, Any]:
    try:
        options = json.loads(text or "{}")
    except json.JSONDecodeError as exc:
        raise OptionError(f"--calculator-options: expected a JSON object, found {text!r} ({exc.msg})") from None
    if not isinstance(options, dict):
        raise OptionError(f"--calculator-options: expected a JSON object, found {text!r}")
    return options


def show(report: LabelReport, output: str) -> None:
    """Print what was labelled on stdout, failures and warnings on stderr."""
    lines = [f"failed: geometry {f.index} ({f.label}): {f.reason}" for f in report.failures]
    _print_some(lines, "failures")
    _print_some([f"warning: {warning}" for warning in report.warnings], "warnings")
    earlier = f", {report.reused} of them from an earlier run" if report.reused else ""
    where = f" in {output}" if report.labelled else "; no store was written"
    print(plain(f"labelled {report.labelled} of {report.total} geometries{earlier}{where}"))
    if report.labelled:
        print(
            f"largest residual of the translational identity {report.worst_translation:.2g}, largest asymmetry "
            f"{report.worst_asymmetry:.2g} eV/angstrom^2"
        )
    if report.journal:
        print(plain(f"finished labels are kept in {report.journal}"))


def _print_some(lines: list[str], what: str, most: int = 20) -> None:
    for line in lines[:most]:
        print(plain(line), file=sys.stderr)
    if len(lines) > most:
        print(f"... and {len(lines) - most} more {what}; --json FILE writes them all", file=sys.stderr)
