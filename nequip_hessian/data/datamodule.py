"""The datamodule that a YAML names: train, validation and test sets from one Hessian store."""

from __future__ import annotations

from typing import Any

from nequip.data.datamodule import NequIPDataModule
from omegaconf import DictConfig, ListConfig, OmegaConf

from nequip_hessian.data.dataset import HessianDataset, labelled_geometries
from nequip_hessian.data.settings import ProbeSettings, for_validation, parse
from nequip_hessian.data.split import select, split_by_scheme
from nequip_hessian.data.statistics import statistics
from nequip_hessian.errors import ConfigError
from nequip_hessian.store import HessianStore

_STREAM_KEY = "hessian_probe_stream"


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
            so figures repeat exactly); default: what `hessian` says, see `for_validation` there
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
        val_hessian: dict[str, Any] | None = None,
        level: int | None = None,
        charge_and_spin: bool = False,
        transforms: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        split, hessian, val_hessian, transforms = (_plain(v) for v in (split, hessian, val_hessian, transforms))
        for entry in (hessian, val_hessian):
            if entry is not None:
                parse(entry)
        if hessian is None and val_hessian is not None:
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
        val_hessian = val_hessian or for_validation(hessian)
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
                tests that come after a training.
        """
        if self.trainer is not None and self.trainer.lightning_module is not None:
            self._check_figures(self.trainer.lightning_module)
            for metric in (getattr(self.trainer.lightning_module, "loss", None) or {}).values():
                if hasattr(metric, "name_geometries"):
                    metric.name_geometries(self.geometry_name)
        super().setup(stage)
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
        found: dict[str, Any] = super().get_statistics(dataset, dataset_idx)
        if dataset == "train":
            config = {k: v for k, v in self.train_dataset_config[0].items() if k not in ("_target_", "transforms")}
            opened = HessianDataset(**{**config, "hessian": None})
            found = {**statistics(opened.store, opened.indices, _type_names(self.train_dataset_config[0])), **found}
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
            raise ConfigError(f"{name}: {metric_name} has a coefficient, but the data section has no `{entry}` for it")


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, (DictConfig, ListConfig)) else value


def _type_names(config: dict[str, Any]) -> dict[str, str]:
    """Chemical symbol -> type name, as the type mapper among the transforms has it; empty without one."""
    for transform in config["transforms"]:
        if isinstance(transform, dict) and str(transform.get("_target_", "")).endswith(
            "ChemicalSpeciesToAtomTypeMapper"
        ):
            names = transform["model_type_names"]
            return dict(transform.get("chemical_species_to_atom_type_map") or {name: name for name in names})
    return {}


def _without_missing(store: str, config: dict[str, Any]) -> dict[str, Any]:
    """Leave Hessians out of a test part that has none, so that its energies and forces can still be tested."""
    if config["hessian"] is None:
        return config
    opened = HessianStore(store)
    indices = select(opened, config["split"], config["part"], config["seed"])
    return config if labelled_geometries(opened, config["hessian"])[indices].any() else {**config, "hessian": None}
