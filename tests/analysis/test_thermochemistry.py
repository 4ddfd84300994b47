"""Thermochemistry against ASE, against what programs printed, and by hand; symmetry numbers of known molecules."""

import json
import re

import numpy as np
import pytest
from ase.build import molecule
from ase.thermochemistry import HarmonicThermo, IdealGasThermo
from real_outputs import CASES

from nequip_hessian.analysis.prediction import masses_of, with_isotopes
from nequip_hessian.analysis.symmetry import symmetry_number
from nequip_hessian.analysis.thermochemistry import BOLTZMANN, TREATMENTS, thermochemistry
from nequip_hessian.analysis.vibrations import vibrations
from nequip_hessian.errors import ConfigError
from nequip_hessian.formats import read
from nequip_hessian.units import CM_TO_EV, HARTREE

WATER = np.array([1650.0, 3750.0, 3860.0])


def water(**settings):
    atoms = molecule("H2O")
    return thermochemistry(WATER, atoms.positions, atoms.get_masses(), **settings)


def test_the_ideal_gas_is_that_of_ase():
    for name, waves, geometry, sigma in (
        ("H2O", WATER, "nonlinear", 2),
        ("CO2", np.array([660.0, 660.0, 1350.0, 2350.0]), "linear", 2),
        ("H", np.zeros(0), "monatomic", 1),
    ):
        atoms = molecule(name)
        ase = IdealGasThermo(
            waves * CM_TO_EV,
            geometry,
            atoms=atoms,
            symmetrynumber=sigma,
            spin=0.5 * (name == "H"),
            potentialenergy=-3.0,
        )
        ours = thermochemistry(
            waves,
            atoms.positions,
            atoms.get_masses(),
            energy=-3.0,
            temperature=400.0,
            pressure=2e5,
            symmetry_number=sigma,
            multiplicity=2 if name == "H" else 1,
            treatment="rrho",
        )
        assert ours.enthalpy == pytest.approx(ase.get_enthalpy(400.0, verbose=False), abs=1e-6)
        assert ours.entropy == pytest.approx(ase.get_entropy(400.0, 2e5, verbose=False), rel=1e-6)
        assert ours.gibbs == pytest.approx(ase.get_gibbs_energy(400.0, 2e5, verbose=False), abs=1e-6)


def test_treatments_differ_for_low_modes_only():
    atoms = molecule("C2H6")
    low, high = np.array([30.0]), np.full(17, 1500.0)

    def entropies(waves):
        return {
            t: thermochemistry(waves, atoms.positions, atoms.get_masses(), treatment=t).entropy_vibration
            for t in TREATMENTS
        }

    stiff = entropies(high)
    assert max(stiff.values()) == pytest.approx(min(stiff.values()), rel=1e-3)
    soft = entropies(low)
    assert soft["rrho"] > soft["grimme"]
    assert soft["rrho"] > soft["truhlar"]
    at_cutoff = thermochemistry(np.array([100.0]), atoms.positions, atoms.get_masses(), treatment="rrho")
    assert soft["truhlar"] == pytest.approx(at_cutoff.entropy_vibration)
    harmonic = HarmonicThermo(low * CM_TO_EV).get_entropy(298.15, verbose=False)
    assert soft["rrho"] == pytest.approx(harmonic, rel=1e-6)
    # by hand, Grimme 2012: equal weights at the cutoff, each contribution from its closed form
    nu = 100.0 * 2.99792458e10
    inertia = 6.62607015e-34 / (8 * np.pi**2 * nu)
    damped = inertia * 1e-44 / (inertia + 1e-44)
    rotor = 0.5 + np.log(np.sqrt(8 * np.pi**3 * damped * 1.380649e-23 * 298.15 / 6.62607015e-34**2))
    x = 6.62607015e-34 * nu / (1.380649e-23 * 298.15)
    oscillator = x / np.expm1(x) - np.log(1 - np.exp(-x))
    mixed = thermochemistry(np.array([100.0]), atoms.positions, atoms.get_masses(), treatment="grimme")
    assert mixed.entropy_vibration / BOLTZMANN == pytest.approx(0.5 * (rotor + oscillator), rel=1e-6)


def test_identities_of_the_parts():
    one, two = water(), water(symmetry_number=2)
    assert one.entropy - two.entropy == pytest.approx(BOLTZMANN * np.log(2))
    assert water(multiplicity=3).entropy - one.entropy == pytest.approx(BOLTZMANN * np.log(3))
    assert one.entropy - water(pressure=2 * 101325).entropy == pytest.approx(BOLTZMANN * np.log(2))
    assert one.gibbs == pytest.approx(one.enthalpy - 298.15 * one.entropy)
    assert one.zero_point_energy == pytest.approx(0.5 * CM_TO_EV * WATER.sum())
    # S = -dG/dT
    low, high = water(temperature=297.65), water(temperature=298.65)
    assert -(high.gibbs - low.gibbs) == pytest.approx(one.entropy, rel=1e-5)
    atoms = molecule("H2O")
    saddle = thermochemistry(np.append(-500.0, WATER[1:]), atoms.positions, atoms.get_masses())
    assert (saddle.n_left_out, saddle.n_modes) == (1, 2)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.0}, {"pressure": -1.0}, {"symmetry_number": 0}, {"multiplicity": 0}, {"treatment": "best"}],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError, match="thermochemistry: expected"):
        water(**settings)


def gaussian(name):
    """A Gaussian log with printed thermochemistry: modes, printed corrections in Eh, temperature and so on."""
    path = CASES / json.loads((CASES / "expected.json").read_text())[name]["file"]
    text = path.read_text(errors="replace")
    record = list(read(path))[-1]

    def last(pattern):
        found = re.findall(pattern, text)
        return found[-1] if found else None

    kelvin, atmospheres = last(r"Temperature\s+([\d.]+) Kelvin.\s+Pressure\s+([\d.]+) Atm")
    printed = {
        "zero_point_energy": last(r"Zero-point correction=\s+([-\d.]+)"),
        "enthalpy_correction": last(r"Thermal correction to Enthalpy=\s+([-\d.]+)"),
        "gibbs_correction": last(r"Thermal correction to Gibbs Free Energy=\s+([-\d.]+)"),
    }
    found = vibrations(np.asarray(record.hessian), record.positions, record.masses)
    ours = thermochemistry(
        found.wavenumbers,
        record.positions,
        record.masses,
        temperature=float(kelvin),
        pressure=101325.0 * float(atmospheres),
        symmetry_number=int(last(r"Rotational symmetry number\s+(\d+)") or 1),
        multiplicity=int(last(r"Multiplicity =\s*(\d+)")),
        treatment="rrho",
    )
    return ours, {key: float(value) for key, value in printed.items()}, record


# closed and open shell, linear and not, one and two atoms, a transition state, 43 atoms
GAUSSIAN = ("g16_water", "g16_co", "g09_CO2", "g09_C2H2", "rmg_O2", "gv_allene", "gv_Al_atom", "arc_TS_C3", "g16_mp2")


@pytest.mark.cases
@pytest.mark.parametrize("name", GAUSSIAN)
def test_corrections_are_those_gaussian_printed(name):
    ours, printed, _ = gaussian(name)
    for key, value in printed.items():
        assert getattr(ours, key) / HARTREE == pytest.approx(value, abs=1.1e-6), key


@pytest.mark.cases
@pytest.mark.parametrize(("name", "sigma"), [("g16_water", 2), ("g09_CO2", 2), ("gv_allene", 4), ("g16_co", 1)])
def test_the_symmetry_number_found_is_the_one_gaussian_used(name, sigma):
    _, _, record = gaussian(name)
    assert symmetry_number(record.numbers, record.positions, record.masses) == sigma


@pytest.mark.cases
@pytest.mark.parametrize("stem", ["autode/correct_ts_mode", "autode/incorrect_ts_mode_2", "autode/orca_test_ts_reopt"])
def test_grimmes_entropy_is_the_one_orca_printed(stem):
    text = (CASES / f"{stem}.out").read_text(errors="replace")
    record = list(read(CASES / f"{stem}.hess"))[-1]
    found = vibrations(np.asarray(record.hessian), record.positions, record.masses)
    printed = float(re.findall(r"Vibrational entropy\s+\.\.\.\s+([-\d.]+) Eh", text)[-1])
    terms = {
        t: 298.15
        * thermochemistry(found.wavenumbers, record.positions, record.masses, treatment=t).entropy_vibration
        / HARTREE
        for t in ("grimme", "rrho")
    }
    assert terms["grimme"] == pytest.approx(printed, abs=3e-6)  # other constants, fewer digits of the Hessian
    assert abs(terms["rrho"] - printed) > 2 * abs(terms["grimme"] - printed)


@pytest.mark.parametrize(
    ("name", "sigma"),
    [
        ("H", 1), ("H2", 2), ("HCN", 1), ("CO2", 2), ("H2O", 2), ("NH3", 3), ("CH4", 12), ("C2H4", 4), ("C2H6", 6),
        ("C6H6", 12), ("C3H4_D2d", 4), ("C3H4_C3v", 3), ("C3H6_D3h", 6), ("BF3", 6), ("H2O2", 2), ("CH3OH", 1),
    ],
)  # fmt: skip
def test_symmetry_numbers_of_known_molecules(name, sigma):
    atoms = molecule(name)
    assert symmetry_number(atoms.numbers, atoms.positions, atoms.get_masses()) == sigma
    if len(atoms) > 1:
        atoms.rotate(37, (1, 2, 3))
        atoms.rattle(0.005, seed=1)
        assert symmetry_number(atoms.numbers, atoms.positions, atoms.get_masses()) == sigma


def test_isotopes_break_symmetry_and_are_checked():
    atoms = molecule("H2O")
    masses = with_isotopes(atoms.numbers, masses_of(atoms.numbers), ["1=2.014"])
    assert masses[1] == 2.014
    assert symmetry_number(atoms.numbers, atoms.positions, masses) == 1
    assert np.all(with_isotopes(atoms.numbers, masses, ["H=2.014"])[1:] == 2.014)
    for wrong in ("9=2.0", "H", "1=-1", "Xx=3", "C=13.003", "1=nan"):
        with pytest.raises(ConfigError, match="ATOM=MASS"):
            with_isotopes(atoms.numbers, masses, [wrong])
