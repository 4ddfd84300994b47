import pickle
import shutil
import warnings

import ase.io
import nequip  # noqa: F401  (registers our fields)
import numpy as np
import pytest
import torch
from ase import Atoms
from nequip.data import AtomicDataDict
from nequip.data.dataset import ASEDataset
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform

from nequip_hessian.data import HessianDataModule, HessianDataset, HessianProbes
from nequip_hessian.data.split import split_by_group
from nequip_hessian.data.statistics import statistics
from nequip_hessian.errors import ConfigError, HessianDataError, HessianDataWarning
from nequip_hessian.store import HessianStore, StoreWriter

SYMBOLS = ["H", "C", "N", "O"]
TRANSFORMS = [ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=4.0)]


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)


def products(data):
    """(K, N, 3) probes and products."""
    n = len(data["pos"])
    return [data[key].reshape(n, -1, 3).transpose(0, 1) for key in ("hessian_probe", "hessian_product")]


@pytest.mark.parametrize("mode", [{"mode": "full"}, {"mode": "columns", "k": 4}, {"mode": "random", "k": 3}])
def test_products_are_those_of_the_stored_hessian(small_store, mode):
    dataset = HessianDataset(small_store, hessian=mode, seed=3, transforms=TRANSFORMS)
    store = HessianStore(small_store)
    width = {"full": 3 * 6, "columns": 4, "random": 3}[mode["mode"]]
    for index in range(len(store)):
        data = dataset[index]
        record = store[index]
        probes, values = products(data)
        assert probes.shape == (width, len(record), 3)
        assert torch.isfinite(probes).all()
        if record.hessian is None:
            assert (probes == 0).all()
            assert torch.isnan(values).all()
            assert data["hessian_weight"].item() == 0
            continue
        live = probes.reshape(width, -1).norm(dim=1) > 0
        assert live.sum() == {"full": 3 * len(record), "columns": 4, "random": 3}[mode["mode"]]
        expected = probes.reshape(width, -1).numpy() @ record.hessian
        np.testing.assert_allclose(values.reshape(width, -1)[live].numpy(), expected[live.numpy()], atol=1e-10)
        assert torch.isnan(values[~live]).all()
        assert data["hessian_weight"].item() == pytest.approx(24 / 16)


def test_mixed_sizes_and_labels_make_one_batch(small_store):
    dataset = HessianDataset(small_store, hessian={"mode": "random", "k": 2}, transforms=TRANSFORMS)
    batch = AtomicDataDict.batched_from_list(dataset[0:8])
    assert batch["hessian_probe"].shape == (len(batch["pos"]), 6)
    assert batch["hessian_weight"].shape == (8, 1)


def test_training_probes_change_validation_probes_repeat(small_store):
    training = HessianDataset(small_store, hessian={"mode": "random"}, seed=1)
    assert not torch.equal(training[0]["hessian_probe"], training[0]["hessian_probe"])
    again = HessianDataset(small_store, hessian={"mode": "random"}, seed=1)
    other = HessianDataset(small_store, hessian={"mode": "random"}, seed=1)
    assert torch.equal(again[0]["hessian_probe"], other[0]["hessian_probe"])
    fixed = HessianDataset(small_store, hessian={"mode": "random"}, seed=1, fixed_probes=True)
    assert torch.equal(fixed[0]["hessian_probe"], fixed[0]["hessian_probe"])
    part = HessianDataset(
        small_store, split="random", part="val", hessian={"mode": "random"}, seed=1, fixed_probes=True
    )
    assert torch.equal(fixed[16]["hessian_probe"], part[0]["hessian_probe"])


def test_workers_draw_other_probes_and_the_same_under_the_same_seed(small_store):
    def epoch(seed, workers):
        dataset = HessianDataset(small_store, hessian={"mode": "random"}, seed=1)
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=4,
            num_workers=workers,
            collate_fn=AtomicDataDict.batched_from_list,
            generator=torch.Generator().manual_seed(seed),
        )
        return [torch.cat([b["hessian_probe"].ravel() for b in loader]) for _ in range(2)]

    first, second = epoch(0, 2)
    assert not torch.equal(first, second)
    np.testing.assert_array_equal(first, epoch(0, 2)[0])
    assert not torch.equal(first, epoch(5, 2)[0])
    alone = epoch(0, 0)
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.parametrize("index", [2, np.int64(2), -22, torch.tensor(2)])
def test_every_kind_of_index(small_store, index):
    dataset = HessianDataset(small_store)
    torch.testing.assert_close(dataset[index]["pos"], dataset[2]["pos"])
    many = dataset[np.array([0, 2])]
    torch.testing.assert_close(many[1]["pos"], dataset[2]["pos"])
    torch.testing.assert_close(dataset[torch.tensor([0, 2])][1]["pos"], dataset[2]["pos"])
    assert len(dataset[20:]) == 4


def test_it_can_be_pickled(small_store):
    dataset = HessianDataset(small_store, hessian={"mode": "full"})
    copy = pickle.loads(pickle.dumps(dataset))
    torch.testing.assert_close(copy[0]["hessian_product"], dataset[0]["hessian_product"], equal_nan=True)


def test_it_works_on_a_dataset_of_nequip(small_store, tmp_path):
    store = HessianStore(small_store)
    frames = []
    for record in store:
        if record.hessian is not None:
            atoms = Atoms(numbers=record.numbers, positions=record.positions)
            atoms.info["energy"], atoms.arrays["forces"] = record.energy, record.forces
            atoms.info["hessian"] = record.hessian.ravel()
            frames.append((atoms, record))
    path = tmp_path / "frames.xyz"
    ase.io.write(path, [atoms for atoms, _ in frames], format="extxyz")
    dataset = ASEDataset(
        str(path), transforms=[*TRANSFORMS, HessianProbes("columns", 2, seed=1)], include_keys=["hessian"]
    )
    batch = AtomicDataDict.batched_from_list([dataset[i] for i in range(4)])
    assert batch["hessian_product"].shape == (len(batch["pos"]), 6)
    for index, (_, record) in enumerate(frames):
        probes, values = products(dataset[index])
        expected = probes.reshape(2, -1).numpy() @ record.hessian
        np.testing.assert_allclose(values.reshape(2, -1).numpy(), expected, atol=1e-5)


def test_an_unlabelled_geometry_needs_the_labelled_fraction():
    data = {"pos": torch.zeros(2, 3), "atomic_numbers": torch.tensor([1, 1])}
    with pytest.raises(ConfigError, match="labelled_fraction"):
        HessianProbes()(data)
    out = HessianProbes(labelled_fraction=0.5)(data)
    assert torch.isnan(out["hessian_product"]).all()
    with pytest.raises(ConfigError, match="max_atoms"):
        HessianProbes("full")
    with pytest.raises(HessianDataError, match=r"expected shape \(6, 6\)"):
        HessianProbes()({**data, "hessian": torch.zeros(5, 5)})
    with pytest.raises(HessianDataError, match="NaN"):
        HessianProbes()({**data, "hessian": torch.full((6, 6), np.nan)})


def test_partial_hessian_is_probed_on_its_atoms_only():
    matrix = np.diag(np.arange(1.0, 7.0))
    data = {"pos": torch.zeros(3, 3), "hessian": torch.tensor(matrix), "hessian_active": np.array([0, 2])}
    out = HessianProbes("random", 4)(data)
    probes, values = products(out)
    assert (probes[:, 1] == 0).all()
    assert torch.isnan(values[:, 1]).all()
    np.testing.assert_allclose(values[:, [0, 2]].reshape(4, -1), probes[:, [0, 2]].reshape(4, -1) @ matrix)


def test_splits_keep_groups_together(small_store):
    store = HessianStore(small_store)
    parts = split_by_group(store, {"train": 0.5, "val": 0.25, "test": 0.25}, seed=0)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(24))
    groups = [set(np.asarray(store.group)[rows]) for rows in parts.values()]
    assert not groups[0] & groups[1]
    assert not groups[1] & groups[2]
    for wrong in ({"train": 0.9, "val": 0.2}, {"train": 1.0, "val": 0.0}, {"train": 0.5, "val": float("nan")}, {}):
        with pytest.raises(ConfigError, match="shares"):
            split_by_group(store, wrong, seed=0)
    with pytest.raises(ConfigError, match="empty"):
        split_by_group(store, {"train": 0.97, "val": 0.03}, seed=0)


def test_what_one_model_cannot_learn_is_refused(small_store, tmp_path):
    records = list(HessianStore(small_store)[[0, 1]])
    ion = records[1].replace(charge=1, multiplicity=2)
    path = tmp_path / "mixed.zarr"
    with StoreWriter(path) as writer:
        writer.extend([records[0], ion])
    with pytest.raises(ConfigError, match=r"charges: this part mixes \[0, 1\]"):
        HessianDataset(path)
    data = HessianDataset(path, charge_and_spin=True)[1]
    assert data["charge"].item() == 1
    assert data["spin"].item() == 2
    other = records[0].replace(level=type(records[0].level)("HF", "STO-3G"))
    path = tmp_path / "levels.zarr"
    with StoreWriter(path) as writer:
        writer.extend([records[0], other])
    with pytest.raises(ConfigError, match="one level of theory"):
        HessianDataset(path)
    assert len(HessianDataset(path, level=1)) == 1
    with pytest.raises(ConfigError, match="no scheme 'nope'"):
        HessianDataset(small_store, split="nope", part="train")


def test_atomic_energies_take_the_composition_out(small_store):
    store = HessianStore(small_store)
    found = statistics(store, np.arange(24), {symbol: symbol for symbol in (*SYMBOLS, "F")})
    energies = found["atomic_energies"]
    assert list(energies) == [*SYMBOLS, "F"]
    assert energies["F"] == 0.0
    left = [r.energy - sum(energies[s] for s in Atoms(numbers=r.numbers).symbols) for r in store]
    assert np.std(left) < 0.05 * np.std(store.energy)
    forces = np.concatenate([r.forces.ravel() for r in store])
    assert found["forces_rms"] == pytest.approx(np.sqrt(np.mean(forces**2)))


def test_energy_scale_is_the_force_after_random_displacements(small_store, tmp_path):
    """Against the harmonic forces of displacements that are drawn, and of the same geometries taken for stationary."""
    store = HessianStore(small_store)
    records = [record for record in store if record.hessian is not None]
    draw = np.random.default_rng(1)
    curved = [
        0.05 * np.einsum("ij,kj->ki", record.hessian, draw.standard_normal((4000, len(record.hessian))))
        for record in records
    ]
    brought = np.mean(np.concatenate([moved.ravel() for moved in curved]) ** 2)
    forces = np.concatenate([record.forces.ravel() for record in store])
    found = statistics(store, np.arange(24), {})
    assert found["energy_scale"] ** 2 == pytest.approx(np.mean(forces**2) + brought, rel=0.02)
    with StoreWriter(tmp_path / "still.zarr") as writer:
        writer.extend(record.replace(forces=np.zeros_like(record.forces)) for record in records)
        writer.extend(record.replace(hessian=None, asymmetry=None) for record in records[:1])
    still = HessianStore(tmp_path / "still.zarr")
    assert statistics(still, np.arange(len(records)), {})["energy_scale"] ** 2 == pytest.approx(brought, rel=0.02)
    without = statistics(store, np.flatnonzero(~store.has_hessian), {})
    assert without["energy_scale"] == without["forces_rms"]


def test_the_probe_stream_goes_on_after_a_restart(small_store):
    def make():
        module = HessianDataModule(
            seed=1,
            store=str(small_store),
            split="random",
            hessian={"mode": "random"},
            train_dataloader={"_target_": "torch.utils.data.DataLoader", "batch_size": 4},
        )
        module.setup("fit")
        return module

    module = make()
    for _ in range(3):
        module.train_dataset[0][0]
    state = module.state_dict()
    expected = module.train_dataset[0][0]["hessian_probe"]
    restarted = make()
    restarted.load_state_dict(state)
    assert torch.equal(restarted.train_dataset[0][0]["hessian_probe"], expected)
    late = HessianDataModule(seed=1, store=str(small_store), split="random", hessian={"mode": "random"})
    late.load_state_dict(state)
    late.setup("fit")
    assert torch.equal(late.train_dataset[0][0]["hessian_probe"], expected)


def test_a_damaged_hessian_is_an_error_not_a_missing_label(small_store, tmp_path):
    copy = tmp_path / "damaged.zarr"
    shutil.copytree(small_store, copy)
    (copy / "hessian" / "data" / "c" / "0").unlink()
    dataset = HessianDataset(copy, hessian={"mode": "random"})
    with pytest.raises(HessianDataError, match="chunk hessian/data/c/0 is not there"):
        dataset[0]


def test_a_missing_label_is_told_with_what_was_found():
    data = {"pos": torch.zeros(2, 3), "atomic_numbers": torch.tensor([1, 8]), "hess": torch.zeros(6, 6)}
    with pytest.raises(ConfigError) as caught:
        HessianProbes()(data)
    for part in ("HO (first atom at 0, 0, 0 angstrom)", "field `hessian`", "atomic_numbers, hess, pos", "include_keys"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="`hessian_probe` and `hessian_product`"):
        HessianProbes("stored", 2)(data)
    for wrong in (torch.zeros(5, 5), torch.full((6, 6), np.nan)):
        with pytest.raises(HessianDataError, match=r"^geometry HO \(first atom at"):
            HessianProbes()({**data, "hessian": wrong})
    with pytest.raises(ConfigError, match=r"geometry HO .* has 2 atoms"):
        HessianProbes("full", max_atoms=1)(data)


def test_a_raw_matrix_is_held_against_physics():
    bond = np.kron([[1.0, -1.0], [-1.0, 1.0]], np.diag([0.0, 0.0, 30.0]))
    data = {"pos": torch.zeros(2, 3), "atomic_numbers": torch.tensor([1, 8])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HessianProbes()({**data, "hessian": torch.tensor(bond)})
        HessianProbes()({**data, "hessian": torch.tensor(np.diag(np.arange(6.0)) * 9), "hessian_active": [0, 1]})
    upper = np.triu(np.ones((6, 6)))
    with pytest.raises(HessianDataError, match=r"geometry HO .*not symmetric"):
        HessianProbes()({**data, "hessian": torch.tensor(bond + 5 * upper)})
    probes = HessianProbes()
    with pytest.warns(HessianDataWarning, match=r"geometry HO .*do not sum to zero") as caught:
        _ = [probes({**data, "hessian": torch.tensor(np.abs(bond))}) for _ in range(3)]
    assert len(caught) == 1
