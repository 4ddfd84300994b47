"""Train, go on, package, compile and use: NequIP's own commands on the configurations we ship."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from molecules import difference_rows
from nequip.utils import torch_default_dtype

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))

# The extension must not be importable here: no site directory, only links to the other packages.
BARE = """
import sys
import numpy as np
import torch
try:
    import nequip_hessian
except ImportError:
    pass
else:
    sys.exit("the extension is importable")
from ase.build import molecule
from nequip.ase import NequIPCalculator
from nequip.data import AtomicDataDict
calc = NequIPCalculator._from_saved_model(sys.argv[1], chemical_species_to_atom_type_map=True)
atoms = molecule("CH3OH")
atoms.rattle(0.05, seed=3)
atoms.calc = calc
probe = np.random.default_rng(0).normal(size=(6, 3))
h, forces = 1e-4, []
energy = atoms.get_potential_energy()
for sign in (1, -1):
    moved = atoms.copy()
    moved.positions += sign * h * probe
    moved.calc = calc
    forces.append(moved.get_forces())
slope = -(forces[0] - forces[1]) / (2 * h)
data = calc.atoms_to_data(atoms)
data["hessian_probe"] = torch.as_tensor(np.concatenate([probe, 2 * probe], axis=1), dtype=data["pos"].dtype)
out = calc.model(AtomicDataDict.with_batch_(data))
product = out["hessian_product"].detach().numpy()
np.testing.assert_allclose(product[:, :3], slope, atol=1e-5 * abs(slope).max())
np.testing.assert_allclose(product[:, 3:], 2 * product[:, :3], atol=1e-10)
np.save(sys.argv[2], np.append(atoms.get_forces().ravel(), energy))
"""


def command(name, *arguments, cwd):
    """Run a command of the environment; its output is in the failure message."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(SCRIPTS / name), *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def train(config, store, folder, *overrides):
    """One run of nequip-train on a shipped configuration; its output folder is `folder`."""
    arguments = ["-cp", ROOT / "configs", "-cn", config, f"store={store}", "data.split=random"]
    model = "training_module.model"
    small = [f"{model}.num_features=8", f"{model}.num_layers=2"] if config == "complete" else []
    arguments.append(f"hydra.run.dir={folder}")
    return command("nequip-train", *arguments, *small, *overrides, cwd=folder.parent)


def logged(folder, column):
    """All values of a column of Lightning's CSV log."""
    (log,) = folder.glob("lightning_logs/version_*/metrics.csv")
    with log.open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("life")


@pytest.fixture(scope="module")
def trained(small_store, work):
    """A run of configs/minimal.yaml, 6 epochs."""
    train("minimal", small_store, work / "minimal", "trainer.max_epochs=6")
    return work / "minimal"


@pytest.fixture(scope="module")
def package(trained, work):
    command("nequip-package", "build", trained / "best.ckpt", work / "model.nequip.zip", cwd=work)
    return work / "model.nequip.zip"


def test_minimal_configuration_learns(trained):
    loss = logged(trained, "train_loss_epoch/hessian_mse")
    assert len(loss) == 6
    assert loss[-1] < loss[0]
    assert len(logged(trained, "val0_epoch/hessian_rmse")) == 6
    assert np.isfinite(logged(trained, "test0_epoch/hessian_rmse")).all()


def test_complete_configuration_runs(small_store, work):
    text = train("complete", small_store, work / "complete", "trainer.max_epochs=2")
    assert "test0_epoch/hessian_mae" in text


def test_it_goes_on_from_the_last_checkpoint(small_store, trained, work):
    folder = work / "restart"
    train("minimal", small_store, folder, "trainer.max_epochs=8", f"++ckpt_path={trained / 'last.ckpt'}")
    assert len(logged(folder, "train_loss_epoch/hessian_mse")) == 2
    first = logged(trained, "train_loss_epoch/weighted_sum")
    assert logged(folder, "train_loss_epoch/weighted_sum")[0] < first[0]


def test_allegro_configuration_runs(small_store, work):
    folder = work / "allegro"
    train("allegro", small_store, folder, "trainer.max_epochs=2")
    assert len(logged(folder, "val0_epoch/hessian_rmse")) == 2


def test_package_runs_where_the_extension_is_not_installed(package, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "nequip_hessian" not in entry.name and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    script = tmp_path / "bare.py"
    script.write_text(BARE)
    done = subprocess.run(
        [sys.executable, "-S", str(script), str(package), str(tmp_path / "out.npy")],
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    from nequip_hessian.calculator import HessianCalculator

    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=3)
    atoms.calc = HessianCalculator.from_file(package)
    here = np.append(atoms.get_forces().ravel(), atoms.get_potential_energy())
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), here, atol=1e-10)


def test_checkpoint_and_package_give_the_same_hessian(trained, package):
    from nequip_hessian.calculator import HessianCalculator

    atoms = molecule("H2CO")
    atoms.rattle(0.05, seed=1)
    found = [HessianCalculator.from_file(path).get_hessian(atoms) for path in (trained / "best.ckpt", package)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-10)
    calc = HessianCalculator.from_file(package)

    def forces(moved):
        moved.calc = calc
        return moved.get_forces()

    rows = difference_rows(forces, atoms, 1e-4)
    assert np.abs(found[0] - rows).max() < 1e-6 * np.abs(found[0]).max()


def test_a_packaged_plain_model_is_fine_tuned_on_hessians(small_store, work):
    """Energy-force model of NequIP's own -> package -> HessianModel -> trained -> packaged again."""
    plain = [
        "training_module.loss._target_=nequip.train.EnergyForceLoss",
        "~training_module.loss.coeffs.hessian",
        "training_module.val_metrics._target_=nequip.train.EnergyForceMetrics",
        "training_module.model._target_=nequip.model.NequIPGNNModel",
        "~data.hessian",
    ]
    train("minimal", small_store, work / "plain", "trainer.max_epochs=2", *plain)
    command("nequip-package", "build", work / "plain" / "best.ckpt", work / "plain.nequip.zip", cwd=work)
    loaded = f"{{_target_: nequip.model.ModelFromPackage, package_path: {work / 'plain.nequip.zip'}}}"
    model = f"{{_target_: nequip_hessian.model.HessianModel, model: {loaded}}}"
    config = (ROOT / "configs" / "minimal.yaml").read_text()
    head = config[: config.index("  model:\n")]
    text = f"{head}  model: {model}\n\nglobal_options: {{allow_tf32: false}}\n"
    (work / "finetune.yaml").write_text(text)
    folder = work / "finetune"
    arguments = ["-cp", work, "-cn", "finetune", f"store={small_store}", "data.split=random", f"hydra.run.dir={folder}"]
    command("nequip-train", *arguments, "trainer.max_epochs=12", "training_module.optimizer.lr=0.002", cwd=work)
    loss = logged(folder, "train_loss_epoch/hessian_mse")
    assert np.mean(loss[-3:]) < 0.8 * loss[0]
    command("nequip-package", "build", folder / "best.ckpt", work / "finetuned.nequip.zip", cwd=work)
    assert (work / "finetuned.nequip.zip").is_file()


def test_the_package_is_prepared_for_lammps_as_a_plain_model(package):
    """What the file of `nequip-prepare-lmp-mliap` does with a package, without LAMMPS: derivatives off, edges in."""
    from nequip.data import AtomicDataDict
    from nequip.model.modify_utils import get_all_modifiers, modify
    from nequip.model.saved_models.load_utils import load_saved_model

    from nequip_hessian.calculator import HessianCalculator

    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    calc = HessianCalculator.from_file(package)
    ((energy, forces),) = calc.evaluate_many([atoms])
    model = load_saved_model(str(package))
    assert "enable_LAMMPSMLIAPGhostExchange" in get_all_modifiers(model)
    model = modify(model, [{"modifier": "disable_ForceStressOutput"}]).eval()
    data = calc.atoms_to_data(atoms)
    centre, neighbour = data["edge_index"]
    vectors = (data["pos"][neighbour] - data["pos"][centre]).requires_grad_(True)
    inputs = {
        AtomicDataDict.EDGE_VECTORS_KEY: vectors,
        AtomicDataDict.EDGE_INDEX_KEY: data["edge_index"],
        AtomicDataDict.ATOM_TYPE_KEY: data["atom_types"],
        AtomicDataDict.NUM_LOCAL_GHOST_NODES_KEY: torch.tensor([len(atoms), 0]),
    }
    with torch_default_dtype(torch.float64):
        total = model(inputs)[AtomicDataDict.TOTAL_ENERGY_KEY].sum()
    (pull,) = torch.autograd.grad(total, vectors)
    found = torch.zeros(len(atoms), 3, dtype=pull.dtype).index_add(0, centre, pull).index_add(0, neighbour, -pull)
    assert float(total) == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(found.numpy(), forces, atol=1e-9)


@pytest.mark.slow
def test_the_compiled_file_for_torch_sim_takes_batches(package, work):
    """`--target batch`, which torch-sim loads: energies and forces of several molecules in one call."""
    from nequip.data import AtomicDataDict
    from nequip.model.inference_models import load_compiled_model
    from nequip.scripts._compile_utils import BATCH_TARGET

    from nequip_hessian.calculator import HessianCalculator

    target = work / "batch.nequip.pt2"
    options = ["--mode", "aotinductor", "--target", "batch", "--device", "cpu"]
    command("nequip-compile", package, target, *options, cwd=work)
    calc = HessianCalculator.from_file(package)
    geometries = [molecule(name) for name in ("CH3OH", "H2CO", "HCN")]
    for seed, atoms in enumerate(geometries):
        atoms.rattle(0.05, seed=seed)
    data = AtomicDataDict.batched_from_list([calc.atoms_to_data(atoms) for atoms in geometries])
    model, _ = load_compiled_model(str(target), "cpu", BATCH_TARGET["input"], BATCH_TARGET["output"])
    with torch_default_dtype(torch.float64):
        out = model({key: data[key] for key in BATCH_TARGET["input"]})
    expected = calc.evaluate_many(geometries)
    np.testing.assert_allclose(out["total_energy"].view(-1).numpy(), [e for e, _ in expected], atol=1e-9)
    np.testing.assert_allclose(out["forces"].numpy(), np.concatenate([f for _, f in expected]), atol=1e-9)


@pytest.mark.slow
def test_compiled_file_works_in_ase(package, work):
    from nequip.ase import NequIPCalculator

    from nequip_hessian.calculator import HessianCalculator
    from nequip_hessian.errors import HessianDataWarning

    target = work / "model.nequip.pt2"
    command("nequip-compile", package, target, "--mode", "aotinductor", "--target", "ase", "--device", "cpu", cwd=work)
    atoms = molecule("H2CO")
    atoms.rattle(0.05, seed=1)
    exact = HessianCalculator.from_file(package)
    atoms.calc = NequIPCalculator.from_compiled_model(target, chemical_species_to_atom_type_map=True)
    moved = atoms.copy()
    moved.calc = exact
    with torch_default_dtype(torch.float64):  # NequIP's own calculator relies on it
        assert atoms.get_potential_energy() == pytest.approx(moved.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), moved.get_forces(), atol=1e-9)
    compiled = HessianCalculator.from_file(target)
    with pytest.warns(HessianDataWarning, match="central differences"):
        hessian = compiled.get_hessian(atoms)
    reference = exact.get_hessian(atoms)
    assert np.abs(hessian - reference).max() < 1e-5 * np.abs(reference).max()


def test_default_dtype_of_the_process_does_not_matter(package):
    """NequIP sets torch's default dtype once, at the first load; other code may set it back."""
    from nequip_hessian.calculator import HessianCalculator

    atoms = molecule("H2CO")
    atoms.rattle(0.05, seed=1)
    found = []
    for dtype in (torch.float64, torch.float32):
        calc = HessianCalculator.from_file(package)
        torch.set_default_dtype(dtype)
        try:
            atoms.calc = calc
            ((energy, forces),) = calc.evaluate_many([atoms])
            found.append(
                np.hstack([atoms.get_potential_energy(), energy, forces.ravel(), calc.get_hessian(atoms).ravel()])
            )
            assert torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(torch.float64)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.slow
def test_compiled_training_gives_the_losses_of_eager_training(small_store, trained, work):
    folder = work / "compiled"
    train("minimal", small_store, folder, "trainer.max_epochs=2", "+training_module.model.compile_mode=compile")
    eager = logged(trained, "train_loss_epoch/weighted_sum")[:2]
    np.testing.assert_allclose(logged(folder, "train_loss_epoch/weighted_sum"), eager, rtol=1e-6)
