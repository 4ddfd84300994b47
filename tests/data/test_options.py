"""The `hessian:` options on a real store, from the dataset down to the batch."""

import nequip  # noqa: F401  (registers our fields)
import numpy as np
import pytest
import torch
from nequip.data import AtomicDataDict

from nequip_hessian.data import HessianDataset
from nequip_hessian.data.stream import ProbeStream
from nequip_hessian.errors import ConfigError
from nequip_hessian.store import HessianStore, StoreWriter


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)


def rows(data, key):
    """(K, 3N)."""
    return data[key].reshape(len(data["pos"]), -1, 3).transpose(0, 1).flatten(1).numpy()


def test_a_fraction_is_chosen_batch_by_batch(small_store):
    """Of 24 geometries 16 have Hessians; half of those of each batch carry a probe, at twice the weight."""
    dataset = HessianDataset(small_store, hessian={"mode": "random", "probe_fraction": 0.5}, seed=1)
    for _ in range(3):
        batch = AtomicDataDict.batched_from_list(dataset[list(range(24))])
        weights = batch["hessian_weight"].ravel()
        assert (weights > 0).sum() == 8
        np.testing.assert_allclose(weights[weights > 0], 24 / 16 / 0.5)
        assert weights.sum() == pytest.approx(24)


def test_modes_of_a_store(small_store):
    """The lowest modes of the label: their products are those of the matrix, again and again the same."""
    dataset = HessianDataset(small_store, hessian={"mode": "modes", "k": 3})
    store = HessianStore(small_store)
    first, second = dataset[0], dataset[0]
    assert torch.equal(first["hessian_probe"], second["hessian_probe"])
    probes = rows(first, "hessian_probe")
    np.testing.assert_allclose(np.linalg.norm(probes, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(rows(first, "hessian_product"), probes @ store[0].hessian, atol=1e-10)
    curvature = np.einsum("ki,ij,kj->k", probes, store[0].hessian, probes)
    assert np.all(curvature[:-1] < curvature.max() + 1e-9)


def test_stored_products_beside_hessians(small_store, tmp_path):
    """One geometry with three stored products, one with one, one with a matrix only: that one is unlabelled."""
    records = [HessianStore(small_store)[i] for i in (0, 3, 6)]
    rng = np.random.default_rng(0)
    changed = []
    for record, k in zip(records, (3, 1, 0), strict=True):
        probes = rng.normal(size=(k, 3 * len(record)))
        probes /= np.linalg.norm(probes, axis=1, keepdims=True)
        shape = (k, len(record), 3)
        extra = {"probes": probes.reshape(shape), "products": (probes @ record.hessian).reshape(shape)} if k else {}
        changed.append(record.replace(hessian=None if k else record.hessian, **extra))
    path = tmp_path / "products.zarr"
    with StoreWriter(path) as writer:
        writer.extend(changed)
    dataset = HessianDataset(path, hessian={"mode": "stored"})
    for index, k in enumerate((3, 1, 0)):
        data = dataset[index]
        assert data["hessian_probe"].shape[1] == 9
        assert np.isfinite(rows(data, "hessian_product")).all(axis=1).sum() == k
        assert data["hessian_weight"].item() == pytest.approx(1.5 if k else 0.0)
        live = rows(data, "hessian_probe")[:k]
        np.testing.assert_allclose(rows(data, "hessian_product")[:k], live @ records[index].hessian, atol=1e-9)
    one = HessianDataset(path, hessian={"mode": "stored", "k": 1}, seed=1)
    assert one[0]["hessian_probe"].shape[1] == 3
    assert not all(torch.equal(one[0]["hessian_probe"], one[0]["hessian_probe"]) for _ in range(5))
    with pytest.raises(ConfigError, match="has stored Hessian products"):
        HessianDataset(small_store, hessian={"mode": "stored"})


def test_taylor_needs_whole_hessians(small_store, tmp_path):
    record = HessianStore(small_store)[0]
    active = np.array([0, 1])
    part = record.replace(hessian=record.hessian[:6, :6], active=active)
    path = tmp_path / "partial.zarr"
    with StoreWriter(path) as writer:
        writer.extend([record, part])
    with pytest.raises(ConfigError, match="partial Hessians"):
        HessianDataset(path, hessian={"method": "taylor"})
    data = HessianDataset(path, hessian={"mode": "full", "project": True})[1]
    assert (data["hessian_rigid"] == 0).all()


def test_unknown_options_are_named(small_store):
    with pytest.raises(ConfigError, match=r"unknown kk; expected some of mode, k, distribution"):
        HessianDataset(small_store, hessian={"mode": "random", "kk": 1})


def test_streams_of_other_ranks_begin_anew_in_each_epoch(monkeypatch):
    """Their state is in no checkpoint, so a restart finds them by rank and epoch."""

    def draws(rank, epoch, restored=None):
        monkeypatch.setattr("nequip_hessian.data.stream._distributed", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        stream = ProbeStream(1)
        stream.follow(lambda: epoch)
        if restored is not None:
            stream.load_state_dict(restored)
        return stream.rng().random(3).tolist(), stream.state_dict()

    first, state = draws(0, 0)
    assert draws(1, 0)[0] != first
    assert draws(1, 0)[0] != draws(1, 1)[0]
    assert draws(1, 1)[0] == draws(1, 1, restored=state)[0]
    assert draws(0, 1, restored=state)[0] != first
