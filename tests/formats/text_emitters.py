"""Writers of the layouts of quantum-chemistry programs that do not run here: real numbers, layout by us.

Each takes a record in the units of the package (`emitters.made`) and returns the text of a file.
Only what a reader looks at, and what could mislead it, is written.
"""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from ase.units import Debye

from nequip_hessian.curvature import pack
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import BOHR, CM_TO_EV, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2


def symbols(record: LabelledGeometry) -> list[str]:
    return [chemical_symbols[int(z)] for z in record.numbers]


def atomic(record: LabelledGeometry) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Positions (a0), gradient (Eh/a0), Hessian (Eh/a0^2) and energy (Eh)."""
    return (
        record.positions / BOHR,
        -record.forces / HARTREE_PER_BOHR,
        np.asarray(record.hessian) / HARTREE_PER_BOHR2,
        record.energy / HARTREE,
    )


def triangle(matrix: np.ndarray, width: int, head, row) -> str:
    """Blocks of a lower triangle: `head(columns)` and `row(i, columns)` make the lines."""
    text = ""
    for c in range(0, len(matrix), width):
        columns = range(c, min(c + width, len(matrix)))
        text += head(columns)
        for i in range(c, len(matrix)):
            text += row(i, [j for j in columns if j <= i])
    return text


def gamess_out(record: LabelledGeometry, *, firefly: bool = False) -> str:
    """GAMESS or Firefly output of an analytic Hessian job."""
    x, g, h, energy = atomic(record)
    names = [s.upper() for s in symbols(record)]
    version = (
        "*      Firefly version 8.0.1, build number 8540      *"
        if firefly
        else "*  GAMESS VERSION = 30 SEP 2018 (R3)  *"
    )
    text = f"          {version}\n EXECUTION OF GAMESS BEGUN Mon Aug  5 12:55:19 2019\n"
    text += " INPUT CARD> $CONTRL RUNTYP=HESSIAN DFTTYP=PBE0 $END\n     GBASIS=N31          IGAUSS=       6\n"
    text += (
        " ATOM      ATOMIC                      COORDINATES (BOHR)\n"
        "           CHARGE         X                   Y                   Z\n"
    )
    for name, z, (a, b, c) in zip(names, record.numbers, x, strict=True):
        text += f" {name:<10s}{float(z):5.1f}{a:17.10f}{b:20.10f}{c:20.10f}\n"
    text += (
        "\n CHARGE OF MOLECULE                           =    0\n SPIN MULTIPLICITY                            =    1\n"
    )
    text += f"     SCFTYP=RHF          DFTTYP=B3LYP\n FINAL R-B3LYP ENERGY IS {energy:20.10f} AFTER  13 ITERATIONS\n\n"
    text += (
        "          ---------------\n"
        "          ENERGY GRADIENT\n"
        "          ---------------\n"
        "\n"
        " UNITS ARE HARTREE/BOHR    E'X               E'Y               E'Z \n"
    )
    for i, (name, row) in enumerate(zip(names, g, strict=True), 1):
        text += f"{i:5d} {name:<10s}" + "".join(f"{v:18.9f}" for v in row) + "\n"
    rule = "          " + "-" * 31 + "\n"
    text += f"\n{rule}          CARTESIAN FORCE CONSTANT MATRIX\n{rule}\n"
    for c in range(0, len(h), 6):
        width = min(6, len(h) - c)
        text += " " * 35 + "".join(f"{(c // 3 + k + 1):<27d}" for k in range(width // 3)) + "\n" + " " * 31
        text += "".join(f"{names[c // 3 + k]:<27s}" for k in range(width // 3)) + "\n" + " " * 26
        text += "        ".join(["X", "Y", "Z"] * (width // 3)) + "\n"
        for i in range(c, len(h)):
            label = f"{i // 3 + 1:3d}   {names[i // 3]:<10s}   X" if i % 3 == 0 else " " * 19 + "XYZ"[i % 3]
            text += f"{label:<20s}" + "".join(f"{v:9.6f}" for v in h[i, c : c + width]) + "\n"
        text += "\n"
    text += "          ATOMIC WEIGHTS (AMU)\n\n"
    text += "".join(
        f"{i:5d}     {n:<10s}{m:15.5f}\n" for i, (n, m) in enumerate(zip(names, record.masses, strict=True), 1)
    )
    rigid = 3 * len(record) - len(record.frequencies)
    text += f"\n MODES    1 TO    {rigid} ARE TAKEN AS ROTATIONS AND TRANSLATIONS.\n\n     FREQUENCIES IN CM**-1\n"
    values = [*([3.14] * rigid), *record.frequencies]
    for i in range(0, len(values), 5):
        text += (
            "       FREQUENCY:   "
            + "".join(f"{abs(v):12.2f}{' I' if v < 0 else '  '}" for v in values[i : i + 5])
            + "\n"
        )
    if record.dipole_derivatives is not None:
        text += "\n          DIPOLE DERIVATIVE TENSOR          (DEBYE/ANGSTROM)\n"
        text += "          ------------------------          ----------------\n\n"
        text += "        ATOM                 MU-X           MU-Y           MU-Z\n"
        for i, row in enumerate(record.dipole_derivatives / Debye):
            name = f"     {names[i // 3]:<11s}" if i % 3 == 0 else " " * 16
            text += f"{name}D/D{'XYZ'[i % 3]}" + "".join(f"{v:15.9f}" for v in row) + "\n"
    return text + " EXECUTION OF GAMESS TERMINATED NORMALLY Mon Aug  5 13:01:48 2019\n"


def repulsion(record: LabelledGeometry) -> float:
    """Nuclear repulsion energy, Eh."""
    z, x = record.numbers.astype(float), record.positions / BOHR
    return sum(z[i] * z[j] / np.linalg.norm(x[i] - x[j]) for i in range(len(z)) for j in range(i))


def gamess_dat(record: LabelledGeometry, *, unit: float = 1.0) -> str:
    """GAMESS punch file; an APPROXIMATE Hessian comes first."""
    _, g, h, energy = atomic(record)

    def group(matrix: np.ndarray) -> str:
        text = f"ENERGY IS {energy:20.10f} E(NUC) IS {repulsion(record):20.10f}\n"
        for i, row in enumerate(matrix, 1):
            for card, k in enumerate(range(0, len(row), 5), 1):
                text += f"{i % 100:2d}{card:3d}" + "".join(f"{v:15.8E}" for v in row[k : k + 5]) + "\n"
        return text

    text = " $DATA  \nA title\nC1       0\n"
    for s, z, (a, b, c) in zip(symbols(record), record.numbers, record.positions * unit, strict=True):
        text += f"{s.upper():<10s}{float(z):5.1f}{a:18.10f}{b:18.10f}{c:18.10f}\n   STO     3\n\n"
    text += (
        " $END      \n ----- APPROXIMATE HESSIAN AT THIS POINT -----\n $HESS\n"
        + group(np.eye(len(h)))
        + " $END\n"
        + "-" * 240
        + "\n"
    )
    text += f" $GRAD  \nE={energy:20.10f}  GMAX=   0.0013491  GRMS=   0.0004696\n"
    for s, z, row in zip(symbols(record), record.numbers, g, strict=True):
        text += f"{s.upper():<10s}{float(z):5.0f}." + "".join(f"{v:20.10E}" for v in row) + "\n"
    return text + " $END\n $HESS\n" + group(h) + " $END\n $DIPDR\n $END\n"


def molpro_out(record: LabelledGeometry) -> str:
    """Molpro output; the first table of atoms is in another order than the Hessian's."""
    x, _, h, energy = atomic(record)
    names = symbols(record)
    labels = [f"{names[i // 3].upper()}{'XYZ'[i % 3]}{i // 3 + 1}" for i in range(len(h))]
    text = "                   ***  PROGRAM SYSTEM MOLPRO  ***\n                    Version 2015.1 linked Feb  1 2017\n"
    text += " ATOMIC COORDINATES\n\n NR  ATOM    CHARGE       X              Y              Z\n\n"
    for k, i in enumerate(reversed(range(len(x))), 1):
        text += f"{k:4d}  {names[i].upper():<4s}{record.numbers[i]:9.2f}" + "".join(f"{v:15.9f}" for v in x[i]) + "\n"
    text += f"\n NUCLEAR CHARGE:{int(record.numbers.sum()):20d}\n"
    half = int(record.numbers.sum()) // 2
    text += f" NUMBER OF ELECTRONS:{half:8d}+{half:5d}-    SPACE SYMMETRY=1    SPIN SYMMETRY: Singlet \n"
    text += " Force Constants (Second Derivatives of the Energy) in [a.u.]\n"
    text += triangle(
        h,
        5,
        lambda columns: " " * 16 + "".join(f"{labels[j]:>12s}" for j in columns) + "\n",
        lambda i, columns: f"{labels[i]:>14s}      " + "".join(f"{h[i, j]:12.7f}" for j in columns) + "\n",
    )
    text += "\n\n Atomic Masses\n"
    text += (
        f"   1-{len(x):3d}"
        + "".join(f"{m:12.6f}" for m in record.masses)
        + "\n\n Mass weighted Second Derivative Matrix\n"
    )
    text += (
        "\n"
        " FREQUENCIES * CALCULATION OF NORMAL MODES FOR RKS-SCF\n"
        "\n"
        "\n"
        " Atomic Coordinates\n"
        "\n"
        "  Nr  Atom  Charge       X              Y              Z\n"
        "\n"
    )
    for k, (name, z, row) in enumerate(zip(names, record.numbers, x, strict=True), 1):
        text += f"{k:4d}   {name.upper():<4s}{z:6.2f}" + "".join(f"{v:15.9f}" for v in row) + "\n"
    text += "\n Frequencies dumped to record   5400.2\n\n"
    for title, values in (("Normal Modes of imag. frequencies", record.frequencies[record.frequencies < 0]),
                          ("Normal Modes", record.frequencies[record.frequencies >= 0])):  # fmt: skip
        if len(values):
            text += f" {title}\n\n"
            for k in range(0, len(values), 5):
                text += " Wavenumbers [cm-1]   " + "".join(f"{abs(v):12.2f}" for v in values[k : k + 5]) + "\n"
    text += "\n Normal Modes of low/zero frequencies\n\n Wavenumbers [cm-1]            0.00        0.00\n"
    return text + f"\n RB3LYP/cc-pVDZ energy={energy:20.12f}\n\n Molpro calculation terminated\n"


def turbomole(record: LabelledGeometry, *, name: str = "hessian (projected)") -> dict[str, str]:
    """A Turbomole folder: control with the Hessian and the spectrum, coord, gradient."""
    x, g, h, energy = atomic(record)
    body = ""
    for i, row in enumerate(h, 1):
        for card, k in enumerate(range(0, len(row), 5), 1):
            body += f"{i:2d}{card:3d}" + "".join(f"{v:15.10f}" for v in row[k : k + 5]) + "\n"
    rows = "".join(
        "".join(f"{v:20.14f}" for v in row) + f"      {s.lower()}\n" for s, row in zip(symbols(record), x, strict=True)
    )
    control = "$operating system unix\n$symmetry c1\n$coord    file=coord\n$atoms\nc  1 \\\n   basis =c def2-SVP\n"
    control += (
        f"$grad    file=gradient\n$dft\n   functional b-p\n   gridsize   m3\n${name}\n{body}$vibrational spectrum\n"
    )
    control += "#  mode     symmetry     wave number   IR intensity    selection rules\n"
    values = [*([0.0] * (3 * len(x) - len(record.frequencies))), *record.frequencies]
    for i, v in enumerate(values, 1):
        control += f"{i:6d}        {'a' if v else ' '}      {v:12.2f}         0.00000        YES     YES\n"
    gradient = "$grad          cartesian gradients\n"
    gradient += f"  cycle =      1    SCF energy ={energy:20.10f}   |dE/dxyz| =  0.1\n{rows}"
    gradient += "".join("".join(f"{v:22.13E}".replace("E", "D") for v in row) + "\n" for row in g) + "$end\n"
    return {"control": control + "$end\n", "coord": f"$coord\n{rows}$user-defined bonds\n$end\n", "gradient": gradient}


def dftb(record: LabelledGeometry) -> dict[str, str]:
    """A DFTB+ folder: hessian.out, geometry, frequencies, and a second geometry that is another one."""
    h = np.asarray(record.hessian) / HARTREE_PER_BOHR2
    body = ""
    for row in h:
        body += "".join("".join(f"{v:16.10f}" for v in row[k : k + 4]) + "\n" for k in range(0, len(row), 4))
    species = list(dict.fromkeys(symbols(record)))

    def gen(shift: float) -> str:
        rows = "".join(
            f"{i:5d}{species.index(s) + 1:3d}" + "".join(f"{v:20.10E}" for v in row + shift) + "\n"
            for i, (s, row) in enumerate(zip(symbols(record), record.positions, strict=True), 1)
        )
        return f"{len(record):5d}  C\n {' '.join(species)}\n{rows}"

    rigid = np.full(len(h) - len(record.frequencies), 1e-10)
    values = np.concatenate([rigid, record.frequencies * CM_TO_EV / HARTREE])
    tag = f"frequencies         :real:1:{len(values)}\n"
    tag += "".join("".join(f"{v:24.15E}" for v in values[k : k + 3]) + "\n" for k in range(0, len(values), 3))
    return {
        "hessian.out": body,
        "geom.gen": gen(0.0),
        "start.gen": gen(0.1),
        "vibrations.tag": tag,
        "modes_in.hsd": 'Geometry = GenFormat {\n  <<< "geom.gen"\n}\n',
    }


def jaguar_in(record: LabelledGeometry, *, ifreq: int = 1) -> str:
    """Jaguar restart file with a Hessian."""
    h = np.asarray(record.hessian) / HARTREE_PER_BOHR2
    text = f"MAEFILE: a.01.mae\n&gen \nbasis=def2-svp \ndftname=b3lyp \nifreq={ifreq} \nmolchg=0\nmultip=1\n&\n&zmat\n"
    for i, (s, row) in enumerate(zip(symbols(record), record.positions, strict=True), 1):
        text += f" {s + str(i):<8s}" + "".join(f"{v:21.10f}" for v in row) + "\n"
    text += "&\n&hess\n"
    text += triangle(
        h,
        5,
        lambda columns: f"{columns[0] + 1:4d}\n",
        lambda i, columns: f"{i + 1:4d}" + "".join(f"{h[i, j]:14.6E}" for j in columns) + "\n",
    )
    return text + "&\n&valid\nversion=1.0\n&\n"


def jaguar_out(record: LabelledGeometry) -> str:
    """Jaguar output of the same job."""
    text = "  |  Jaguar version 13.3, release 113  |\n"
    text += f" SCFE: SCF energy: DFT(b3lyp) {record.energy / HARTREE:20.11f} hartrees   iterations:   8\n"
    for k in range(0, len(record.frequencies), 6):
        text += "  frequencies  " + "".join(f"{v:10.2f}" for v in record.frequencies[k : k + 6]) + "\n"
        for i, s in enumerate(symbols(record), 1):
            text += f"    {s}{i}       X     0.00000   0.00000\n"
    return text


def _abacus(record: LabelledGeometry, names: list[str]) -> str:
    h = np.asarray(record.hessian) / HARTREE_PER_BOHR2

    def head(columns) -> str:
        return "\n        " + "".join(f"{names[j // 3]:>7s} {'xyz'[j % 3]:<4s}" for j in columns) + "\n"

    def row(i: int, columns: list[int]) -> str:
        blank = "\n" if i % 3 == 0 else ""
        return f"{blank} {names[i // 3]:<4s} {'xyz'[i % 3]}" + "".join(f"{h[i, j]:12.6f}" for j in columns) + "\n"

    return triangle(h, 6, head, row)


def dalton_out(record: LabelledGeometry) -> str:
    """DALTON output of a vibrational analysis."""
    x, g, _, energy = atomic(record)
    names = symbols(record)

    def table(title: str, values: np.ndarray) -> str:
        rows = "".join(
            f" {s:<10s}" + "".join(f"{v:23.10f}" for v in row) + "\n" for s, row in zip(names, values, strict=True)
        )
        return f"\n{title:>52s}\n{'-' * 23:>52s}\n\n{rows}"

    text = "     *************** Dalton - An Electronic Structure Program ***************\n"
    text += '  Basis set used is "STO-3G" from the basis set library.\n     This is a DFT calculation of type: B3LYP\n'
    text += "@    Spin multiplicity:           1\n@    Total charge of molecule:    0\n"
    text += f"@    Final DFT energy:        {energy:20.12f}                 \n"
    text += table("Molecular geometry (au)", x) + table("Molecular gradient (au)", g)
    text += f"\n{'Molecular Hessian (au)':>52s}\n{'-' * 22:>52s}\n" + _abacus(record, names)
    text += f"\n{'Isotopic Masses':>48s}\n{'-' * 15:>48s}\n\n"
    text += "".join(f"{s:>28s}{m:20.6f}\n" for s, m in zip(names, record.masses, strict=True))
    text += "\n  Vibrational Frequencies and IR Intensities\n  ------------------------------------------\n\n"
    text += "  mode   irrep        frequency             IR intensity\n  " + "=" * 60 + "\n"
    text += "                  cm-1       hartrees     km/mol   (D/A)**2/amu\n  " + "-" * 60 + "\n"
    for i, v in enumerate(sorted(record.frequencies, reverse=True), 1):
        text += f"{i:4d}      A  {abs(v):12.2f}{' i' if v < 0 else '  '}  0.016160      0.000   0.0000\n"
    return text + "\n\n   1   C    x   0.1\n  Total wall time used in DALTON:  2 minutes\n"


def cfour(record: LabelledGeometry) -> dict[str, str]:
    """CFOUR output of a run without symmetry, and its GRD."""
    x, g, _, _ = atomic(record)
    names = [f"{s} #{i}" for i, s in enumerate(symbols(record), 1)]
    text = (
        "     * CFOUR Coupled-Cluster techniques for Computational Chemistry *\n"
        "       CFOUR Program System (Release V2.1)\n"
    )
    text += (
        "       CALCLEVEL            ICLLVL           CCSD(T)    [ 22]   ***\n"
        "       CHARGE               ICHRGE              0               ***\n"
    )
    text += (
        "       MULTIPLICTY          IMULTP              1               ***\n"
        "       BASIS                IBASIS         PVTZ         [ 14]   ***\n"
    )
    text += (
        " ----------------\n"
        " Z-matrix   Atomic            Coordinates (in bohr)\n"
        "  Symbol    Number           X              Y              Z\n"
        " ----------------\n"
    )
    for s, z, row in zip(symbols(record), record.numbers, x, strict=True):
        text += f"     {s.upper():<5s}{z:6d}" + "".join(f"{v:15.8f}" for v in row) + "\n"
    text += f" ----------------\n\n{'Molecular hessian':>45s}\n{'-' * 17:>45s}\n" + _abacus(record, names)
    text += "\n  masses used (in AMU) in vibrational analysis: \n" + "".join(f"{m:17.9f}" for m in record.masses) + "\n"
    rigid = 3 * len(x) - len(record.frequencies)
    text += "                     Normal Coordinate Analysis\n"
    text += "".join(f"      ----          {0.1 * i:11.4f}i       13.1011       ROTATION  \n" for i in range(rigid))
    text += "   Vibrational frequencies after rotational projection  of \n   Cartesian force constants: \n"
    for i, v in enumerate([*([0.0] * rigid), *record.frequencies], 1):
        text += f"{i:13d}{abs(v):20.4f}{'i' if v < 0 else ' '}\n"
    grd = f"{len(x):5d}{0.0:20.10f}\n"
    for values in (x, g):
        grd += "".join(
            f"{float(z):20.10f}" + "".join(f"{v:20.10f}" for v in row) + "\n"
            for z, row in zip(record.numbers, values, strict=True)
        )
    return {"cfour.out": text + " --executable xjoda finished with status            0\n", "GRD": grd}


def aces3_out(record: LabelledGeometry) -> str:
    """ACES III output."""
    _, _, h, energy = atomic(record)
    text = (
        " ACESIII version, 3.0.8      is run on            2  processors.\n"
        "         coordinate input (Angstroms) \n"
        " ----------\n"
    )
    text += (
        " Z-matrix   Atomic            C o o r d i n a t e s\n"
        "  Symbol    Number           X              Y              Z\n"
        " ----------\n"
    )
    for s, z, row in zip(symbols(record), record.numbers, record.positions, strict=True):
        text += f"     {s.upper():<5s}{z:6d}" + "".join(f"{v:15.8f}" for v in row) + "\n"
    text += (
        " ----------\n"
        " Using Default jobflow = SCF_RHF_HESSIAN\n"
        f" Total energy:{energy:24.15f}     \n"
        "  \n"
        "  Final Hessian data \n"
    )
    for a in range(len(record)):
        for b in range(len(record)):
            text += f"  ATOM A{a + 1:12d}  ATOM B{b + 1:12d}\n  \n"
            for row in h[3 * a : 3 * a + 3, 3 * b : 3 * b + 3]:
                text += "".join(f"{v:16.8f}" for v in row) + "\n"
    for v in record.frequencies:
        text += f"         A          {abs(v):14.4f}{'i' if v < 0 else ' '}        0.0000       VIBRATION \n"
    return text


def gamess_uk_out(record: LabelledGeometry) -> str:
    """GAMESS-UK output."""
    x, _, h, energy = atomic(record)
    names = [s.lower() for s in symbols(record)]
    text = "            * g a m e s s - u k    version  8.0 *\n * basis selected is sto     sto3g      *\n"
    text += "         *     atom   atomic                coordinates                 number of      *\n"
    for s, z, (a, b, c) in zip(names, record.numbers, x, strict=True):
        text += f"         *    {s:<8s}{float(z):5.1f}{a:12.7f}{b:15.7f}{c:15.7f}{2:8d}          *\n"
    text += " charge of molecule                       0\n state multiplicity                       1\n"
    text += f"          total energy         {energy:24.10f}\n B3LYP exchange-correlation functional selected\n"
    text += (
        "   *****************************************\n"
        "   * total cartesian 2nd derivative matrix *\n"
        "   *****************************************\n"
        "\n"
        "\n"
    )
    for c in range(0, len(h), 9):
        width = min(9, len(h) - c)
        text += " " * 29 + "".join(f"{c // 3 + k + 1:<27d}" for k in range(width // 3)) + "\n\n" + " " * 26
        text += "".join(f"{names[c // 3 + k]:<27s}" for k in range(width // 3)) + "\n\n" + " " * 21
        text += "        ".join(["x", "y", "z"] * (width // 3)) + "\n\n\n"
        for i in range(len(h)):
            label = f"{i // 3 + 1:3d}   {names[i // 3]:<10s}x" if i % 3 == 0 else " " * 16 + "xyz"[i % 3]
            text += f"{label:<17s}  " + "".join(f"{v:9.5f}" for v in h[i, c : c + width]) + "\n"
        text += "\n"
    text += " Nuclear masses: \n" + "".join(
        f"{i:3d}   {s:<14s}{s}-0  {m:12.8f}\n" for i, (s, m) in enumerate(zip(names, record.masses, strict=True), 1)
    )
    text += "\n          harmonic frequencies (cm**-1) and normalised normal coordinates\n"
    for k in range(0, len(record.frequencies), 9):
        text += " frequencies ----    " + "".join(f"{v:11.4f}" for v in record.frequencies[k : k + 9]) + "\n"
    return text


def unimovib(record: LabelledGeometry, *, packed: bool = False) -> str:
    """UniMoVib data file; masses and Hessian with ten digits."""
    x, g, h, _ = atomic(record)

    def block(name: str, values: np.ndarray) -> str:
        flat = np.asarray(values).ravel()
        rows = ["".join(f"{v:20.10E}".replace("E", "D") for v in flat[k : k + 5]) for k in range(0, len(flat), 5)]
        return name + "\n" + "\n".join(rows) + "\n"

    matrix = block("FFXLT", pack(h)) if packed else block("FFX", h)
    text = f" UniMoVib DATA FILE (THIS TITLE CAN BE MODIFIED)\nNATM\n{len(x):5d}\n" + block("AMASS", record.masses)
    return (
        text + block("ZA", record.numbers.astype(float)) + block("XYZ", x) + block("GRD", g) + matrix + "NOAPT\nNODPR\n"
    )
