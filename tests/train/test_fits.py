"""A model and a data section that do not belong together are an error before the first step."""

import numpy as np
import pytest
from nequip.train import NequIPLightningModule
from short_runs import LOSS, METRICS, datamodule, module, trainer
from small_models import NEQUIP, R_MAX, SYMBOLS

from nequip_hessian.data import HessianDataModule, HessianDataset
from nequip_hessian.data.fits import check_transforms
from nequip_hessian.errors import ConfigError, HessianDataWarning
from nequip_hessian.store import HessianStore, StoreWriter

MAPPER = "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper"
NEIGHBOURS = "nequip.data.transforms.NeighborListTransform"
PLAIN = {"_target_": "nequip.train.EnergyForceMetrics"}
PLAIN_LOSS = {"_target_": "nequip.train.EnergyForceLoss"}


def data_of(store, symbols=SYMBOLS, r_max=R_MAX, **options):
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 8}
    return HessianDataModule(
        seed=1,
        store=str(store),
        split="random",
        transforms=[
            {"_target_": MAPPER, "model_type_names": symbols},
            {"_target_": NEIGHBOURS, "r_max": r_max},
        ],
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        **{"hessian": {"mode": "random"}, **options},
    )


def written(path, records, parts=("train", "val", "test"), codes=(0, 0, 0, 0, 1, 1, 2, 2)):
    with StoreWriter(path) as writer:
        writer.extend(records)
        writer.set_split("random", list(parts), np.array(codes, dtype=np.int8))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"symbols": ["C", "H", "O", "N", "Al"]},
            r"model_type_names are C, H, O, N, Al, but the model's types are H, C",
        ),
        ({"symbols": [*SYMBOLS, "S"]}, "would be mixed up"),
        ({"r_max": 1.5}, r"r_max is 1.5 angstrom, but the model's is 4"),
    ],
)
def test_types_and_cutoff_are_those_of_the_model(small_store, tmp_path, changes, message):
    data = data_of(small_store, **changes)
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path).fit(module(data), datamodule=data)
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path).test(module(data, test_metrics=METRICS), datamodule=data)


def test_what_is_harmless_passes(small_store, tmp_path):
    data = data_of(small_store, symbols=SYMBOLS[:4], r_max=5.0)
    trainer(tmp_path).fit(module(data), datamodule=data)
    pruned = {"_target_": NEIGHBOURS, "r_max": 4.0, "per_edge_type_cutoff": {"H": 2.0}}
    check_transforms(SYMBOLS, 4.0, True, [pruned, "a transform that is an object"])
    with pytest.raises(ConfigError, match="per_edge_type_cutoff takes pairs away"):
        check_transforms(SYMBOLS, 4.0, False, [pruned])


def test_elements_that_the_model_lacks_are_named(small_store, tmp_path):
    data = data_of(small_store, symbols=["H", "C", "N"])
    with pytest.raises(ConfigError, match=r"part 'train' has elements .* lacks: O \(in \d+ of 16, first geometry 0\)"):
        data.get_statistics()
    with pytest.raises(ConfigError, match="lacks: O"):
        data.setup("fit")


def test_mixed_charges_need_a_model_that_embeds_them(small_store, tmp_path):
    records = [r for r in HessianStore(small_store) if r.hessian is not None][:8]
    ions = [r.replace(charge=i % 2, multiplicity=1 + i % 2) for i, r in enumerate(records)]
    path = written(tmp_path / "ions.zarr", ions)
    data = data_of(path, charge_and_spin=True)
    with pytest.raises(ConfigError, match=r"mix the charges \[0, 1\], but the model does not embed `charge`"):
        trainer(tmp_path).fit(module(data), datamodule=data)
    embed = [
        {"field": "charge", "num_features": 2, "min": 0, "max": 1},
        {"field": "spin", "num_features": 2, "min": 1, "max": 2},
    ]
    sizes = {"num_layers": 1, "num_features": 4}
    for fields, wrong in ((embed[:1], "multiplicities"), (embed, None)):
        net = NequIPLightningModule(
            model={
                "_target_": "nequip_hessian.model.NequIPGNNModel",
                **NEQUIP,
                **sizes,
                "categorical_graph_field_embed": fields,
            },
            num_datasets=data.num_datasets,
            optimizer={"_target_": "torch.optim.Adam"},
            loss=LOSS,
            val_metrics=METRICS,
            info_dict={},
        )
        if wrong is None:
            trainer(tmp_path).fit(net, datamodule=data)
        else:
            with pytest.raises(ConfigError, match=wrong):
                trainer(tmp_path).fit(net, datamodule=data)


def test_hessians_that_nobody_looks_at(small_store, tmp_path):
    data = datamodule(small_store, {"mode": "random"})
    with pytest.raises(ConfigError, match="no Hessian term, and no metric is of Hessians"):
        trainer(tmp_path).fit(module(data, PLAIN_LOSS, val_metrics=PLAIN), datamodule=data)
    with pytest.warns(HessianDataWarning, match="validated and not learnt"):
        trainer(tmp_path).fit(module(data, PLAIN_LOSS), datamodule=data)
    data = datamodule(small_store, {"mode": "random"}, val_hessian={"mode": "full"})
    with pytest.raises(ConfigError, match="val_hessian: no metric"):
        trainer(tmp_path).fit(module(data, val_metrics=PLAIN), datamodule=data)
    trainer(tmp_path).test(module(data, PLAIN_LOSS, test_metrics=PLAIN), datamodule=data, verbose=False)


def test_a_validation_without_hessians(small_store, tmp_path):
    records = [r for r in HessianStore(small_store) if r.hessian is not None][:8]
    bare = [r.replace(hessian=None, asymmetry=None) if i in (4, 5) else r for i, r in enumerate(records)]
    path = written(tmp_path / "bare.zarr", bare)
    data = data_of(path)
    with pytest.raises(Exception, match=r"bare.zarr: none of the 2 geometries of part 'val' .* val_hessian: null"):
        data.setup("fit")
    data = data_of(path, val_hessian=None)
    with pytest.raises(ConfigError, match="val_metrics: hessian_rmse has a coefficient"):
        trainer(tmp_path).fit(module(data), datamodule=data)
    run = trainer(tmp_path)
    run.fit(module(data, val_metrics=PLAIN), datamodule=data)
    assert np.isfinite(float(run.callback_metrics["val0_epoch/weighted_sum"]))
    assert "hessian_probe" not in HessianDataset(path, "random", "val")[0]


def test_statistics_that_cannot_be_had_are_errors_where_they_are_asked_for(small_store, tmp_path):
    records = list(HessianStore(small_store))[:8]
    path = written(tmp_path / "cold.zarr", [r.replace(energy=None) for r in records])
    found = data_of(path).get_statistics()
    assert found.get("energy_scale", None) > 0
    with pytest.raises(
        ConfigError, match=r"training_data_stats:atomic_energies: no geometry .* per_type_energy_shifts"
    ):
        found.get("atomic_energies", None)
    assert found.get("num_neighbors_mean", None) is None
