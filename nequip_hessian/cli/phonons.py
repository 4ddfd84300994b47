"""`nequip-hessian phonons`: bands, density of states and thermal properties of a crystal with a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  nequip-hessian phonons model.nequip.zip POSCAR --supercell 3 3 3 -o phonons/
  nequip-hessian phonons ase:emt Al.cif -o phonons/                        (any ASE calculator)
  nequip-hessian phonons last.ckpt phonopy.yaml --reference phonopy.yaml -o phonons/
  nequip-hessian phonons last.ckpt Si.cif --relax none --reference store.zarr --record 12 -o phonons/

Cell and positions are relaxed with the model first, as phonon calculations need, space group kept; --relax positions
keeps the cell, --relax none takes the file as it is. Finished stages are kept in FOLDER/stages: after Ctrl-C the same
command goes on where it was. phonopy.yaml and FORCE_CONSTANTS in FOLDER are for phonopy itself.

needs: pip install "nequip-hessian[phonons]"

exit status: 0 done, with imaginary modes too (they are stated); 1 refused, or the crystal could not be relaxed
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from nequip_hessian.cli._numbers import not_negative, number, positive, whole, whole_number
    from nequip_hessian.cli._potential import add_potential_arguments, add_workers_argument

    parser = subparsers.add_parser(
        "phonons",
        help="phonon bands, density of states and thermal properties of a crystal",
        description="Force constants of a supercell from a model's Hessian, and what phonopy makes of them; beside a "
        "reference's if wanted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_potential_arguments(parser)
    add_workers_argument(parser)
    parser.add_argument("cell", metavar="CELL", help="unit cell: .cif, POSCAR, .extxyz, ..., or phonopy.yaml")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="write the page and all files there")
    parser.add_argument(
        "--supercell",
        type=whole_number(-100000, 100000),
        nargs="+",
        metavar="N",
        help="three numbers, or nine of a matrix (default: that of phonopy.yaml, else 10 Å wide in every direction)",
    )
    parser.add_argument(
        "--relax", choices=("cell", "positions", "none"), default="cell", help="before the phonons (default: cell)"
    )
    parser.add_argument(
        "--fmax", type=positive, default=1e-3, help="largest force of the relaxation, eV/Å (default: 0.001)"
    )
    parser.add_argument("--mesh", type=whole, nargs=3, metavar="N", help="of wave vectors (default: some 60 Å long)")
    parser.add_argument(
        "--points", type=whole_number(2, 100000), default=51, help="wave vectors a segment of the bands (default: 51)"
    )
    parser.add_argument(
        "--temperatures",
        type=not_negative,
        nargs=3,
        default=(0.0, 1000.0, 10.0),
        metavar=("FIRST", "LAST", "STEP"),
        help="K (default: 0 1000 10)",
    )
    parser.add_argument(
        "--displacement",
        type=number(above=0, most=0.1),
        default=0.01,
        help="where a model has no Hessian of its own, Å (default: 0.01)",
    )
    parser.add_argument("--no-sum-rule", action="store_true", help="use the force constants as they come")
    parser.add_argument("--reference", metavar="FILE", help="phonopy.yaml with force constants, or a Hessian store")
    parser.add_argument(
        "--record", type=whole_number(0), metavar="N", help="which geometry of the store (default: the one that fits)"
    )


def run(args: argparse.Namespace) -> int:
    """Relax, differentiate, print the table, write the page."""
    from nequip_hessian.analysis.phonon_job import model_phonons, relaxed, remarks_on, space_group
    from nequip_hessian.cli._crystal import read_crystal, read_reference
    from nequip_hessian.cli._output import folder_to_write
    from nequip_hessian.cli._potential import potential
    from nequip_hessian.outputs import claim_folder
    from nequip_hessian.report.phonons import PhononJob, phonon_table, write_phonons

    folder_to_write(args)
    from tqdm import tqdm

    from nequip_hessian.analysis.force_constants import PhononCache, check_size, phonopy_module
    from nequip_hessian.analysis.phonons import check_settings

    phonopy_module()
    matrix = _matrix(args.supercell)
    check_settings(args.mesh, args.points, tuple(args.temperatures))
    given = read_crystal(args.cell)
    atoms = given.atoms
    if matrix is not None:
        check_size(atoms, matrix)
    other = None if args.reference is None else read_reference(args.reference, atoms, args.record)
    calculator = potential(args, args.workers)
    supercell = given.supercell if matrix is None else matrix
    born = given.born if other is None or given.born is not None else other.nac_params
    claim_folder(args.output, args.verb)
    cache = PhononCache(Path(args.output) / "stages", _key(args, atoms, supercell))
    crystal = relaxed(atoms, calculator, args.relax, cache, args.fmax)
    settings = {"mesh": args.mesh, "points": args.points, "temperatures": tuple(args.temperatures)}
    settings["symmetrise"] = not args.no_sum_rule
    with tqdm(desc="phonons", unit=" atoms", disable=None, leave=False) as bar:
        found, source, radius, edge = model_phonons(
            crystal.atoms,
            calculator,
            cache,
            supercell=supercell,
            born=born,
            displacement=args.displacement,
            on_atom=bar.update,
            **settings,
        )
    remarks = remarks_on(calculator, crystal, args.relax, radius, edge)
    compared = None
    if other is not None:
        compared = _compare(found, other, settings)
        if born is not None and given.born is None:
            remarks.append("the Born charges of the reference were used for the model too")
    job = PhononJob(
        crystal, atoms.cell.cellpar(), found, source, radius, edge, space_group(found.phonon), compared, remarks
    )
    print(phonon_table(job))
    names = ("model", "cell", "relax", "fmax", "displacement", "reference", "record")
    write_phonons(Path(args.output), job, {name: getattr(args, name) for name in names})
    for line in remarks[:1] if remarks and remarks[0].startswith("the supercell is too small") else []:
        print(f"nequip-hessian phonons: warning: {line}", file=sys.stderr)
    return 0


def _compare(found: Any, other: Any, settings: dict[str, Any]) -> Any:
    """The reference's phonons, its bands at the model's wave vectors, and the errors."""
    from nequip_hessian.analysis.phonons import bands_at, compare_phonons, lattice_dynamics

    reference = lattice_dynamics(other, other.force_constants, **(settings | {"mesh": found.mesh}))
    return reference, bands_at(reference.phonon, found.bands), compare_phonons(found, reference)


def _matrix(numbers: list[int] | None) -> Any:
    import numpy as np

    from nequip_hessian.errors import OptionError

    if numbers is None:
        return None
    if len(numbers) not in (1, 3, 9):
        raise OptionError(f"--supercell: expected three numbers, or nine of a matrix, found {len(numbers)}")
    matrix = np.array(numbers).reshape(3, 3) if len(numbers) == 9 else np.diag(np.broadcast_to(numbers, 3))
    if round(float(np.linalg.det(matrix))) < 1:
        raise OptionError(f"--supercell: expected a matrix of positive volume, found {matrix.tolist()}")
    return matrix


def _key(args: argparse.Namespace, atoms: Any, supercell: Any) -> dict[str, Any]:
    """What makes kept stages valid: the model, the crystal, the settings."""
    from nequip_hessian.analysis.cache import file_checksum

    path = Path(args.model)
    key = {name: getattr(args, name) for name in ("model", "calculator_options", "relax", "fmax", "displacement")}
    key["checksum"] = file_checksum(path) if path.exists() else None
    key["crystal"] = [
        atoms.numbers.tolist(),
        atoms.positions.tolist(),
        atoms.cell.tolist(),
        atoms.get_masses().tolist(),
    ]
    key["supercell"] = None if supercell is None else supercell.tolist()
    return key
