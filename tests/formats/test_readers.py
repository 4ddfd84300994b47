"""Each format module gives back the geometry, Hessian and labels that its file was made from."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import emitters
import numpy as np
import pytest
from springs import spring_network

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import format_of, formats, read
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.units import HARTREE

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def isotopic():
    return emitters.made()


@pytest.fixture(scope="module")
def average():
    return emitters.made(average=True)


def one(path: Path) -> LabelledGeometry:
    (record,) = read(path)
    return record


def same(record: LabelledGeometry, made: LabelledGeometry, *, hessian: float = 1e-6, positions: float = 1e-8) -> None:
    assert record.numbers.tolist() == made.numbers.tolist()
    assert np.max(np.abs(record.positions - made.positions)) < positions
    assert np.max(np.abs(record.hessian - made.hessian)) < hessian * np.max(np.abs(made.hessian))
    assert np.allclose(record.masses, made.masses, rtol=1e-6)
    _, found = check(record)
    assert found.frequency_deviation < 0.02


def labels(record: LabelledGeometry, made: LabelledGeometry, *, energy: float = 1e-5, forces: float = 1e-6) -> None:
    assert record.energy == pytest.approx(made.energy, abs=energy)
    assert np.max(np.abs(record.forces - made.forces)) < forces
    assert (record.charge, record.multiplicity) == (0, 1)
    _, found = check(record)
    assert found.verdict == "ok"  # off a minimum, the rotational identity fixes unit and sign of both


def test_fchk(tmp_path, isotopic):
    record = one(emitters.write(tmp_path / "a.fchk", emitters.fchk(isotopic)))
    same(record, isotopic)
    labels(record, isotopic)
    assert record.level == LevelOfTheory("B3LYP", "6-31G(d)", program="Gaussian", hessian="analytic")
    assert record.provenance["conversions"]["hessian"]["from"] == "Eh/a0^2"
    assert record.provenance["title"] == "Title of the job"


def test_fchk_without_cartesian_force_constants_is_no_hessian(tmp_path, isotopic):
    text = emitters.fchk(isotopic)
    begin, end = text.index("Cartesian Force"), text.index("Number of Normal")
    path = emitters.write(tmp_path / "opt.fchk", text[:begin] + text[end:])
    with pytest.raises(NoHessianError, match="Internal Force Constants"):
        one(path)


@pytest.mark.parametrize("separator", ["\\", "|"])
@pytest.mark.parametrize("user", ["ANNA", "ANNA@LAB"])
def test_gaussian_archive_block(tmp_path, isotopic, separator, user):
    text = emitters.gaussian_log(isotopic, separator=separator, user=user)
    record = one(emitters.write(tmp_path / "a.log", text))
    same(record, isotopic, hessian=2e-7)
    labels(record, isotopic, energy=1e-5, forces=1e-6)
    assert record.level.method == "MP2-FC"
    assert record.level.solvation == "smd,solvent=water"
    assert record.level.program_version == "16 C.01"


def test_gaussian_takes_the_last_block_with_a_hessian(tmp_path, isotopic):
    other = emitters.made(seed=7)
    text = emitters.gaussian_log(isotopic, before=emitters.archive(other))
    same(one(emitters.write(tmp_path / "two.log", text)), isotopic)


@pytest.mark.parametrize(
    ("method", "route", "energy"),
    [
        ("RMP2-FC", "#p mp2/6-31g(d) freq", "MP2"),
        ("RB3LYP", "#p b3lyp/6-31g(d) freq", "MP2"),  # no such block exists; the highest value counts
        ("RBD-FC", "#p bd/6-31g(d) freq", None),
        ("RB3LYP", "#p b3lyp/6-31g(d) td=(nstates=3) freq", None),
        ("RB3LYP", "#p freq td b3lyp/6-31g(d)", None),
    ],
)
def test_gaussian_energy_is_of_the_surface_of_the_hessian(tmp_path, isotopic, method, route, energy):
    text = emitters.gaussian_log(isotopic, method=method, route=route)
    record = one(emitters.write(tmp_path / "a.log", text))
    assert record.energy == (pytest.approx(isotopic.energy, abs=1e-5) if energy else None)


def test_gaussian_job_that_failed(tmp_path, isotopic):
    text = emitters.gaussian_log(isotopic).split("\n 1\\1")[0] + "\n Error termination via Lnk1e in l502.exe\n"
    with pytest.raises(FormatError, match=r"a\.log, line \d+: the Gaussian job failed"):
        one(emitters.write(tmp_path / "a.log", text))


def test_orca(tmp_path, average):
    path = emitters.write(tmp_path / "a.hess", emitters.orca_hess(average, asymmetry=1e-4))
    alone = one(path)
    same(alone, average, hessian=1e-6)
    assert alone.asymmetry > 5e-3
    assert alone.energy is None
    assert alone.forces is None
    assert alone.charge is None
    emitters.write(tmp_path / "a.out", emitters.orca_out(average))
    record = one(path)
    labels(record, average)
    assert record.level == LevelOfTheory(
        "B3LYP", "def2-SVP", "D3BJ", "CPCM(water)", "ORCA", "5.0.4", hessian="finite_difference"
    )
    assert [facts["source"] for facts in record.provenance["companions"]] == ["a.out"]


def test_orca_engrad_gives_forces(tmp_path, average):
    path = emitters.write(tmp_path / "a.hess", emitters.orca_hess(average))
    emitters.write(tmp_path / "a.engrad", emitters.orca_engrad(average))
    record = one(path)
    assert np.max(np.abs(record.forces - average.forces)) < 1e-9
    assert record.energy == pytest.approx(average.energy, abs=1e-9)


@pytest.mark.parametrize("emit", [emitters.orca_out, emitters.orca_engrad])
def test_orca_companion_of_another_geometry_is_not_taken(tmp_path, average, emit):
    path = emitters.write(tmp_path / "a.hess", emitters.orca_hess(average))
    ending = "out" if emit is emitters.orca_out else "engrad"
    emitters.write(tmp_path / f"a.{ending}", emit(emitters.made(seed=5)))
    record = one(path)
    assert record.energy is None
    assert record.forces is None


def test_orca_scaled_frequencies_are_unscaled(tmp_path, average):
    same(one(emitters.write(tmp_path / "a.hess", emitters.orca_hess(average, scale=0.96))), average)


@pytest.mark.parametrize("unit", ["Angstroms", "Bohr"])
@pytest.mark.parametrize("numerical", [False, True])
def test_qchem(tmp_path, isotopic, unit, numerical):
    text = emitters.qchem_out(isotopic, unit=unit, numerical=numerical)
    record = one(emitters.write(tmp_path / "a.out", text))
    same(record, isotopic, hessian=2e-6, positions=1e-9)
    assert record.level.method == "b3lyp"
    assert record.level.hessian == ("finite_difference" if numerical else "analytic")
    if not numerical:
        assert record.energy == pytest.approx(isotopic.energy, abs=1e-7)


def test_qcschema_of_pyscf():
    record = one(DATA / "water_hf_pyscf.json")
    made = json.loads((DATA / "water_hf_pyscf.json").read_text())
    assert record.energy == pytest.approx(made["properties"]["return_energy"] * HARTREE)
    assert record.level == LevelOfTheory("hf", "sto-3g", program="PySCF", program_version=made["provenance"]["version"])
    record, found = check(record)
    assert found.verdict == "ok"
    assert found.scale == pytest.approx(1.0, abs=1e-3)
    assert record.kind == "other"


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_compressed(tmp_path, suffix, pack):
    path = tmp_path / f"a.json.{suffix}"
    path.write_bytes(pack((DATA / "water_hf_pyscf.json").read_bytes()))
    assert np.array_equal(one(path).hessian, one(DATA / "water_hf_pyscf.json").hessian)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="compression"):
        one(path)


def test_qcschema_says_group_role_and_frequencies(tmp_path):
    content = json.loads((DATA / "water_hf_pyscf.json").read_text())
    content["extras"]["nequip_hessian"] = {"group": "r1", "role": "product", "path_coordinate": 0.5, "label": "w"}
    gradient = json.loads((DATA / "water_hf_pyscf.json").read_text())
    gradient |= {"driver": "gradient", "return_result": gradient["properties"]["return_gradient"]}
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"input": {}, "result": content}, gradient]))
    first, second = read(path)
    assert (first.group, first.role, first.path_coordinate, first.label) == ("r1", "product", 0.5, "w")
    assert second.hessian is None
    assert np.allclose(second.forces, first.forces)


def test_qcschema_version_2(tmp_path):
    content = json.loads((DATA / "water_hf_pyscf.json").read_text())
    specification = {key: content.pop(key) for key in ("driver", "model", "keywords")}
    content |= {"schema_version": 2, "input_data": {"specification": specification, "molecule": content["molecule"]}}
    path = tmp_path / "v2.json"
    path.write_text(json.dumps(content))
    first, second = one(path), one(DATA / "water_hf_pyscf.json")
    assert np.array_equal(first.hessian, second.hessian)
    assert first.level == second.level


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": False, "error": {"error_message": "SCF did not converge"}}, "SCF did not converge"),
        ({"driver": "energy", "return_result": -1.0, "properties": {}}, "no Hessian"),
        ({"return_result": [0.0] * 80}, "expected 81 numbers"),
        ({"molecule": {"symbols": ["O", "H", "X"], "geometry": [0.0] * 9}}, "no chemical element"),
    ],
)
def test_qcschema_refusals(tmp_path, change, message):
    content = json.loads((DATA / "water_hf_pyscf.json").read_text()) | change
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message) as caught:
        one(path)
    assert "a.json" in str(caught.value)


def test_xtb_run_with_optimisation_takes_the_optimised_geometry():
    record = one(DATA / "xtb_formaldehyde" / "hessian")
    assert record.formula == "CH2O"
    assert record.level.method == "GFN2-xTB"
    assert (record.charge, record.multiplicity) == (0, 1)
    record, found = check(record)
    assert found.frequency_deviation < 3.5e-5 * 2840
    assert found.rotation < 1e-3  # the input geometry, not the optimised one, would leave 2 eV/angstrom
    assert record.kind == "minimum"
    assert record.label == "xtb_formaldehyde"


def test_xtb_single_point_hessian_of_a_transition_state():
    record, found = check(one(DATA / "xtb_planar_ammonia" / "hessian"))
    assert record.kind == "transition_state"
    assert found.lowest == pytest.approx(-988.05, abs=0.05)
    assert record.positions[1, 0] == pytest.approx(0.99)


def test_xtb_without_its_geometry(tmp_path):
    shutil.copy(DATA / "xtb_planar_ammonia" / "hessian", tmp_path / "hessian")
    with pytest.raises(FormatError, match=r"expected one \.xyz of 4 atoms beside it, found none"):
        one(tmp_path / "hessian")
    for name in ("a.xyz", "b.xyz"):
        shutil.copy(DATA / "xtb_planar_ammonia" / "nh3.xyz", tmp_path / name)
    with pytest.raises(FormatError, match=r"several \(a\.xyz, b\.xyz\)"):
        one(tmp_path / "hessian")


def test_extxyz_round_trip(tmp_path, isotopic):
    records = [
        isotopic.replace(kind="displaced", role="reactant", group='a "b"', label="x=1 \\ y", path_coordinate=-0.25),
        isotopic.replace(hessian=None, asymmetry=None, frequencies=None, masses=None, forces=None, label="3"),
        isotopic.replace(hessian=isotopic.hessian[:6, :6], active=[0, 1], frequencies=None, label="part"),
        LabelledGeometry(
            numbers=[13], positions=[[0, 0, 0]], cell=np.eye(3) * 4.0, pbc=True, hessian=np.eye(3), label="Al"
        ),
    ]
    assert write_extxyz(tmp_path / "a.xyz", records) == 4
    back = list(read(tmp_path / "a.xyz"))
    for made, found in zip(records, back, strict=True):
        for name in ("numbers", "positions", "cell", "pbc", "forces", "hessian", "active", "masses", "frequencies"):
            assert np.array_equal(getattr(made, name), getattr(found, name)), name
        for name in ("energy", "charge", "multiplicity", "kind", "role", "group", "label", "path_coordinate", "level"):
            assert getattr(made, name) == getattr(found, name), name


@pytest.mark.parametrize("layout", ["full", "packed", "property"])
def test_extxyz_layouts_of_the_matrix(tmp_path, isotopic, layout):
    n = len(isotopic)
    comment, columns = "Properties=species:S:1:pos:R:3", isotopic.positions
    if layout == "property":
        comment += f":hessian:R:{9 * n}"
        columns = np.concatenate([isotopic.positions, isotopic.hessian.reshape(n, 9 * n)], axis=1)
    else:
        values = isotopic.hessian if layout == "full" else isotopic.hessian[np.tril_indices(3 * n)]
        comment += ' hessian="' + " ".join(repr(float(v)) for v in values.ravel()) + '"'
    rows = [
        " ".join([symbol, *(repr(float(v)) for v in row)])
        for symbol, row in zip(["C", "O", "H", "H"], columns, strict=True)
    ]
    emitters.write(tmp_path / "a.extxyz", "\n".join([str(n), comment, *rows]) + "\n")
    record = one(tmp_path / "a.extxyz")
    assert record.numbers.tolist() == [6, 8, 1, 1]
    assert np.allclose(record.hessian, isotopic.hessian, atol=1e-12)


def test_write_extxyz_never_clobbers_on_failure(tmp_path, isotopic):
    path = tmp_path / "a.xyz"
    path.write_text("precious")

    def broken():
        yield isotopic
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_extxyz(path, broken())
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a.xyz"]


def test_formats_are_found_by_walking():
    assert set(formats()) >= {
        "extxyz", "fchk", "gaussian-log", "orca-hess", "qchem-out", "qcschema", "xtb-hessian"
    }  # fmt: skip
    for entry in formats().values():
        assert entry.patterns


def test_format_is_decided_by_content(tmp_path, isotopic):
    log, out = emitters.gaussian_log(isotopic), emitters.qchem_out(isotopic)
    assert format_of(emitters.write(tmp_path / "a.out", log)).name == "gaussian-log"
    assert format_of(emitters.write(tmp_path / "b.out", out)).name == "qchem-out"
    assert format_of(emitters.write(tmp_path / "c.txt", emitters.fchk(isotopic))).name == "fchk"


def test_extended_xyz_larger_than_the_memory_it_takes(tmp_path):
    """Frames are read one after the other: a hundred times the frames take no more memory."""
    positions, _, hessian = spring_network(24, 1)
    write_extxyz(tmp_path / "few.xyz", [LabelledGeometry(numbers=[6] * 24, positions=positions, hessian=hessian)])
    frame = (tmp_path / "few.xyz").read_text()
    assert len(frame) > 80_000
    (tmp_path / "many.xyz").write_text(frame * 100)
    code = (
        "import sys\n"
        "from nequip_hessian.formats import read\n"
        "print(sum(1 for _ in read(sys.argv[1], 'extxyz')))\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    peaks = []
    for name, count in (("few", 1), ("many", 100)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{name}.xyz")], capture_output=True, text=True, check=True
        )
        found, peak = map(int, done.stdout.split())
        assert found == count
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 5_000  # KiB; the file has more than 8 MB
