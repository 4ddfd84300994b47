"""Make the table of real outputs in docs/formats.md: `python tests/cases_table.py [FOLDER]`.

FOLDER (default: ../shared/cases) holds outputs of many programs, `expected.json` and the Hessians that an
independent reader found in them. Each file is read as `nequip-hessian convert` reads it, and its Hessian and
frequencies are held against what is expected; the rows stand between two comments in the page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from nequip_hessian.checks import check
from nequip_hessian.errors import HessianDataError
from nequip_hessian.formats import format_of, read
from nequip_hessian.record import LabelledGeometry

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- cases: begin -->\n", "<!-- cases: end -->\n"
HEAD = (
    "| case | program | format | expected | result | Hessian | frequencies |\n"
    "|---|---|---|---|---|---|---|\n"
)  # fmt: skip


def row(name: str, case: dict, folder: Path, reference: dict[str, np.ndarray]) -> tuple[str, bool]:
    """Return the row of one case, and whether its result is the expected one."""
    path = folder / case["file"]
    kind, hessian, frequencies = "", "", ""
    try:
        kind = format_of(path).name
        records = list(read(path))
        hessian = against_reference(records, name, reference)
        checked = [check(record)[1] for record in records]
        deviations = [found.frequency_deviation for found in checked if found.frequency_deviation is not None]
        frequencies = f"{max(deviations):.2g}" if deviations else ""
        result = "taken" if len(records) == 1 else f"{len(records)} taken"
    except HessianDataError as exc:
        result = "refused: " + reason(str(exc), path)
    taken = not result.startswith("refused")
    expected = case["expect"]
    agreed = taken == (expected in ("convert", "dataset"))
    cells = (name, case["program"].split("+")[0], kind or case["format"], expected, result, hessian, frequencies)
    return "| " + " | ".join(cells) + " |\n", agreed


def reason(message: str, path: Path) -> str:
    """The beginning of a message, without the name of the file and without folders that a file names."""
    text = message.replace(f"{path}: ", "").replace(f"{path}, ", "").replace("|", "/")
    words = [word for word in text.split() if not word.startswith("/")]
    short = ""
    for word in words:
        if len(short) + len(word) > 110:
            return short + " ..."
        short += (" " if short else "") + word
    return short


def against_reference(records: list[LabelledGeometry], name: str, reference: dict[str, np.ndarray]) -> str:
    """Largest difference from the Hessian of the independent reader, relative to its largest element."""
    wanted = reference.get(f"{name}__H")
    if wanted is None or len(records) != 1 or records[0].hessian is None:
        return ""
    size = float(np.max(np.abs(wanted))) or 1.0
    return f"{float(np.max(np.abs(records[0].hessian - wanted))) / size:.0e}"


def main() -> int:
    """Write the table; exit status 1 where a result is another than expected and not explained in the page."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "cases"
    expected = json.loads((folder / "expected.json").read_text())
    with np.load(folder / "reference.npz") as arrays:
        reference = dict(arrays)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    rows, other = [], []
    for name, case in sorted(expected.items(), key=lambda item: (item[1]["format"], item[0])):
        text, agreed = row(name, case, folder, reference)
        rows.append(text)
        if not agreed:
            other.append(name)
    counts = f"{len(rows)} files; {len(rows) - len(other)} with the expected result, {len(other)} with another.\n\n"
    PAGE.write_text(before + BEGIN + counts + HEAD + "".join(rows) + END + behind)
    print(counts.strip())
    unexplained = [name for name in other if f"`{name}`" not in before + behind]
    for name in unexplained:
        print(f"not as expected, and not explained in {PAGE.name}: {name}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
