"""VASP's vasprun.xml of jobs of finite differences or linear response (IBRION 5 to 8).

The array `hessian` of `dynmat` is the matrix of force derivatives divided by
sqrt(m_i m_j): of the opposite sign of a Hessian, in eV/(angstrom^2 u), since
version 6 in THz^2, over the free ions only. Masses are those of the POTCAR.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._source import Source, guarded, numbers, provenance, read_source
from nequip_hessian.formats.vasp_outcar import BORN, OTHER_FIRST_STEP, UNITS, require_reciprocal, same_place
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import WAVENUMBER

NAME = "vasprun"
PATTERNS = ("vasprun.xml", "vasprun*.xml", "*vasprun.xml", "vasprun.xml.*")

FloatArray = npt.NDArray[np.float64]
_THZ: Final = WAVENUMBER * 2.99792458e-2  # sqrt(eV/angstrom^2/u) -> THz
_UNITS: Final = {"": 1.0, "THz^2": 1 / _THZ**2}


def sniff(text: str) -> bool:
    """Say whether a file looks like a vasprun.xml."""
    return "<modeling>" in text[:2000]


@guarded("vasprun.xml")
def read_vasprun(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the second derivatives of a vasprun.xml, with the sign of a Hessian and without mass weights.

    Args:
        path: the file

    Yields:
        One periodic record; with ions held fixed, a partial Hessian and the indices of the free ones.

    Raises:
        NoHessianError: there are none in the file.
        FormatError: cut or damaged, or ions that are free in some directions only.
    """
    source = read_source(path)
    root = _parse(source)
    dynmat, array, unit = _second_derivatives(source, root)
    atoms, masses = _ions(source, root)
    cell, positions, free = _geometry(source, root, len(atoms))
    weighted = _rows(source, array, (3 * len(free), 3 * len(free)), "dynmat")
    root_mass = np.sqrt(np.repeat(masses[free], 3))
    values = dynmat.find("v[@name='eigenvalues']")
    eigenvalues = None if values is None else numbers(values.text or "", source, 1, 3 * len(free), "eigenvalues")
    energy, forces = _first_step(source, root, positions, cell)
    missing = {name for name, value in (("energy", energy), ("forces", forces)) if value is None}
    conversions = {name: pair for name, pair in UNITS.items() if name not in missing}
    born = _born(source, root, len(atoms))
    if born is not None:
        conversions |= BORN
    conversions["hessian"] = (f"-{unit or 'eV/(angstrom^2 u)'} x sqrt(m_i m_j)", -_UNITS[unit])
    hessian = -weighted * np.outer(root_mass, root_mass) * _UNITS[unit]
    yield LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions,
        cell=cell,
        pbc=True,
        energy=energy,
        forces=forces,
        hessian=hessian,
        active=None if len(free) == len(atoms) else free.astype(np.int32),
        masses=masses,
        born_charges=born,
        frequencies=None if eigenvalues is None else np.sort(_wavenumbers(-eigenvalues * _UNITS[unit])),
        frequencies_projected=None if eigenvalues is None else False,
        label=source.path.resolve().parent.name or None,
        level=_level(root),
        provenance=provenance(
            source,
            NAME,
            conversions,
            hessian=hessian,
            warnings=[] if forces is not None else [OTHER_FIRST_STEP],
            masses_from="file",
        ),
    )


def _second_derivatives(
    source: Source, root: ElementTree.Element
) -> tuple[ElementTree.Element, ElementTree.Element, str]:
    """The last block of second derivatives, its matrix, and its unit."""
    found = list(root.iter("dynmat"))
    array = None if not found else found[-1].find("varray[@name='hessian']")
    if array is None:
        raise source.error(
            "no Hessian in this file: there is no dynmat in it; VASP writes second derivatives in jobs with IBRION "
            "5, 6, 7 or 8 only",
            kind=NoHessianError,
        )
    unit = (found[-1].findtext("i[@name='unit']") or "").strip()
    if unit not in _UNITS:
        raise source.error(f"dynmat: expected no unit or THz^2, found {unit!r}")
    return found[-1], array, unit


def _parse(source: Source) -> ElementTree.Element:
    if re.search(r"<!(?:DOCTYPE|ENTITY)", source.text):
        raise source.error("expected a vasprun.xml without document type; entities are not expanded")
    try:
        return ElementTree.fromstring(source.text)
    except ElementTree.ParseError as exc:
        raise source.error(f"no well-formed XML ({exc}); the job did not end, or the file is cut") from exc


def _rows(source: Source, element: ElementTree.Element | None, shape: tuple[int, int], what: str) -> FloatArray:
    rows = [] if element is None else [numbers(v.text or "", source, 1, shape[1], what) for v in element.findall("v")]
    if len(rows) != shape[0]:
        raise source.error(f"{what}: expected {shape[0]} rows, found {len(rows)}; the file is damaged")
    return np.array(rows)


def _ions(source: Source, root: ElementTree.Element) -> tuple[npt.NDArray[np.int_], FloatArray]:
    names = root.findall("atominfo/array[@name='atoms']/set/rc")
    types = root.findall("atominfo/array[@name='atomtypes']/set/rc")
    kinds = [(c[1].text or "", float(c[2].text or "nan")) for c in (rc.findall("c") for rc in types)]
    entries = [rc.findall("c") for rc in names]
    index = [int(entry[1].text or "0") - 1 for entry in entries]
    if not index or min(index) < 0 or max(index) >= len(kinds):
        raise source.error("atominfo: expected elements and types of the ions; the file is damaged")
    return np.array([atomic_number(kinds[i][0]) for i in index]), np.array([kinds[i][1] for i in index])


def _geometry(source: Source, root: ElementTree.Element, n: int) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int_]]:
    structure = root.find("structure[@name='initialpos']")
    if structure is None:
        raise source.error("expected the structure 'initialpos', found none; the file is damaged")
    cell = _rows(source, structure.find("crystal/varray[@name='basis']"), (3, 3), "basis")
    reciprocal = structure.find("crystal/varray[@name='rec_basis']")
    if reciprocal is not None:
        require_reciprocal(source, cell, _rows(source, reciprocal, (3, 3), "rec_basis"))
    fractions = _rows(source, structure.find("varray[@name='positions']"), (n, 3), "positions")
    flags = [(v.text or "").split() for v in structure.findall("varray[@name='selective']/v")]
    if flags and (len(flags) != n or any(row not in (["T"] * 3, ["F"] * 3) for row in flags)):
        raise source.error(
            "selective: an ion that is free in some directions only cannot be stored; only whole ions can be held fixed"
        )
    free = np.flatnonzero([row[0] == "T" for row in flags]) if flags else np.arange(n)
    return cell, fractions @ cell, free


def _first_step(
    source: Source, root: ElementTree.Element, positions: FloatArray, cell: FloatArray
) -> tuple[float | None, FloatArray | None]:
    """Free energy and forces of the first ionic step, where it is that of the initial positions."""
    step = root.find("calculation")
    there = None if step is None else step.find("structure/varray[@name='positions']")
    table = None if step is None else step.find("varray[@name='forces']")
    if step is None or there is None or table is None:
        return None, None
    if not same_place(_rows(source, there, positions.shape, "positions") @ cell, positions, cell, 1e-6):
        return None, None
    energy = step.findtext("energy/i[@name='e_fr_energy']")
    return (None if energy is None else float(energy)), _rows(source, table, positions.shape, "forces")


def _born(source: Source, root: ElementTree.Element, n: int) -> FloatArray | None:
    """Return the last Born effective charges, (N, 3, 3), e, rows the field; None where there are none."""
    found = root.findall("calculation/array[@name='born_charges']")
    if not found:
        return None
    sets = found[-1].findall("set")
    if len(sets) != n:
        raise source.error(f"born_charges: expected those of {n} ions, found {len(sets)}; the file is damaged")
    return np.array([_rows(source, one, (3, 3), "born_charges") for one in sets])


def _wavenumbers(eigenvalues: FloatArray) -> FloatArray:
    return np.asarray(np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * WAVENUMBER, dtype=np.float64)


def _level(root: ElementTree.Element) -> LevelOfTheory:
    def text(path: str) -> str:
        return (root.findtext(path) or "").strip()

    known = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "91": "PW91", "CA": "LDA"}
    asked = text("incar/i[@name='GGA']")
    first = root.findall("atominfo/array[@name='atomtypes']/set/rc/c")
    potential = (first[4].text or "").split() if len(first) > 4 else []
    method = known.get(asked.upper(), asked) or (potential[0].removeprefix("PAW_") if potential else "unknown")
    ibrion, step = text("incar/i[@name='IBRION']"), text("incar/i[@name='POTIM']")
    return LevelOfTheory(
        method=method or "unknown",
        program="VASP",
        program_version=text("generator/i[@name='version']") or None,
        hessian="finite_difference" if ibrion in ("5", "6") else "analytic" if ibrion in ("7", "8") else None,
        displacement=float(step) if step and ibrion in ("5", "6") else None,
    )
