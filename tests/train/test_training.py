"""Callbacks, schedulers, restarts and validation in real, if short, training runs."""

import numpy as np
import pytest
import torch
from nequip.train.callbacks import LinearLossCoefficientScheduler, LossCoefficientScheduler
from short_runs import LOSS, METRICS, datamodule, fit, module, trainer

from nequip_hessian.errors import ConfigError
from nequip_hessian.train import BalanceLossCoefficients, HessianEveryNSteps

TERMS = ("per_atom_energy_mse", "forces_mse", "hessian_mse")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_balance_makes_the_initial_terms_proportional_to_their_shares(small_store, tmp_path):
    loss = {**LOSS, "coeffs": {"total_energy": 1.0, "forces": 2.0, "hessian": 1.0}}
    balance = BalanceLossCoefficients(batches=2)
    recorder, _ = fit(
        small_store, tmp_path, {"mode": "full"}, callbacks=[balance], loss=loss, save=tmp_path / "last.ckpt"
    )
    assert balance.measured == 2
    more = BalanceLossCoefficients(batches=100)
    fit(small_store, tmp_path, {"mode": "full"}, callbacks=[more], loss=loss)
    assert more.measured == 2  # an epoch has no more
    parts = np.array([balance.magnitudes[name] * balance.coeffs[name] for name in TERMS])
    np.testing.assert_allclose(parts / parts.sum(), [0.25, 0.5, 0.25], rtol=1e-12)
    assert recorder.coeffs[0] == pytest.approx(balance.coeffs)
    assert sum(balance.coeffs.values()) == pytest.approx(1.0)
    # 16 geometries in batches of 8: two batches are the whole training set, so the terms are its own
    initial = module(datamodule(small_store, {"mode": "full"}), loss)
    data = datamodule(small_store, {"mode": "full"})
    data.setup("fit")
    for batch in data.train_dataloader():
        initial.loss(initial(dict(batch)), dict(batch))
    exact = initial.loss.compute()
    for name in TERMS:
        assert balance.magnitudes[name] == pytest.approx(float(exact[name]), rel=1e-9)
    # on a restart nothing is measured again
    again = BalanceLossCoefficients(batches=2)
    resumed, _ = fit(
        small_store,
        tmp_path,
        {"mode": "full"},
        epochs=2,
        callbacks=[again],
        loss=loss,
        ckpt=tmp_path / "last.ckpt",
    )
    assert again.coeffs == balance.coeffs
    assert resumed.coeffs[0] == pytest.approx(balance.coeffs)


def test_schedulers_of_nequip_act_on_the_hessian_term(small_store, tmp_path):
    schedule = LossCoefficientScheduler({1: dict(zip(TERMS, (1.0, 1.0, 2.0), strict=True))})
    recorder, _ = fit(small_store, tmp_path, {"mode": "random"}, epochs=2, callbacks=[schedule])
    assert recorder.coeffs[0]["hessian_mse"] == pytest.approx(0.01 / 2.01)
    assert recorder.coeffs[-1]["hessian_mse"] == pytest.approx(0.5)
    final = dict(zip(TERMS, (0.0, 0.0, 1.0), strict=True))
    linear = LinearLossCoefficientScheduler(final, transition_epochs=2)
    recorder, _ = fit(small_store, tmp_path, {"mode": "random"}, epochs=3, callbacks=[linear])
    start = 0.01 / 2.01
    found = [coeffs["hessian_mse"] for coeffs in recorder.coeffs[::2]]
    np.testing.assert_allclose(found, [start, (start + 1) / 2, 1.0], rtol=1e-12)


def test_every_second_step_has_hessians(small_store, tmp_path):
    plain, _ = fit(small_store, tmp_path, {"mode": "full"}, epochs=2)
    for compensate, factor in ((False, 1.0), (True, 2.0)):
        callback = HessianEveryNSteps(2, compensate=compensate)
        recorder, _ = fit(small_store, tmp_path, {"mode": "full"}, epochs=2, callbacks=[callback])
        values = [terms["hessian_mse"] for terms in recorder.terms]
        assert [value > 0 for value in values] == [True, False, True, False]
        assert values[0] == pytest.approx(factor * plain.terms[0]["hessian_mse"], rel=1e-12)
        assert recorder.terms[1]["forces_mse"] > 0
    loss = {"_target_": "nequip.train.EnergyForceLoss"}
    with pytest.raises(ConfigError, match="no Hessian term"):
        fit(small_store, tmp_path, {"mode": "full"}, callbacks=[HessianEveryNSteps(2)], loss=loss)
    labelled = {**LOSS, "normalise": "labelled"}
    with pytest.raises(ConfigError, match="normalise: share"):
        fit(small_store, tmp_path, {}, callbacks=[HessianEveryNSteps(2, compensate=True)], loss=labelled)
    with pytest.raises(ConfigError, match="1 or more"):
        HessianEveryNSteps(0)


@pytest.mark.parametrize(
    ("hessian", "options"),
    [
        ({"mode": "random", "k": 2, "probe_fraction": 0.5}, {}),
        ({"mode": "modes", "k": 2}, {"val_hessian": {"mode": "full"}}),
        ({"mode": "columns", "k": 1, "method": "finite_difference"}, {}),
    ],
    ids=["fraction", "modes", "difference"],
)
def test_a_restart_repeats_the_losses_of_the_uninterrupted_run(small_store, tmp_path, hessian, options):
    whole, _ = fit(small_store, tmp_path, hessian, epochs=2, **options)
    fit(small_store, tmp_path, hessian, epochs=1, save=tmp_path / "last.ckpt", **options)
    rest, _ = fit(small_store, tmp_path, hessian, epochs=2, ckpt=tmp_path / "last.ckpt", **options)
    assert len(whole.terms) == 4
    assert len(rest.terms) == 2
    for mine, theirs in zip(rest.terms, whole.terms[2:], strict=True):
        for name in TERMS:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-10)


def test_validation_figures_do_not_depend_on_the_number_of_workers(small_store, tmp_path):
    found = []
    for workers in (0, 2):
        data = datamodule(small_store, {"mode": "random", "k": 2}, workers)
        net = module(data)
        (figures,) = trainer(tmp_path).validate(net, datamodule=data, verbose=False)
        found.append(figures)
    assert found[0] == found[1]
    assert np.isfinite(found[0]["val0_epoch/hessian_rmse"])


def test_taylor_trains_nequip_s_own_loss(small_store, tmp_path):
    data = datamodule(small_store, {"method": "taylor", "displacement": 0.05})
    net = module(
        data,
        {"_target_": "nequip.train.EnergyForceLoss"},
        val_metrics={"_target_": "nequip.train.EnergyForceMetrics"},
    )
    trainer(tmp_path).fit(net, datamodule=data)
    data.setup("fit")
    first, second = (data.train_dataset[0][0] for _ in range(2))
    assert not torch.equal(first["pos"], second["pos"])
    assert torch.equal(data.val_dataset[0][0]["pos"], data.val_dataset[0][0]["pos"])


@pytest.mark.parametrize(
    ("hessian", "changes", "message"),
    [
        ({"method": "taylor"}, {}, "no Hessian term"),
        ({"mode": "random", "mass_weighted": True}, {}, "needs mass_weighted: false"),
        ({"mode": "random"}, {"loss": {**LOSS, "hessian_error": "mae"}}, "absolute errors"),
        (
            {"mode": "random"},
            {"test_metrics": {**METRICS, "coeffs": {"hessian_mae": None}}},
            "absolute errors",
        ),
        (None, {}, "has a coefficient, but the data section has no `hessian`"),
        ({"mode": "random"}, {"val_metrics": {**METRICS, "coeffs": {"frequency_mae": None}}}, "whole matrix"),
    ],
)
def test_what_does_not_fit_together_is_an_error_before_the_first_step(small_store, tmp_path, hessian, changes, message):
    data = datamodule(small_store, hessian)
    net = module(data, **{"loss": None, **changes})
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path).fit(net, datamodule=data)


def test_validation_settings_that_are_for_training_are_refused(small_store):
    for val in ({"probe_fraction": 0.5}, {"method": "taylor"}):
        data = datamodule(small_store, {"mode": "random"}, val_hessian=val)
        with pytest.raises(Exception, match="are for training"):  # hydra wraps what a target raises
            data.setup("validate")
    with pytest.raises(ConfigError, match="unknown mod"):
        datamodule(small_store, {"mod": "random"})
