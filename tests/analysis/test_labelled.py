"""Vibrations of Hessians that are there already, in outputs and stores, without a model."""

import json
from pathlib import Path

import numpy as np
import pytest
from xtb_models import hydrogen_cyanide, label

from nequip_hessian.analysis.labelled import labelled_hessians, labelled_vibrations
from nequip_hessian.cli import main
from nequip_hessian.errors import ConfigError, NoHessianError, PhysicsError
from nequip_hessian.formats import read
from nequip_hessian.store import StoreWriter

DATA = Path(__file__).resolve().parents[1] / "formats" / "data"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "hcn.zarr"
    bare = label("HCN", [[0, 0.3, -1.0], [0, 0, 0], [0, 0, 1.2]], hessian=False)
    many = [record.replace(forces=None, energy=None) for record in hydrogen_cyanide().values()]
    with StoreWriter(path) as writer:
        writer.extend([bare, *hydrogen_cyanide().values(), *many])
    return path


def test_frequencies_of_an_output_are_those_the_program_printed(capsys):
    for file in (DATA / "nwchem" / "water.out", DATA / "psi4" / "water.h2o.hess"):
        (record, _), *_ = labelled_hessians(file)
        found = labelled_vibrations(record).result.wavenumbers
        printed = np.sort(np.asarray(next(iter(read(file))).frequencies))
        printed = np.sort(printed[np.argsort(np.abs(printed))[-len(found) :]])
        np.testing.assert_allclose(found, printed, atol=2)
        assert main(["vibrations", str(file)]) == 0
        assert f"{found[-1]:.1f}" in capsys.readouterr().out


def test_masses_are_those_of_the_file_unless_others_are_asked_for(store, tmp_path, capsys):
    heavy = hydrogen_cyanide()["reactant"].replace(masses=np.array([2.014, 12.0, 14.003]))
    with StoreWriter(tmp_path / "dcn.zarr") as writer:
        writer.append(heavy)
    out = {}
    for name, path, options in (
        ("own", tmp_path / "dcn.zarr", []),
        ("standard", tmp_path / "dcn.zarr", ["--masses", "standard"]),
        ("light", store, ["--record", "1"]),
        ("isotope", store, ["--record", "1", "--isotope", "0=2.014", "--isotope", "1=12.0", "--isotope", "2=14.003"]),
    ):
        assert main(["vibrations", str(path), "-o", str(tmp_path / name), *options]) == 0
        out[name] = json.loads((tmp_path / name / "frequencies.json").read_text())["wavenumbers_cm"]
    np.testing.assert_allclose(out["own"], out["isotope"], atol=1e-6)
    np.testing.assert_allclose(out["standard"], out["light"], atol=1e-6)
    assert out["own"][-1] < out["light"][-1] - 500
    capsys.readouterr()


def test_thermochemistry_needs_no_energy_and_follows_the_kind_where_there_are_no_forces(store, capsys):
    assert main(["vibrations", str(store), "--record", "1,4"]) == 0
    first, second = capsys.readouterr().out.split("\n\n\n")
    for name in ("zero-point energy", "Gibbs energy - electronic energy"):
        lines = [[line for line in text.splitlines() if line.strip().startswith(name)] for text in (first, second)]
        rows = [found[-1].split() for found in lines]
        assert rows[0] == rows[1]
    totals = [
        [line.split()[0] for line in text.splitlines() if line.endswith("          ")] for text in (first, second)
    ]
    assert totals == [["enthalpy", "Gibbs"], []]
    assert "nan" not in second
    assert "energy -" in first.splitlines()[1]


def test_what_cannot_be_shown_is_told(store, tmp_path, capsys):
    with pytest.raises(NoHessianError, match="geometry 0 has no Hessian"):
        labelled_hessians(store, [0])
    with pytest.raises(ConfigError, match="expected geometries 0 to 6, found 7"):
        labelled_hessians(store, [7])
    assert len(labelled_hessians(store)) == 6
    for command, said, status in (
        ([str(store), "--optimise"], "--optimise needs a model", 2),
        ([str(store), "--record", "x"], "expected numbers from 0 and ranges", 2),
        (["tblite"], "give a GEOMETRY, --compare FILE, or both", 2),
        (["tblite", str(tmp_path / "x.xyz"), "--record", "0"], "--record is for --compare", 2),
        ([str(tmp_path / "none.hess")], "No such file", 1),
        ([str(store), "--record", "1", "--ir"], "no dipole derivatives", 1),
    ):
        assert main(["vibrations", *command]) == status, command
        assert said in capsys.readouterr().err


def test_a_hessian_that_contradicts_its_geometry_is_refused(tmp_path):
    text = (DATA / "water_hf_pyscf.json").read_text()
    document = json.loads(text)
    geometry = document["molecule"]["geometry"]
    geometry[3] = geometry[3] + 0.7  # another geometry than that of the Hessian
    (tmp_path / "stale.json").write_text(json.dumps(document))
    with pytest.raises(PhysicsError, match=r"stale\.json: "):
        labelled_hessians(tmp_path / "stale.json")
