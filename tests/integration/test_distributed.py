"""configs/slurm.yaml as two processes of one machine: what can be run of it without SLURM and GPUs."""

import pytest
import yaml
from test_life_cycle import ROOT, logged, train


@pytest.mark.slow
def test_two_processes_train_and_test(small_store, tmp_path):
    folder = tmp_path / "ranks"
    loader = "data.train_dataloader"
    train(
        "slurm",
        small_store,
        folder,
        *("trainer.accelerator=cpu", "trainer.devices=2", "trainer.num_nodes=1", "trainer.max_epochs=2"),
        *("training_module.model.compile_mode=eager", "training_module.model.num_features=4"),
        *(f"{loader}.num_workers=0", f"{loader}.persistent_workers=false", f"{loader}.batch_size=3"),
        "data.val_dataloader.num_workers=0",
    )
    loss = logged(folder, "train_loss_epoch/hessian_mse")
    assert len(loss) == 2
    assert len(logged(folder, "test0_epoch/hessian_rmse")) == 1


def test_tasks_of_the_job_are_devices_of_the_configuration():
    config = yaml.safe_load((ROOT / "configs" / "slurm.yaml").read_text())
    job = (ROOT / "configs" / "slurm.sh").read_text()
    assert f"--nodes={config['trainer']['num_nodes']}\n" in job
    assert f"--ntasks-per-node={config['trainer']['devices']}\n" in job
