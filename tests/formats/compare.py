"""What tests of readers share: one record of a file, and holding it against the record it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nequip_hessian.checks import Checks, check
from nequip_hessian.formats import format_of, read
from nequip_hessian.record import LabelledGeometry


def one(path: Path, format_name: str) -> LabelledGeometry:
    """Read the only record of a file, whose format is recognised by its content."""
    assert format_of(path).name == format_name
    (record,) = read(path)
    assert record.provenance["format"] == format_name
    return record


def same(
    record: LabelledGeometry,
    made: LabelledGeometry,
    *,
    hessian: float = 1e-6,
    positions: float = 1e-8,
    frequencies: float = 0.02,
) -> Checks:
    """Assert atoms, geometry, masses and Hessian (relative to its largest element), and that frequencies follow."""
    assert record.numbers.tolist() == made.numbers.tolist()
    assert np.max(np.abs(record.positions - made.positions)) < positions
    assert np.max(np.abs(record.hessian - made.hessian)) < hessian * np.max(np.abs(made.hessian))
    assert np.allclose(record.masses, made.masses, rtol=1e-6)
    assert len(record.frequencies) == len(made.frequencies)
    _, found = check(record)
    assert found.frequency_deviation < frequencies
    return found


def labels(
    record: LabelledGeometry, made: LabelledGeometry, *, energy: float = 1e-5, forces: float | None = 1e-6
) -> None:
    """Assert energy and forces; off a minimum, the rotational identity fixes unit and sign of forces and Hessian."""
    if energy:
        assert record.energy == pytest.approx(made.energy, abs=energy)
    if forces is None:
        assert record.forces is None
        return
    assert np.max(np.abs(record.forces - made.forces)) < forces
    assert check(record)[1].verdict == "ok"
