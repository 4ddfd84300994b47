"""Outputs with a table of dipole derivatives, in the layout of their programs."""

from __future__ import annotations

import numpy as np
import solid_emitters
import text_emitters
from ase.units import Debye
from text_emitters import symbols

from nequip_hessian.record import LabelledGeometry


def _by_axis(record: LabelledGeometry, names: list[str], axis: str = "") -> str:
    rows = ""
    for i, row in enumerate(np.asarray(record.dipole_derivatives)):
        gap = "\n" if i % 3 == 0 else ""
        rows += f"{gap}     {names[i // 3]:>10s} {axis}{'xyz'[i % 3]}" + "".join(f"{v:15.8f}" for v in row) + "\n"
    return rows + "\n"


def dalton(record: LabelledGeometry) -> dict[str, str]:
    table = f"\n{'Dipole moment gradient (au)':>54s}\n{'-' * 27:>54s}\n\n{'Ex':>30s}             Ey   Ez\n"
    end = "  Total wall time used in DALTON"
    text = text_emitters.dalton_out(record).replace(end, table + _by_axis(record, symbols(record)) + end)
    return {"a.out": text}


def cfour(record: LabelledGeometry) -> dict[str, str]:
    """The first of two tables lacks the nuclear part."""
    files = text_emitters.cfour(record)
    names = [f"{s} #{i}" for i, s in enumerate(symbols(record), 1)]
    title = f"{'Total dipole moment derivatives':>52s}\n{'-' * 31:>52s}\n\n\n{'Ex':>32s}      Ey      Ez\n"
    part = record.replace(dipole_derivatives=np.asarray(record.dipole_derivatives) - 3.0)
    return {**files, "cfour.out": files["cfour.out"] + title + _by_axis(part, names) + title + _by_axis(record, names)}


def gamess_uk(record: LabelledGeometry) -> dict[str, str]:
    table = "                    *  scf dipole derivatives  *\n                    *     (debye/angstrom)     *\n"
    table += "                    ****************************\n\n                              x     y   z\n\n"
    debye = record.replace(dipole_derivatives=np.asarray(record.dipole_derivatives) / Debye)
    names = [name.lower() for name in symbols(record)]
    return {"a.out": text_emitters.gamess_uk_out(record) + table + _by_axis(debye, names, "d/d")}


def molpro(record: LabelledGeometry) -> dict[str, str]:
    columns = np.asarray(record.dipole_derivatives).T / Debye
    table = " PROGRAM * FREQUENCIES\n\n Dipole Moment Derivatives [debye/ang]\n"
    for begin in range(0, columns.shape[1], 8):
        block = columns[:, begin : begin + 8]
        table += "      " + "".join(f"{begin + 1 + i:14d}" for i in range(block.shape[1])) + "\n"
        for i, row in enumerate(block, 1):
            table += f"{i:10d}" + "".join(f"{v:14.7f}" for v in row) + "\n"
    text = text_emitters.molpro_out(record)
    return {"a.out": text.replace(" Force Constants (Second", f"{table}\n Force Constants (Second", 1)}


def jaguar(record: LabelledGeometry) -> dict[str, str]:
    line = "  " + "-" * 38 + "\n"
    table = "  Atomic Polar Tensors (au): Total\n  =========================\n  \n"
    for i, name in enumerate(symbols(record)):
        rows = np.asarray(record.dipole_derivatives)[3 * i : 3 * i + 3]
        body = "".join("  " + "".join(f"{v:12.4f}" for v in row) + "\n" for row in rows)
        table += f"  APT for atom {name}{i + 1}      \n{line}{body}{line}  \n"
    return {"a.01.in": text_emitters.jaguar_in(record), "a.out": text_emitters.jaguar_out(record) + table}


def turbomole(record: LabelledGeometry) -> dict[str, str]:
    files = text_emitters.turbomole(record)
    rows = "".join(
        "".join(f"{v:22.13E}".replace("E", "D") for v in row) + "\n" for row in np.asarray(record.dipole_derivatives)
    )
    control = files["control"].replace("$vibrational", "$dipgrad    file=dipgrad\n$vibrational")
    return {**files, "control": control, "dipgrad": f"$dipgrad          cartesian dipole gradients\n{rows}$end\n"}


MOLECULES = {
    "dalton-out": (dalton, "a.out", 1e-8),
    "cfour-out": (cfour, "cfour.out", 1e-8),
    "gamess-uk-out": (gamess_uk, "a.out", 1e-6),
    "molpro-out": (molpro, "a.out", 1e-7),
    "jaguar-in": (jaguar, "a.01.in", 6e-5),
    "turbomole": (turbomole, "control", 1e-12),
}
"""Name of the format -> what makes the files, the one to read, what its printed digits are worth (e)."""


def outcar(record: LabelledGeometry) -> str:
    """The charges without local field effects come after those with them."""
    charges = np.asarray(record.born_charges)

    def table(title: str, values: np.ndarray) -> str:
        rows = ""
        for i, one in enumerate(values, 1):
            rows += f" ion {i:4d}\n"
            rows += "".join(
                f"{j:5d}" + "".join(f"{v:12.5f}" for v in row) + "\n" for j, row in enumerate(one.tolist(), 1)
            )
        return f"\n BORN EFFECTIVE CHARGES {title}\n {'-' * 80}\n{rows}"

    text = table("(including local field effects) (in |e|, cummulative output)", charges)
    text += table("(excluding local field effects)", charges + 1.0)
    end = "\n SECOND DERIVATIVES"
    return solid_emitters.outcar(record).replace(end, text + end)


def vasprun(record: LabelledGeometry) -> str:
    sets = ""
    for one in np.asarray(record.born_charges).tolist():
        sets += "   <set>\n" + "".join("    <v>" + "".join(f"{v:16.8f}" for v in row) + " </v>\n" for row in one)
        sets += "   </set>\n"
    array = f'  <array name="born_charges">\n   <dimension dim="1">ion</dimension>\n{sets}  </array>\n'
    return solid_emitters.vasprun(record).replace(" </calculation>", array + " </calculation>", 1)
