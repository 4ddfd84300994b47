"""What the verbs for single jobs share: which potential, which geometry, which electronic state."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nequip_hessian.cli._numbers import pressure, temperature, whole, whole_number
from nequip_hessian.errors import ConfigError, HessianDataError, OptionError

MODEL_HELP = "NequIP file (.ckpt, .nequip.zip, .nequip.pt2), tblite, tblite:GFN1-xTB, or ase:package.module:Calculator"


def add_potential_arguments(parser: Any) -> None:
    """Add MODEL and what belongs to it."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for a NequIP file (default: cpu)")
    parser.add_argument(
        "--calculator-options", metavar="JSON", help="keyword arguments of an ASE calculator or of tblite's"
    )


def add_workers_argument(parser: Any) -> None:
    """Add the number of processes that share the geometries one search asks for together."""
    parser.add_argument(
        "--workers",
        type=whole,
        default=1,
        metavar="N",
        help="for tblite and ase:...: processes of one thread each among which images and displacements are divided "
        "(default: 1)",
    )


def add_charge_arguments(parser: Any) -> None:
    """Add charge and multiplicity."""
    parser.add_argument(
        "--charge",
        type=whole_number(-1000, 1000),
        help="total charge, e, for tblite and calculators that read atoms.info (default: 0)",
    )
    parser.add_argument(
        "--multiplicity", type=whole, help="2S + 1; also the electronic degeneracy in the entropy (default: lowest)"
    )


def add_state_arguments(parser: Any) -> None:
    """Add charge, multiplicity and masses."""
    add_charge_arguments(parser)
    parser.add_argument(
        "--masses",
        choices=("standard", "isotopic"),
        help="atomic masses (default: standard; those of the file for Hessians in a file or store)",
    )
    parser.add_argument(
        "--isotope",
        action="append",
        default=[],
        metavar="ATOM=MASS",
        help="mass of one atom, u, counted from 0, e.g. 3=2.014; or of all of an element, e.g. H=2.014; repeatable",
    )


def add_thermochemistry_arguments(parser: Any) -> None:
    """Add temperature, pressure, symmetry number and the treatment of low modes."""
    parser.add_argument("--temperature", type=temperature, default=298.15, help="K (default: 298.15)")
    parser.add_argument("--pressure", type=pressure, default=1.01325, help="bar (default: 1.01325, 1 atm)")
    parser.add_argument(
        "--symmetry",
        type=whole,
        metavar="N",
        help="rotational symmetry number (default: found from the geometry)",
    )
    parser.add_argument(
        "--low-modes",
        choices=("rrho", "grimme", "truhlar"),
        default="grimme",
        help="entropy of low modes: harmonic, Grimme's quasi-RRHO, or raised to 100 cm⁻¹ (default: grimme)",
    )


def json_object(option: str, text: str) -> dict[str, Any]:
    """Read the JSON object that an option holds.

    Raises:
        ConfigError: anything else.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        raise OptionError(f"{option}: expected a JSON object, found {text!r} ({exc.msg})") from None
    if not isinstance(value, dict):
        raise OptionError(f"{option}: expected a JSON object, found {text!r}")
    return value


def potential_source(args: argparse.Namespace, workers: int = 1) -> Any:
    """What the command line names, to be made here and in workers; `workers` as of `PotentialSource`."""
    from nequip_hessian.potentials import PotentialSource

    options = json_object("--calculator-options", args.calculator_options) if args.calculator_options else {}
    return PotentialSource(args.model, args.device, options, workers)


def potential(args: argparse.Namespace, workers: int = 1) -> Any:
    """Make the calculator that the command line names; `workers` as of `PotentialSource`."""
    return potential_source(args, workers).load()


def charged_geometries(args: argparse.Namespace, path: str) -> list[Any]:
    """Read all geometries of a file; charge and multiplicity of the command line go into their `info`.

    Raises:
        FormatError: the file; EngineError: a multiplicity that does not fit the electrons.
    """
    from nequip_hessian.analysis.geometries import read_geometries
    from nequip_hessian.label.engine import electronic_state
    from nequip_hessian.label.geometries import record_from_atoms

    frames = read_geometries(path)
    for index, atoms in enumerate(frames):
        if args.charge is not None:
            atoms.info["charge"] = args.charge
        if args.multiplicity is not None:
            atoms.info["multiplicity"] = atoms.info["spin"] = args.multiplicity
        if not atoms.pbc.any():
            charge, multiplicity = electronic_state(record_from_atoms(atoms, f"{path}, geometry {index}"))
            atoms.info.update(charge=charge, multiplicity=multiplicity)
    _note_charge(args, path, frames)
    return frames


def _note_charge(args: argparse.Namespace, path: str, frames: list[Any]) -> None:
    """Say where a charge is given to a model that cannot know of it."""
    from nequip_hessian.potentials import PotentialSource

    charges = sorted({int(atoms.info.get("charge") or 0) for atoms in frames} - {0})
    if charges and not PotentialSource(args.model).foreign:
        listed = ", ".join(f"{charge:+d}" for charge in charges)
        print(
            f"nequip-hessian {args.verb}: note: {path}: charge {listed}: a NequIP model has no input for the charge; "
            "its numbers are those of the charges it was trained on",
            file=sys.stderr,
        )


@contextmanager
def naming(path: str, index: int, count: int) -> Iterator[None]:
    """Put the file and the number of the geometry, from 0, in front of what is wrong with one of several."""
    try:
        yield
    except HessianDataError as exc:
        if count == 1:
            raise
        raise type(exc)(f"{path}: geometry {index}: {exc}") from exc


def geometries(args: argparse.Namespace, path: str) -> list[Any]:
    """Read all geometries of a file with the charge, multiplicity and masses of the command line.

    Raises:
        FormatError, EngineError: as `charged_geometries`; ConfigError: an isotope that does not fit.
    """
    from nequip_hessian.analysis.prediction import masses_of, with_isotopes

    frames = charged_geometries(args, path)
    for atoms in frames:
        atoms.set_masses(
            with_isotopes(atoms.numbers, masses_of(atoms.numbers, args.masses or "standard"), args.isotope)
        )
    return frames


def geometry(args: argparse.Namespace, path: str) -> Any:
    """Read the only geometry of a file, the last one of several (an optimisation).

    Raises:
        FormatError, EngineError: as `geometries`.
    """
    return geometries(args, path)[-1]


def same_atoms(args: argparse.Namespace, names: Sequence[str], starts: Sequence[Any]) -> dict[str, Any]:
    """Read the geometries that options name beside the one to work on, before the work.

    Args:
        args: the command line; names: options of one geometry each, where they are given
        starts: what each has to have the atoms of, in the same order

    Returns:
        Geometries by option.

    Raises:
        FormatError, EngineError: as `geometries`. ConfigError: other atoms or another order.
    """
    from nequip_hessian.analysis.geometries import other_atoms

    found = {name: geometry(args, getattr(args, name)) for name in names if getattr(args, name) is not None}
    for name, atoms in found.items():
        for index, start in enumerate(starts):
            if difference := other_atoms(start, atoms):
                which = f", geometry {index}" if len(starts) > 1 else ""
                raise ConfigError(
                    f"--{name} {getattr(args, name)}: expected the atoms of {args.geometry}{which} in the same order, "
                    f"found {difference}; reorder or replace the file"
                )
    return found


def number_list(what: str, text: str) -> list[int]:
    """Numbers from 0 of a text such as `0,3-5`, ascending, each once.

    Raises:
        OptionError: not of this form.
    """
    chosen: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise OptionError(f"{what} {text!r}: expected numbers from 0 and ranges, e.g. 0,3-5")
        if int(last or first) - int(first) > 10**7:
            raise OptionError(f"{what} {text!r}: so many cannot be chosen one by one")
        chosen += range(int(first), int(last or first) + 1)
    return sorted(set(chosen))


def atom_list(text: str, n_atoms: int) -> list[int]:
    """Atom indices of a text such as `0,3-5`.

    Raises:
        ConfigError: not of this form, or an atom that is not there.
    """
    chosen = number_list("atoms", text)
    if not chosen or max(chosen) >= n_atoms:
        raise ConfigError(f"atoms {text!r}: expected atoms 0 to {n_atoms - 1}")
    return chosen


def gas(args: argparse.Namespace, atoms: Any, modes: Any, energy: float) -> Any:
    """Thermochemistry of a molecule as the command line wants it; symmetry number found where none is given."""
    from nequip_hessian.analysis.symmetry import symmetry_number
    from nequip_hessian.analysis.thermochemistry import thermochemistry

    sigma = args.symmetry
    if sigma is None:
        sigma = symmetry_number(atoms.numbers, atoms.positions, modes.masses)
    return thermochemistry(
        modes.wavenumbers,
        atoms.positions,
        modes.masses,
        energy=energy,
        temperature=args.temperature,
        pressure=1e5 * args.pressure,
        symmetry_number=sigma,
        multiplicity=int(atoms.info.get("multiplicity") or 1),
        treatment=args.low_modes,
    )
