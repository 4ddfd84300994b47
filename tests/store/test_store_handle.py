"""Stores behind Zarr store objects: icechunk's, one in memory; the same numbers, and no fill value for a lost chunk."""

from __future__ import annotations

import asyncio
import pickle
import zipfile
from pathlib import Path

import icechunk
import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore, differences, validate
from nequip_hessian.store.repack import repack

RICH = Path(__file__).parents[1] / "conformance" / "valid" / "rich.zarr.zip"


def fill(store, leave_out=""):
    async def copy():
        with zipfile.ZipFile(RICH) as archive:
            for name in sorted(archive.namelist(), key=lambda name: not name.endswith("zarr.json")):
                if not leave_out or not name.startswith(leave_out):
                    await store.set(name, default_buffer_prototype().buffer.from_bytes(archive.read(name)))

    asyncio.run(copy())
    return store


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(tmp_path_factory.mktemp("repository")))
    )
    session = repository.writable_session("main")
    fill(session.store)
    repository.create_tag("v1", snapshot_id=session.commit("first"))
    return repository.readonly_session(tag="v1").store


def same(left, right):
    assert left.label == right.label
    assert left.energy == right.energy
    np.testing.assert_array_equal(left.positions, right.positions)
    assert (left.hessian is None) == (right.hessian is None)
    if left.hessian is not None:
        np.testing.assert_array_equal(left.hessian, right.hessian)


def test_an_icechunk_repository_is_read_validated_and_compared(tagged):
    report = validate(tagged)
    assert report.valid
    assert report.path == "<IcechunkStore>"
    assert differences(RICH, tagged) == []
    store, expected = HessianStore(tagged), HessianStore(RICH)
    assert len(store) == len(expected)
    for left, right in zip(store, expected, strict=True):
        same(left, right)


def test_a_store_of_it_goes_to_another_process_and_into_another_file(tagged, tmp_path):
    again = pickle.loads(pickle.dumps(HessianStore(tagged)))
    same(again[0], HessianStore(RICH)[0])
    assert repack(tagged, tmp_path / "out.zarr") == []
    assert differences(RICH, tmp_path / "out.zarr") == []


def test_a_chunk_that_is_not_there_is_an_error_and_no_fill_value():
    store = HessianStore(fill(MemoryStore(), leave_out="hessian/data/c"))
    with pytest.raises(StoreError, match="hessian/data"):
        store.packed(0)


def test_an_empty_object_is_no_store():
    with pytest.raises(StoreError, match=r"MemoryStore.*no zarr\.json"):
        HessianStore(MemoryStore())
    report = validate(MemoryStore())
    assert not report.valid
    assert "no zarr.json" in str(report.errors[0])
