import pytest

from nequip_hessian.data.settings import ProbeSettings, for_validation, parse
from nequip_hessian.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "rows"}, "full, columns, random, modes, stored"),
        ({"mode": "full", "k": 3}, "leave k out"),
        ({"mode": "random", "k": 0}, "1 or more"),
        ({"mode": "stored", "k": 0}, "1 or more"),
        ({"mode": "columns", "k": 1.5}, "whole number"),
        ({"mode": "random", "distribution": "gauss"}, "rademacher, sphere"),
        ({"mode": "modes", "distribution": "sphere"}, "no meaning"),
        ({"mode": "modes", "project": True}, "no translations and rotations in them"),
        ({"mode": "stored", "project": True}, "given as they are"),
        ({"mode": "stored", "mass_weighted": True}, "not drawn in mass-weighted"),
        ({"project": "yes"}, "true or false"),
        ({"probe_fraction": 0.0}, "above 0 and up to 1"),
        ({"probe_fraction": 1.5}, "above 0 and up to 1"),
        ({"method": "numeric"}, "autograd, finite_difference, forward_difference, taylor"),
        ({"step": 0.01}, "is for method finite_difference"),
        ({"method": "finite_difference", "step": 0.0}, "above 0 in angstrom"),
        ({"method": "finite_difference", "displacement": 0.1}, "is for method taylor"),
        ({"method": "taylor", "displacement": -1.0}, "above 0 in angstrom"),
        ({"method": "finite_difference", "step": 5.0}, "expected 1e-05 to 1 angstrom .* bonds break"),
        ({"method": "forward_difference", "step": 1e-9}, "rounding of forces"),
        ({"method": "taylor", "displacement": 5}, "expected 0.0001 to 0.5 angstrom"),
        ({"method": "taylor", "k": 2}, "has no probes"),
        ({"method": "taylor", "mode": "full"}, "has no probes"),
        ({"method": "taylor", "mass_weighted": True}, "no Hessian loss"),
        ({"modes": "full"}, "unknown modes"),
    ],
)
def test_options_that_cannot_be_honoured_are_errors(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(arguments)


def test_defaults():
    assert (ProbeSettings().mode, ProbeSettings().k) == ("random", 1)
    assert ProbeSettings(method="finite_difference").step == 0.01
    assert ProbeSettings(method="taylor").displacement == 0.02
    assert ProbeSettings("full").width(7) == 21
    assert ProbeSettings("modes", 4).width(7) == 4
    with pytest.raises(ConfigError, match="give k"):
        ProbeSettings("stored").width(7)


def test_validation_takes_what_the_training_says_less_what_is_for_training():
    hessian = {"mode": "random", "k": 2, "probe_fraction": 0.5, "mass_weighted": True, "project": True}
    assert for_validation(hessian) == {"mode": "random", "k": 2, "project": True}
    assert for_validation(None) is None
    assert for_validation({"method": "taylor"}) is None
    with pytest.raises(ConfigError, match="add val_hessian"):
        for_validation({"mode": "modes", "k": 3})


def test_what_figures_can_be_had():
    assert ProbeSettings("full").unit_vectors
    assert ProbeSettings("columns", 2).unit_vectors
    for settings in (ProbeSettings("full", project=True), ProbeSettings(), ProbeSettings("full", mass_weighted=True)):
        assert not settings.unit_vectors
    assert ProbeSettings("full", project=True).of_elements
    assert not ProbeSettings("modes").of_elements
