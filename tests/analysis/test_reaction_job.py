import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from browser import check_page
from xtb_models import hydrogen_cyanide

from nequip_hessian.analysis import job as job_module
from nequip_hessian.analysis.job import run_reaction
from nequip_hessian.analysis.job_cache import JobCache
from nequip_hessian.analysis.prediction import atoms_of
from nequip_hessian.cli import main
from nequip_hessian.errors import ConfigError
from nequip_hessian.potentials import load_potential


@pytest.fixture(scope="module")
def members():
    return {role: atoms_of(record) for role, record in hydrogen_cyanide().items()}


@pytest.fixture(scope="module")
def done(members, tmp_path_factory):
    """A whole reaction through the command line."""
    folder = tmp_path_factory.mktemp("reaction")
    for name in ("reactant", "product"):
        write(folder / f"{name}.xyz", members[name])
    files = [str(folder / f"{name}.xyz") for name in ("reactant", "product")]
    command = ["reaction", "tblite", *files, "-o", str(folder / "out"), "--irc-step=0.2", "--temperature=400"]
    return folder, command, main(command)


def test_a_reaction_goes_from_its_ends_to_one_page(done, members):
    folder, _, status = done
    assert status == 0
    out = folder / "out"
    document = json.loads((out / "reaction.json").read_text(encoding="utf-8"))
    assert document["failed"] is None
    energies = {name: record.energy for name, record in hydrogen_cyanide().items()}
    found = document["thermochemistry"]
    barrier = found["transition_state"]["electronic_energy_eV"] - found["reactant"]["electronic_energy_eV"]
    assert barrier == pytest.approx(energies["transition_state"] - energies["reactant"], abs=2e-4)
    assert found["transition_state"]["n_left_out"] == 1
    assert found["product"]["temperature_K"] == 400
    assert document["wavenumbers_cm"]["transition_state"][0] == pytest.approx(-1426, abs=5)
    assert document["irc"]["sides"]["reverse"]["leads_to"]["name"] == "reactant"
    assert document["irc"]["sides"]["forward"]["leads_to"]["name"] == "product"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(check_page(out / "report.html", folder / "browser").images) == 3
    for text in ("Gibbs energy", "Intrinsic reaction coordinate", "Band", "Vibrations of the product"):
        assert text in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert len(read(out / "band.extxyz", index=":")) == 9
    assert (out / "vibrations" / "transition_state" / "modes.molden").is_file()
    assert (out / "irc" / "irc.extxyz").is_file()


def test_finished_stages_are_not_done_again(done, monkeypatch, capsys):
    _, command, _ = done

    def forbidden(*args, **kwargs):
        raise AssertionError("done again")

    for name in ("relax", "reaction_path", "search_saddle", "intrinsic_reaction_coordinate"):
        monkeypatch.setattr(job_module, name, forbidden)
    assert main(command) == 0
    assert "lead to the reactant and the product given" in capsys.readouterr().out
    # another setting is another job
    assert main([*command, "--images=7"]) == 1
    assert "done again" in capsys.readouterr().err


def test_a_stage_that_fails_is_named_with_its_reason(members, tmp_path, capsys):
    xtb = load_potential("tblite")
    same = run_reaction(members["reactant"], members["reactant"], xtb, JobCache(tmp_path / "a", {}))
    assert (same.failed, same.reason) == ("path", "reactant and product relax to the same minimum")
    assert set(same.points) == {"reactant", "product"}
    saddle = run_reaction(
        members["transition_state"], members["product"], xtb, JobCache(tmp_path / "b", {}), band_steps=1
    )
    assert "stopped on a ridge" in saddle.remarks[0]
    assert saddle.points["reactant"].result.n_imaginary == 0
    with pytest.raises(ConfigError, match="same order"):
        run_reaction(members["reactant"], members["product"][[1, 0, 2]], xtb, JobCache(tmp_path / "c", {}))
    write(tmp_path / "r.xyz", members["reactant"])
    file = str(tmp_path / "r.xyz")
    assert main(["reaction", "tblite", file, file, "-o", str(tmp_path / "out")]) == 1
    assert "path: reactant and product relax to the same minimum" in capsys.readouterr().err
    assert "Failed at the stage path" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert main(["neb", "tblite", file, file, "-o", str(tmp_path / "neb")]) == 1
    assert json.loads((tmp_path / "neb" / "neb.json").read_text(encoding="utf-8"))["failure"]


def test_the_wrong_basin_is_a_failure(members, monkeypatch, tmp_path):
    xtb = load_potential("tblite")
    cache = JobCache(tmp_path / "stages", {})
    # the right transition state of other ends: the product given is a stretched conformer that is none of its basins
    other = members["product"].copy()
    judge = job_module.judge

    def with_other_end(search, *, path, ends):
        moved = Atoms("HCN", other.positions * [1, 1, 3])
        return judge(search, path=path, ends={"reactant": ends["reactant"], "product": moved})

    monkeypatch.setattr(job_module, "judge", with_other_end)
    found = run_reaction(members["reactant"], members["product"], xtb, cache, irc_step=0.2)
    assert found.failed == "irc"
    assert "other bonds than" in found.reason
    assert np.isfinite(found.points["transition_state"].energy)
