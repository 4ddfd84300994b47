"""What a program prints last: without it a job broke off, or its file is cut, however whole its Hessian looks."""

from __future__ import annotations

import re
from typing import Final

ENDINGS: Final[dict[str, str]] = {
    "gaussian-log": r"Normal termination of Gaussian(?![\s\S]*(?:Proceeding to internal job step|Entering Link 1))",
    "qchem-out": r"Thank you very much for using Q-Chem",
    "psi4-out": r"Psi4 exiting successfully",
    "nwchem-out": r"Total times  cpu:|Please cite the following reference when publishing",
    "cp2k-out": r"PROGRAM ENDED AT|The number of warnings for this run is",
    "mopac-out": r"JOB ENDED NORMALLY|== MOPAC DONE ==",
    "vasp-outcar": r"General timing and accounting informations for this job",
    "gamess-out": r"TERMINATED NORMALLY",
    "molpro-out": r"Molpro calculation terminated|Variable memory released",
    "dalton-out": r"Total wall time used in DALTON",
}
"""Name of the format -> regular expression. Other programs print nothing that is always there."""

_TAIL: Final = 200_000


def ended(format_name: str, text: str) -> bool:
    """Say whether a text, from the Hessian to its end, holds the end mark of the program (True where it has none).

    Args:
        format_name: name of the format
        text: the output behind the Hessian
    """
    return format_name not in ENDINGS or re.search(ENDINGS[format_name], text[-_TAIL:]) is not None


def missing_end(format_name: str) -> str:
    """Return the warning for an output without its end mark."""
    mark = re.split(r"[|(:]", ENDINGS[format_name])[0]
    return (
        f"the job did not end normally, or the file is cut: '{mark}' is missing behind the Hessian; "
        "see whether the Hessian is of the step that you want"
    )
