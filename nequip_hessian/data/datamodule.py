"""The datamodule that a YAML names: train, validation and test sets from one Hessian store."""

from __future__ import annotations

from typing import Any, Final
from warnings import warn

import numpy as np
from nequip.data.datamodule import NequIPDataModule
from omegaconf import DictConfig, ListConfig, OmegaConf

from nequip_hessian.data.dataset import HessianDataset, labelled_geometries
from nequip_hessian.data.fits import check_charges, check_elements, check_transforms, mapped_types
from nequip_hessian.data.settings import ProbeSettings, for_validation, parse
from nequip_hessian.data.split import select, split_by_scheme
from nequip_hessian.data.statistics import statistics
from nequip_hessian.errors import ConfigError, HessianDataWarning
from nequip_hessian.store import HessianStore

_STREAM_KEY = "hessian_probe_stream"
AS_TRAINING: Final = "as_training"
"""`val_hessian` where nothing was said: what `hessian` says."""


class HessianDataModule(NequIPDataModule):
    """Train, validation and test sets of one store.

    Args:
        seed: seed of shuffling, of splits by shares and of probes
        store: path of the store
        split: name of a scheme in the store (its parts `train`, `val`, and every other one as a
            test set of its own, in order), or shares of the groups: {train: 0.8, val: 0.1, test: 0.1}
        hessian: how to supervise Hessians, e.g. {mode: random, k: 1}, {mode: columns, k: 2} or {mode: full};
            all keys: `nequip_hessian.data.settings.ProbeSettings`; `null` trains on energies and forces
        val_hessian: the same for validation and test sets (probes then depend on the geometry only,
            so figures repeat exactly); default: what `hessian` says, see `for_validation` there; `null`: no
            Hessians in validation and test
        level: index of the level of theory, where the store has several
        charge_and_spin: hand out charges and spins, for models that embed them
        transforms: NequIP's data transforms
        **kwargs: dataloaders and stats_manager, as for NequIP's own datamodules
    """

    def __init__(
        self,
        seed: int,
        store: str,
        split: Any,
        hessian: dict[str, Any] | None = None,
        val_hessian: dict[str, Any] | str | None = AS_TRAINING,
        level: int | None = None,
        charge_and_spin: bool = False,
        transforms: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        split, hessian, val_hessian, transforms = (_plain(v) for v in (split, hessian, val_hessian, transforms))
        if hessian is not None:
            parse(hessian)
        if isinstance(val_hessian, str) and val_hessian != AS_TRAINING:
            raise ConfigError(f"val_hessian: expected settings such as {{mode: full}}, or null, found {val_hessian!r}")
        if val_hessian is not None and not isinstance(val_hessian, str):
            parse(val_hessian)
        self._val_given = val_hessian not in (None, AS_TRAINING)
        if hessian is None and self._val_given:
            raise ConfigError(
                "val_hessian was given without `hessian`: the model would be asked for products only in val"
            )
        shared = {
            "_target_": "nequip_hessian.data.HessianDataset",
            "store": str(store),
            "split": split,
            "level": level,
            "charge_and_spin": charge_and_spin,
            "seed": seed,
            "transforms": transforms or [],
        }
        names = list(split_by_scheme(HessianStore(store), split)) if isinstance(split, str) else list(split or {})
        for needed in ("train", "val"):
            if needed not in names:
                raise ConfigError(f"split: a part {needed!r} is needed, found {', '.join(names) or 'none'}")
        self.test_parts = [name for name in names if name not in ("train", "val")]
        if isinstance(val_hessian, str):
            val_hessian = for_validation(hessian)
        self._settings = {
            "train": None if hessian is None else parse(hessian),
            "val": None if val_hessian is None else parse(val_hessian),
        }
        fixed = {**shared, "hessian": val_hessian, "fixed_probes": True}
        super().__init__(
            seed=seed,
            train_dataset={**shared, "part": "train", "hessian": hessian},
            val_dataset={**fixed, "part": "val"},
            test_dataset=[_without_missing(store, {**fixed, "part": part}) for part in self.test_parts],
            **kwargs,
        )
        self._stream_state: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Open the datasets of a stage; a restored probe stream goes on where it was.

        Raises:
            ConfigError: a loss or metric of the training module that the probes do not fit, also one of the
                tests that come after a training; a model of other types, cutoff or elements, or one that does not
                embed charges which the data mix.
        """
        if self.trainer is not None and self.trainer.lightning_module is not None:
            self._check_figures(self.trainer.lightning_module)
            if stage == "fit":
                self._check_use(self.trainer.lightning_module)
            self._check_models(self.trainer.lightning_module)
            for metric in (getattr(self.trainer.lightning_module, "loss", None) or {}).values():
                if hasattr(metric, "name_geometries"):
                    metric.name_geometries(self.geometry_name)
        super().setup(stage)
        for name in ("train", "val", "test"):
            for opened in getattr(self, f"{name}_dataset", None) or []:
                check_elements(opened.store, opened.indices, opened.part, self.train_dataset_config[0]["transforms"])
        if stage == "fit":
            self._restore_stream()
            stream = self._stream()
            if stream is not None:
                stream.follow(lambda: 0 if self.trainer is None else int(self.trainer.current_epoch))

    def geometry_name(self, index: int) -> str:
        """Return the label of a geometry of the store, or what there is: its group's; empty without any."""
        store = HessianStore(self.train_dataset_config[0]["store"])
        label = store.label(index)
        if label is None and store.group is not None:
            label = store.group_label(int(store.group[index]))
        return label or ""

    def _check_figures(self, module: Any) -> None:
        for name, part in (
            ("loss", "train"),
            ("train_metrics", "train"),
            ("val_metrics", "val"),
            ("test_metrics", "val"),
        ):
            managers = getattr(module, name, None)
            if managers is not None:
                for manager in [managers] if hasattr(managers, "entries") else filter(None, managers):
                    _check_manager(manager, name, part, self._settings[part])

    def _check_use(self, module: Any) -> None:
        """Refuse Hessians that neither a loss nor a metric looks at; warn where only metrics do."""
        managers = [getattr(module, name, None) for name in ("loss", "train_metrics", "val_metrics", "test_metrics")]
        train, validation = (any(_of_hessians(manager) for manager in some) for some in (managers[:2], managers[2:]))
        settings = self._settings["train"]
        if settings is not None and settings.method != "taylor" and not train:
            if not validation:
                raise ConfigError(
                    "hessian: the data section asks for Hessians, but the loss has no Hessian term, and no metric "
                    "is of Hessians: use nequip_hessian.train.EnergyForceHessianLoss, or leave `hessian` out"
                )
            warn(
                "hessian: the loss has no Hessian term, so Hessians are validated and not learnt; for training use "
                "nequip_hessian.train.EnergyForceHessianLoss",
                HessianDataWarning,
                stacklevel=2,
            )
        if self._val_given and not validation:
            raise ConfigError(
                "val_hessian: no metric of validation or test is of Hessians: use "
                "nequip_hessian.train.EnergyForceHessianMetrics, or leave `val_hessian` out"
            )

    def _check_models(self, module: Any) -> None:
        config = self.train_dataset_config[0]
        for model in getattr(module, "model", {}).values():
            metadata = model.metadata
            if "r_max" in metadata:
                pruned = "per_edge_type_cutoff" in metadata
                check_transforms(model.type_names, float(metadata["r_max"]), pruned, config["transforms"])
            if config["charge_and_spin"]:
                check_charges(*self._all_parts(), model.model_input_fields)

    def _all_parts(self) -> tuple[HessianStore, Any]:
        """The store, and the geometries of all parts."""
        parts = [*self.train_dataset_config, *self.val_dataset_config, *self.test_dataset_config]
        opened = [HessianDataset(**_bare(part)) for part in parts]
        return opened[0].store, np.concatenate([dataset.indices for dataset in opened])

    def state_dict(self) -> dict[str, Any]:
        """Add the state of the training probes' stream to NequIP's own state."""
        state = super().state_dict()
        stream = self._stream()
        state[_STREAM_KEY] = self._stream_state if stream is None else stream.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore NequIP's own state, the generators that are in use already, and the probe stream."""
        super().load_state_dict(state_dict)
        # Lightning restores after `setup`, where NequIP has made its generators from the state of a fresh run:
        # without this a restart would shuffle as the first epochs did
        for name in ("train_generator", "generator"):
            if hasattr(self, name):
                getattr(self, name).set_state(state_dict[f"{name}_state"])
        self._stream_state = state_dict.get(_STREAM_KEY)
        self._restore_stream()

    def get_statistics(self, dataset: str = "train", dataset_idx: int = 0) -> dict[str, Any]:
        """Return NequIP's statistics and, for the training set, `atomic_energies`, `energy_scale` (eV) and `forces_rms`
        (eV/angstrom).

        A YAML asks for them as `${training_data_stats:atomic_energies}`.
        """
        if dataset != "train":
            return dict(super().get_statistics(dataset, dataset_idx))
        opened, transforms = (
            HessianDataset(**_bare(self.train_dataset_config[0])),
            self.train_dataset_config[0]["transforms"],
        )
        check_elements(opened.store, opened.indices, "train", transforms)
        found = statistics(opened.store, opened.indices, mapped_types(transforms))
        found.update(super().get_statistics(dataset, dataset_idx))
        return found

    def _stream(self) -> Any:
        datasets = getattr(self, "train_dataset", None)
        probes = getattr(datasets[0], "probes", None) if datasets else None
        return None if probes is None else probes.stream

    def _restore_stream(self) -> None:
        stream = self._stream()
        if stream is not None and self._stream_state is not None:
            stream.load_state_dict(self._stream_state)


def _check_manager(manager: Any, name: str, part: str, settings: ProbeSettings | None) -> None:
    """Ask each figure on Hessians whether it can be had from these probes; by method, so that nothing of `train` is
    imported here."""
    for metric_name, metric in manager.items():
        check = getattr(metric, "check_probes", None)
        if check is None:
            continue
        if settings is not None:
            check(settings)
        elif manager.entries[metric_name].coeff is not None:
            entry = "hessian" if part == "train" else "val_hessian"
            raise ConfigError(
                f"{name}: {metric_name} has a coefficient, but the data section has no `{entry}` for it; add one, or "
                + ("use a loss without Hessians" if part == "train" else "give it no coefficient (null)")
            )


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, (DictConfig, ListConfig)) else value


def _of_hessians(managers: Any) -> bool:
    """Whether a figure of a metrics manager, or of a list of them, is of Hessians."""
    if managers is None:
        return False
    each = [managers] if hasattr(managers, "entries") else list(filter(None, managers))
    return any(hasattr(metric, "check_probes") for manager in each for metric in manager.values())


def _bare(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a dataset that opens the same geometries without Hessians and transforms."""
    return {**{k: v for k, v in config.items() if k not in ("_target_", "transforms")}, "hessian": None}


def _without_missing(store: str, config: dict[str, Any]) -> dict[str, Any]:
    """Leave Hessians out of a test part that has none, so that its energies and forces can still be tested."""
    if config["hessian"] is None:
        return config
    opened = HessianStore(store)
    indices = select(opened, config["split"], config["part"], config["seed"])
    return config if labelled_geometries(opened, config["hessian"])[indices].any() else {**config, "hessian": None}
