"""MOPAC 22 (PM7), outputs of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compare import one

from nequip_hessian.checks import check
from nequip_hessian.errors import NoHessianError
from nequip_hessian.formats import read

DATA = Path(__file__).parent / "data" / "mopac"


def test_minimum():
    record = one(DATA / "formaldehyde.out", "mopac-out")
    assert record.formula == "CH2O"
    assert record.level.method == "PM7"
    assert record.forces is None  # printed in another frame, if at all
    assert len(record.frequencies) == 6
    record, found = check(record)
    assert record.kind == "minimum"
    assert found.frequency_deviation < 0.1
    assert found.lowest == pytest.approx(1099.58, abs=0.1)


def test_unit_and_sign_off_the_minimum():
    """With NOREOR the gradient is in the frame of the Hessian, and the positions have eight digits."""
    record = one(DATA / "water.out", "mopac-out")
    assert np.allclose(record.positions, [[0.1, 0.2, -0.3], [0.9, 0.4, 0.2], [-0.6, 0.3, 0.35]])
    record, found = check(record)
    assert record.kind == "other"
    assert found.verdict == "ok"
    assert found.scale == pytest.approx(1.0, abs=0.02)
    assert record.frequencies is None  # MOPAC's are no Eckart frequencies off a stationary point


def test_matrix_of_atoms_against_atoms_is_no_hessian(tmp_path):
    text = (DATA / "formaldehyde.out").read_text()
    begin, end = text.index("FULL FORCE MATRIX"), text.index("FORCE MATRIX IN MILLIDYNES")
    path = tmp_path / "a.out"
    path.write_text(text[:begin] + "\n           " + text[end:])
    with pytest.raises(NoHessianError, match="FORCE DFORCE only"):
        list(read(path))
