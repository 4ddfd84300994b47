"""The evaluation page that a training writes, in a real nequip-train of one epoch."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.errors import ConfigError
from nequip_hessian.evaluate import Model, Options, evaluate
from nequip_hessian.store import HessianStore
from nequip_hessian.train import WriteEvaluationPage

ROOT = Path(__file__).resolve().parents[2]


def test_nequip_train_writes_the_page_of_its_checkpoint(small_store, tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "demo_energy_forces_hessians.yaml").read_text(encoding="utf-8"))
    config |= {"run": ["train"], "store": str(small_store)}
    config["data"]["split"] = "random"
    config["trainer"] |= {"max_epochs": 1, "enable_progress_bar": False}
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
    assert (out / "report.html").is_file()
    # the numbers are those of the command on the same checkpoint
    again = Model("m", HessianCalculator.from_file(tmp_path / "run" / "last.ckpt"))
    options = Options(tasks=("accuracy",), split=("random:val",))
    found = evaluate([again], HessianStore(small_store), tmp_path / "again", options)
    figures = found.all_figures(found.models[0])
    for name in ("force_mae", "hessian_mae"):
        value = document["models"][1]["figures"][name]["value"]
        assert value == pytest.approx(figures[name].value, rel=1e-4)
        assert value > 0


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
    WriteEvaluationPage().setup(a_trainer(small_store, "x"), None, "fit")
