import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from ase.vibrations import VibrationsData
from real_outputs import CASES
from scipy.spatial.transform import Rotation
from springs import spring_network

from nequip_hessian.analysis.infrared import KM_PER_MOL, infrared_intensities, spectrum
from nequip_hessian.analysis.single import model_vibrations
from nequip_hessian.analysis.vibrations import vibrations
from nequip_hessian.cli import main
from nequip_hessian.errors import ConfigError
from nequip_hessian.report.modes import jmol_text, molden_text
from nequip_hessian.units import BOHR


class Springs:
    """A harmonic molecule about its minimum."""

    def __init__(self, n_atoms=4, seed=3):
        self.positions, _, self.hessian = spring_network(n_atoms, seed, stretched=0.0)
        self.atoms = Atoms("HCNO"[:n_atoms], self.positions)

    def evaluate_many(self, images):
        found = []
        for atoms in images:
            d = (atoms.positions - self.positions).ravel()
            found.append((0.5 * d @ self.hessian @ d, -(self.hessian @ d).reshape(-1, 3)))
        return found

    def get_hessian(self, atoms, indices=None):
        chosen = np.arange(len(atoms)) if indices is None else np.asarray(indices)
        rows = (3 * chosen[:, None] + np.arange(3)).ravel()
        return self.hessian[np.ix_(rows, rows)]


def test_the_intensity_of_a_diatomic_by_hand():
    # unit charges at distance r: dmu/dr = 1 e, dmu/dQ = 1 e / sqrt(reduced mass)
    hessian = np.zeros((6, 6))
    hessian[2, 2] = hessian[5, 5] = 30.0
    hessian[2, 5] = hessian[5, 2] = -30.0
    masses = np.array([1.0, 3.0])
    modes = vibrations(hessian, np.array([[0, 0, 0], [0, 0, 1.0]]), masses)
    charges = np.concatenate([-np.eye(3), np.eye(3)])
    assert infrared_intensities(modes, charges)[0] == pytest.approx(KM_PER_MOL / 0.75)
    assert pytest.approx(42.2561, abs=1e-3) == KM_PER_MOL / 4.80320471**2  # for 1 (D/angstrom)^2/u
    with pytest.raises(ConfigError, match=r"\(6, 3\)"):
        infrared_intensities(modes, charges[:3])


def test_intensities_do_not_depend_on_the_orientation():
    model = Springs()
    masses = model.atoms.get_masses()
    table = np.random.default_rng(0).normal(size=(12, 3))
    turn = Rotation.random(random_state=1).as_matrix()
    big = np.kron(np.eye(4), turn)
    first = infrared_intensities(vibrations(model.hessian, model.positions, masses), table)
    second = infrared_intensities(
        vibrations(big @ model.hessian @ big.T, model.positions @ turn.T, masses), big @ table @ turn.T
    )
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_the_area_under_a_band_is_its_intensity():
    grid, absorption = spectrum(np.array([-500.0, 1500.0, 3000.0]), np.array([99.0, 10.0, 30.0]), fwhm=10.0)
    assert (grid[0], grid[-1]) == (0.0, 4000.0)
    near = (grid > 1400) & (grid < 1600)
    assert np.trapezoid(absorption[near], grid[near]) == pytest.approx(10.0, rel=0.04)
    assert np.trapezoid(absorption, grid) == pytest.approx(40.0, rel=0.01)
    peak = absorption[grid == 3000.0][0]
    assert absorption[grid == 3005.0][0] == pytest.approx(peak / 2, rel=0.01)
    assert spectrum(np.array([4395.0]), np.array([1.0]))[0][-1] == 4500.0
    with pytest.raises(ConfigError, match="above 0"):
        spectrum(np.array([1.0]), np.array([1.0]), fwhm=0.0)


def test_frozen_atoms_are_those_of_ase_and_stay_at_rest():
    model = Springs()
    found = model_vibrations(model, model.atoms, frozen=[1, 3])
    assert len(found.result) == 6
    assert found.n_projected == 0
    shape = found.displacements()
    assert shape.shape == (6, 4, 3)
    assert np.all(shape[:, [1, 3]] == 0)
    ase = VibrationsData.from_2d(model.atoms, model.get_hessian(model.atoms, [0, 2]), [0, 2]).get_frequencies()
    np.testing.assert_allclose(found.result.wavenumbers, np.sort(ase.real), atol=0.05)
    with pytest.raises(ConfigError, match="frozen atoms"):
        model_vibrations(model, model.atoms, frozen=[0, 1, 2, 3])


def test_molden_and_jmol_files_hold_the_modes():
    model = Springs()
    found = model_vibrations(model, model.atoms)
    waves, shapes = found.result.wavenumbers, found.displacements()
    strengths = np.arange(6.0)
    text = molden_text(model.atoms, waves, shapes, strengths).splitlines()
    start = text.index("[FREQ]") + 1
    np.testing.assert_allclose([float(x) for x in text[start : start + 6]], waves, atol=1e-4)
    start = text.index("[FR-COORD]") + 1
    coordinates = np.array([line.split()[1:] for line in text[start : start + 4]], dtype=float)
    np.testing.assert_allclose(coordinates * BOHR, model.positions, atol=1e-7)
    start = text.index("vibration 6") + 1
    np.testing.assert_allclose(np.array([x.split() for x in text[start:]], dtype=float), shapes[5], atol=1e-8)
    lines = jmol_text(model.atoms, waves, shapes, strengths).splitlines()
    assert len(lines) == 6 * 6
    assert f"{waves[1]:.2f} cm^-1" in lines[7]
    np.testing.assert_allclose(
        [float(x) for x in lines[8].split()[1:]], [*model.positions[0], *shapes[1, 0]], atol=1e-8
    )


@pytest.mark.cases
def test_intensities_are_those_orca_printed(tmp_path):
    import re

    from nequip_hessian.formats import read as read_output

    for stem in ("autode/H2O_hess_orca", "autode/CO2_hess_orca"):
        text = (CASES / f"{stem}.hess").read_text()
        block = text.split("$ir_spectrum")[1].split("$")[0].splitlines()[2:]
        printed = np.array(
            [re.findall(r"[-\d.]+(?:[eE][-+]\d+)?", line) for line in block if line.strip()], dtype=float
        )
        record = next(iter(read_output(CASES / f"{stem}.hess")))
        assert record.dipole_derivatives is not None
        modes = vibrations(np.asarray(record.hessian), record.positions, record.masses)
        ours = infrared_intensities(modes, record.dipole_derivatives)
        kept = printed[printed[:, 0] > 100]
        # old versions print T^2 only, new ones eps, Int, T^2
        column = 1 if printed.shape[1] <= 5 else 2
        for wave, strength in zip(modes.wavenumbers, ours, strict=True):
            near = kept[np.abs(kept[:, 0] - wave) < 1.0]
            if len(near) == 1:  # degenerate modes share their intensity as they like
                assert strength == pytest.approx(near[0, column], rel=2e-3, abs=0.02)


def test_the_command_writes_spectrum_and_thermochemistry(tmp_path, capsys):
    write(tmp_path / "water.xyz", molecule("H2O"))
    command = ["vibrations", "tblite", str(tmp_path / "water.xyz"), "--optimise"]
    assert main([*command, "--ir", "-o", str(tmp_path / "light"), "--pressure=1"]) == 0
    printed = capsys.readouterr().out
    assert "symmetry number 2" in printed
    assert "IR / km/mol" in printed
    assert main([*command, "--isotope=H=2.014", "-o", str(tmp_path / "heavy")]) == 0
    light, heavy = (
        json.loads((tmp_path / name / "frequencies.json").read_text(encoding="utf-8")) for name in ("light", "heavy")
    )
    ratio = np.array(heavy["wavenumbers_cm"]) / np.array(light["wavenumbers_cm"])
    assert np.all((ratio > 0.7) & (ratio < 0.76))  # water to heavy water
    assert max(light["ir_intensities_km_per_mol"]) > 10
    gas = json.loads((tmp_path / "light" / "thermochemistry.json").read_text(encoding="utf-8"))
    assert gas["pressure_bar"] == 1
    assert gas["entropy_eV_per_K"] * 298.15 == pytest.approx(gas["enthalpy_eV"] - gas["gibbs_eV"])
    for name in ("spectrum.csv", "spectrum.svg", "modes.molden", "modes.jmol.xyz", "mode_002.extxyz"):
        assert (tmp_path / "light" / name).is_file()
    assert len(read(tmp_path / "light" / "mode_000.extxyz", index=":")) == 20
    assert main([*command, "--freeze", "0"]) == 0
    assert "rigid motions projected out: 0" in capsys.readouterr().out
    for wrong, message in ((["--freeze", "7"], "atoms 0 to 2"), (["--isotope", "7=2"], "ATOM=MASS")):
        assert main([*command, *wrong]) == 1
        assert message in capsys.readouterr().err
    assert main([*command, "--ir", str(tmp_path / "water.xyz")]) == 1
    assert main(["vibrations", "tblite", str(tmp_path / "water.xyz"), "--multiplicity", "2"]) == 1
    assert "cannot have multiplicity 2" in capsys.readouterr().err
