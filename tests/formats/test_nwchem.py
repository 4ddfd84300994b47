"""NWChem 7.0.2, HF/STO-3G, outputs of its own; PySCF computed the same Hessian."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from compare import one

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError
from nequip_hessian.formats import read

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def pyscf():
    (record,) = read(DATA / "water_hf_pyscf.json")
    return record


@pytest.mark.parametrize(
    ("name", "reader", "digits"), [("water.out", "nwchem-out", 5e-6), ("water.hess", "nwchem-hess", 1e-6)]
)
def test_hessian_forces_and_energy_are_those_of_another_program(pyscf, name, reader, digits):
    record = one(DATA / "nwchem" / name, reader)
    assert np.allclose(record.positions, pyscf.positions, atol=1e-7)
    assert np.max(np.abs(record.hessian - pyscf.hessian)) < digits * np.max(np.abs(pyscf.hessian)) + 3e-4
    assert np.max(np.abs(record.forces - pyscf.forces)) < 6e-5
    assert record.energy == pytest.approx(pyscf.energy, abs=1e-6)
    assert (record.charge, record.multiplicity) == (0, 1)
    assert (record.level.method, record.level.basis, record.level.hessian) == ("HF", "sto-3g", "analytic")
    found = check(record)[1]
    assert found.verdict == "ok"
    assert found.scale == pytest.approx(1.0, abs=1e-4)
    assert found.frequency_deviation < 0.5


def test_hessian_file_needs_the_output_of_the_same_hessian(tmp_path):
    path = tmp_path / "water.hess"
    shutil.copy(DATA / "nwchem" / "water.hess", path)
    with pytest.raises(FormatError, match="expected the NWChem output of the frequency job on 3 atoms beside it"):
        list(read(path))
    shutil.copy(DATA / "nwchem" / "water.out", tmp_path)
    lines = path.read_text().splitlines()
    lines[0] = "     1.0000000000D+00"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(FormatError, match=r"water\.out prints another Hessian"):
        list(read(path))


def test_touching_columns_of_version_6(tmp_path):
    """Older versions print fields of twelve characters, where negative numbers touch."""
    text = (DATA / "nwchem" / "water.out").read_text()
    begin = text.index("MASS-WEIGHTED NUCLEAR HESSIAN")
    end = text.index("NORMAL MODE EIGENVECTORS", begin)
    path = tmp_path / "a.out"
    path.write_text(text[:begin] + text[begin:end].replace(" -", "-") + text[end:])
    (record,) = read(path)
    (whole,) = read(DATA / "nwchem" / "water.out")
    assert np.array_equal(record.hessian, whole.hessian)


def test_output_without_frequency_job(tmp_path):
    text = (DATA / "nwchem" / "water.out").read_text()
    path = tmp_path / "a.out"
    path.write_text(text[: text.index("NWChem Nuclear Hessian and Frequency Analysis")] + "\n")
    with pytest.raises(FormatError, match=r"did not end.*NWChem prints it in frequency jobs only"):
        list(read(path))


def test_frequencies_before_the_projection_where_it_shifts_them(tmp_path):
    """NWChem's projected frequencies are taken only where the projection did nothing to the vibrations."""
    text = (DATA / "nwchem" / "water.out").read_text()
    (record,) = read(DATA / "nwchem" / "water.out")
    path = tmp_path / "a.out"
    plain = [line for line in text.splitlines() if line.startswith(" Frequency")]
    after = [line for line in text.splitlines() if line.startswith(" P.Frequency")]
    assert record.frequencies_projected is False  # off a minimum it shifts them
    for old, new in zip(after, plain, strict=True):
        values = [word if abs(float(word)) > 1500 else "0.00" for word in new.split()[1:]]
        text = text.replace(old, " P.Frequency" + "".join(f"{value:>13s}" for value in values))
    path.write_text(text)
    (other,) = read(path)
    assert other.frequencies_projected is True
    assert len(other.frequencies) == 3
    assert np.array_equal(other.frequencies, record.frequencies[-3:])
