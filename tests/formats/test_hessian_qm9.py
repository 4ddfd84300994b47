"""Arrow files laid out like Hessian-QM9: nested lists, several batches, one folder a solvent."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest
from molecules import labelled

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, MissingExtraError
from nequip_hessian.formats import format_of, read


@pytest.fixture(scope="module")
def records():
    return [labelled(name, seed) for seed, name in enumerate(("H2O", "HCN", "NH3", "H2CO"))]


def table(records) -> pa.Table:
    return pa.table(
        {
            "energy": [record.energy for record in records],
            "positions": [record.positions.tolist() for record in records],
            "atomic_numbers": [record.numbers.tolist() for record in records],
            "forces": [record.forces.tolist() for record in records],
            "frequencies": [np.zeros((3 * len(record), 2)).tolist() for record in records],
            "hessian": [record.hessian.reshape(len(record), 3, len(record), 3).tolist() for record in records],
            "label": [f"{index:06d}" for index in range(len(records))],
        }
    )


def write(path, made, batch=3, stream=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, opener(sink, made.schema) as writer:
        writer.write_table(made, max_chunksize=batch)
    return path


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("solvent", "solvation"), [("vacuum", None), ("thf", "SMD(tetrahydrofuran)")])
def test_molecules(tmp_path, records, stream, solvent, solvation):
    path = write(tmp_path / solvent / "data-00000-of-00001.arrow", table(records), stream=stream)
    assert format_of(path).name == "hessian-qm9"
    for index, (record, made) in enumerate(zip(read(path), records, strict=True)):
        assert record.numbers.tolist() == made.numbers.tolist()
        assert np.array_equal(record.positions, made.positions)
        assert np.array_equal(record.hessian, made.hessian)
        assert np.array_equal(record.forces, made.forces)
        assert record.energy == made.energy
        assert record.label == f"{index:06d}-{solvent}"
        assert record.group == f"qm9-{index:06d}"
        assert record.level.solvation == solvation
        assert check(record)[1].verdict == "ok"


def test_damage(tmp_path, records):
    path = write(tmp_path / "vacuum" / "a.arrow", table(records))
    whole = path.read_bytes()
    for cut in np.linspace(60, len(whole) - 40, 10).astype(int):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"a\.arrow"):
            list(read(path))
    write(path, table(records), batch=1)
    whole = path.read_bytes()
    ends = [at for at in range(8, len(whole) - 8, 8) if whole[at : at + 4] == b"\xff\xff\xff\xff"]
    assert len(ends) >= 4  # the beginnings of batches, where the rest can be missing without a trace
    for cut in ends:
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"a\.arrow"):
            list(read(path))
    write(path, table(records).drop_columns(["hessian"]))
    with pytest.raises(FormatError, match="expected the columns positions, atomic_numbers, hessian"):
        list(read(path))
    odd = table(records[:1]).set_column(1, "positions", [[[[0.0, 0.0, 1.0]]]])
    with pytest.raises(FormatError, match=r"a\.arrow: row 0"):
        list(read(write(path, odd)))


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, records):
    path = write(tmp_path / "water" / "a.arrow", table(records))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(MissingExtraError, match=r'a\.arrow: .* pip install "nequip-hessian\[arrow\]"'):
        list(read(path))
