"""Phonons of models against density-functional theory: `report.py out/crystals.zarr NAME=MODEL ...`.

Models of the same NAME are trainings from different seeds. For each crystal the force constants of the largest held-out
supercell are compared at the same geometry and in the same supercell; lattice constants are the models' own. Prints a
Markdown table, writes the figure of the bands and results.json into results/; `--write PAGE` puts the table into the
page's marked section, `--results FILE` takes an earlier results.json in place of models.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from nequip_hessian.analysis.crystal import relax_crystal
from nequip_hessian.analysis.force_constants import force_constants
from nequip_hessian.analysis.phonons import THZ_TO_CM, Phonons, bands_at, compare_phonons, lattice_dynamics
from nequip_hessian.cli._crystal import read_reference
from nequip_hessian.errors import HessianDataError
from nequip_hessian.potentials import load_potential
from nequip_hessian.report.figures import FAINT, INK, colour, line, new_canvas
from nequip_hessian.report.phonon_figures import mark_special_points
from nequip_hessian.store import HessianStore

RESULTS = Path(__file__).resolve().parent / "results"
CRYSTALS = ("Si", "C", "SiC")
MESH = (12, 12, 12)
BEGIN, END = "<!-- crystals: begin -->\n", "<!-- crystals: end -->\n"
FIGURE = "bands.png"
REFERENCE_COLOUR = "#9ca3af"

Row = dict[str, Any]
Drawn = dict[str, tuple[Phonons, dict[str, Phonons]]]


def reference_of(store: Path, crystal: str) -> tuple[Any, str]:
    """The largest held-out phonon calculation of a crystal, a `phonopy.Phonopy`, and its label.

    Raises:
        HessianDataError: the store has none.
    """
    with_labels = HessianStore(store)
    labels = [with_labels.label(i) for i in range(len(with_labels))]
    wanted = next((f"{crystal}/{job}" for job in ("supercell", "volume+0.0") if f"{crystal}/{job}" in labels), None)
    if wanted is None:
        raise HessianDataError(
            f"{store}: expected a geometry labelled {crystal}/supercell or {crystal}/volume+0.0, found none; "
            "make the store by datasets/crystals/build.py"
        )
    return read_reference(str(store), Atoms(), labels.index(wanted)), wanted


def unit_of(phonon: Any) -> Atoms:
    """Its unit cell as ASE atoms."""
    unit = phonon.unitcell
    return Atoms(unit.numbers, unit.positions, cell=unit.cell, pbc=True, masses=unit.masses)


def cube_edge(atoms: Atoms) -> float:
    """Edge of the conventional cube of a cubic crystal with two atoms in the primitive cell, angstrom."""
    return float((atoms.get_volume() / len(atoms) * 8) ** (1 / 3))


def model_phonons(calculation: Any, model: Any) -> Phonons:
    """Phonons of a model at the geometry and in the supercell of a reference calculation (`phonopy.Phonopy`)."""
    phonon = type(calculation)(
        calculation.unitcell, calculation.supercell_matrix, calculation.primitive_matrix, log_level=0
    )
    return lattice_dynamics(phonon, force_constants(phonon, model), mesh=MESH)


def errors_of(found: Phonons, reference: Phonons) -> Row:
    """Errors of frequencies (THz) and heat capacity (J/(K mol)), and the share of imaginary modes of the mesh."""
    errors = compare_phonons(found, reference)
    return {
        "frequency_rmse_THz": errors.frequency_rmse,
        "frequency_max_THz": errors.frequency_max,
        "heat_capacity_rmse_J_per_K_mol": errors.heat_capacity_rmse,
        "imaginary_share": found.imaginary_share,
    }


def measure(store: Path, models: list[tuple[str, Any]]) -> tuple[list[Row], Drawn]:
    """Rows of errors, one a crystal and model; for the figure the reference and the first model of each name."""
    rows: list[Row] = []
    drawn: Drawn = {}
    for crystal in CRYSTALS:
        calculation, label = reference_of(store, crystal)
        reference = lattice_dynamics(calculation, np.asarray(calculation.force_constants), mesh=MESH)
        shown: dict[str, Phonons] = {}
        for name, model in models:
            found = model_phonons(calculation, model)
            shown.setdefault(name, found)
            relaxed = relax_crystal(unit_of(calculation), model)
            rows.append(
                {"crystal": crystal, "reference": label, "model": name}
                | errors_of(found, reference)
                | {
                    "lattice_constant_A": cube_edge(relaxed.atoms) if relaxed.failure is None else None,
                    "reference_lattice_constant_A": cube_edge(unit_of(calculation)),
                }
            )
        drawn[crystal] = (reference, shown)
    return rows, drawn


def figure(drawn: Drawn) -> Any:
    """Bands of every crystal: broad grey the reference, one line style a model."""
    canvas, axes = new_canvas(3.7 * len(drawn), 4.0, 1, len(drawn))
    for axis, (crystal, (reference, found)) in zip(axes, drawn.items(), strict=True):
        for segment in reference.bands:
            axis.plot(segment.distance, segment.frequencies, color=REFERENCE_COLOUR, lw=3.4, zorder=1)
        axis.plot([], [], color=REFERENCE_COLOUR, lw=3.4, label="density-functional theory")
        for k, (name, phonons) in enumerate(found.items(), start=1):
            style = {"color": colour(k), "ls": line(k - 1), "lw": 1.3, "zorder": 2}
            for segment in bands_at(phonons.phonon, reference.bands):
                axis.plot(segment.distance, segment.frequencies, **style)
            axis.plot([], [], **style, label=name)
        mark_special_points(axis, reference.bands)
        axis.axhline(0, color=INK, lw=0.7, zorder=0)
        axis.set_title(crystal, fontsize=10, color=INK, fontweight="bold")
        axis.grid(axis="y", color=FAINT, lw=0.4)
        axis.set_ylabel("frequency / THz", fontsize=9)
    handles, names = axes[0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return canvas


def spread(values: list[float], digits: int) -> str:
    """Mean of several trainings, and least and largest in brackets."""
    mean = f"{sum(values) / len(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(rows: list[Row]) -> str:
    """The errors as Markdown, one line a crystal and name."""
    errors = "RMSE / THz | RMSE / cm⁻¹ | largest / THz | C_v RMSE / J/(K mol)"
    head = f"| crystal | model | trainings | {errors} | imaginary / % | a / Å |"
    lines = [head, "|---" * 9 + "|"]
    groups = list(dict.fromkeys((row["crystal"], row["model"]) for row in rows))
    for previous, (crystal, name) in zip([("", ""), *groups], groups, strict=False):
        same = [row for row in rows if (row["crystal"], row["model"]) == (crystal, name)]
        if crystal != previous[0]:
            edge = same[0]["reference_lattice_constant_A"]
            lines.append(f"| {crystal} | density-functional theory | | | | | | 0 | {edge:.3f} |")
        lengths = [row["lattice_constant_A"] for row in same]
        known = [value for value in lengths if value is not None]
        lost = f"{len(lengths) - len(known)} not relaxed" if len(known) < len(lengths) else ""
        cells = [
            spread([row["frequency_rmse_THz"] for row in same], 2),
            spread([row["frequency_rmse_THz"] * THZ_TO_CM for row in same], 0),
            spread([row["frequency_max_THz"] for row in same], 2),
            spread([row["heat_capacity_rmse_J_per_K_mol"] for row in same], 2),
            spread([100 * row["imaginary_share"] for row in same], 0),
            ", ".join(filter(None, [spread(known, 3) if known else "", lost])),
        ]
        lines.append(f"| {crystal} | {name} | {len(same)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_section(page: Path, text: str) -> None:
    """Put text between the marks of a page.

    Raises:
        HessianDataError: the page has no marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise HessianDataError(f"{page}: expected the lines {BEGIN.strip()} and {END.strip()}, found none; add them")
    page.write_text(before + BEGIN + text + END + behind, encoding="utf-8")


def measured(store: Path, models: list[str], output: Path) -> list[Row]:
    """Measure models given as NAME=MODEL; write results.json and the figure into the folder `output`.

    Raises:
        HessianDataError: an argument without a name, a model or a store that cannot be read.
    """
    for text in models:
        if not all(text.partition("=")):
            raise HessianDataError(f"{text}: expected NAME=MODEL, a name for the table and a model file")
    named = [(text.partition("=")[0], load_potential(text.partition("=")[2])) for text in models]
    rows, drawn = measure(store, named)
    output.mkdir(parents=True, exist_ok=True)
    figure(drawn).savefig(output / FIGURE, dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True})
    versions = {name: version(name) for name in ("nequip", "torch", "phonopy")}
    found = {"versions": versions, "rows": rows}
    (output / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return rows


def main() -> int:
    """Measure, print, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?", help="store made by datasets/crystals/build.py")
    parser.add_argument("models", nargs="*", metavar="NAME=MODEL")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder for the figure and results.json")
    parser.add_argument("--results", type=Path, help="an earlier results.json, in place of store and models")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page with a marked section for the table")
    args = parser.parse_args()
    if (args.results is None) == (not args.models):
        parser.error("expected a store and models, or --results")
    try:
        if args.results is None:
            rows = measured(args.store, args.models, args.output)
        else:
            rows = json.loads(args.results.read_text(encoding="utf-8"))["rows"]
        print(table(rows))
        if args.write is not None:
            write_section(args.write, table(rows))
    except (HessianDataError, OSError) as exc:
        parser.exit(1, f"{exc}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
