"""Writers of the layouts of VASP: real numbers (EMT), layout by us."""

from __future__ import annotations

import functools

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.data import atomic_masses, chemical_symbols

from nequip_hessian.curvature import signed_wavenumbers
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import WAVENUMBER

STEP = 0.01
THZ = WAVENUMBER * 2.99792458e-2


@functools.cache
def alloy(free: tuple[int, ...] | None = None) -> LabelledGeometry:
    """Four atoms Cu2 Au Al, rattled, periodic; with `free` only those are in the Hessian. Masses to 3 decimals."""
    atoms = bulk("Cu", cubic=True, a=3.9)
    atoms.symbols = ["Cu", "Cu", "Au", "Al"]
    atoms.rattle(0.05, seed=3)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    active = list(range(4)) if free is None else list(free)
    rows = []
    for i in active:
        for axis in range(3):
            pair = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.calc = EMT()
                moved.positions[i, axis] += sign * STEP
                pair.append(moved.get_forces()[active].ravel())
            rows.append((pair[1] - pair[0]) / (2 * STEP))
    masses = np.round(atomic_masses[atoms.numbers], 3)
    root = np.sqrt(np.repeat(masses[active], 3))
    hessian = np.array(rows)
    values = signed_wavenumbers(np.linalg.eigvalsh((hessian + hessian.T) / 2 / np.outer(root, root)))
    return LabelledGeometry(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        pbc=True,
        energy=energy,
        forces=forces,
        hessian=hessian,
        active=None if free is None else free,
        masses=masses,
        frequencies=values,
    )


def _free(record: LabelledGeometry) -> list[int]:
    return list(range(len(record))) if record.active is None else record.active.tolist()


def outcar(record: LabelledGeometry, *, axes: str = "XYZ") -> str:
    """An OUTCAR of a job with IBRION = 5; a displaced step follows the undisplaced one."""
    numbers = list(dict.fromkeys(record.numbers.tolist()))
    counts = [int(np.sum(record.numbers == z)) for z in numbers]
    text = " vasp.6.3.2 27Jun22 (build Jul 04 2022) complex\n executed on             LinuxIFC date 2023.01.01\n"
    for z in numbers:
        text += f"   VRHFIN ={chemical_symbols[z]}: d10 p1\n   TITEL  = PAW_PBE {chemical_symbols[z]} 22Jun2005\n"
        mass = record.masses[record.numbers.tolist().index(z)]
        text += f"   POMASS = {mass:8.3f}; ZVAL   =   11.000    mass and valenz\n"
    text += f"   number of dos      NEDOS =    301   number of ions     NIONS = {len(record):6d}\n"
    text += "   ions per type =       " + "".join(f"{n:6d}" for n in counts) + "\n"
    text += (
        "   IBRION =      5    ionic relax: 0-MD 1-quasi-New 2-CG\n   POTIM  = 0.0100    time-step for ionic-motion\n"
    )
    text += "   POMASS =  63.55196.97 26.98\n   GGA     =    PE    GGA type\n"
    text += "      direct lattice vectors                 reciprocal lattice vectors\n"
    for row, back in zip(record.cell, np.linalg.inv(record.cell).T, strict=True):
        text += "".join(f"{v:13.9f}" for v in (*row, *back)) + "\n"
    text += "\n position of ions in cartesian coordinates  (Angst):\n"
    text += "".join("".join(f"{v:12.8f}" for v in row) + "\n" for row in record.positions)
    for shift in (0.0, 0.01):
        text += "\n free energy    TOTEN  =       999.99999999 eV\n"
        text += " POSITION                                       TOTAL-FORCE (eV/Angst)\n " + "-" * 83 + "\n"
        for row, force in zip(record.positions + shift, record.forces + shift, strict=True):
            text += "".join(f"{v:13.5f}" for v in row) + "   " + "".join(f"{v:14.6f}" for v in force) + "\n"
        text += " " + "-" * 83 + "\n  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
        text += f"  free  energy   TOTEN  = {record.energy + shift:18.8f} eV\n"
    names = [f"{i + 1}{axis}" for i in _free(record) for axis in axes]
    matrix = np.asarray(record.hessian)[: len(names), : len(names)]
    text += "\n SECOND DERIVATIVES (NOT SYMMETRIZED)\n ------------------------------------\n"
    text += "      " + "".join(f"{name:>12s}" for name in names) + "\n"
    for name, row in zip(names, matrix, strict=True):
        text += f" {name:<5s}" + "".join(f"{-v:12.6f}" for v in row) + "\n"
    text += " \n Eigenvectors and eigenvalues of the dynamical matrix\n"
    for i, v in enumerate(sorted(record.frequencies, reverse=True), 1):
        mark = "f  =" if v >= 0 else "f/i="
        thz = abs(v) * 2.99792458e-2
        text += f"{i:4d} {mark} {thz:11.6f} THz {thz * 6.28:12.6f} 2PiTHz {abs(v):11.6f} cm-1 {1.0:12.6f} meV\n"
    return text + " General timing and accounting informations for this job:\n"


def vasprun(record: LabelledGeometry, *, thz: bool = True, dynmat: bool = True) -> str:
    """A vasprun.xml; the Hessian mass-weighted with the sign reversed, since version 6 in THz^2."""

    def rows(values: np.ndarray, form: str = "{:16.8f}") -> str:
        return "".join("   <v>" + "".join(form.format(v) for v in row) + " </v>\n" for row in values)

    factor = THZ**2 if thz else 1.0
    free = _free(record)
    root = np.sqrt(np.repeat(record.masses[free], 3))
    weighted = -np.asarray(record.hessian) / np.outer(root, root) * factor
    fractions = record.positions @ np.linalg.inv(record.cell)
    numbers = list(dict.fromkeys(record.numbers.tolist()))
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n <generator>\n'
    text += (
        '  <i name="version" type="string">6.3.2  </i>\n </generator>\n <incar>\n  <i type="string" name="GGA">PE</i>\n'
    )
    text += '  <i type="int" name="IBRION">     5</i>\n  <i name="POTIM">      0.01000000</i>\n </incar>\n'
    text += ' <atominfo>\n  <array name="atoms" >\n   <set>\n'
    for z in record.numbers.tolist():
        text += f"    <rc><c>{chemical_symbols[z]:<2s}</c><c>{numbers.index(z) + 1:4d}</c></rc>\n"
    text += '   </set>\n  </array>\n  <array name="atomtypes" >\n   <set>\n'
    for z in numbers:
        mass = record.masses[record.numbers.tolist().index(z)]
        text += (
            f"    <rc><c>   1</c><c>{chemical_symbols[z]}</c><c>{mass:17.8f}</c><c>1.0</c><c>  PAW_PBE Cu </c></rc>\n"
        )
    text += '   </set>\n  </array>\n </atominfo>\n <structure name="initialpos" >\n  <crystal>\n'
    text += f'   <varray name="basis" >\n{rows(record.cell)}   </varray>\n'
    back = np.linalg.inv(record.cell).T
    text += f'   <varray name="rec_basis" >\n{rows(back)}   </varray>\n  </crystal>\n'
    positions = f'  <varray name="positions" >\n{rows(fractions, "{:20.14f}")}  </varray>\n'
    text += positions
    if record.active is not None:
        flags = "".join(
            f'   <v type="logical" >{" T" * 3 if i in free else " F" * 3} </v>\n' for i in range(len(record))
        )
        text += f'  <varray name="selective" >\n{flags}  </varray>\n'
    text += f" </structure>\n <calculation>\n  <structure>\n{positions}  </structure>\n"
    text += f'  <varray name="forces" >\n{rows(record.forces)}  </varray>\n'
    text += f'  <energy>\n   <i name="e_fr_energy">{record.energy:17.8f} </i>\n  </energy>\n </calculation>\n'
    if dynmat:
        text += " <dynmat>\n" + ('  <i type="string" name="unit">THz^2</i>\n' if thz else "")
        text += f'  <varray name="hessian" >\n{rows(weighted, "{:18.10f}")}  </varray>\n'
        values = np.linalg.eigvalsh((weighted + weighted.T) / 2)
        text += '  <v name="eigenvalues">' + "".join(f"{v:18.10f}" for v in values) + "</v>\n </dynmat>\n"
    return text + "</modeling>\n"
