"""`nequip-compile --target hessian` on trained models: its file gives the eager energies, forces and Hessians."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from nequip_hessian.calculator import HessianCalculator
from nequip_hessian.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PLAIN = (
    "training_module.loss._target_=nequip.train.EnergyForceLoss",
    "~training_module.loss.coeffs.hessian",
    "training_module.val_metrics._target_=nequip.train.EnergyForceMetrics",
    "~data.hessian",
)


def command(name, *arguments, cwd):
    path = str(Path(sysconfig.get_path("scripts")) / name)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([path, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


# an Allegro model of ours, and NequIP's own model, which has no products before it is compiled
OURS_AND_PLAIN = {"allegro": (), "minimal": ("training_module.model._target_=nequip.model.NequIPGNNModel", *PLAIN)}


@pytest.fixture(scope="module", params=list(OURS_AND_PLAIN))
def pair(request, small_store, tmp_path_factory):
    """A checkpoint and what nequip-compile makes of it."""
    folder = tmp_path_factory.mktemp(request.param)
    where = ["-cp", ROOT / "configs", "-cn", request.param, f"store={small_store}", "data.split=random"]
    changes = [*OURS_AND_PLAIN[request.param], "trainer.max_epochs=1", f"hydra.run.dir={folder}"]
    command("nequip-train", *where, *changes, cwd=folder)
    output = folder / "model.nequip.pt2"
    options = ["--mode", "aotinductor", "--target", "hessian", "--device", "cpu"]
    command("nequip-compile", folder / "best.ckpt", output, *options, cwd=folder)
    return HessianCalculator.from_file(folder / "best.ckpt"), HessianCalculator.from_file(output), output


def geometries():
    found = [molecule(name) for name in ("CH3OH", "H2CO", "H2")]
    found.append(bulk("C", "diamond", a=3.57, cubic=True))
    found.append(bulk("C", "sc", a=1.8))
    for seed, atoms in enumerate(found):
        atoms.rattle(0.05, seed=seed)
    return [*found, Atoms("H"), Atoms("H2", [[0, 0, 0], [0, 0, 30]])]


@pytest.mark.slow
def test_compiled_hessians_are_the_eager_ones(pair):
    eager, compiled, output = pair
    assert (compiled.compiled, compiled.products) == (True, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no differences of forces, no denser matrix than planned
        alone = [compiled.get_hessian(atoms) for atoms in geometries()]
        together = compiled.get_hessians(geometries())
    for atoms, one, other in zip(geometries(), alone, together, strict=True):
        exact = eager.get_hessian(atoms)
        size = max(1.0, np.abs(exact).max())
        assert np.abs(one - exact).max() < 1e-10 * size
        assert np.abs(other - exact).max() < 1e-10 * size
        ((energy, forces),) = eager.evaluate_many([atoms])
        atoms.calc = compiled
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-9)

    atoms = molecule("CH3OH")
    rows = [6, 7, 8, 0, 1, 2]
    np.testing.assert_allclose(
        compiled.get_hessian(atoms, [2, 0]), eager.get_hessian(atoms)[np.ix_(rows, rows)], atol=1e-9
    )
    assert compiled.hops() == eager.hops()

    wire = bulk("C", "diamond", a=3.57, cubic=True).repeat((8, 1, 1))
    wire.rattle(0.03, seed=1)
    exact = eager.get_hessian(wire)
    assert np.abs(compiled.get_hessian(wire) - exact).max() < 1e-10 * np.abs(exact).max()

    # a cut file is refused, not read as one that has no products
    cut = output.with_name("cut.nequip.pt2")
    cut.write_bytes(output.read_bytes()[:-5000])
    with pytest.raises(ConfigError, match="cut"):
        HessianCalculator.from_file(cut)
