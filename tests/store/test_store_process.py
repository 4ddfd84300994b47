"""Stores in other processes, and in an environment without torch and NequIP."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from nequip_hessian.store import HessianStore


def _sums(store, indices):
    return [float(store.packed(i).sum()) for i in indices], [store[i].label for i in indices]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize(("profile", "name"), [("local", "a.zarr"), ("remote", "a.zarr"), ("publish", "a.zip")])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_other_processes(write, method, profile, name):
    store = HessianStore(write(name, profile=profile))
    indices = [9, 0, 14, 5]
    expected = _sums(store, indices)  # opens the handles here first
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_sums, [(store, indices)] * 4) == [expected] * 4


def test_pickle_drops_the_handles(write):
    store = HessianStore(write())
    _ = store.position, store.packed(0)
    raw = pickle.dumps(store)
    assert len(raw) < 20_000
    again = pickle.loads(raw)
    assert again._columns_now is None
    np.testing.assert_array_equal(again.packed(0), store.packed(0))


def test_without_torch_and_nequip(write, tmp_path):
    """Read, write, validate and import the formats where torch, NequIP and what comes with them cannot be imported."""
    script = textwrap.dedent(
        """
        import importlib, pkgutil, sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "nequip", "e3nn", "lightning", "hydra", "allegro", "matplotlib"):
                    raise ImportError(f"{name} is not installed")

        sys.meta_path.insert(0, Absent())
        from nequip_hessian.store import HessianStore, StoreWriter, differences, validate
        import nequip_hessian.formats as formats
        for module in pkgutil.iter_modules(formats.__path__, "nequip_hessian.formats."):
            importlib.import_module(module.name)
        old, new = sys.argv[1:]
        store = HessianStore(old)
        with StoreWriter(new, attributes={"license": "CC0-1.0"}) as writer:
            writer.extend(store)
        assert validate(new).valid
        for line in differences(old, new):
            print(line)
        assert "torch" not in sys.modules and "ase" in sys.modules
        """
    )
    old = write()
    done = subprocess.run(
        [sys.executable, "-c", script, str(old), str(tmp_path / "b.zarr")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # and what was read and written again is the same


def test_opening_imports_little(write):
    script = "import sys, nequip_hessian.store as s; s.HessianStore(sys.argv[1]).packed(0); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script, str(write())], capture_output=True, text=True, check=True)
    for name in ("torch", "nequip", "ase", "e3nn", "lightning"):
        assert f"'{name}'" not in done.stdout
