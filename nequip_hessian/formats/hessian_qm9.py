"""Hessian-QM9 (Arrow): equilibria of 41645 molecules in vacuum and three solvents, wB97X/6-31G*, eV and angstrom.

The `.arrow` files of a data set saved to disk, one folder a solvent (`vacuum`,
`water`, `thf`, `toluene`). Columns: `energy`, `positions`, `atomic_numbers`, `forces`,
`hessian` (N, 3, N, 3), `label`. Frequencies and normal modes there are derived from the
Hessian and not read. Streamed, one record batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats._binary import binary_source, first_bytes, optional
from nequip_hessian.formats._source import Source, guarded, provenance, stem
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import BOHR

NAME = "hessian-qm9"
PATTERNS = ("*.arrow",)

_STREAM: Final = b"\xff\xff\xff\xff"
_FILE: Final = b"ARROW1"
_COLUMNS: Final = ("positions", "atomic_numbers", "hessian")
_SOLVENTS: Final = {"vacuum": None, "water": "SMD(water)", "thf": "SMD(tetrahydrofuran)", "toluene": "SMD(toluene)"}


def recognises(path: Path) -> bool:
    """Say whether a file is of Arrow's stream or file format."""
    return first_bytes(path).startswith((_STREAM, _FILE)) and path.suffix == ".arrow"


@guarded("Hessian-QM9 Arrow")
def read_hessian_qm9(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the molecules of an Arrow file of Hessian-QM9.

    Args:
        path: a `data-*.arrow` file; the folder it is in names the solvent

    Yields:
        One record a molecule, labelled with its number and the solvent; the same molecule in all solvents is one
        group.

    Raises:
        FormatError: damaged, or other columns. MissingExtraError: pyarrow is not installed.
    """
    source = binary_source(path, "an Arrow file", _STREAM, _FILE)
    ipc = optional("pyarrow.ipc", "arrow", path)
    arrow = optional("pyarrow", "arrow", path)
    solvent = source.path.absolute().parent.name
    level = LevelOfTheory(
        "wB97X",
        "6-31G*",
        solvation=_SOLVENTS.get(solvent),
        program="NWChem",
        hessian="finite_difference",
        displacement=0.01 * BOHR,
    )
    facts = provenance(
        source,
        NAME,
        {
            "positions": ("angstrom", 1.0),
            "energy": ("eV", 1.0),
            "forces": ("eV/angstrom", 1.0),
            "hessian": ("eV/angstrom^2", 1.0),
        },
        solvent=solvent if solvent in _SOLVENTS else None,
    )
    try:
        with arrow.memory_map(str(source.path)) as mapped:
            rows = _rows(source, ipc, mapped)
            for index, row in enumerate(tqdm(rows, desc=source.path.name, unit="molecule", disable=None, delay=3)):
                yield _record(source, row, index, solvent if solvent in _SOLVENTS else None, level, facts)
    except (arrow.ArrowInvalid, arrow.ArrowException, OSError) as exc:
        raise source.error(f"damaged Arrow file ({' '.join(str(exc).split())[:200]}); fetch it again") from exc


def _rows(source: Source, ipc: Any, mapped: Any) -> Iterator[dict[str, Any]]:
    if first_bytes(source.path).startswith(_FILE):
        reader = ipc.open_file(mapped)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        reader = ipc.open_stream(mapped)
        batches = iter(reader)
        with open(source.path, "rb") as file:
            file.seek(-8, 2)  # the end of a stream; cut between two batches, it would read as a shorter one
            if file.read(8) != _STREAM + bytes(4):
                raise source.error("the stream has no end: the file is cut; fetch it again")
    names = reader.schema.names
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise source.error(f"expected the columns {', '.join(_COLUMNS)}, found {', '.join(names)[:200]}")
    wanted = [name for name in (*_COLUMNS, "forces", "energy", "label") if name in names]
    for batch in batches:
        batch.validate(full=True)
        columns = {name: batch.column(batch.schema.get_field_index(name)) for name in wanted}
        for row in range(batch.num_rows):
            yield {name: column.slice(row, 1) for name, column in columns.items()}


def _flat(column: Any) -> npt.NDArray[np.float64]:
    """Return the numbers of one row of nested lists."""
    while hasattr(column, "storage"):
        column = column.storage
    while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
        column = column.flatten()
    if column.null_count:
        raise FormatError("a missing number inside an array")
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _record(
    source: Source, row: dict[str, Any], index: int, solvent: str | None, level: LevelOfTheory, facts: dict[str, Any]
) -> LabelledGeometry:
    try:
        numbers = _flat(row["atomic_numbers"]).astype(int)
        n = len(numbers)
        name = str(row["label"][0].as_py()) if "label" in row else f"{stem(source.path)}-{index}"
        energy = row["energy"][0].as_py() if "energy" in row else None
        forces = _flat(row["forces"]) if "forces" in row else None
        return LabelledGeometry(
            numbers=numbers,
            positions=_flat(row["positions"]).reshape(n, 3),
            energy=None if energy is None else float(np.ravel(energy)[0]),
            forces=None if forces is None else forces.reshape(n, 3),
            hessian=_flat(row["hessian"]).reshape(3 * n, 3 * n),
            group=f"qm9-{name}",
            label=f"{name}-{solvent}" if solvent else name,
            level=level,
            provenance={**facts, "index": index},
        )
    except (HessianDataError, ValueError) as exc:
        raise FormatError(f"{source.path}: row {index}: {exc}") from exc
