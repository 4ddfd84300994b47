"""xtb's file `hessian`, with the geometry and what else lies in the folder of the run.

`$hessian` is the full square in Eh/a0^2, five numbers a line, no labels. The
geometry is in another file: `xtbopt.xyz` after an optimisation, else the .xyz
the run was started with, which must be the only one of that size in the folder
or be named in the program call of xtb's output. Energy comes from that output
or the comment of the .xyz, frequencies from `vibspectrum`, charge and spin from
the output or `.CHRG` and `.UHF`. Masses are standard atomic weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._atoms import atomic_number, average_masses
from nequip_hessian.formats._sink import atomic_hessian, new_folder, xyz_text
from nequip_hessian.formats._source import (
    ATOMIC_UNITS,
    Source,
    atomic_conversions,
    guarded,
    numbers,
    provenance,
    read_source,
    require_line_end,
    stem,
)
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "xtb-hessian"
PATTERNS = ("hessian", "*.hessian", "hessian_*", "*_hessian")

# Files that xtb writes and that hold another geometry than that of the Hessian.
_OTHER_GEOMETRIES = ("xtbhess.xyz", "xtblast.xyz", "xtbsiman.xyz", "xtbscan.xyz", "xtb.trj.xyz", "xtbopt.log")


def sniff(text: str) -> bool:
    """Say whether a file looks like xtb's `hessian`: the keyword, then bare numbers without labels."""
    first, _, rest = text.lstrip().partition("\n")
    row = rest.split("\n", 1)[0].split()
    return first.strip().lower() == "$hessian" and bool(row) and all("." in token for token in row)


@guarded("xtb hessian")
def read_xtb_hessian(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read an xtb Hessian with its geometry.

    Args:
        path: the file `hessian`; companions are looked for in its folder

    Yields:
        One record; forces are not among xtb's files of a `--hess` run.

    Raises:
        FormatError: cut or damaged, or no .xyz in the folder fits it, or several do.
    """
    source = read_source(path)
    if not sniff(source.text):
        if "$hessian (projected)" in source.text[:200]:
            raise source.error("this is a Turbomole hessian: leave out --format, or say --format turbomole")
        raise source.error("expected xtb's `hessian`: the line $hessian, then five numbers a line")
    require_line_end(source)
    body = source.text.lstrip().partition("\n")[2].split("$", 1)[0]
    values = numbers(body, source, 2, None, "$hessian")
    order = round(len(values) ** 0.5)
    if order * order != len(values) or order % 3 or not order:
        raise source.error(f"$hessian: expected (3N)^2 numbers, found {len(values)}; the file is cut")
    yield _record(source, values.reshape(order, order))


@dataclass(frozen=True)
class _Geometry:
    source: Source
    numbers: npt.NDArray[np.int_]
    positions: npt.NDArray[np.float64]
    comment: str


def _xyz(path: Path) -> _Geometry:
    source = read_source(path)
    count = int(source.lines[0])
    rows = [line.split() for line in source.lines[2 : 2 + count]]
    if len(rows) != count or any(len(row) < 4 for row in rows):
        raise source.error(f"expected {count} atoms, the file is cut")
    atoms = np.array([atomic_number(row[0]) for row in rows])
    return _Geometry(source, atoms, np.array([[float(v) for v in row[1:4]] for row in rows]), source.lines[1])


def _output(folder: Path) -> Source | None:
    """Find xtb's own output in a folder, whatever it is called."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in (".out", ".log", ".txt") and path.stat().st_size < 50_000_000:
            try:
                source = read_source(path)
            except FormatError:
                continue
            if "* xtb version" in source.text:
                return source
    return None


def _find_geometry(source: Source, n_atoms: int, output: Source | None) -> _Geometry:
    folder = source.path.parent
    fitting: dict[str, _Geometry] = {}
    for path in sorted(folder.glob("*.xyz")):
        if path.name in _OTHER_GEOMETRIES:
            continue
        try:
            geometry = _xyz(path)
        except (FormatError, ValueError, IndexError):
            continue
        if len(geometry.numbers) == n_atoms:
            fitting[path.name] = geometry
    called = re.search(r"program call\s*:\s*xtb\s+(.*)", output.text) if output else None
    named = [word for word in called.group(1).split() if word in fitting] if called else []
    if "xtbopt.xyz" in fitting and (called is None or "opt" in called.group(1) or "ohess" in called.group(1)):
        return fitting["xtbopt.xyz"]
    if len(named) == 1:
        return fitting[named[0]]
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    found = f"several ({', '.join(fitting)})" if fitting else "none"
    raise source.error(
        f"the file holds no geometry: expected one .xyz of {n_atoms} atoms beside it, found {found}; "
        "put the one of the run there, alone"
    )


def _record(source: Source, matrix: npt.NDArray[np.float64]) -> LabelledGeometry:
    folder = source.path.parent
    output = _output(folder)
    geometry = _find_geometry(source, len(matrix) // 3, output)
    comment = re.search(r"energy:\s*(\S+)", geometry.comment)
    total = re.findall(r"TOTAL ENERGY\s+(\S+)\s+Eh", output.text) if output else []
    energy = float(total[-1]) if total else (float(comment.group(1)) if comment else None)
    charge, multiplicity = _charge(folder, output)
    frequencies, companions = None, [geometry.source.facts()]
    if (folder / "vibspectrum").is_file():
        spectrum = read_source(folder / "vibspectrum")
        frequencies = _frequencies(spectrum, len(matrix))
        companions.append(spectrum.facts())
    if output is not None:
        companions.append(output.facts())
    if (folder / "g98.out").is_file():  # the same frequencies again, for viewers that read Gaussian 98
        companions.append(read_source(folder / "g98.out").facts())
    label = stem(geometry.source.path)
    return LabelledGeometry(
        numbers=geometry.numbers.astype(np.uint8),
        positions=geometry.positions,
        hessian=matrix * ATOMIC_UNITS["hessian"][1],
        energy=None if energy is None else energy * ATOMIC_UNITS["energy"][1],
        charge=charge,
        multiplicity=multiplicity,
        masses=average_masses(geometry.numbers),
        frequencies=frequencies,
        frequencies_projected=None if frequencies is None else True,
        label=folder.name if label == "xtbopt" and folder.name else label,
        level=_level(output),
        provenance=provenance(
            source,
            NAME,
            {**atomic_conversions(energy=energy is not None, forces=False), "positions": ("angstrom", 1.0)},
            hessian=matrix * ATOMIC_UNITS["hessian"][1],
            masses_from="convention: standard atomic weights",
            companions=companions,
        ),
    )


def _charge(folder: Path, output: Source | None) -> tuple[int | None, int | None]:
    """Charge and multiplicity: `.CHRG` and `.UHF`, else the output, which names the spin only when it was given."""
    charge = unpaired = None
    if output is not None:
        total = re.search(r"total charge\s+(-?\d+\.\d+)", output.text)
        charge = round(float(total.group(1))) if total else None
        electrons = re.search(r"# electrons\s+(\d+)", output.text)
        given = re.search(r"program call.*--uhf\s+(\d+)", output.text)
        if given:
            unpaired = int(given.group(1))
        elif electrons:
            unpaired = int(electrons.group(1)) % 2  # xtb's default: as few as there can be
    if (folder / ".CHRG").is_file():
        charge = int(read_source(folder / ".CHRG").text.split()[0])
    if (folder / ".UHF").is_file():
        unpaired = int(read_source(folder / ".UHF").text.split()[0])
    return charge, None if unpaired is None else unpaired + 1


def _frequencies(source: Source, order: int) -> npt.NDArray[np.float64] | None:
    values = []
    for line in source.lines:
        found = re.match(r"^\s*(\d+)\s+(?:[a-zA-Z]\S*\s+)?(-?\d+\.\d+)\s", line)
        if found:
            values.append(float(found.group(2)))
    if len(values) != order:
        return None
    kept = np.array(values)
    kept = kept[np.abs(kept) > 0.005]
    return np.sort(kept) if len(kept) else None


def _level(output: Source | None) -> LevelOfTheory:
    facts: dict[str, Any] = {"method": "GFN-xTB (version unknown)", "program": "xtb", "hessian": "finite_difference"}
    if output is not None:
        method = re.search(r"Hamiltonian\s+(GFN\S+|IPEA\S*)", output.text)
        version = re.search(r"\* xtb version (\S+)", output.text)
        solvent = re.search(r"^ *(?:: *Solvent|\* Solvation model:)\s+(\S+)", output.text, re.MULTILINE)
        facts["method"] = method.group(1) if method else ("GFN-FF" if "GFN-FF" in output.text else facts["method"])
        facts["program_version"] = version.group(1) if version else None
        facts["solvation"] = solvent.group(1) if solvent else None
    return LevelOfTheory(**facts)


# -- writing --------------------------------------------------------------------------------


def write_xtb_hessian(path: str | Path, record: LabelledGeometry, *, overwrite: bool = False) -> None:
    """Write a folder with xtb's `hessian`, the geometry as `molecule.xyz`, and `.CHRG` and `.UHF` where known.

    Args:
        path: the folder to make
        record: a molecule with a whole Hessian. Forces and masses have no place in this format
        overwrite: replace a folder that is there

    Raises:
        FormatError: no whole Hessian, a periodic geometry, or something at `path`.
    """
    hessian = atomic_hessian(record, NAME)
    energy = "" if record.energy is None else f"energy: {record.energy / ATOMIC_UNITS['energy'][1]:.12f}"
    with new_folder(path, overwrite=overwrite) as folder:
        (folder / "hessian").write_text(f"$hessian\n{bare_rows(hessian)}", encoding="utf-8")
        (folder / "molecule.xyz").write_text(xyz_text(record, energy), encoding="utf-8")
        if record.charge is not None:
            (folder / ".CHRG").write_text(f"{record.charge}\n", encoding="utf-8")
        if record.multiplicity is not None:
            (folder / ".UHF").write_text(f"{record.multiplicity - 1}\n", encoding="utf-8")


def bare_rows(hessian: npt.NDArray[np.float64]) -> str:
    """Return a square matrix as xtb prints it: ten decimals, five numbers a line, each row on lines of its own."""
    lines = []
    for row in hessian:
        lines += ["".join(f"{value:15.10f}" for value in row[i : i + 5]) for i in range(0, len(row), 5)]
    return "\n".join(lines) + "\n"
