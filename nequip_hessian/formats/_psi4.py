"""Geometries, energies, gradients, frequencies and level of theory in a Psi4 output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._atoms import atomic_number
from nequip_hessian.formats._source import HEAD, Source, numbers
from nequip_hessian.record import LevelOfTheory

FloatArray = npt.NDArray[np.float64]

GEOMETRY: Final = re.compile(
    r"^ *Geometry \(in (Angstrom|Bohr)\), charge = (-?\d+), multiplicity = (\d+):\s*\n\s*\n *Center .*\n[ -]+\n", re.M
)
_BANNER: Final = re.compile(r"Psi4: An Open-Source|PSI4: An Open-Source", re.IGNORECASE)
_SAME: Final = 1e-7  # of the length unit printed, with twelve decimals


def is_psi4(text: str) -> bool:
    """Say whether a text looks like an output of Psi4."""
    return _BANNER.search(text[:20000]) is not None or "*** tstart() called" in text[:HEAD]


@dataclass(frozen=True)
class Part:
    """The text behind a printed geometry, up to the next one.

    Attributes:
        start: offset of the geometry; text: what follows its header
        length: `angstrom` or `a0`, of positions
        masses: (N,), u, or None in outputs that print none
    """

    start: int
    text: str
    length: str
    charge: int
    multiplicity: int
    atoms: npt.NDArray[np.int_]
    positions: FloatArray
    masses: FloatArray | None

    def same(self, other: Part) -> bool:
        """Say whether another part has the same geometry in the same frame."""
        return (
            self.length == other.length
            and self.atoms.tolist() == other.atoms.tolist()
            and float(np.max(np.abs(self.positions - other.positions))) < _SAME
        )

    def energy(self) -> float | None:
        """Return the last total energy printed for this geometry, Eh."""
        found = re.findall(r"^[ \t]*Total Energy +=[ \t]+(-?\d+\.\d+)", self.text, re.M)
        return float(found[-1]) if found else None

    def gradient(self) -> FloatArray | None:
        """Return the last gradient printed for this geometry, (N, 3), Eh/a0."""
        found = list(re.finditer(r"^ *-Total [Gg]radient:\s*\n *Atom .*\n[ -]+\n", self.text, re.M))
        if not found:
            return None
        rows = [line.split() for line in self.text[found[-1].end() :].split("\n", len(self.atoms))[: len(self.atoms)]]
        whole = len(rows) == len(self.atoms) and all(len(row) == 4 for row in rows)
        return np.array([[float(v) for v in row[1:]] for row in rows]) if whole else None


def parts(source: Source) -> list[Part]:
    """Return the parts of an output, one a printed geometry.

    Raises:
        FormatError: a table of atoms is damaged, or holds ghost atoms.
    """
    heads = list(GEOMETRY.finditer(source.text))
    ends = [head.start() for head in heads[1:]] + [len(source.text)]
    return [_part(source, head, end) for head, end in zip(heads, ends, strict=True)]


def _part(source: Source, head: re.Match[str], end: int) -> Part:
    text = source.text[head.end() : end]
    first = source.line_of(head.end())
    atoms, rows = [], []
    for offset, line in enumerate(text.split("\n")):
        words = line.split()
        if not words:
            break
        try:
            atoms.append(atomic_number(re.sub(r"\d*(_.*)?$", "", words[0])))
        except ValueError as exc:
            raise source.error(f"Geometry: {exc}", first + offset) from None
        rows.append(numbers(" ".join(words[1:]), source, first + offset, None, "Geometry"))
    widths = {len(row) for row in rows}
    if not atoms or widths not in ({3}, {4}):
        raise source.error("Geometry: expected lines of symbol, x, y, z and mass; the file is damaged", first)
    table = np.array(rows)
    return Part(
        start=head.start(),
        text=text,
        length="angstrom" if head.group(1) == "Angstrom" else "a0",
        charge=int(head.group(2)),
        multiplicity=int(head.group(3)),
        atoms=np.array(atoms),
        positions=table[:, :3],
        masses=table[:, 3] if table.shape[1] == 4 else None,
    )


def first_frequencies(text: str) -> FloatArray | None:
    """Return the frequencies of the first vibrational analysis in a text, cm^-1, imaginary negative."""
    head = text.find("Harmonic Vibrational Analysis")
    if head >= 0:
        end = text.find("==> Thermochemistry", head)
        words = re.findall(r"^ *Freq \[cm\^-1\] +(.+)$", text[head : end if end > 0 else None], re.M)
        return _signed(" ".join(words).split())
    table = re.search(r"Irrep +Harmonic Frequency *\n.*\n[\s-]+\n((?:\s+\S+\s+-?\d+\.\d+i?\s*\n)+)", text)
    return None if table is None else _signed([line.split()[1] for line in table.group(1).strip().split("\n")])


def _signed(words: list[str]) -> FloatArray | None:
    try:
        values = [-float(word[:-1]) if word.endswith("i") else float(word) for word in words]
    except ValueError:
        return None
    return np.array(values) if values else None


def level(text: str, *, analytic: bool) -> LevelOfTheory:
    """Read functional or method, basis and version from an output."""
    functional = re.findall(r"^ *=> (?:Composite Functional: (\S+)|(\S+) Composite Functional) <=", text, re.M)
    called = re.findall(r"""(?:freq|frequency|frequencies|hessian)\(\s*['"]([^'"/]+)(?:/[^'"]*)?['"]""", text)
    basis = re.findall(r"^ *(?:Basis Set|Name): ([^(\s]\S*) *$", text, re.M)
    version = re.search(r"^ *P[Ss][Ii]4 (?:Version )?(\d\S*)", text, re.M)
    method = next((a or b for a, b in functional[-1:]), None) or (called[-1].upper() if called else None)
    return LevelOfTheory(
        method="HF" if method in ("SCF", None) and re.search(r"[RU]HF Reference", text) else method or "unknown",
        basis=basis[0] if basis else None,
        program="Psi4",
        program_version=version.group(1) if version else None,
        hessian="analytic" if analytic else "finite_difference",
    )


def failed(source: Source) -> FormatError | None:
    """Return the error to raise for a job that stopped, or None."""
    marks = ("Fatal Error:", "PSIO Error", "Psi4 encountered an error", "PSI4 encountered an error")
    at = next((source.text.find(mark) for mark in marks if mark in source.text), -1)
    if at < 0:
        return None
    line = source.line_of(at)
    why = source.lines[line - 1].strip(" *").removeprefix("Fatal Error: ")[:100]
    return source.error(f"the Psi4 job failed, and there is no Hessian: {why}", line)
