"""Psi4's Hessian file (.hess, or file 15), with geometry and labels from the output beside it.

The first line holds the number of atoms and three or six times that number;
then comes the full square in Eh/a0^2, three numbers a line. The geometry is in
the output only. A job of finite differences prints many: the undisplaced one is
that whose energy the thermochemistry names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from nequip_hessian.formats._assemble import ISOTOPIC, Parsed, record_of, sources_beside
from nequip_hessian.formats._psi4 import Part, first_frequencies, is_psi4, level, parts
from nequip_hessian.formats._source import Source, guarded, numbers, read_source, require_line_end
from nequip_hessian.record import LabelledGeometry

NAME = "psi4-hess"
PATTERNS = ("*.hess", "*.15", "file15*", "fcmfinal")

_HEAD: Final = re.compile(r"\s*(\d+)\s+(\d+)\s*\n\s*(-?\d+\.\d+)\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s*\n")
_HESSIAN_JOB: Final = re.compile(r"hessian\(\) will perform|Using finite-differences of", re.IGNORECASE)
_ENERGY: Final = re.compile(r"^ *Total E0, Electronic energy.*?(-?\d+\.\d+) \[Eh\]", re.M)


def sniff(text: str) -> bool:
    """Say whether a file looks like Psi4's Hessian file: N and 3N or 6N, then three numbers a line."""
    head = _HEAD.match(text[:400])
    return head is not None and int(head.group(2)) in (3 * int(head.group(1)), 6 * int(head.group(1)))


@guarded("Psi4 .hess")
def read_psi4_hess(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read a Psi4 Hessian file with the output of its job.

    Args:
        path: the file; the output is looked for in its folder

    Yields:
        One record.

    Raises:
        FormatError: cut or damaged, or no output of a job on as many atoms is beside it, or several are.
    """
    source = read_source(path)
    if not sniff(source.text):
        raise source.error("expected a Psi4 Hessian file: number of atoms and 3 or 6 times it, then 3 numbers a line")
    require_line_end(source)
    n = int(source.lines[0].split()[0])
    body = source.text.partition("\n")[2]
    values = numbers(body, source, 2, 9 * n * n, "Hessian")
    output, candidates = _output(source, n)
    here, frequencies = _undisplaced(output, candidates)
    gradients = _gradients(output, here)
    yield record_of(
        source,
        NAME,
        Parsed(
            here.atoms,
            here.positions,
            values.reshape(3 * n, 3 * n),
            length=here.length,
            energy=here.energy(),
            gradient=gradients[-1] if gradients else None,
            charge=here.charge,
            multiplicity=here.multiplicity,
            masses=here.masses,
            masses_from="file" if here.masses is not None else ISOTOPIC,
            frequencies=frequencies,
            projected=True,
            level=level(output.text, analytic=all(part.same(here) for part in candidates)),
            companions=(output,),
        ),
    )


def _gradients(output: Source, here: Part) -> list[np.ndarray]:
    """Gradients of the same geometry at the same energy: those of another method belong to another surface."""
    wanted, energy, found = here.energy(), None, []
    for part in parts(output):
        energy = part.energy() if part.energy() is not None else energy  # Psi4 repeats the geometry before a gradient
        gradient = part.gradient()
        if gradient is None or energy is None or wanted is None:
            continue
        if part.same(here) and abs(energy - wanted) < 1e-7:
            found.append(gradient)
    return found


def _output(source: Source, n: int) -> tuple[Source, list[Part]]:
    """Find the output of the job: it has a vibrational analysis of as many atoms."""
    fitting = []
    for output in sources_beside(source.path, (".out", ".log", ".dat")):
        if not is_psi4(output.text):
            continue
        found = [part for part in parts(output) if len(part.atoms) == n]
        jobs = list(_HESSIAN_JOB.finditer(output.text))
        found = [part for part in found if not jobs or part.start > jobs[-1].start()] or found
        if found and _ENERGY.search(output.text):
            fitting.append((output, found))
    named = [pair for pair in fitting if source.path.name.startswith(pair[0].path.stem + ".")] or fitting
    if len(named) == 1:
        return named[0]
    found_names = ", ".join(output.path.name for output, _ in named) or "none"
    raise source.error(
        f"the file holds no geometry: expected the Psi4 output of the frequency job on {n} atoms beside it, found "
        f"{found_names}; put that one there, as {source.path.stem.split('.')[0]}.out"
    )


def _undisplaced(output: Source, candidates: list[Part]) -> tuple[Part, np.ndarray | None]:
    energy = _ENERGY.findall(output.text)[-1]
    decimals = len(energy.partition(".")[2])
    fitting = []
    for part in candidates:
        value = part.energy()
        if value is not None and abs(value - float(energy)) < 1.01 * 10.0**-decimals:
            fitting.append(part)
    if not fitting:
        raise output.error(f"expected a geometry of energy {energy} Eh, that of the thermochemistry; found none")
    mean = np.mean([part.positions for part in candidates], axis=0)
    here = min(fitting, key=lambda part: float(np.max(np.abs(part.positions - mean))))
    begin = max(
        output.text.rfind(title) for title in ("Harmonic Vibrational Analysis", "Irrep      Harmonic Frequency")
    )
    return here, first_frequencies(output.text[max(begin, 0) :])
