"""Labels that are missing in one's own dataset are told at the end of the epoch; figures of nothing once."""

import warnings

import numpy as np
import pytest
import torch
from algebra import geometry, predict
from ase.build import molecule
from nequip.data import AtomicDataDict
from springs import spring_network

from nequip_hessian.data import HessianProbes
from nequip_hessian.errors import ConfigError, HessianDataWarning
from nequip_hessian.train import EnergyForceHessianMetrics, HessianFigure, HessianMeanSquaredError

ATOMS = molecule("H2O")
HESSIAN = spring_network(3, 0)[2]


def epoch(metric, labels, fraction, probes=None):
    """One batch a geometry, as many as `labels`, then the figure of the epoch."""
    probes = probes or HessianProbes(labelled_fraction=fraction)
    for there in labels:
        data = geometry(ATOMS, HESSIAN)
        if not there:
            del data["hessian"]
        out = probes(data)
        metric(predict(out, [HESSIAN]), AtomicDataDict.with_batch_(out))
    return float(metric.compute())


def test_an_epoch_without_any_label_is_an_error():
    with pytest.raises(ConfigError, match=r"none of the 5 geometries of this epoch had a Hessian.* include_keys"):
        epoch(HessianMeanSquaredError(), [False] * 5, 0.5)
    assert epoch(HessianMeanSquaredError(), [False] * 5 + [True], 0.5) == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize(("fraction", "far"), [(0.5, False), (1.0, False), (0.1, True)])
def test_a_share_that_is_far_off_is_a_warning(fraction, far):
    labels = [True] * 20 if fraction == 1.0 else [True, False] * 10
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HessianDataWarning)
        epoch(HessianMeanSquaredError(), labels, fraction)
    found = [str(w.message) for w in caught if w.category is HessianDataWarning]
    assert bool(found) is far
    assert not far or "10 of the 20 geometries of this epoch carried a Hessian, 5 times" in found[0]


def test_a_monitored_figure_of_nothing_does_not_pass_in_silence():
    metric = EnergyForceHessianMetrics()["hessian_rmse"]
    with pytest.warns(HessianDataWarning, match="hessian_rmse is NaN: no geometry had a Hessian"):
        assert np.isnan(epoch(metric, [False, False], 0.5))
    metric.reset()
    with pytest.raises(ConfigError, match="makes weighted_sum NaN"):
        epoch(metric, [False, False], 0.5)
    metric.reset()
    assert epoch(metric, [True, False], 0.5) == pytest.approx(0.0, abs=1e-10)
    reported = EnergyForceHessianMetrics({"hessian_rmse": None})["hessian_rmse"]
    with pytest.warns(HessianDataWarning, match="is NaN"):
        epoch(reported, [False], 0.5)
    reported.reset()
    assert np.isnan(epoch(reported, [False], 0.5))


def test_figures_of_stationary_points_say_that_there_is_none():
    full = HessianProbes("full", max_atoms=3)
    data = full(geometry(ATOMS, HESSIAN, forces=torch.ones(3, 3)))
    metric = HessianFigure("zpe_mae")
    metric(predict(data, [HESSIAN]), AtomicDataDict.with_batch_(data))
    with pytest.warns(HessianDataWarning, match=r"zpe_mae is NaN: no geometry is stationary .*0.05 eV"):
        assert np.isnan(float(metric.compute()))


def test_elements_in_the_place_of_others_are_an_error_with_the_first_batch():
    out = HessianProbes()(geometry(ATOMS, HESSIAN, atom_types=torch.tensor([1, 0, 0])))
    batch = AtomicDataDict.with_batch_(out)
    HessianMeanSquaredError(type_names=["H", "O"])(predict(out, [HESSIAN]), batch)
    HessianMeanSquaredError(type_names=["light", "heavy"])(predict(out, [HESSIAN]), batch)
    with pytest.raises(ConfigError, match=r"hand out H as type 0, which is the model's O.* \[O, H\]"):
        HessianMeanSquaredError(type_names=["O", "H"])(predict(out, [HESSIAN]), batch)
