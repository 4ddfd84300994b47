"""Turbomole folders."""

from __future__ import annotations

import emitters
import numpy as np
import pytest
from compare import labels, one, same
from text_emitters import turbomole

from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import format_of, read


@pytest.fixture(scope="module")
def made():
    return emitters.made("CH3OH", average=True)


def place(folder, files):
    for name, text in files.items():
        emitters.write(folder / name, text)


def test_control(tmp_path, made):
    place(tmp_path, turbomole(made))
    record = one(tmp_path / "control", "turbomole")
    same(record, made, hessian=1e-8)
    labels(record, made)
    assert (record.level.method, record.level.basis) == ("b-p", "def2-SVP")
    assert [facts["source"] for facts in record.provenance["companions"]] == ["coord", "gradient"]


def test_hessian_in_a_file_of_its_own(tmp_path, made):
    files = turbomole(made)
    begin, end = files["control"].index("$hessian"), files["control"].index("$vibrational")
    body = files["control"][begin:end]
    files["control"] = files["control"][:begin] + "$hessian (projected)    file=hessian\n" + files["control"][end:]
    place(tmp_path, {**files, "hessian": body + "$end\n"})
    for name in ("control", "hessian"):
        same(one(tmp_path / name, "turbomole"), made, hessian=1e-8)


def test_unprojected_hessian_is_taken_where_both_are_there(tmp_path, made):
    files = turbomole(made)
    begin, end = files["control"].index("$hessian"), files["control"].index("$vibrational")
    body = files["control"][begin:end]
    files["control"] = files["control"][:begin] + body.replace("0.", "1.") + files["control"][end:]
    place(tmp_path, {**files, "nprhessian": body.replace("$hessian (projected)", "$nprhessian") + "$end\n"})
    (record,) = read(tmp_path / "control")
    assert np.max(np.abs(record.hessian - made.hessian)) < 1e-6


def test_gradient_of_another_geometry_is_left_out(tmp_path, made):
    files = turbomole(made)
    files["gradient"] = turbomole(emitters.made("CH3OH", average=True, seed=4))["gradient"]
    place(tmp_path, files)
    (record,) = read(tmp_path / "control")
    assert record.forces is None
    assert record.energy is None


@pytest.mark.parametrize("change", ["lost", "doubled"])
def test_a_line_of_the_matrix_too_few_or_too_many(tmp_path, made, change):
    files = turbomole(made)
    lines = files["control"].split("\n")
    at = lines.index("$hessian (projected)") + 6
    lines[at : at + 1] = [] if change == "lost" else [lines[at]] * 2
    place(tmp_path, {**files, "control": "\n".join(lines)})
    with pytest.raises(FormatError, match=r"control, line \d+: \$hessian: expected line"):
        list(read(tmp_path / "control"))


def test_without_coord_or_hessian(tmp_path, made):
    files = turbomole(made)
    place(tmp_path, {"control": files["control"]})
    with pytest.raises(FormatError, match="expected the file `coord`"):
        list(read(tmp_path / "control"))
    begin, end = files["control"].index("$hessian"), files["control"].index("$vibrational")
    place(tmp_path, {**files, "control": files["control"][:begin] + files["control"][end:]})
    assert format_of(tmp_path / "control").name == "turbomole"
    with pytest.raises(NoHessianError, match="aoforce and NumForce write them"):
        list(read(tmp_path / "control"))
