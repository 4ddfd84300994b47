"""ORCA Hessian files (.hess), with energy, forces, charge and level from the output beside them.

`$hessian` is the full square in Eh/a0^2, in blocks of five columns, and not
symmetric (by up to 4e-3 Eh/a0^2: ORCA symmetrises later); `$atoms` holds
standard atomic weights (u) and positions (a0), in the same frame. Energy,
gradient, charge and multiplicity are not in the file: they are taken from
`<stem>.out`, `<stem>.log` or `<stem>.engrad` beside it, and only from the
place where these print the same geometry.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import normal_modes
from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._atoms import atomic_number, average_masses
from nequip_hessian.formats._orca_out import Companion, companion_of
from nequip_hessian.formats._sink import atomic_hessian, symbols_of, write_text
from nequip_hessian.formats._source import (
    ATOMIC_UNITS,
    Source,
    atomic_conversions,
    column_blocks,
    guarded,
    numbers,
    provenance,
    read_source,
    stem,
)
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "orca-hess"
PATTERNS = ("*.hess",)


def sniff(text: str) -> bool:
    """Say whether a file looks like an ORCA Hessian file."""
    return "$orca_hessian_file" in text


def _keys(source: Source) -> dict[str, int]:
    return {line.strip().lower(): index for index, line in enumerate(source.lines) if line.startswith("$")}


def _count(source: Source, index: int, key: str) -> int:
    if index + 1 >= len(source.lines):
        raise source.error(f"{key}: the file is cut", index + 1)
    return int(numbers(source.lines[index + 1].split()[0] if source.lines[index + 1].split() else "", source,
                       index + 2, 1, key)[0])  # fmt: skip


@guarded("ORCA .hess")
def read_orca_hess(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read an ORCA Hessian file.

    Args:
        path: the .hess file; its companion output is looked for beside it

    Yields:
        One record; frequencies without the zeros of the rigid motions and divided by
        `$frequency_scale_factor` where that is not 1.

    Raises:
        NoHessianError: there is no `$hessian` block.
        FormatError: the file is cut, damaged, or of an unfinished numerical frequency job.
    """
    source = read_source(path)
    keys = _keys(source)
    if "$orca_hessian_file" not in keys:
        raise source.error("expected an ORCA Hessian file, which starts with $orca_hessian_file")
    if "$hessian" not in keys:
        raise source.error("no Hessian in this file: there is no $hessian block", kind=NoHessianError)
    for key in ("$atoms", "$end"):
        if key not in keys:
            raise source.error(f"the file is cut: there is no {key}; fetch the whole file")
    atoms, masses, positions = _atoms(source, keys["$atoms"])
    order = _count(source, keys["$hessian"], "$hessian")
    if order != 3 * len(atoms):
        raise source.error(
            f"$hessian: expected {3 * len(atoms)} rows for {len(atoms)} atoms, found {order}", keys["$hessian"] + 2
        )
    matrix, _ = column_blocks(source, keys["$hessian"] + 2, order, "$hessian")
    companion = companion_of(source.path, atoms, positions)
    yield _record(source, keys, atoms, masses, positions, matrix, companion)


def _record(
    source: Source,
    keys: dict[str, int],
    atoms: npt.NDArray[np.int_],
    masses: npt.NDArray[np.float64],
    positions: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.float64],
    companion: Companion | None,
) -> LabelledGeometry:
    beside = companion or Companion()
    frequencies = _frequencies(source, keys)
    return LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions * ATOMIC_UNITS["positions"][1],
        hessian=matrix * ATOMIC_UNITS["hessian"][1],
        energy=None if beside.energy is None else beside.energy * ATOMIC_UNITS["energy"][1],
        forces=None if beside.gradient is None else beside.gradient * ATOMIC_UNITS["forces"][1],
        charge=beside.charge,
        multiplicity=beside.multiplicity,
        masses=masses,
        dipole_derivatives=_dipole(source, keys, len(atoms)),
        frequencies=frequencies,
        frequencies_projected=None if frequencies is None else True,
        label=stem(source.path),
        level=beside.level or LevelOfTheory("unknown", program="ORCA"),
        provenance=provenance(
            source,
            NAME,
            atomic_conversions(energy=beside.energy is not None, forces=beside.gradient is not None),
            hessian=matrix * ATOMIC_UNITS["hessian"][1],
            masses_from="file",
            companions=[dict(facts) for facts in beside.files] or None,
        ),
    )


def _atoms(source: Source, index: int) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    count = _count(source, index, "$atoms")
    names, values = [], []
    for at in range(index + 2, index + 2 + count):
        tokens = source.lines[at].split() if at < len(source.lines) else []
        if len(tokens) != 5:
            raise source.error(f"$atoms: expected {count} lines of symbol, mass, x, y, z; the file is cut", at + 1)
        try:
            names.append(atomic_number(tokens[0]))
        except ValueError as exc:
            raise source.error(f"$atoms: {exc}", at + 1) from None
        values.append(numbers(" ".join(tokens[1:]), source, at + 1, 4, "$atoms"))
    table = np.array(values).reshape(count, 4)
    return np.array(names, dtype=int), table[:, 0], table[:, 1:]


def _frequencies(source: Source, keys: dict[str, int]) -> npt.NDArray[np.float64] | None:
    if "$vibrational_frequencies" not in keys:
        return None
    index = keys["$vibrational_frequencies"]
    count = _count(source, index, "$vibrational_frequencies")
    rows = [line.split() for line in source.lines[index + 2 : index + 2 + count]]
    if any(len(row) != 2 for row in rows) or len(rows) != count:
        raise source.error(f"$vibrational_frequencies: expected {count} lines of index and value", index + 2)
    values = numbers(" ".join(row[1] for row in rows), source, index + 3, count, "$vibrational_frequencies")
    scale = 1.0
    if "$frequency_scale_factor" in keys:
        at = keys["$frequency_scale_factor"] + 1
        scale = float(numbers(source.lines[at], source, at + 1, 1, "$frequency_scale_factor")[0])
    values = values[values != 0.0] / (scale or 1.0)
    return np.sort(values) if len(values) else None


def _dipole(source: Source, keys: dict[str, int], n_atoms: int) -> npt.NDArray[np.float64] | None:
    if "$dipole_derivatives" not in keys:
        return None
    index = keys["$dipole_derivatives"]
    if _count(source, index, "$dipole_derivatives") != 3 * n_atoms:
        return None
    text = " ".join(source.lines[index + 2 : index + 2 + 3 * n_atoms])
    return numbers(text, source, index + 3, 9 * n_atoms, "$dipole_derivatives").reshape(3 * n_atoms, 3)


# -- writing --------------------------------------------------------------------------------


def write_orca_hess(path: str | Path, record: LabelledGeometry, *, overwrite: bool = False) -> None:
    """Write an ORCA Hessian file, to start an optimisation from (`InHess Read`) or to look at modes.

    Args:
        path: the .hess file
        record: a molecule with a whole Hessian. Masses default to standard atomic weights; frequencies and
            normal modes are computed from the Hessian, translations and rotations projected out. Energy,
            forces and charge have no place in this format
        overwrite: replace a file that is there

    Raises:
        FormatError: no whole Hessian, a periodic geometry, or something at `path`.
    """
    hessian = atomic_hessian(record, NAME)
    masses = average_masses(record.numbers) if record.masses is None else record.masses
    values, modes = normal_modes(np.asarray(record.hessian), record.positions, masses)
    rigid = len(hessian) - len(values)
    cartesian = np.zeros_like(hessian)
    cartesian[:, rigid:] = modes / np.sqrt(np.repeat(masses, 3))[:, None]
    cartesian[:, rigid:] /= np.linalg.norm(cartesian[:, rigid:], axis=0)
    shown = np.concatenate([np.zeros(rigid), values])
    positions = record.positions / ATOMIC_UNITS["positions"][1]
    atoms = zip(symbols_of(record), masses, positions, strict=True)
    order = len(hessian)
    parts = [
        "\n$orca_hessian_file\n\n$act_atom\n  0\n\n$act_coord\n  0\n\n$act_energy\n        0.000000\n",
        f"$hessian\n{order}\n{_blocks(hessian)}",
        f"$vibrational_frequencies\n{order}\n" + "".join(f"{i:5d} {v:15.6f}\n" for i, v in enumerate(shown)),
        f"$normal_modes\n{order} {order}\n{_blocks(cartesian)}",
        "#\n# The atoms: label  mass x y z (in bohrs)\n#\n$atoms\n"
        + f"{len(record)}\n"
        + "".join(f" {s:<2s} {m:15.9f} {x:18.12f} {y:18.12f} {z:18.12f}\n" for s, m, (x, y, z) in atoms),
        "$actual_temperature\n  0.000000\n",
        "$frequency_scale_factor\n  1.000000\n",
    ]
    if record.dipole_derivatives is not None:
        rows = "".join(" ".join(f"{v:19.10E}" for v in row) + "\n" for row in record.dipole_derivatives)
        parts.append(f"$dipole_derivatives\n{order}\n{rows}")
    write_text(path, "\n".join([*parts, "$end\n"]), overwrite=overwrite)


def _blocks(matrix: npt.NDArray[np.float64]) -> str:
    """Return a matrix in blocks of five columns, as ORCA prints it."""
    lines = []
    for start in range(0, matrix.shape[1], 5):
        block = matrix[:, start : start + 5]
        lines.append(" " * 12 + "".join(f"{start + i:19d}" for i in range(block.shape[1])))
        lines += [f"{i:5d} " + "".join(f"{v:19.10E}" for v in row) for i, row in enumerate(block)]
    return "\n".join(lines) + "\n"
