"""Psi4 outputs of analytic frequency jobs with `print` of 3 or more.

`## Total Hessian (Symmetry 0) ##` is the full square in Eh/a0^2, in blocks of
five columns; the last one in the file counts, in the frame of the geometry
printed last before it. Energy and gradient are those that the file prints for
that same geometry. At the default print level, and after finite differences,
there is no Hessian in the output: then the .hess of the job has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, record_of
from nequip_hessian.formats._blocks import Layout, columns_numbered, numbered, read_blocks
from nequip_hessian.formats._psi4 import failed, first_frequencies, is_psi4, level, parts
from nequip_hessian.formats._source import Source, guarded, read_output
from nequip_hessian.record import LabelledGeometry

NAME = "psi4-out"
PATTERNS = ("*.out", "*.log", "*.dat")

_HESSIAN: Final = re.compile(r"^ *## Total Hessian \(Symmetry 0\) ## *\n *Irrep: 1 Size: (\d+) x (\d+) *$", re.M)
_LAYOUT: Final = Layout(5, "square", numbered, heading=columns_numbered)


def sniff(text: str) -> bool:
    """Say whether a file looks like a Psi4 output."""
    return is_psi4(text)


@guarded("Psi4 output")
def read_psi4_out(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the last Cartesian Hessian of a Psi4 output with its geometry.

    Args:
        path: the output file

    Yields:
        One record.

    Raises:
        NoHessianError: the job printed none.
        FormatError: the job failed, or the file is cut or damaged.
    """
    source = read_output(path)
    found = list(_HESSIAN.finditer(source.text))
    if not found:
        raise _no_hessian(source)
    last = found[-1]
    before = [part for part in parts(source) if part.start < last.start()]
    if not before:
        raise source.error("expected a geometry before the Hessian, found none", source.line_of(last.start()))
    here = before[-1]
    order = int(last.group(1))
    if order != 3 * len(here.atoms):
        raise source.error(
            f"Total Hessian: expected {3 * len(here.atoms)} rows for {len(here.atoms)} atoms, found {order}",
            source.line_of(last.start()) + 1,
        )
    matrix, _ = read_blocks(source, source.line_of(last.end()), order, "Total Hessian", _LAYOUT)
    same = [part for part in before if part.same(here)]
    energies = [value for part in same if (value := part.energy()) is not None]
    gradients = [gradient for part in same if (gradient := part.gradient()) is not None]
    yield record_of(
        source,
        NAME,
        Parsed(
            here.atoms,
            here.positions,
            matrix,
            length=here.length,
            energy=energies[-1] if energies else None,
            gradient=gradients[-1] if gradients else None,
            charge=here.charge,
            multiplicity=here.multiplicity,
            masses=here.masses,
            masses_from="file" if here.masses is not None else ISOTOPIC,
            frequencies=first_frequencies(source.text[last.end() :]),
            projected=True,
            level=level(source.text[: last.start()], analytic=True),
            line=source.line_of(last.start()),
        ),
    )


def _no_hessian(source: Source) -> Exception:
    stopped = failed(source)
    if stopped is not None:
        return stopped
    if not re.search(r"Psi4 exiting successfully|Psi4 stopped|Thermochemistry|Total ZPE", source.text, re.IGNORECASE):
        return source.error("the Psi4 job did not end, and there is no Hessian in the file")
    return source.error(
        "no Cartesian Hessian in this file: Psi4 prints it in analytic frequency jobs with print 3 only; convert the "
        ".hess file of the job (set hessian_write true; this output is read with it)",
        kind=NoHessianError,
    )
