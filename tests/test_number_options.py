"""Numbers of the command line that cannot be meant: refused at once, with option, what it takes and what was found."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from nequip_hessian.analysis.force_constants import check_size
from nequip_hessian.analysis.md import RampSettings
from nequip_hessian.analysis.phonons import check_settings
from nequip_hessian.analysis.saddle import perturbed
from nequip_hessian.analysis.thermochemistry import thermochemistry
from nequip_hessian.cli import build_parser, main
from nequip_hessian.cli._numbers import number, whole_number
from nequip_hessian.errors import ConfigError, OptionError

ONE = ["ase:emt", "water.xyz"]
VERBS = {
    "optimise": ONE,
    "vibrations": ONE,
    "ts": ONE,
    "irc": ONE,
    "md": ONE,
    "neb": [*ONE, "water.xyz"],
    "reaction": [*ONE, "water.xyz", "-o", "out"],
    "phonons": ["ase:emt", "al.cif", "-o", "out"],
    "evaluate": ["ase:emt", "store.zarr", "-o", "out"],
}


def numeric(verb):
    """The options of a verb that take numbers, with how many of them."""
    parser = build_parser()._subparsers._group_actions[0].choices[verb]
    found = []
    for action in parser._actions:
        if action.option_strings and action.type is not None:
            count = 9 if action.nargs == "+" else action.nargs or 1
            found.append((action.option_strings[-1], count))
    return found


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("value", ["nan", "inf", "x"])
def test_no_option_takes_what_is_no_number(verb, value, capsys):
    options = numeric(verb)
    assert len(options) > 2
    for option, count in options:
        with pytest.raises(SystemExit) as ended:
            main([verb, *VERBS[verb], *([f"{option}={value}"] if count == 1 else [option, *[value] * count])])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert f"argument {option}" in error, option
        if count == 1:
            assert f"found {value!r}" in error, option


CASES = {
    ("ts", "--seed", "-1"): "argument --seed: expected a whole number of 0 or more, found '-1'",
    ("ts", "--fmax", "0"): "argument --fmax: expected a number above 0, found '0'",
    ("ts", "--steps", "0"): "argument --steps: expected a whole number of 1 or more, found '0'",
    (
        "vibrations",
        "--temperature",
        "1e300",
    ): "expected a number of 1 or more, at most 20000, found '1e300'",
    ("reaction", "--pressure", "1e300"): "argument --pressure: expected a number of 1e-20 or more, at most 1e+06",
    ("neb", "--images", "2"): "argument --images: expected a whole number of 3 or more, found '2'",
    ("irc", "--hessian-every", "0"): "argument --hessian-every: expected a whole number of 1 or more, found '0'",
    ("md", "--seed", "-1"): "argument --seed: expected a whole number of 0 or more, found '-1'",
    ("evaluate", "--md-seed", "-1"): "argument --md-seed: expected a whole number of 0 or more, found '-1'",
    ("phonons", "--displacement", "3"): "argument --displacement: expected a number above 0, at most 0.1, found '3'",
    ("phonons", "--mesh", "0", "0", "0"): "argument --mesh: expected a whole number of 1 or more, found '0'",
}


@pytest.mark.parametrize("arguments", CASES, ids=" ".join)
def test_a_number_out_of_its_range_names_the_option(arguments, capsys):
    verb, *rest = arguments
    with pytest.raises(SystemExit) as ended:
        main([verb, *VERBS[verb], *rest])
    assert ended.value.code == 2
    assert CASES[arguments] in capsys.readouterr().err


def test_what_depends_on_two_options_names_both(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    molecule("H2O").write("water.xyz")
    bulk("Al", cubic=True).write("al.cif")
    cases = {
        ("md", "--maximum", "10"): "--maximum: expected the first temperature (--start, 25 K) or more, found 10 K",
        ("md", "--hold", "1e300"): "expected at most 1e+09 time steps a molecule, found 1.6e+305",
        ("md", "--increment", "1e-300"): "take a larger --increment",
        ("md", "--hold", "1e-9"): "--hold: expected 1 time step (--timestep, 0.5 fs) or more, found 1e-09 ps",
        ("md", "--nve", "0.001"): "--nve: expected 20 time steps (--timestep, 0.5 fs) or more, found 0.001 ps",
        ("evaluate", "--md-nve", "1e300"): "2 ps (--md-hold) and 1e+300 ps (--md-nve)".replace("2 ps", "1 ps"),
        ("phonons", "--temperatures", "0", "10", "0"): "found 0 10 0",
        ("phonons", "--temperatures", "0", "1e6", "1e3"): "expected a last one of 20000 K or less, found 1e+06 K",
        ("phonons", "--mesh", "1000", "1000", "1000"): "found 1000000000 (1000 1000 1000)",
    }
    for (verb, *rest), message in cases.items():
        assert main([verb, *VERBS[verb], *rest]) == 2, rest
        error = capsys.readouterr().err
        assert message in error
        assert "RampSettings" not in error
    # this one depends on the file
    assert main(["phonons", *VERBS["phonons"], "--supercell", "1000", "1000", "1000"]) == 1
    error = capsys.readouterr().err
    assert "expected at most 5000 atoms, found 4000000000 (unit cell of 4): their force constants are 1.15e+12" in error
    assert "take a smaller --supercell" in error


def test_readers_of_numbers():
    assert number(above=0, most=2)("2") == 2
    assert number(least=0)("0") == 0
    assert whole_number(-3, 3)("-3") == -3
    assert whole_number(0)("0") == 0


def test_the_library_refuses_them_too():
    water = molecule("H2O")
    with pytest.raises(OptionError, match="seed: expected 0 or more, found -1"):
        perturbed(water, 2, 0.1, -1)
    for settings in ({"temperature": 1e300}, {"temperature": float("nan")}, {"pressure": 1e300}):
        with pytest.raises(OptionError, match="thermochemistry: expected a"):
            thermochemistry(np.array([1600.0, 3700, 3800]), water.positions, water.get_masses(), **settings)
    with pytest.raises(OptionError, match="--seed: expected 0 or more"):
        RampSettings(seed=-1)
    with pytest.raises(OptionError, match="--hold: expected a number above 0, found nan"):
        RampSettings(hold=float("nan"))
    with pytest.raises(OptionError, match="mesh: expected three divisions above 0, found 4 0 4"):
        check_settings([4, 0, 4], 51, (0.0, 10.0, 1.0))
    with pytest.raises(ConfigError, match="expected at most 5000 atoms, found 6912"):
        check_size(bulk("Al", cubic=True), np.diag([12, 12, 12]))
    check_size(bulk("Al"), np.diag([12, 12, 12]))
