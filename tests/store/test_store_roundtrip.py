"""What goes in comes out: every field, every profile, every way to name a geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nequip_hessian.curvature import pack
from nequip_hessian.errors import StoreError
from nequip_hessian.record import FIELD_NAMES, LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate
from nequip_hessian.store.arrays import CachedRows, MappedRows

PROFILES = [("local", "a.zarr"), ("remote", "a.zarr"), ("publish", "a.zarr.zip")]


def assert_same(found: LabelledGeometry, expected: LabelledGeometry) -> None:
    for name in FIELD_NAMES:
        a, b = getattr(found, name), getattr(expected, name)
        if name == "provenance":
            continue
        if name == "asymmetry":  # float32 on disk
            assert (a is None) == (b is None)
            assert a is None or a == pytest.approx(b, rel=1e-6, abs=1e-12)
        elif b is None or isinstance(b, str) or name == "level":
            assert a == b, name
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(("profile", "name"), PROFILES)
@pytest.mark.parametrize("mapped", [True, False])
def test_every_field_comes_back(write, records, profile, name, mapped):
    store = HessianStore(write(name, profile=profile), mapped=mapped)
    assert len(store) == len(records)
    for found, expected in zip(store, records, strict=True):
        assert_same(found, expected)
    kind = MappedRows if mapped and profile != "remote" else CachedRows
    assert isinstance(store._columns.rows("hessian/data"), kind)


@pytest.mark.parametrize(("profile", "name"), PROFILES)
def test_written_store_is_valid(write, profile, name):
    report = validate(write(name, profile=profile))
    assert report.valid, report.messages
    assert report.reached == 4
    # The one record without a level of theory, and one force-free diatomic apart: nothing to say.
    assert {message.rule for message in report.messages} <= {"HZ-1.5"}


def test_profiles_hold_the_same(write):
    local = write("l.zarr")
    assert differences(local, write("r.zarr", profile="remote")) == []
    assert differences(local, write("p.zip", profile="publish")) == []


def test_packed_is_a_read_only_view_of_the_map(write, records):
    store = HessianStore(write())
    for index, record in enumerate(records):
        packed = store.packed(index)
        expected = np.empty(0) if record.hessian is None else pack(np.asarray(record.hessian))
        np.testing.assert_array_equal(packed, expected)
        assert not packed.flags.writeable or len(packed) == 0
    whole = store._columns.rows("hessian/data")._maps[0]
    assert np.shares_memory(store.packed(0), whole)
    np.testing.assert_array_equal(store.has_hessian, [record.hessian is not None for record in records])


@pytest.mark.parametrize(
    "index",
    [
        [0, -1, 3],
        (2, 1),
        np.array([5, 4], dtype=np.int16),
        torch.tensor([1, 0]),
        slice(1, 6, 2),
        slice(None, None, -1),
        [],
    ],
)
def test_indices(write, records, index):
    store = HessianStore(write())
    wanted = records[index] if isinstance(index, slice) else [records[int(i)] for i in index]
    found = store[index]
    assert len(found) == len(wanted)
    for one, expected in zip(found, wanted, strict=True):
        assert_same(one, expected)


@pytest.mark.parametrize("index", [3, np.int64(3), np.uint8(3), torch.tensor(3), -13])
def test_single_index(write, records, index):
    assert len(records) == 15
    store = HessianStore(write())
    assert_same(store[index], records[int(index)])
    np.testing.assert_array_equal(store.packed(index), store.packed(int(index)))


def test_boolean_mask(write, records):
    store = HessianStore(write())
    for mask in (store.has_hessian, torch.from_numpy(store.has_hessian.copy())):
        assert [len(one) for one in store[mask]] == [len(one) for one in records if one.hessian is not None]
    with pytest.raises(IndexError, match="mask of length 2"):
        store[np.array([True, False])]


@pytest.mark.parametrize("index", [15, -16, [0, 15], np.array([99])])
def test_out_of_range(write, index):
    store = HessianStore(write())
    with pytest.raises(IndexError, match="store of 15"):
        store[index]


@pytest.mark.parametrize("index", ["0", 1.0, [0.5], True, np.zeros((1, 1), dtype=int), None])
def test_no_index(write, index):
    with pytest.raises(TypeError):
        HessianStore(write())[index]


def test_reactions(write):
    (reaction,) = HessianStore(write()).reactions()
    assert reaction.label == "HCN to HNC"
    assert (reaction.transition_state, reaction.reactant, reaction.product) == (9, 10, 11)
    assert reaction.path == (10, 13, 9, 12, 11)  # by path coordinate, not by place in the store


def test_splits_levels_and_labels(write, records):
    codes = np.arange(15) % 4 - 1
    store = HessianStore(write(splits={"mine": (("train", "val", "test"), codes), "b": (["train"], [-1] * 15)}))
    assert store.split_schemes == ["b", "mine"]
    found, parts = store.split("mine")
    np.testing.assert_array_equal(found, codes)
    assert parts == ("train", "val", "test")
    with pytest.raises(StoreError, match="no split scheme 'other'; it has: b, mine"):
        store.split("other")
    assert [store.levels[code] for code in store.level] == [record.level for record in records]
    assert [store.label(i) for i in range(15)] == [record.label for record in records]
    assert store.group_label(99) is None


def test_absent_optional_arrays_are_none(write, records):
    store = HessianStore(write(these=[records[3]]))
    assert all(getattr(store, name) is None for name in ("charge", "multiplicity", "mass", "path_coordinate"))
    assert np.isnan(store.energy[0])
    assert store[0].forces is None
    assert store[0].hessian is None
    assert validate(store.path).valid


def test_dtype_is_that_of_the_sources(write, records):
    half = [r.replace(hessian=np.asarray(r.hessian, dtype=np.float32)) for r in (records[0], records[2])]
    assert HessianStore(write("f.zarr", these=half)).packed(0).dtype == np.float32
    mixed = HessianStore(write("m.zarr", these=[*half, records[4]]))  # float64 comes last
    assert mixed.packed(0).dtype == np.float64
    np.testing.assert_array_equal(mixed[0].hessian, half[0].hessian)
    np.testing.assert_array_equal(mixed[2].hessian, records[4].hessian)


def test_explicit_dtype_is_logged(write, records):
    store = HessianStore(write(dtype="float32"))
    assert store.packed(0).dtype == np.float32
    np.testing.assert_array_equal(store[4].hessian, np.asarray(records[4].hessian, dtype=np.float32))
    assert store.attributes["provenance"][-1]["options"]["dtype"] == "float32"
    assert store.energy.dtype == np.float64


def test_mixed_projection_flag_is_unknown(write, records):
    both = [records[6], records[6].replace(frequencies_projected=False)]
    store = HessianStore(write(these=both))
    assert store[0].frequencies_projected is None
    np.testing.assert_array_equal(store[1].frequencies, both[1].frequencies)


def test_many_chunks(tmp_path, records, monkeypatch):
    """Records across two chunks and a padded last chunk, on each path."""
    monkeypatch.setattr("nequip_hessian.store.build.CHUNK_ELEMENTS", 50)
    with StoreWriter(tmp_path / "a.zarr") as writer:
        writer.extend(records)
    for mapped in (True, False):
        store = HessianStore(tmp_path / "a.zarr", mapped=mapped)
        for found, expected in zip(store, records, strict=True):
            assert_same(found, expected)
    assert len(list((tmp_path / "a.zarr/hessian/data/c").iterdir())) > 5
    assert validate(tmp_path / "a.zarr").valid
