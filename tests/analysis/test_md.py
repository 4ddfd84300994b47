"""Dynamics on potentials whose behaviour is known: a Morse bond, and a force that is no gradient."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.morse import MorsePotential

from nequip_hessian.analysis.md import RampSettings, Watch, energy_drift, ramp, run_dynamics
from nequip_hessian.errors import ConfigError

QUICK = RampSettings(start=100, increment=100, maximum=300, hold=0.05, nve=0.2)


def carbon():
    return Atoms("C2", [[0, 0, 0], [0, 0, 1.02]])


def bond(depth):
    """A Morse bond of 1 angstrom; depth in eV."""
    return MorsePotential(epsilon=depth, r0=1.0, rho0=3.0, rcut1=20.0, rcut2=21.0)


class Whirl(Calculator):
    """A harmonic bond and a force across it, whose work round a circle is not zero."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's convention)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        r = self.atoms.positions[1] - self.atoms.positions[0]
        length = np.linalg.norm(r)
        pull = -20.0 * (length - 1.0) * r / length + 0.2 * np.cross([1.0, 0, 0], r)
        self.results = {"energy": 10.0 * (length - 1.0) ** 2, "forces": np.array([-pull, pull])}


def test_a_strong_bond_holds_and_a_weak_one_fails_where_it_is_too_warm():
    strong = run_dynamics(carbon(), bond(6.0), QUICK)
    assert strong.survived
    assert strong.reason is None
    assert strong.temperature == 300
    assert strong.time == pytest.approx(0.15)
    assert 0.8 < strong.worst[0] < 1 < strong.worst[1] < 1.25
    weak = run_dynamics(carbon(), bond(0.02), replace(QUICK, hold=1.0, friction=0.05))  # 0.02 eV is 232 K
    assert not weak.survived
    assert "bond C0-C1 at 1.5" in weak.reason
    assert weak.temperature <= 300


def test_a_conservative_force_keeps_the_energy_and_another_does_not():
    minimum = Atoms("C2", [[0, 0, 0], [0, 0, 1.0]])
    kept = energy_drift(minimum, bond(6.0), QUICK)
    assert abs(kept["drift"]) < 1e-3
    fine = energy_drift(minimum, bond(6.0), replace(QUICK, timestep=0.25))
    # velocity Verlet: the fluctuation is of second order in the step
    assert kept["fluctuation"] / fine["fluctuation"] == pytest.approx(4, rel=0.3)
    assert abs(energy_drift(minimum, Whirl(), replace(QUICK, nve=0.1))["drift"]) > 0.1


def test_a_ramp_goes_on_exactly_where_it_was():
    states = []
    settings = replace(QUICK, hold=0.02)
    end, reason = ramp(carbon(), bond(6.0), settings, on_stage=states.append)
    assert reason is None
    assert [state.stage for state in states] == [1, 2, 3]
    again, _ = ramp(carbon(), bond(6.0), settings, state=type(end)(**asdict(states[0])))
    np.testing.assert_allclose(again.positions, end.positions, rtol=0, atol=1e-9)
    assert again.generator == end.generator
    assert len(again.measured) == 3


def test_what_a_watch_sees():
    water = Atoms("OH2", [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    watch = Watch(water)
    calculator = MorsePotential()
    for hydrogen, message in (([0, 2.5, -1.5], "bond O0-H1 at"), ([0, -0.56, -0.68], "H1-H2 at")):
        moved = water.copy()
        moved.calc = calculator
        moved.positions[1] = hydrogen
        if "H1-H2" in message:  # both bonds intact, the hydrogens on top of each other
            moved.positions[1] = moved.positions[2] + [0.35, 0, 0]
        assert message in watch(moved)
    water.calc = calculator
    assert watch(water) is None


def test_a_model_that_raises_is_an_outcome_and_wrong_settings_are_refused():
    class Fails(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's convention)

        def calculate(self, *args, **kwargs):
            raise RuntimeError("no weights")

    found = run_dynamics(carbon(), Fails(), QUICK, label="dicarbon")
    assert "RuntimeError: no weights" in found.failure
    assert (found.label, found.formula, found.temperature) == ("dicarbon", "C2", None)
    with pytest.raises(ConfigError, match="--hold: expected a number above 0, found 0"):
        RampSettings(hold=0)
    with pytest.raises(ConfigError, match="two or more atoms"):
        run_dynamics(Atoms("C"), bond(6.0))
