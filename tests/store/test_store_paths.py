"""The memory-mapped path is taken exactly under its conditions, and the numbers are the same on each path."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec

from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore, validate
from nequip_hessian.store.arrays import CachedRows, MappedRows

DATA = "hessian/data"


def rewrite(path, array, **options):
    """Write one array of a store anew with other chunks or codecs."""
    root = zarr.open_group(path, mode="r+")
    old = root[array]
    values, fill = old[...], old.fill_value
    attributes, names = dict(old.attrs), old.metadata.dimension_names
    del root[array]
    options = {"chunks": old.chunks, "compressors": None, "filters": None, **options}
    new = root.create_array(
        array,
        shape=values.shape,
        dtype=values.dtype,
        fill_value=fill,
        attributes=attributes,
        dimension_names=names,
        **options,
    )
    new[...] = values


VARIANTS = {
    "blosc": ({"compressors": [BloscCodec(cname="zstd")]}, CachedRows),
    "gzip": ({"compressors": [GzipCodec()]}, CachedRows),
    "crc32c": ({"compressors": [Crc32cCodec()]}, CachedRows),
    "big endian": ({"serializer": BytesCodec(endian="big")}, CachedRows),
    "shards": ({"chunks": (10,), "shards": (100,)}, CachedRows),
    "dots in keys": ({"chunk_key_encoding": {"name": "default", "separator": "."}}, CachedRows),
    "v2 keys": ({"chunk_key_encoding": {"name": "v2", "separator": "/"}}, CachedRows),
    "small chunks": ({"chunks": (7,)}, MappedRows),
    "one chunk, padded": ({"chunks": (100000,)}, MappedRows),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_same_numbers_whatever_the_codec(write, name):
    options, kind = VARIANTS[name]
    path = write()
    expected = [np.array(HessianStore(path).packed(i)) for i in range(15)]
    rewrite(path, DATA, **options)
    store = HessianStore(path)
    assert isinstance(store._columns.rows(DATA), kind)
    for index, values in enumerate(expected):
        np.testing.assert_array_equal(store.packed(index), values)
    assert validate(path).valid  # checksums are of numbers, not of files


def test_two_axes_cut_in_the_second_go_through_zarr(write, records):
    path = write()
    rewrite(path, "atom/position", chunks=(10, 2))
    store = HessianStore(path)
    assert isinstance(store._columns.rows("atom/position"), CachedRows)
    np.testing.assert_array_equal(store[6].positions, records[6].positions)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("array", ["geometry/energy", "atom/force", "hessian/asymmetry", "geometry/label_data"])
def test_lost_chunk_is_an_error_and_no_missing_label(write, array, mapped):
    path = write()
    rewrite(path, array, chunks=(4, 3) if array == "atom/force" else (4,))
    lost = (
        next((path / array / "c/1").rglob("0"), path / array / "c/1") if array == "atom/force" else path / array / "c/1"
    )
    lost.unlink()
    with pytest.raises(StoreError, match=f"{array}/c/1.* is not there"):
        _ = HessianStore(path, mapped=mapped)[:]
    assert validate(path).counts["HZ-3.1"] >= 1


def test_lost_shard_is_an_error(write):
    path = write(profile="remote")
    (path / "geometry/energy/c/0").unlink()
    with pytest.raises(StoreError, match="geometry/energy/c/0 is not there"):
        _ = HessianStore(path).energy


def test_compressed_zip_entry_goes_through_zarr(write, tmp_path, records):
    path = write("a.zip", profile="publish")
    deflated = tmp_path / "b.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    store = HessianStore(deflated)
    assert isinstance(store._columns.rows(DATA), CachedRows)
    assert isinstance(HessianStore(path)._columns.rows(DATA), MappedRows)
    for index, record in enumerate(records):
        if record.hessian is not None:
            np.testing.assert_array_equal(store[index].hessian, record.hessian)


def test_cut_chunk_is_refused_not_misread(write):
    path = write()
    chunk = path / DATA / "c/0"
    chunk.write_bytes(chunk.read_bytes()[:-8])
    with pytest.raises(StoreError, match=r"expected \d+ bytes, found \d+"):
        HessianStore(path).packed(0)
    assert validate(path).counts == {"HZ-1.5": 1, "HZ-3.1": 1}


def test_storage_transformer_is_not_mapped(write):
    path = write()
    file = path / DATA / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["storage_transformers"] = [{"name": "scramble"}]
    file.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="zarr cannot open"):
        HessianStore(path).packed(0)
