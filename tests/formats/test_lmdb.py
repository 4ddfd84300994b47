"""Graphs pickled into LMDB files, and ASE rows in them: read back exactly, and nothing in a pickle is executed."""

from __future__ import annotations

import collections
import os
import pickle
import sys
import types
import weakref
import zlib

import lmdb
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.row import AtomsRow
from ase.io.jsonio import encode
from molecules import labelled

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats import format_of, read
from nequip_hessian.formats._lmdb import open_lmdb
from nequip_hessian.formats._pickle import unpickle
from nequip_hessian.gather import gather


@pytest.fixture(scope="module")
def records():
    return [labelled("H2O", 0), labelled("HCN", 1), labelled("NH3", 2)]


@pytest.fixture
def graphs(monkeypatch):
    """Classes that pickle under the names of PyTorch Geometric, nested as its `Data` is."""
    data = types.ModuleType("torch_geometric.data.data")
    storage = types.ModuleType("torch_geometric.data.storage")
    for module, name in ((data, "Data"), (data, "DataEdgeAttr"), (data, "DataTensorAttr"), (storage, "GlobalStorage")):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))
    for module in (types.ModuleType("torch_geometric"), types.ModuleType("torch_geometric.data"), data, storage):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def graph(**fields):
        made, store = data.Data(), storage.GlobalStorage()
        store.__dict__.update(_mapping=fields, _parent=None)
        made.__dict__.update(_edge_attr_cls=data.DataEdgeAttr, _tensor_attr_cls=data.DataTensorAttr, _store=store)
        return made

    return graph


def horm(graph, record, reaction):
    """One entry as HORM has it: single precision, atomic numbers under `charges`."""
    return graph(
        pos=torch.tensor(record.positions, dtype=torch.float32),
        rxn=torch.tensor([reaction]),
        energy=torch.tensor([record.energy], dtype=torch.float32),
        ae=torch.tensor([0.0]),
        forces=torch.tensor(record.forces, dtype=torch.float32),
        charges=torch.tensor(record.numbers.astype(np.int64)),
        one_hot=torch.zeros(len(record), 5, dtype=torch.int64),
        natoms=torch.tensor([len(record)]),
        hessian=torch.tensor(record.hessian.ravel(), dtype=torch.float32),
    )


def write(path, entries, **more):
    environment = lmdb.open(str(path), subdir=False, map_size=2**26, lock=False)
    with environment.begin(write=True) as transaction:
        for key, value in {**{str(i): entry for i, entry in entries.items()}, **more}.items():
            transaction.put(key.encode(), value)
    environment.close()
    return path


def test_layout_of_horm(tmp_path, graphs, records):
    entries = {i: pickle.dumps(horm(graphs, record, 40 + i)) for i, record in enumerate(records)}
    path = write(tmp_path / "set.lmdb", entries, length=pickle.dumps(len(entries)))
    for name in [name for name in sys.modules if name.startswith("torch_geometric")]:
        del sys.modules[name]  # reading must not need it
    assert format_of(path).name == "horm-lmdb"
    found = list(read(path))
    assert [record.group for record in found] == ["rxn40", "rxn41", "rxn42"]
    for record, made in zip(found, records, strict=True):
        assert record.numbers.tolist() == made.numbers.tolist()
        assert record.hessian.dtype == np.float32
        assert np.max(np.abs(record.hessian - made.hessian)) < 1e-5
        assert np.max(np.abs(record.positions - made.positions)) < 1e-6
        assert record.energy == np.float32(made.energy)
        assert record.level.basis == "6-31G(d)"
        assert check(record)[1].verdict == "ok"  # units and signs of Hessian and forces belong together
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["set.lmdb"]  # no lock file


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_and_arrays_come_back_exactly(dtype, protocol):
    base = (torch.arange(24) % 2).to(dtype) if dtype == torch.bool else torch.arange(24).to(dtype)
    for tensor in (base, base.reshape(4, 6)[1:, 2:5], base.reshape(2, 3, 4).transpose(0, 2), base[:0]):
        back = unpickle(pickle.dumps({"a": tensor, "b": tensor.numpy()}, protocol=protocol))
        assert np.array_equal(back["a"], tensor.numpy())
        assert back["a"].dtype == tensor.numpy().dtype
        assert np.array_equal(back["b"], tensor.numpy())
        assert back["b"].dtype == tensor.numpy().dtype


def test_plain_containers_come_back(records):
    value = {"a": [1, 2.5, "x", None, True], "b": (b"raw", np.float64(1.5)), "c": collections.OrderedDict(d=1)}
    assert unpickle(pickle.dumps(value)) == value


class Attack:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {mark}",), "system"),
        (eval, ("open('{mark}', 'w')",), "eval"),
        (getattr, ("a", "b"), "getattr"),
        (torch.load, ("{mark}",), r"torch\.serialization\.load"),
        (np.load, ("{mark}",), r"numpy.*load"),
    ],
)
def test_nothing_is_executed(tmp_path, protocol, function, arguments, name):
    mark = tmp_path / "mark"
    attack = Attack(function, *(text.format(mark=mark) for text in arguments))
    raw = pickle.dumps({"pos": attack}, protocol=protocol)
    with pytest.raises(FormatError, match=f"asks for .*({name}).* not rebuilt"):
        unpickle(raw)
    path = write(tmp_path / "evil.lmdb", {0: raw})
    with pytest.raises(FormatError, match=r"evil\.lmdb|not rebuilt"):
        list(read(path, "horm-lmdb"))
    assert not mark.exists()


def test_attack_inside_a_storage(tmp_path):
    """torch keeps a pickle inside the pickle; the same rules hold there."""
    mark = tmp_path / "mark"
    inner = pickle.dumps(Attack(os.system, f"touch {mark}"))
    outer = pickle.dumps(Attack(torch.storage._load_from_bytes, inner))
    with pytest.raises(FormatError, match=r"asks for (posix|nt|os)\.system"):
        unpickle(outer)
    assert not mark.exists()


def test_damaged_pickles_never_give_another_number(graphs, records):
    raw = pickle.dumps(horm(graphs, records[0], 1))
    sound = unpickle(raw)
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(raw) - 1, 60):
        with pytest.raises(FormatError):
            unpickle(raw[:cut])
    for _ in range(120):
        noisy = bytearray(raw)
        at = int(rng.integers(0, len(raw)))
        noisy[at] = int(rng.integers(0, 256))
        try:
            found = unpickle(bytes(noisy))
        except FormatError:
            continue
        if isinstance(found, dict) and isinstance(found.get("pos"), np.ndarray):
            assert found["pos"].size <= sound["pos"].size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"charges": torch.tensor([0.5, 0.2, 0.3])}, "expected atomic numbers"),
        ({"hessian": torch.zeros(80)}, "80|hessian"),
        ({"natoms": torch.tensor([4])}, "natoms"),
        ({"pos": None}, "expected pos"),
    ],
)
def test_fields_that_do_not_fit(tmp_path, graphs, records, change, message):
    entry = horm(graphs, records[0], 1)
    entry._store._mapping.update(change)
    path = write(tmp_path / "a.lmdb", {0: pickle.dumps(entry)})
    with pytest.raises(HessianDataError, match=rf"a\.lmdb: entry 0: .*({message})"):
        list(read(path))


def test_environment_in_a_folder(tmp_path, graphs, records):
    (tmp_path / "val.lmdb").mkdir()
    write(tmp_path / "val.lmdb" / "data.mdb", {0: pickle.dumps(horm(graphs, records[0], 1))})
    (item,) = gather([tmp_path / "val.lmdb"])
    (record,) = read(item.path)
    assert record.label == "val.lmdb-0"


def test_entries_are_read_one_by_one_and_let_go(tmp_path, graphs, records):
    """What is behind is not touched before it is asked for, and no record is kept by the reader."""
    raw = pickle.dumps(horm(graphs, records[2], 1))
    path = write(tmp_path / "a.lmdb", {**dict.fromkeys(range(30), raw), 30: b"no pickle"}, length=pickle.dumps(31))
    stream, alive = read(path), []
    for _ in range(30):
        alive.append(weakref.ref(next(stream)))
        assert sum(reference() is not None for reference in alive) <= 1
    with pytest.raises(FormatError, match="entry 30: a damaged pickle"):
        next(stream)


def test_missing_entries_and_damage(tmp_path, graphs, records):
    raw = pickle.dumps(horm(graphs, records[0], 1))
    path = write(tmp_path / "a.lmdb", {0: raw, 2: raw}, length=pickle.dumps(3))
    with pytest.raises(FormatError, match=r"entry 1 of 3 is missing"):
        list(read(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(FormatError, match=r"a\.lmdb"):
        list(read(path, "horm-lmdb"))
    path.write_bytes(b"1 2 3\n" * 20)
    with pytest.raises(FormatError, match="looks like a text file; expected an LMDB file"):
        list(read(path, "horm-lmdb"))


def test_trees_of_any_depth_are_read_as_the_library_reads_them(tmp_path):
    """Branch pages, values on overflow pages, keys of different lengths; and a second look with an empty file."""
    rng = np.random.default_rng(2)
    sizes = rng.choice([1, 40, 700, 2100, 5000, 70_000], size=1500, p=[0.3, 0.3, 0.2, 0.1, 0.09, 0.01])
    entries = {i: rng.bytes(int(size)) for i, size in enumerate(sizes)}
    path = write(tmp_path / "big.lmdb", entries, length=b"x", **{"k" * 200: b"y"})
    with open_lmdb(path) as (_, tree):
        assert tree.entries == 1502
        assert sorted(tree.keys()) == list(tree.keys())
        assert len(list(tree.keys())) == 1502
        assert all(tree.get(str(i).encode()) == value for i, value in entries.items())
        for absent in (b"", b"-1", b"1500", b"9999", b"zz"):
            assert tree.get(absent) is None
    empty = write(tmp_path / "empty.lmdb", {})
    with open_lmdb(empty) as (_, tree):
        assert tree.get(b"0") is None
        assert list(tree.keys()) == []


def outcome(path):
    try:
        return list(read(path, "horm-lmdb"))
    except HessianDataError as exc:
        return exc


def test_cut_and_flipped_files_are_errors(tmp_path, graphs, records):
    """Also where the C library would run into memory that is not mapped."""
    entries = {i: pickle.dumps(horm(graphs, records[i % 3], i)) for i in range(12)}
    path = write(tmp_path / "a.lmdb", entries, length=pickle.dumps(12))
    whole = path.read_bytes()
    used = len(whole.rstrip(b"\0"))
    rng = np.random.default_rng(4)
    for cut in rng.integers(100, used, 20):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"a\.lmdb"):
            list(read(path, "horm-lmdb"))
    for _ in range(80):
        noisy = bytearray(whole)
        for at in rng.integers(0, used, 3):
            noisy[at] = int(rng.integers(0, 256))
        path.write_bytes(noisy)
        result = outcome(path)
        if isinstance(result, HessianDataError):
            assert "a.lmdb" in str(result)
        else:
            assert all(np.all(np.isfinite(record.hessian)) for record in result)


# -- rows of ASE ----------------------------------------------------------------------------


def ase_row(record, **data):
    atoms = Atoms(numbers=record.numbers, positions=record.positions)
    atoms.calc = SinglePointCalculator(atoms, energy=record.energy, forces=record.forces)
    row = AtomsRow(atoms)
    fields = {key: row[key] for key in row.__dict__ if key[0] != "_" and key not in row._keys and key != "id"}
    fields |= {"cell": np.asarray(fields["cell"]), "mtime": 1.0, "ctime": 1.0, "user": "a", "data": data}
    return zlib.compress(encode(fields).encode())


def test_ase_rows_in_lmdb(tmp_path, records):
    entries = {i + 1: ase_row(record, hessian=record.hessian, group="g") for i, record in enumerate(records)}
    path = write(tmp_path / "a.aselmdb", entries, nextid=zlib.compress(b"4"), deleted_ids=zlib.compress(b"[]"))
    assert format_of(path).name == "ase-lmdb"
    found = list(read(path))
    for record, made in zip(found, records, strict=True):
        assert np.array_equal(record.hessian, made.hessian)
        assert np.array_equal(record.positions, made.positions)
        assert np.array_equal(record.forces, made.forces)
        assert record.energy == made.energy
        assert record.group == "g"


def test_forces_of_zeros_are_no_forces(tmp_path, records):
    made = records[0].replace(forces=np.zeros_like(records[0].forces))
    path = write(tmp_path / "a.aselmdb", {1: ase_row(made, hessian=made.hessian.astype(np.float32))})
    (record,) = read(path)
    assert record.forces is None
    assert record.hessian.dtype == np.float32


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (zlib.compress(b'{"numbers": [1]}'), "numbers and positions"),
        (zlib.compress(b"{"), "row 1|JSON|Expecting"),
        (zlib.compress(b"x" * 100)[:-4], "cut"),
        (zlib.compress(b'{"numbers": [1], "positions": [[0, 0]]}'), "row 1: positions"),
    ],
)
def test_damaged_ase_rows(tmp_path, raw, message):
    path = write(tmp_path / "a.aselmdb", {1: raw})
    with pytest.raises(FormatError, match=rf"a\.aselmdb.*({message})"):
        list(read(path))
