"""OUTCAR and vasprun.xml of a real periodic Hessian (EMT): sign, mass weights, free ions."""

from __future__ import annotations

import emitters
import numpy as np
import pytest
import solid_emitters
from compare import one

from nequip_hessian.checks import check
from nequip_hessian.curvature import symmetrise
from nequip_hessian.errors import FormatError, NoHessianError, PhysicsError
from nequip_hessian.formats import read

MAKERS = {"vasp-outcar": ("OUTCAR", solid_emitters.outcar), "vasprun": ("vasprun.xml", solid_emitters.vasprun)}


@pytest.mark.parametrize("reader", MAKERS)
@pytest.mark.parametrize("free", [None, (1, 3)])
def test_hessian_has_the_sign_of_a_hessian_and_the_free_ions(tmp_path, reader, free):
    made = solid_emitters.alloy(free)
    name, write = MAKERS[reader]
    record = one(emitters.write(tmp_path / name, write(made)), reader)
    assert record.numbers.tolist() == made.numbers.tolist()
    assert np.max(np.abs(record.positions - made.positions)) < 1e-7
    assert np.allclose(record.cell, made.cell, atol=1e-8)
    assert record.pbc.all()
    assert (None if record.active is None else tuple(record.active.tolist())) == free
    assert np.max(np.abs(record.hessian - made.hessian)) < 1e-5
    assert np.linalg.eigvalsh(record.hessian)[-1] > 1.0
    assert record.energy == pytest.approx(made.energy, abs=1e-7)
    assert np.max(np.abs(record.forces - made.forces)) < 1e-6
    assert np.allclose(record.masses, made.masses)
    assert np.max(np.abs(record.frequencies - np.sort(made.frequencies))) < 1e-2
    _, found = check(record)
    assert found.frequency_deviation < 0.1  # the softest of printed modes are acoustic ones
    if free is None:
        assert found.translation < 0.05
    assert record.level.hessian == "finite_difference"
    assert (record.level.method, record.level.displacement) == ("PBE", 0.01)


def test_vasprun_of_version_5_is_in_another_unit(tmp_path):
    made = solid_emitters.alloy()
    record = one(emitters.write(tmp_path / "vasprun.xml", solid_emitters.vasprun(made, thz=False)), "vasprun")
    assert np.max(np.abs(record.hessian - symmetrise(made.hessian)[0])) < 1e-5


def test_ion_that_is_free_in_one_direction_only(tmp_path):
    made = solid_emitters.alloy((1, 3))
    path = emitters.write(tmp_path / "OUTCAR", solid_emitters.outcar(made, axes="Z"))
    with pytest.raises(FormatError, match="free in some directions only"):
        list(read(path))
    text = solid_emitters.vasprun(made).replace("> T T T <", "> F F T <", 1)
    with pytest.raises(FormatError, match="free in some directions only"):
        list(read(emitters.write(tmp_path / "vasprun.xml", text)))


def test_partial_hessian_of_other_atoms_is_refused_by_its_frequencies(tmp_path):
    made = solid_emitters.alloy((1, 3))
    text = solid_emitters.outcar(made)
    for axis in "XYZ":
        text = text.replace(f" 2{axis}", f" 3{axis}").replace("  4" + axis, "  4" + axis)
    record = one(emitters.write(tmp_path / "OUTCAR", text), "vasp-outcar")
    assert record.active.tolist() == [2, 3]  # gold instead of copper: the masses do not fit
    with pytest.raises(PhysicsError, match="partial Hessian disagree"):
        check(record)


def test_jobs_without_second_derivatives(tmp_path):
    made = solid_emitters.alloy()
    with pytest.raises(NoHessianError, match="there is no dynmat in it"):
        list(read(emitters.write(tmp_path / "vasprun.xml", solid_emitters.vasprun(made, dynmat=False))))
    text = solid_emitters.outcar(made)
    text = text[: text.index(" SECOND")] + " General timing and accounting informations for this job:\n"
    with pytest.raises(NoHessianError, match="IBRION 5, 6, 7 or 8"):
        list(read(emitters.write(tmp_path / "OUTCAR", text)))
    with pytest.raises(FormatError, match="the VASP job did not end"):
        list(read(emitters.write(tmp_path / "cut" / "OUTCAR", text[: text.index(" General")])))


def test_entities_are_not_expanded(tmp_path):
    text = solid_emitters.vasprun(solid_emitters.alloy())
    bomb = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;&x;">]>\n<modeling>'
    path = emitters.write(tmp_path / "vasprun.xml", text.replace("<modeling>", bomb, 1))
    with pytest.raises(FormatError, match="entities are not expanded"):
        list(read(path))


def test_cut_vasprun(tmp_path):
    text = solid_emitters.vasprun(solid_emitters.alloy())
    with pytest.raises(FormatError, match="no well-formed XML"):
        list(read(emitters.write(tmp_path / "vasprun.xml", text[:-40])))
