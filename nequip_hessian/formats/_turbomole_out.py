"""Turbomole's data groups out: `coord`, `gradient`, and the Hessian with and without rigid motions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import project_out, rigid_motions
from nequip_hessian.formats._sink import atomic_hessian, new_folder, symbols_of
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR

NAME = "turbomole"


def write_turbomole(path: str | Path, record: LabelledGeometry, *, overwrite: bool = False) -> None:
    """Write a folder with `control`, `coord`, `nprhessian`, `hessian` (projected), if known `energy` and `gradient`.

    Args:
        path: the folder to make
        record: a molecule with a whole Hessian. `$nprhessian` is the Hessian as it is, `$hessian (projected)` the
            one without translations and rotations, which Turbomole starts optimisations from
        overwrite: replace a folder that is there

    Raises:
        FormatError: no whole Hessian, a periodic geometry, or something at `path`.
    """
    hessian = atomic_hessian(record, NAME)
    basis = rigid_motions(record.positions, np.ones(len(record)))
    groups = {
        "coord": f"$coord\n{_coordinates(record)}$end\n",
        "nprhessian": f"$nprhessian\n{_rows(hessian)}$end\n",
        "hessian": f"$hessian (projected)\n{_rows(project_out(hessian, basis))}$end\n",
    }
    control = "$title\n$symmetry c1\n$coord    file=coord\n$nprhessian    file=nprhessian\n"
    control += "$hessian (projected)    file=hessian\n"
    if record.energy is not None:
        groups["energy"] = _energy(record.energy)
        control += "$energy    file=energy\n"
    if record.energy is not None and record.forces is not None and np.all(np.isfinite(record.forces)):
        groups["gradient"] = _gradient(record, record.energy, record.forces)
        control += "$grad    file=gradient\n"
    with new_folder(path, overwrite=overwrite) as folder:
        for name, text in {**groups, "control": f"{control}$end\n"}.items():
            (folder / name).write_text(text, encoding="utf-8")


def _coordinates(record: LabelledGeometry) -> str:
    rows = zip(record.positions / BOHR, symbols_of(record), strict=True)
    return "".join(f"{x:22.14f}{y:22.14f}{z:22.14f}      {symbol.lower()}\n" for (x, y, z), symbol in rows)


def _rows(matrix: npt.NDArray[np.floating]) -> str:
    """Return a square matrix in lines of five numbers, led by the row and the number of the line within it."""
    lines = []
    for row, values in enumerate(matrix, 1):
        for line, start in enumerate(range(0, len(values), 5), 1):
            numbers = "".join(f"{value:15.10f}" for value in values[start : start + 5])
            lines.append(f"{row:3d}{line:3d}{numbers}\n")
    return "".join(lines)


def _energy(energy: float) -> str:
    return f"$energy      SCF               SCFKIN            SCFPOT\n     1{energy / HARTREE:18.10f}\n$end\n"


def _gradient(record: LabelledGeometry, energy: float, forces: npt.NDArray[np.floating]) -> str:
    gradient = -np.asarray(forces, dtype=np.float64) / HARTREE_PER_BOHR
    head = (
        f"  cycle =      1    SCF energy = {energy / HARTREE:18.10f}   |dE/dxyz| = {np.linalg.norm(gradient):10.6f}\n"
    )
    rows = "".join("".join(f"{value:22.14E}" for value in row).replace("E", "D") + "\n" for row in gradient)
    return f"$grad          cartesian gradients\n{head}{_coordinates(record)}{rows}$end\n"
