"""Shared fixtures: the folder of real outputs, and where it is missing a stated skip; tests that need a GPU."""

import numpy as np
import pytest
from real_outputs import CASES

LEFT_OUT = pytest.StashKey[int]()
_MODELS = ("test_life_cycle", "test_compiled_hessian", "test_output", "test_compiled")
LONGEST = ("test_docs", *_MODELS, "test_evaluate_commands")
"""Files of minutes: they come first, so that of several processes none is left alone with one at the end."""


def pytest_collection_modifyitems(config, items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))
    need_gpu = [item for item in items if "gpu" in item.keywords]
    if need_gpu:
        import torch  # not for the tests of stores and formats, which run without it

        if not torch.cuda.is_available():
            items[:] = [item for item in items if "gpu" not in item.keywords]
            config.hook.pytest_deselected(items=need_gpu)
            config.stash[LEFT_OUT] = len(need_gpu)
    if CASES.is_dir():
        return
    skip = pytest.mark.skip(reason=f"the folder of real outputs is not there: {CASES}")
    for item in items:
        if "cases" in item.keywords:
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{config.stash[LEFT_OUT]} tests marked gpu were left out: no CUDA device")


@pytest.fixture(scope="session")
def small_store(tmp_path_factory):
    """A store of 24 real geometries of 3 to 6 atoms in 8 groups; every third one without a Hessian."""
    from molecules import labelled

    from nequip_hessian.store import StoreWriter

    names = ("H2O", "HCN", "H2CO", "NH3", "CH4", "C2H2", "CO2", "CH3OH")
    path = tmp_path_factory.mktemp("store") / "small.zarr"
    with StoreWriter(path) as writer:
        for seed in range(3):
            for index, name in enumerate(names):
                writer.append(labelled(name, seed, hessian=(8 * seed + index) % 3 != 2))
        codes = np.array([0] * 16 + [1] * 4 + [2] * 4, dtype=np.int8)
        writer.set_split("random", ["train", "val", "test"], codes)
    return path
