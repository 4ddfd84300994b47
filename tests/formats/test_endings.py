"""Outputs of jobs that did not end, and files that are cut: said, whether the Hessian is whole or missing."""

from __future__ import annotations

from pathlib import Path

import emitters
import numpy as np
import pytest

from nequip_hessian.checks import check
from nequip_hessian.convert import convert
from nequip_hessian.errors import HessianDataError, NoHessianError
from nequip_hessian.formats import format_of, read

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["cp2k/water.out", "cp2k/fixed.out", "mopac/water.out", "nwchem/water.out"])
def test_whole_hessian_of_a_cut_output_is_a_warning(tmp_path, name):
    text = (DATA / name).read_text()
    (whole,) = read(DATA / name)
    assert not whole.provenance.get("warnings")
    lines, path = text.split("\n"), tmp_path / Path(name).name
    for end in range(len(lines) - 1, 0, -1):  # the shortest text that still has it
        path.write_text("\n".join(lines[:end]) + "\n")
        try:
            (record,) = read(path, whole.provenance["format"])
        except HessianDataError:
            break
        shortest = record
    assert "did not end" in shortest.provenance["warnings"][0]
    _, found = check(shortest)
    assert any("did not end" in warning for warning in found.warnings)


@pytest.mark.parametrize("name", ["cp2k/water.out", "mopac/water.out", "nwchem/water.out", "psi4/water.out"])
def test_missing_hessian_of_a_cut_output_says_so(tmp_path, name):
    lines = (DATA / name).read_text().split("\n")
    path = tmp_path / Path(name).name
    path.write_text("\n".join(lines[: len(lines) // 4]) + "\n")
    with pytest.raises(HessianDataError, match=r"did not end|is cut") as caught:
        list(format_of(path).read(path))
    assert not isinstance(caught.value, NoHessianError)
    assert str(caught.value).count(str(path)) == 1


def test_second_job_of_a_gaussian_output_cut(tmp_path):
    """An optimisation that ended, and a frequency job behind it that did not."""
    head = " Entering Gaussian System, Link 0=g16\n"
    first = f"{head} Normal termination of Gaussian 16 at Mon.\n"
    path = tmp_path / "a.log"
    path.write_text(first)
    with pytest.raises(NoHessianError):
        list(read(path))
    path.write_text(first + " Link1:  Proceeding to internal job step number  2.\n half of it\n")
    with pytest.raises(HessianDataError, match="did not end, or the file is cut") as caught:
        list(read(path))
    assert not isinstance(caught.value, NoHessianError)


def test_checkpoint_cut_before_and_behind_its_hessian(tmp_path):
    text = emitters.fchk(emitters.made())
    path = tmp_path / "a.fchk"
    before = text.index("Cartesian Gradient")
    path.write_text(text[: before + 300])
    with pytest.raises(HessianDataError, match="cut in the section 'Cartesian Gradient'"):
        list(read(path))
    path.write_text(text[: text.index("Vib-E2") + 120])
    with pytest.raises(HessianDataError, match="is the file cut"):
        list(read(path))
    behind = text + f"{'Quadrupole Moment':<40s}   R   N={6:12d}\n" + "  1.00000000E+00" * 5 + "\n"
    path.write_text(behind)
    (record,) = read(path)
    assert "'Quadrupole Moment'" in record.provenance["warnings"][0]


def test_of_two_files_of_one_calculation_the_whole_one_is_taken(tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    text = (DATA / "nwchem" / "water.out").read_text()
    (folder / "a_cut.out").write_text(text[: text.index("Please cite")])
    (folder / "b_whole.out").write_text(text)
    first, second = convert([folder], tmp_path / "s.zarr").entries
    assert (Path(first.source).name, first.status) == ("b_whole.out", "taken")
    assert (Path(second.source).name, second.status) == ("a_cut.out", "duplicate")


@pytest.mark.parametrize(("old", "new"), [(b"(9, 9)", b"((9, 9"), (b"'shape'", b"'sh\x00pe'"), (b"<f8", b"<f3")])
def test_damaged_head_of_an_array(tmp_path, old, new):
    path = tmp_path / "a-hessian.npy"
    np.save(path, np.eye(9))
    path.write_bytes(path.read_bytes().replace(old, new))
    (tmp_path / "a.xyz").write_text("3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    with pytest.raises(HessianDataError, match=r"a-hessian\.npy"):
        list(read(path, "q2mm-npy"))
