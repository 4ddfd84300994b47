"""The evaluation page that a training writes, in a real nequip-train of one epoch."""

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from emt_pairs import labelled_pair

from nequip_hessian.analysis.selection import select
from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.evaluate import Model, Options, evaluate
from nequip_hessian.outputs import require_results_folder
from nequip_hessian.report.learning import learning_plot
from nequip_hessian.store import HessianStore, StoreWriter
from nequip_hessian.train import WriteEvaluationPage

ROOT = Path(__file__).resolve().parents[2]


def test_nequip_train_writes_the_page_of_its_checkpoint(small_store, tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "demo_energy_forces_hessians.yaml").read_text(encoding="utf-8"))
    config |= {"run": ["train"], "store": str(small_store)}
    config["data"]["split"] = "random"
    config["trainer"] |= {"max_epochs": 2, "enable_progress_bar": False}
    config["training_module"]["model"] |= {"num_layers": 1, "num_features": 4}
    page = {"_target_": "nequip_hessian.train.WriteEvaluationPage", "tasks": ["accuracy"], "split": ["random:val"]}
    config["trainer"]["callbacks"].append({**page, "baseline": {"emt": "ase:emt"}})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "nequip-train"), "-cp", str(tmp_path), "-cn", "tiny"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path}/run"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "run" / "evaluation"
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in document["models"]] == ["emt", "this model"]
    assert document["models"][1]["path"] == str(tmp_path / "run" / "last.ckpt")
    assert len(document["geometries"]) == 4
    assert "Errors on the validation set" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "plots" / "learning_curves.svg").is_file()
    require_results_folder(out, "evaluate")  # so that the command can be repeated there with more tasks
    _learning_curves_are_what_nequip_logged(out / "learning.csv", tmp_path / "run")
    # the numbers are those of the command on the same checkpoint
    again = Model("m", HessianCalculator.from_file(tmp_path / "run" / "last.ckpt"))
    options = Options(tasks=("accuracy",), split=("random:val",))
    found = evaluate([again], HessianStore(small_store), tmp_path / "again", options)
    figures = found.all_figures(found.models[0])
    for name in ("force_mae", "hessian_mae"):
        value = document["models"][1]["figures"][name]["value"]
        assert value == pytest.approx(figures[name].value, rel=1e-4)
        assert value > 0


def _learning_curves_are_what_nequip_logged(path, run):
    rows = list(csv.DictReader(path.open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    logged = list(csv.DictReader(next(run.rglob("metrics.csv")).open()))
    for name in ("val0_epoch/hessian_rmse", "val0_epoch/forces_mae", "train_loss_epoch/weighted_sum"):
        expected = [float(row[name]) for row in logged if row[name]]
        assert [float(row[name]) for row in rows] == pytest.approx(expected, rel=1e-6), name
        assert expected[0] != expected[1]


def test_learning_curves_go_on_after_a_restart(small_store, tmp_path):
    def validated(callback, epoch, error):
        figures = {"val0_epoch/forces_rmse": error, "train_loss_step/x": 1.0}
        state = {"sanity_checking": False, "current_epoch": epoch, "global_step": 10 * epoch}
        callback.on_validation_end(SimpleNamespace(callback_metrics=figures, **state), None)

    first, second = WriteEvaluationPage(), WriteEvaluationPage()
    first.on_fit_start(None, None)
    validated(first, 0, 0.5)
    second.load_state_dict(first.state_dict())
    second.on_fit_start(None, None)
    validated(second, 1, 0.25)
    rows = second.state_dict()["validations"]
    assert [row["val0_epoch/forces_rmse"] for row in rows] == [0.5, 0.25]
    assert rows[1]["seconds"] >= rows[0]["seconds"]
    assert "train_loss_step/x" not in rows[0]
    (axis,) = learning_plot(rows).axes
    assert axis.get_title() == "Forces"
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [0.5, 0.25])
    assert learning_plot(rows[:1]) is None
    assert learning_plot([{**row, "val0_epoch/forces_rmse": float("nan")} for row in rows]) is None


def a_trainer(store, checkpoint, **fields):
    """What the callback asks of a trainer at the end of a fit."""
    keep = SimpleNamespace(best_model_path=str(checkpoint), last_model_path="")
    data = SimpleNamespace(train_dataset_config=[{"store": str(store)}])
    plain = {"is_global_zero": True, "fast_dev_run": False, "checkpoint_callbacks": [keep], "datamodule": data}
    return SimpleNamespace(**{**plain, **fields})


def test_a_page_that_cannot_be_written_is_a_warning(small_store, tmp_path, caplog):
    (tmp_path / "last.ckpt").write_text("no model")
    with caplog.at_level(logging.WARNING):
        WriteEvaluationPage(tasks=["accuracy"]).on_fit_end(a_trainer(small_store, tmp_path / "last.ckpt"), None)
    assert "not written: ConfigError" in caplog.text
    assert f"nequip-hessian evaluate {tmp_path}/last.ckpt {small_store}" in caplog.text
    caplog.clear()
    WriteEvaluationPage().on_fit_end(a_trainer(small_store, tmp_path / "last.ckpt", is_global_zero=False), None)
    assert not caplog.text  # another rank


def test_what_cannot_be_evaluated_is_refused_before_the_training(small_store, tmp_path):
    with pytest.raises(ConfigError, match="tasks: expected some of"):
        WriteEvaluationPage(tasks=["everything"])
    with pytest.raises(ConfigError, match="WriteEvaluationPage options"):
        WriteEvaluationPage(options={"speed": 3})
    with pytest.raises(ConfigError, match="no store"):
        WriteEvaluationPage(store=str(tmp_path / "none")).setup(a_trainer(small_store, "x"), None, "fit")
    with pytest.raises(ConfigError, match="keeps no checkpoint"):
        WriteEvaluationPage().setup(a_trainer(small_store, "x", checkpoint_callbacks=[]), None, "fit")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"made by nequip-hessian evaluate before, found notes.txt in it"):
        WriteEvaluationPage(output=str(tmp_path)).setup(a_trainer(small_store, "x"), None, "fit")
    WriteEvaluationPage().setup(a_trainer(small_store, "x"), None, "fit")


def two_schemes(path):
    """A store of six pairs with two schemes that test on other pairs."""
    with StoreWriter(path) as writer:
        writer.extend(labelled_pair("N2", 1.0 + 0.02 * k) for k in range(6))
        for scheme, first in (("one", 0), ("other", 2)):
            codes = [2 if first <= k < first + 2 else k % 2 for k in range(6)]
            writer.set_split(scheme, ["train", "val", "test"], codes)
        writer.set_split("half", ["train", "val"], [0, 0, 0, 1, 1, 1])
    return path


def test_the_page_takes_the_scheme_of_the_training(tmp_path, monkeypatch):
    store = two_schemes(tmp_path / "pairs.zarr")
    asked = []
    monkeypatch.setattr(WriteEvaluationPage, "_write", lambda self, store, parts, checkpoint, out: asked.append(parts))

    def trainer(split):
        data = SimpleNamespace(train_dataset_config=[{"store": str(store), "split": split}])
        return a_trainer(store, tmp_path / "last.ckpt", datamodule=data)

    for callback, split in ((WriteEvaluationPage(), "other"), (WriteEvaluationPage(split="one:val"), "other")):
        callback.setup(trainer(split), None, "fit")
        callback.on_fit_end(trainer(split), None)
    assert asked == [("other",), ("one:val",)]
    with pytest.raises(OptionError, match="found 2: one, other; name the one"):
        WriteEvaluationPage().setup(trainer({"train": 0.8, "val": 0.1, "test": 0.1}), None, "fit")
    with pytest.raises(ConfigError, match=r"'half' has no test part .* split: \['half:val'\]"):
        WriteEvaluationPage().setup(trainer("half"), None, "fit")


def test_test_parts_of_several_schemes_are_not_guessed(tmp_path):
    store = HessianStore(two_schemes(tmp_path / "pairs.zarr"))
    with pytest.raises(OptionError, match="found 2: one, other; name the one"):
        select(store)
    indices, parts, notes = select(store, ["other"])
    assert indices == [2, 3]
    assert parts == ["test", "test"]
    assert notes == []
