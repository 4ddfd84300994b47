"""The evaluation page at the end of a training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from nequip.utils import RankedLogger

from nequip_hessian.errors import ConfigError
from nequip_hessian.outputs import require_results_folder
from nequip_hessian.potentials import PotentialSource

if TYPE_CHECKING:
    from nequip_hessian.store import HessianStore

_log = RankedLogger(__name__, rank_zero_only=True)

_PATIENCE: Final = timedelta(days=30)


class WriteEvaluationPage(Callback):
    """Evaluate the best checkpoint when the training ends, as `nequip-hessian evaluate` does, and write its page.

    Rank zero does it; the others wait, without the time limit of their process group, so that a `test` that
    follows finds all of them. What goes wrong in it is a warning: the training, its checkpoints and that test are
    not touched. The predictions are kept in the folder, so that the command
    can be repeated with more tasks later. The page also shows the learning curves: the figures of every validation,
    which checkpoints carry along, so that a restarted training shows all of them.

    Args:
        output: folder of the page; default: `evaluation` beside the checkpoint
        store: labelled geometries; default: the store that the training reads
        split: `scheme:part` each; default: the test parts of the scheme that the training itself uses (`split` of its
            data), where that is one of the store's; else as the command
        tasks: see `nequip_hessian.evaluate.TASKS`; default: those of the command
        limit: at most so many geometries; reactions: at most so many reactions
        name: of this model on the page
        baseline: other models by name (files, `tblite`, `ase:NAME`), before this one on the page
        device: `cpu` or `cuda`, for the evaluation
        options: further fields of `nequip_hessian.evaluate.Options`, e.g. {masses: isotopic}

    Raises:
        ConfigError: wrong options, a trainer without ModelCheckpoint, or no split where one has to be named; all
            before the training.

    Example:
        .. code-block:: yaml

            callbacks:
              - _target_: lightning.pytorch.callbacks.ModelCheckpoint
                dirpath: ${hydra:runtime.output_dir}
              - _target_: nequip_hessian.train.WriteEvaluationPage
                tasks: [accuracy, minima, thermochemistry]
                limit: 200
    """

    def __init__(
        self,
        output: str | None = None,
        store: str | None = None,
        split: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        limit: int | None = None,
        reactions: int | None = None,
        name: str = "this model",
        baseline: Mapping[str, str] | None = None,
        device: str = "cpu",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        from nequip_hessian.evaluate import DEFAULT_TASKS, Options  # not a part of every training

        parts = (split,) if isinstance(split, str) else tuple(split)
        try:
            self.options = Options(
                split=parts,
                limit=limit,
                reactions=reactions,
                tasks=DEFAULT_TASKS if tasks is None else tuple(tasks),
                **dict(options or {}),
            )
        except TypeError as exc:
            raise ConfigError(f"WriteEvaluationPage options: {exc}; see nequip_hessian.evaluate") from None
        self.output, self.store, self.device = output, store, device
        self.baseline, self.name = dict(baseline or {}), name
        self._validations: list[dict[str, float]] = []
        self._before, self._began = 0.0, 0.0
        if name in self.baseline:
            raise ConfigError(f"WriteEvaluationPage: a baseline has this model's name, {name!r}; set name")

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse before the training what could not be evaluated after it."""
        if stage != "fit":
            return
        if not trainer.checkpoint_callbacks:
            raise ConfigError("WriteEvaluationPage: the trainer keeps no checkpoint; add ModelCheckpoint to callbacks")
        place = self._store(trainer)
        if not place.exists():
            raise ConfigError(f"WriteEvaluationPage: no store {place}; set store")
        if self.output:
            require_results_folder(self.output, "evaluate", self._inputs(place))
        if not self.options.split:
            self._check_default(trainer, place)

    def _check_default(self, trainer: lightning.Trainer, place: Path) -> None:
        from nequip_hessian.analysis.selection import default_scheme, test_parts
        from nequip_hessian.store import HessianStore

        store = HessianStore(place)
        schemes = self._split(trainer, store)
        if any(not test_parts(store, scheme) for scheme in schemes):
            raise ConfigError(
                f"WriteEvaluationPage: the training's split {schemes[0]!r} has no test part in {place}; set split, "
                f"e.g. split: ['{schemes[0]}:val']"
            )
        if not schemes:
            default_scheme(store)

    def _split(self, trainer: lightning.Trainer, store: HessianStore) -> tuple[str, ...]:
        """What is evaluated: what was asked for, else the scheme of the training; empty: the command's default."""
        if self.options.split:
            return self.options.split
        datasets = getattr(getattr(trainer, "datamodule", None), "train_dataset_config", None)
        used = datasets[0].get("split") if datasets else None
        return (used,) if isinstance(used, str) and used in store.split_schemes else ()

    def _store(self, trainer: lightning.Trainer) -> Path:
        if self.store is not None:
            return Path(self.store)
        datasets = getattr(getattr(trainer, "datamodule", None), "train_dataset_config", None)
        found = datasets[0].get("store") if datasets else None
        if found is None:
            raise ConfigError("WriteEvaluationPage: the training reads no Hessian store; set store")
        return Path(found)

    def _inputs(self, *more: str | Path) -> list[str | Path]:
        """What is read: the models of the baseline that are files, and more."""
        return [*(text for text in self.baseline.values() if not PotentialSource(text).foreign), *more]

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock of the learning curves."""
        self._began = time.monotonic()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the figures of a validation."""
        if trainer.sanity_checking:
            return
        seconds = self._before + time.monotonic() - self._began
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "seconds": round(seconds, 3)}
        self._validations.append(row | _figures(trainer, "val"))

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the loss of the epoch before, which is known only now."""
        self._keep_loss(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the loss of the last epoch."""
        self._keep_loss(trainer)

    def _keep_loss(self, trainer: lightning.Trainer) -> None:
        if self._validations:
            self._validations[-1] |= _figures(trainer, "train")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the learning curves."""
        return {"validations": list(self._validations), "seconds": self._before + time.monotonic() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the learning curves of the training that is restarted."""
        self._validations, self._before = list(state_dict["validations"]), float(state_dict["seconds"])

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the page from the best checkpoint."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.is_global_zero:
            self._write_or_warn(trainer)
        _wait_for_all()

    def _write_or_warn(self, trainer: lightning.Trainer) -> None:
        checkpoint = next((path for path in _checkpoints(trainer) if path), None)
        from nequip_hessian.store import HessianStore

        if checkpoint is None:
            _log.warning("WriteEvaluationPage: no checkpoint was written, so there is nothing to evaluate")
            return
        out = Path(self.output) if self.output else Path(checkpoint).parent / "evaluation"
        parts = self.options.split
        try:
            store = HessianStore(self._store(trainer))
            parts = self._split(trainer, store)
            with torch.enable_grad():
                page = self._write(store, parts, checkpoint, out)
        except Exception as exc:  # hours of training must not end in a traceback because of a page
            again = f"nequip-hessian evaluate {checkpoint} {self._store(trainer)} -o {out}"
            if parts:
                again += f" --split {','.join(parts)}"
            _log.warning(f"WriteEvaluationPage: not written: {type(exc).__name__}: {exc}; try again: {again}")
            return
        _log.info(f"Evaluation page: {page}")

    def _write(self, store: HessianStore, parts: tuple[str, ...], checkpoint: str, out: Path) -> Path:
        from nequip_hessian.evaluate import evaluate, load_models
        from nequip_hessian.report import write_report

        entries = [*(f"{name}={model}" for name, model in self.baseline.items()), f"{self.name}={checkpoint}"]
        require_results_folder(out, "evaluate", self._inputs(checkpoint, store.path))
        found = evaluate(load_models(entries, self.device), store, out, replace(self.options, split=parts))
        return write_report(found, out, self._validations)


def _figures(trainer: lightning.Trainer, part: str) -> dict[str, float]:
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in found if name.startswith(part) and "_epoch/" in name}


def _wait_for_all() -> None:
    """Hold each rank until all are here: an evaluation may take longer than collective operations may."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        distributed.barrier(group)
        distributed.destroy_process_group(group)


def _checkpoints(trainer: lightning.Trainer) -> list[str]:
    """The best checkpoint of each callback, then the last."""
    kept = trainer.checkpoint_callbacks
    names = ("best_model_path", "last_model_path")
    return [str(getattr(callback, name, "")) for name in names for callback in kept]
