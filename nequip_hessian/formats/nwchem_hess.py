"""NWChem's Hessian file (.hess), with geometry and labels from the output beside it.

The row-major lower triangle in Eh/a0^2, one number with a D exponent a line, and
nothing else. The output must be of a frequency job on as many atoms; where it
prints its mass-weighted Hessian, that must be the same matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from nequip_hessian.errors import FormatError
from nequip_hessian.formats._assemble import record_of, sources_beside
from nequip_hessian.formats._blocks import lower_triangle
from nequip_hessian.formats._source import Source, guarded, numbers, read_source, require_line_end
from nequip_hessian.formats.nwchem_out import Job, job_of, parsed_of, weighted
from nequip_hessian.formats.nwchem_out import sniff as is_output
from nequip_hessian.record import LabelledGeometry

NAME = "nwchem-hess"
PATTERNS = ("*.hess",)

_LINES: Final = re.compile(r"(?:[ \t]*-?\d*\.\d+[Dd][+-]\d+[ \t]*\n){6}")
_PRINTED: Final = 1e-4  # of the largest element: the output prints six digits of each


def sniff(text: str) -> bool:
    """Say whether a file looks like NWChem's Hessian file: one number with a D exponent a line."""
    return _LINES.match(text[:400]) is not None


@guarded("NWChem .hess")
def read_nwchem_hess(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read an NWChem Hessian file with the output of its job.

    Args:
        path: the file; the output is looked for in its folder

    Yields:
        One record.

    Raises:
        FormatError: cut or damaged, or no output of a frequency job with this Hessian is beside it.
    """
    source = read_source(path)
    if not sniff(source.text):
        raise source.error("expected NWChem's .hess: one number with a D exponent a line")
    require_line_end(source)
    values = numbers(source.text, source, 1, None, "Hessian")
    matrix = lower_triangle(values)
    if matrix is None:
        raise source.error(f"expected the 3N(3N+1)/2 numbers of a lower triangle, found {len(values)}; the file is cut")
    output, job = _output(source, matrix)
    yield record_of(source, NAME, parsed_of(job, matrix, companions=(output,)))


def _output(source: Source, matrix: np.ndarray) -> tuple[Source, Job]:
    other = ""
    for output in sources_beside(source.path, (".out", ".log", ".nwout", ".nwo", ".output")):
        if not is_output(output.text):
            continue
        try:
            job, printed = job_of(output), weighted(output)
        except FormatError:
            continue
        if job is None or 3 * len(job.atoms) != len(matrix):
            continue
        root = np.sqrt(np.repeat(job.masses, 3) / 1000.0)
        size = np.max(np.abs(matrix))
        if printed is None or np.max(np.abs(printed * np.outer(root, root) - matrix)) < _PRINTED * size:
            return output, job
        other = f"; {output.path.name} prints another Hessian"
    raise source.error(
        f"the file holds no geometry: expected the NWChem output of the frequency job on {len(matrix) // 3} atoms "
        f"beside it, found none{other}; put it there"
    )
