"""`nequip-hessian vibrations`: normal modes with a model, of a Hessian that is there, or one beside the other."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nequip_hessian.errors import OptionError

_EPILOG = """\
examples:
  nequip-hessian vibrations model.nequip.zip molecule.xyz --optimise
  nequip-hessian vibrations last.ckpt ts.xyz -o modes/        (tables, Molden, Jmol, an animation a mode)
  nequip-hessian vibrations my-orca.hess                      (the Hessian in a file, no model)
  nequip-hessian vibrations store.zarr --record 0,3-5         (Hessians of a store)
  nequip-hessian vibrations last.ckpt --compare my-orca.hess  (both side by side, matched by overlap)
  nequip-hessian vibrations tblite molecule.xyz --optimise --ir --temperature 373 -o modes/
  nequip-hessian vibrations last.ckpt molecule.xyz --ir my-orca.hess --isotope H=2.014

Translations and rotations are projected out. Imaginary wavenumbers are printed as 1426.0i and are negative in files.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import positive, whole
    from nequip_hessian.cli._potential import (
        add_potential_arguments,
        add_state_arguments,
        add_thermochemistry_arguments,
    )

    parser = subparsers.add_parser(
        "vibrations",
        help="normal modes and thermochemistry with a model, beside a calculation's if wanted",
        description="Harmonic vibrations from a model's exact Hessian: wavenumbers, modes, zero-point energy, "
        "thermochemistry of the ideal gas, infrared spectrum.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    parser.add_argument("geometry", nargs="?", metavar="GEOMETRY", help="file with one or more geometries")
    parser.add_argument(
        "--compare", metavar="FILE", help="output of a frequency calculation, or store, to compare with"
    )
    parser.add_argument("--record", metavar="N", help="which geometries of that file or store, from 0, e.g. 0,3-5")
    parser.add_argument("--optimise", action="store_true", help="minimise with the model first")
    parser.add_argument("--freeze", metavar="ATOMS", help="atoms held fixed, counted from 0, e.g. 0,3-5")
    parser.add_argument(
        "--ir",
        nargs="?",
        const="",
        metavar="FILE",
        help="infrared intensities; dipole derivatives from this output, or from the model where it has dipoles",
    )
    parser.add_argument("--fwhm", type=positive, default=15.0, help="width of the bands, cm⁻¹ (default: 15)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="write frequencies, modes and spectrum there; interrupted, the same command goes on",
    )
    parser.add_argument("--workers", type=whole, default=1, metavar="N", help="processes, a geometry each (default: 1)")
    parser.add_argument("--hessian", metavar="FILE", help="write the Hessian: .npy for one geometry, .npz for several")
    add_thermochemistry_arguments(parser)
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Analyse, compare, print the tables, write what was asked for."""
    from nequip_hessian.cli._output import files_to_write, folder_to_write

    folder_to_write(args)
    files_to_write(args, "hessian")
    from nequip_hessian.cli._potential import number_list, potential, potential_source

    chosen = None if args.record is None else number_list("--record", args.record)
    if not args.geometry and not args.compare:
        if potential_source(args).is_model:
            print(
                "nequip-hessian vibrations: give a GEOMETRY, --compare FILE, or both; or a file or store with Hessians "
                "in place of the model",
                file=sys.stderr,
            )
            return 2
        return _labelled(args, chosen)
    if chosen is not None and not args.compare:
        raise OptionError("vibrations: --record is for --compare, or for a file or store in place of the model")
    calculator = potential(args)
    if args.compare:
        from nequip_hessian.analysis.labelled import compare_with_file
        from nequip_hessian.report.single import comparison_table

        print("\n\n".join(comparison_table(found) for found in compare_with_file(calculator, args.compare, chosen)))
    return _analyse(args, calculator) if args.geometry else 0


def _labelled(args: argparse.Namespace, chosen: list[int] | None) -> int:
    """The Hessians of a file or store, with its own masses unless others are asked for."""
    from nequip_hessian.analysis.accuracy import STATIONARY_KINDS
    from nequip_hessian.analysis.labelled import labelled_hessians, labelled_vibrations
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.report.single import check_hessian_file, drop_vibrations, vibration_table, write_hessians

    refused = {"--optimise": args.optimise, "--freeze": args.freeze, "--charge": args.charge is not None}
    if wrong := [name for name, given in refused.items() if given]:
        raise OptionError(f"vibrations: {wrong[0]} needs a model: {args.model} is a file with Hessians")
    records = labelled_hessians(args.model, chosen)
    if args.hessian:
        check_hessian_file(args.hessian, len(records))
    if args.output:
        claim_folder(args.output, args.verb)
        drop_vibrations(args.output)
    found = []
    for i, (record, warnings) in enumerate(records):
        for text in warnings:
            print(f"nequip-hessian vibrations: note: {args.model}: {text}", file=sys.stderr)
        each = labelled_vibrations(record, args.masses or "source", args.isotope)
        each.atoms.info["multiplicity"] = args.multiplicity or record.multiplicity
        strength = None
        if args.ir is not None:
            strength = _intensities(args, record.dipole_derivatives, each)
        title = record.label or record.formula
        print("\n\n" * bool(i) + f"{args.model}: {title}\n" + vibration_table(each, strength))
        thermal = _thermochemistry(args, each, stationary=record.kind in STATIONARY_KINDS)
        if args.output:
            _write(args, each, strength, thermal, f"{i}_" if len(records) > 1 else "")
        found.append(each)
    if args.hessian:
        write_hessians(args.hessian, [each.hessian for each in found])
    return 0


def _analyse(args: argparse.Namespace, calculator: Any) -> int:
    from ase.constraints import FixAtoms

    from nequip_hessian.analysis.vibration_jobs import run_vibrations
    from nequip_hessian.cli._output import interrupted
    from nequip_hessian.cli._potential import atom_list, geometries, potential_source
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.potentials import dipole_derivatives
    from nequip_hessian.report.single import check_hessian_file, drop_vibrations, vibration_table, write_hessians

    frames = geometries(args, args.geometry)
    if args.hessian:
        check_hessian_file(args.hessian, len(frames))
    for atoms in frames:
        if args.freeze:
            atoms.set_constraint(FixAtoms(atom_list(args.freeze, len(atoms))))
    source = potential_source(args)
    kept: dict[str, Any] = {"workers": args.workers}
    if args.output:
        claim_folder(args.output, args.verb)
        kept |= {"folder": Path(args.output) / "cache", "identity": {"model": source.identity}}
    try:
        outcomes = run_vibrations(frames, calculator, source, optimise=args.optimise, **kept)
    except KeyboardInterrupt:
        return interrupted("vibrations", kept=bool(args.output))
    failures = [f"geometry {i}: {outcome}" for i, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    for line in failures:
        print(f"nequip-hessian vibrations: error: {line}", file=sys.stderr)
    if failures and args.hessian:
        print("nequip-hessian vibrations: --hessian: not written, as some are missing", file=sys.stderr)
    found = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    if args.output:
        drop_vibrations(args.output)
    for i, each in enumerate(outcomes):
        if isinstance(each, str):
            continue
        strength = None
        if args.ir is not None:
            strength = _intensities(args, None if args.ir else dipole_derivatives(calculator, each.atoms), each)
        print("\n\n" * bool(i) + vibration_table(each, strength))
        thermal = _thermochemistry(args, each, stationary=False)
        if args.output:
            _write(args, each, strength, thermal, f"{i}_" if len(frames) > 1 else "")
    if args.hessian and not failures:
        write_hessians(args.hessian, [each.hessian for each in found])
    return 1 if failures else 0


def _thermochemistry(args: argparse.Namespace, found: Any, *, stationary: bool) -> Any:
    """Thermochemistry of a free molecule at a stationary point, by its forces or else its kind, printed; else None."""
    from nequip_hessian.cli._potential import gas
    from nequip_hessian.report.single import STATIONARY
    from nequip_hessian.report.thermochemistry import thermochemistry_table

    at_rest = found.largest_force <= STATIONARY or (stationary and found.largest_force != found.largest_force)
    if found.active is not None or found.atoms.pbc.any() or not at_rest:
        return None
    thermal = gas(args, found.atoms, found.result, found.energy)
    print(thermochemistry_table(thermal))
    return thermal


def _intensities(args: argparse.Namespace, own: Any, found: Any) -> Any:
    """Infrared intensities (m,), km/mol, from the file that --ir names, else from dipole derivatives (3N, 3), e."""
    import numpy as np

    from nequip_hessian.analysis.infrared import infrared_intensities
    from nequip_hessian.analysis.single import file_dipole_derivatives
    from nequip_hessian.errors import ConfigError

    table = file_dipole_derivatives(args.ir, found.atoms) if args.ir else own
    if table is None:
        raise ConfigError("--ir: no dipole derivatives from this; name an output that has them (--ir FILE)")
    if found.active is not None:
        table = table[(3 * found.active[:, None] + np.arange(3)).ravel()]
    return infrared_intensities(found.result, table)


def _write(args: argparse.Namespace, found: Any, intensities: Any, thermal: Any, prefix: str) -> None:
    from nequip_hessian.analysis.infrared import spectrum
    from nequip_hessian.report.job_figures import spectrum_plot
    from nequip_hessian.report.single import write_vibrations
    from nequip_hessian.report.tables import jsonable, write_csv
    from nequip_hessian.report.thermochemistry import thermochemistry_facts

    folder = Path(args.output)
    write_vibrations(folder, found, prefix, intensities)
    if thermal is not None:
        text = json.dumps(jsonable(thermochemistry_facts(thermal)), indent=1, allow_nan=False)
        (folder / f"{prefix}thermochemistry.json").write_text(text, encoding="utf-8")
    if intensities is not None:
        grid, absorption = spectrum(found.result.wavenumbers, intensities, fwhm=args.fwhm)
        names = ("wavenumber_cm", "absorption_km_per_mol_per_cm")
        rows = [dict(zip(names, map(float, pair), strict=True)) for pair in zip(grid, absorption, strict=True)]
        write_csv(folder / f"{prefix}spectrum.csv", rows)
        canvas = spectrum_plot(grid, absorption, found.result.wavenumbers, intensities)
        canvas.savefig(folder / f"{prefix}spectrum.svg", metadata={"Date": None})
        canvas.savefig(folder / f"{prefix}spectrum.png", dpi=200)
