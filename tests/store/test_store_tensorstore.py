"""Another library reads every array of both profiles: TensorStore, in C++, that shares no code with Zarr-Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorstore

from nequip_hessian.store import HessianStore
from nequip_hessian.store.repack import repack

RICH = Path(__file__).parents[1] / "conformance" / "valid" / "rich.zarr.zip"


def values(folder: Path, path: str) -> np.ndarray:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder / path}/"}}
    return tensorstore.open(spec, open=True, read=True).result().read().result()


def hessian(folder: Path, g: int) -> np.ndarray | None:
    """The Hessian of a geometry, put together as section 6 of the specification says."""
    begin, end = values(folder, "hessian/offset")[g : g + 2]
    if begin == end:
        return None
    packed = values(folder, "hessian/data")[begin:end]
    n = (round(np.sqrt(8 * len(packed) + 1)) - 1) // 2
    matrix = np.zeros((n, n))
    matrix[np.tril_indices(n)] = packed
    return matrix + np.tril(matrix, -1).T


@pytest.mark.parametrize("profile", ["local", "remote"])
def test_tensorstore_reads_each_array_and_each_hessian(tmp_path, profile):
    folder = tmp_path / "s.zarr"
    repack(RICH, folder, profile=profile)
    store = HessianStore(folder)
    checksums = json.loads((folder / "zarr.json").read_text())["attributes"]["hessian_zarr"]["checksums"]
    assert "hessian/data" in checksums
    for path in checksums:
        ours, theirs = store.array(path), values(folder, path)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert ours.tobytes() == theirs.tobytes()
    for index, record in enumerate(store):
        found = hessian(folder, index)
        assert (found is None) == (record.hessian is None)
        if found is not None:
            np.testing.assert_array_equal(found, record.hessian)
