"""Outputs that are recognised only to say clearly why nothing can be read from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Foreign:
    """A program whose file was recognised: the message, and whether the Hessian is in another of its files."""

    message: str
    elsewhere: bool = False


_UNSUPPORTED: Final = "cannot read this: looks like {} output, not supported yet"

_ELSEWHERE: Final = (
    (
        r"\* O   R   C   A \*|ORCA TERMINATED|ORCA finished by error|This ORCA versions? uses",
        "no Hessian in this file: ORCA writes it to the .hess file; convert that (this output is read with it)",
        "ORCA TERMINATED NORMALLY",
    ),
    (
        r"\* xtb version ",
        "no Hessian in this file: xtb writes it to the file hessian; convert that (this output is read with it)",
        "* finished run on",
    ),
)

_PROGRAMS: Final = (
    ("NWChem", r"Northwest Computational Chemistry Package|^ *NWChem Nuclear Hessian"),
    ("CFOUR", r"CFOUR|Coupled-Cluster techniques for Computational Chemistry"),
    ("ACES", r"\bACES ?(?:II|III|2|3)\b"),
    ("GAMESS-UK", r"GAMESS-UK|g a m e s s - u k"),
    ("Firefly", r"Firefly (?:Project|version)|Firefly \(formerly|PC GAMESS version"),
    ("GAMESS", r"GAMESS VERSION|^ \$HESS|^ *\$VEC|^ \$DATA"),
    ("Molpro", r"PROGRAM SYSTEM MOLPRO|\*\*\*  *PROGRAM SYSTEM MOLPRO|Molpro "),
    ("DALTON", r"Dalton - An Electronic Structure Program|DALTON|This is output from DALTON"),
    ("Jaguar", r"^&gen|^ *Jaguar version|Schrodinger, Inc"),
    ("Turbomole", r"^\$hessian \(projected\)|^\$operating system|TURBOMOLE|^\$symmetry"),
    ("MOPAC", r"\bMOPAC\d*\b"),
    ("Psi4", r"Psi4: An Open-Source|PSI4: An Open-Source|PSI4: |Psi4 "),
    ("CP2K", r"CP2K\||PROGRAM STARTED AT.*\n.*PROGRAM STARTED ON|VIB\|"),
    ("TeraChem", r"TeraChem"),
    ("VASP", r"\bvasp\.\d|VRHFIN"),
    ("DFTB+", r"DFTB\+"),
)


def foreign_program(text: str) -> Foreign | None:
    """Recognise a program whose Hessian is not read from this kind of file.

    Args:
        text: the whole text of the file

    Returns:
        What to say of it, or None where no such program is recognised.
    """
    head = text[:20000]
    for pattern, message, end in _ELSEWHERE:
        if re.search(pattern, text, re.MULTILINE):
            failed = "" if end in text else "the job did not end normally, and there is "
            return Foreign(failed + message, elsewhere=True)
    for name, pattern in _PROGRAMS:
        if re.search(pattern, head, re.MULTILINE):
            return Foreign(_UNSUPPORTED.format(name))
    if re.fullmatch(r"[\s\dEDed.+-]+", head):
        return Foreign(_UNSUPPORTED.format("bare matrix (DFTB+ hessian.out, NWChem .hess or Psi4 file 15)"))
    return None
