"""Writers of the documented layouts of programs that are not free: real numbers, layout by us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import chemical_symbols
from molecules import GFN2, xtb, xtb_hessian

from nequip_hessian.curvature import normal_modes, pack, symmetrise
from nequip_hessian.formats._atoms import average_masses, isotopic_masses
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2

_ROUTE = "#p mp2/6-31g(d) freq scrf=(smd,solvent=water)"


def made(name: str = "H2CO", *, rattle: float = 0.05, average: bool = False, seed: int = 1) -> LabelledGeometry:
    """A GFN2-xTB record off its minimum, with the frequencies that follow from it."""
    atoms: Atoms = molecule(name)
    atoms.rattle(rattle, seed=seed)
    energy, forces = xtb(atoms)
    hessian = symmetrise(xtb_hessian(atoms))[0]
    masses = (average_masses if average else isotopic_masses)(atoms.numbers)
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        energy=energy,
        forces=forces,
        hessian=hessian,
        charge=0,
        multiplicity=1,
        masses=masses,
        frequencies=normal_modes(hessian, atoms.positions, masses)[0],
        level=GFN2,
    )


def _symbols(record: LabelledGeometry) -> list[str]:
    return [chemical_symbols[int(z)] for z in record.numbers]


def _section(label: str, values, kind: str = "R") -> str:
    values = np.asarray(values).ravel()
    width, form = (5, "{:16.8E}") if kind == "R" else (6, "{:12d}")
    rows = [values[i : i + width] for i in range(0, len(values), width)]
    head = f"{label:<40s}   {kind}   N={len(values):12d}\n"
    return head + "".join("".join(form.format(v) for v in row) + "\n" for row in rows)


def fchk(record: LabelledGeometry, *, positions=None) -> str:
    """A formatted checkpoint; `positions` replaces the geometry, as after further steps of an IRC."""
    n = len(record)
    there = record.positions if positions is None else positions
    text = f"{'Title of the job':<72s}\n{'Freq':<10s}{'RB3LYP':<30s}{'6-31G(d)':<30s}\n"
    text += f"{'Number of atoms':<40s}   I     {n:12d}\n"
    text += f"{'Charge':<40s}   I     {record.charge:12d}\n{'Multiplicity':<40s}   I     {record.multiplicity:12d}\n"
    text += _section("Atomic numbers", record.numbers.astype(int), "I")
    text += _section("Current cartesian coordinates", there / BOHR)
    text += _section("Real atomic weights", record.masses)
    text += f"{'SCF Energy':<40s}   R     {record.energy / HARTREE:22.15E}\n"
    text += f"{'Total Energy':<40s}   R     {record.energy / HARTREE:22.15E}\n"
    text += _section("Internal Force Constants", np.ones(10))
    text += _section("Cartesian Gradient", -record.forces / HARTREE_PER_BOHR)
    text += _section("Cartesian Force Constants", pack(record.hessian) / HARTREE_PER_BOHR2)
    text += f"{'Number of Normal Modes':<40s}   I     {len(record.frequencies):12d}\n"
    text += _section("Vib-AtMass", record.masses)
    text += _section("Vib-E2", np.concatenate([record.frequencies, np.ones(13 * len(record.frequencies))]))
    return text


def gaussian_log(
    record: LabelledGeometry,
    *,
    separator: str = "\\",
    user: str = "ANNA",
    positions=None,
    before: str = "",
    **more: str,
) -> str:
    """A Gaussian output: the parts that are read, an earlier optimisation block, then the frequency job."""
    text = " Entering Gaussian System, Link 0=g16\n" + " *" + "*" * 44 + "\n"
    text += " Gaussian 16:  ES64L-G16RevC.01  3-Jul-2019\n Gaussian 16, Revision C.01,\n" + before
    frequencies = record.frequencies
    text += " Harmonic frequencies (cm**-1), IR intensities (KM/Mole), Raman scattering\n"
    for i in range(0, len(frequencies), 3):
        text += " Frequencies -- " + "".join(f"{v:23.4f}" for v in frequencies[i : i + 3]) + "\n"
    for i, (z, mass) in enumerate(zip(record.numbers, record.masses, strict=True), 1):
        text += f" Atom {i:5d} has atomic number {z:2d} and mass {mass:9.5f}\n"
    return (
        text
        + archive(record, separator=separator, user=user, positions=positions, **more)
        + "\n\n Normal termination of Gaussian 16\n"
    )


def archive(
    record: LabelledGeometry,
    *,
    separator: str = "\\",
    user: str = "ANNA",
    positions=None,
    method: str = "RMP2-FC",
    route: str = _ROUTE,
) -> str:
    """The archive block, wrapped as Gaussian wraps it."""
    s = separator
    there = record.positions if positions is None else positions
    geometry = s.join(f"{e},{x:.10f},{y:.10f},{z:.10f}" for e, (x, y, z) in zip(_symbols(record), there, strict=True))
    hessian = ",".join(f"{v:.8f}" for v in pack(record.hessian) / HARTREE_PER_BOHR2)
    gradient = ",".join(f"{v:.8f}" for v in (-record.forces / HARTREE_PER_BOHR).ravel())
    energy = f"HF={record.energy / HARTREE + 0.3:.7f}{s}MP2={record.energy / HARTREE:.7f}"
    if record.dipole_derivatives is not None:
        energy += f"{s}DipoleDeriv=" + ",".join(f"{v:.7f}" for v in record.dipole_derivatives.ravel())
    text = (
        f"1{s}1{s}GINC-NODE7{s}Freq{s}{method}{s}6-31G(d){s}{record.formula}{s}{user}{s}03-Jul-2019{s}0{s}{s}"
        f"{route}{s}{s}A title{s}{s}{record.charge},{record.multiplicity}{s}"
        f"{geometry}{s}{s}Version=ES64L-G16RevC.01{s}{energy}{s}RMSD=0.0{s}NImag=0{s}{s}{hessian}{s}{s}{gradient}{s}{s}{s}@"
    )
    return "\n" + "\n".join(" " + text[i : i + 70] for i in range(0, len(text), 70)) + "\n"


def _blocks(matrix: np.ndarray, width: int, form: str, first: int) -> str:
    text = ""
    for c in range(0, len(matrix), width):
        columns = range(c, min(c + width, len(matrix)))
        text += "      " + "".join(f"{j + first:19d}" for j in columns) + "\n"
        for i, row in enumerate(matrix):
            text += f"{i + first:5d}" + "".join(form.format(row[j]) for j in columns) + "\n"
    return text


def orca_hess(record: LabelledGeometry, *, asymmetry: float = 0.0, scale: float = 1.0) -> str:
    """An ORCA .hess file; `asymmetry` (Eh/a0^2) is added to one triangle and taken from the other."""
    matrix = record.hessian / HARTREE_PER_BOHR2
    rng = np.random.default_rng(0)
    upper = np.triu(rng.uniform(-asymmetry, asymmetry, matrix.shape), 1)
    n = len(record)
    rigid = 3 * n - len(record.frequencies)
    text = "\n$orca_hessian_file\n\n$act_atom\n  0\n\n$act_energy\n        0.000000\n\n"
    text += f"$hessian\n{3 * n}\n" + _blocks(matrix + upper - upper.T, 5, "{:19.10E}", 0)
    text += f"\n$vibrational_frequencies\n{3 * n}\n"
    values = [*([0.0] * rigid), *(record.frequencies * scale)]
    text += "".join(f"{i:5d}  {v:14.6f}\n" for i, v in enumerate(values))
    text += f"\n$atoms\n{n}\n"
    for symbol, mass, (x, y, z) in zip(_symbols(record), record.masses, record.positions / BOHR, strict=True):
        text += f" {symbol:<2s} {mass:12.5f} {x:19.12f} {y:19.12f} {z:19.12f}\n"
    return text + f"\n$actual_temperature\n  0.000000\n\n$frequency_scale_factor\n  {scale:.6f}\n\n$end\n"


def orca_out(record: LabelledGeometry) -> str:
    """The parts of an ORCA output that go with a .hess file; a displaced geometry and its energy come last."""

    def geometry(shift: float) -> str:
        rows = [
            f"  {s:<2s} {x:12.6f} {y:12.6f} {z:12.6f}\n"
            for s, (x, y, z) in zip(_symbols(record), record.positions + shift, strict=True)
        ]
        return "-" * 33 + "\nCARTESIAN COORDINATES (ANGSTROEM)\n" + "-" * 33 + "\n" + "".join(rows) + "\n"

    gradient = -record.forces / HARTREE_PER_BOHR
    rows = [
        f"{i:4d}   {s:<2s}  : {x:14.9f} {y:14.9f} {z:14.9f}\n"
        for i, (s, (x, y, z)) in enumerate(zip(_symbols(record), gradient, strict=True), 1)
    ]
    return (
        "                                 * O   R   C   A *\n"
        "                         Program Version 5.0.4 -  RELEASE  -\n"
        "|  1> ! B3LYP def2-SVP def2/J D3BJ TightSCF NumFreq CPCM(water)\n"
        " Total Charge           Charge          ....    0\n Multiplicity           Mult            ....    1\n"
        + geometry(0.0)
        + f"FINAL SINGLE POINT ENERGY {record.energy / HARTREE:22.12f}\n"
        + "------------------\nCARTESIAN GRADIENT\n------------------\n\n"
        + "".join(rows)
        + "\n"
        + geometry(0.01)
        + f"FINAL SINGLE POINT ENERGY {record.energy / HARTREE + 0.1:22.12f}\n"
        + "                             ****ORCA TERMINATED NORMALLY****\n"
    )


def orca_engrad(record: LabelledGeometry) -> str:
    """An ORCA .engrad file."""
    gradient = (-record.forces / HARTREE_PER_BOHR).ravel()
    text = f"#\n# Number of atoms\n#\n {len(record)}\n#\n# The current total energy in Eh\n#\n"
    text += f"{record.energy / HARTREE:22.12f}\n#\n# The current gradient in Eh/bohr\n#\n"
    text += "".join(f"{v:21.12f}\n" for v in gradient) + "#\n# The atomic numbers and current coordinates in Bohr\n#\n"
    for z, (x, y, w) in zip(record.numbers, record.positions / BOHR, strict=True):
        text += f"{z:4d} {x:14.7f} {y:14.7f} {w:14.7f}\n"
    return text


def qchem_out(record: LabelledGeometry, *, numerical: bool = False, unit: str = "Angstroms") -> str:
    """A Q-Chem output; a numerical job prints a displaced geometry before and the true one behind its Hessian."""
    factor = 1.0 if unit == "Angstroms" else 1 / BOHR

    def geometry(shift: float) -> str:
        rule = " " + "-" * 64 + "\n"
        rows = [
            f"{i:5d}      {s:<2s} {x:16.10f} {y:18.10f} {z:18.10f}\n"
            for i, (s, (x, y, z)) in enumerate(
                zip(_symbols(record), (record.positions + shift) * factor, strict=True), 1
            )
        ]
        return (
            f"{rule}             Standard Nuclear Orientation ({unit})\n"
            f"    I     Atom           X                Y                Z\n{rule}{''.join(rows)}{rule}"
        )

    title = "Final Hessian." if numerical else "Hessian of the SCF Energy"
    body = ""
    matrix = record.hessian / HARTREE_PER_BOHR2
    for c in range(0, len(matrix), 6):
        columns = range(c, min(c + 6, len(matrix)))
        body += "     " + "".join(f"{j + 1:12d}" for j in columns) + "\n"
        body += "".join(
            f"{i + 1:5d}" + "".join(f"{row[j]:12.7f}" for j in columns) + "\n" for i, row in enumerate(matrix)
        )
    text = (
        "                  Welcome to Q-Chem\n Q-Chem 5.4, Q-Chem, Inc., Pleasanton, CA (2021)\n"
        " Q-Chem 5.4.1 for Intel X86 EM64T Linux\n$molecule\n0 1\n$end\n\n$rem\n METHOD  b3lyp\n BASIS   6-31g*\n$end\n"
        + geometry(0.0)
        + f" Total energy in the final basis set = {record.energy / HARTREE:18.10f}\n"
        + (geometry(0.001) if numerical else "")
        + f" {title}\n{body}"
        + (geometry(0.0) if numerical else "")
        + " **                       VIBRATIONAL ANALYSIS                       **\n"
    )
    for i in range(0, len(record.frequencies), 3):
        text += " Frequency: " + "".join(f"{v:16.2f}" for v in record.frequencies[i : i + 3]) + "\n"
    for i, (s, mass) in enumerate(zip(_symbols(record), record.masses, strict=True), 1):
        text += f"   Atom {i:4d} Element {s:<2s} Has Mass {mass:10.5f}\n"
    return text + "        *  Thank you very much for using Q-Chem.  Have a nice day.  *\n"


def write(path: Path, text: str, *, newline: str = "\n", encoding: str = "utf-8") -> Path:
    """Write text with given line ends and encoding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", newline).encode(encoding))
    return path
