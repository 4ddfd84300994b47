"""The evaluation page of a training of two processes: rank zero writes it once, and the test run finds both."""

import json

import pytest
import yaml
from test_life_cycle import ROOT, command, logged

from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.evaluate import Model, Options, evaluate
from nequip_hessian.store import HessianStore


@pytest.mark.slow
def test_two_processes_write_one_page_with_the_figures_of_the_checkpoint(small_store, tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "slurm.yaml").read_text(encoding="utf-8"))
    config["store"], config["data"]["split"] = str(small_store), "random"
    for name in ("train_dataloader", "val_dataloader"):
        loader = config["data"][name]
        config["data"][name] = {
            "_target_": loader["_target_"],
            "batch_size": 3,
            "shuffle": loader.get("shuffle", False),
        }
    config["trainer"] |= {"accelerator": "cpu", "devices": 2, "num_nodes": 1, "max_epochs": 1}
    page = {"_target_": "nequip_hessian.train.WriteEvaluationPage", "tasks": ["accuracy"], "split": ["random:val"]}
    config["trainer"]["callbacks"].append(page)
    config["training_module"]["model"] |= {"compile_mode": "eager", "num_features": 4}
    (tmp_path / "ranks.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    folder = tmp_path / "run"
    command("nequip-train", "-cp", tmp_path, "-cn", "ranks", f"hydra.run.dir={folder}", cwd=tmp_path)
    pages = list(folder.rglob("report.html"))
    assert len(pages) == 1
    document = json.loads((pages[0].parent / "report.json").read_text(encoding="utf-8"))
    (model,) = document["models"]
    calculator = HessianCalculator.from_file(model["path"])
    options = Options(tasks=("accuracy",), split=("random:val",))
    again = evaluate([Model("m", calculator)], HessianStore(small_store), tmp_path / "again", options)
    figures = again.all_figures(again.models[0])
    for name in ("energy_mae", "force_mae", "hessian_mae"):
        assert model["figures"][name]["value"] == pytest.approx(figures[name].value, rel=1e-4)
    assert len(logged(folder, "test0_epoch/hessian_rmse")) == 1  # both ranks came to the test run
