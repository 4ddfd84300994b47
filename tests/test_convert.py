"""The conversion as a whole: inputs, refusals by physics, duplicates, groups, projection, exit status."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from ase import Atoms
from ase.build import molecule
from molecules import xtb, xtb_hessian
from scipy.spatial.transform import Rotation

from nequip_hessian.checks import check, kind_of
from nequip_hessian.cli import main
from nequip_hessian.convert import convert, projected
from nequip_hessian.curvature import normal_modes
from nequip_hessian.duplicates import Seen
from nequip_hessian.errors import ConfigError, FormatError, OptionError, PhysicsError, StoreError
from nequip_hessian.formats import read
from nequip_hessian.formats._atoms import isotopic_masses
from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.frequencies import match_frequencies
from nequip_hessian.gather import gather, group_of, role_of
from nequip_hessian.identities import rotation_fit, translation_residual
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate
from nequip_hessian.store.merge import merge
from nequip_hessian.store.summary import summarise

sys.path.insert(0, str(Path(__file__).parent / "formats"))
import emitters

DATA = Path(__file__).parent / "formats" / "data"


@pytest.fixture(scope="module")
def formaldehyde():
    return emitters.made("H2CO")


@pytest.fixture(scope="module")
def minimum() -> LabelledGeometry:
    """GFN2-xTB water at its minimum, by Newton steps with the Hessian itself."""
    atoms: Atoms = molecule("H2O")
    for _ in range(8):
        _, forces = xtb(atoms)
        step = np.linalg.pinv(xtb_hessian(atoms), rcond=1e-3) @ forces.ravel()
        atoms.positions += step.reshape(-1, 3)
    energy, forces = xtb(atoms)
    hessian = xtb_hessian(atoms)
    return LabelledGeometry(numbers=atoms.numbers, positions=atoms.positions, energy=energy, forces=forces,
                            hessian=hessian, label="water")  # fmt: skip


def run(*arguments: object) -> int:
    return main(["convert", *(str(a) for a in arguments)])


# -- inputs ---------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, formaldehyde):
    """calculations/{a/ts.fchk, a/reactant.fchk, b/deep/x.log, notes.txt, other.json}"""
    root = tmp_path / "calculations"
    emitters.write(root / "a" / "ts.fchk", emitters.fchk(formaldehyde))
    emitters.write(root / "a" / "reactant.fchk", emitters.fchk(emitters.made("H2CO", seed=3)))
    emitters.write(root / "b" / "deep" / "x.log", emitters.gaussian_log(emitters.made("H2O")))
    (root / "notes.txt").write_text("nothing")
    (root / "other.json").write_text('{"a": 1}')
    return root


def test_folder_glob_list_and_file_name_the_same_files(tree, tmp_path, monkeypatch):
    wanted = [tree / "a" / "reactant.fchk", tree / "a" / "ts.fchk", tree / "b" / "deep" / "x.log"]
    (tmp_path / "list.txt").write_text("# my jobs\ncalculations/a/*.fchk\n\ncalculations/b/deep/x.log  # this one\n")
    for inputs in ([str(tree / "a"), tree / "b"], [f"{tree}/*/*.fchk", f"{tree}/**/*.log"], [f"@{tmp_path}/list.txt"]):
        assert [item.path.resolve() for item in gather(inputs)] == wanted
    assert [item.path for item in gather([tree / "a" / "ts.fchk", tree / "a"])] == [wanted[1], wanted[0]]


def test_inputs_that_lead_nowhere(tmp_path):
    with pytest.raises(ConfigError, match="at least one"):
        gather([])
    with pytest.raises(FormatError, match="no file matches"):
        gather([f"{tmp_path}/*.fchk"])
    with pytest.raises(FormatError, match="list cannot be read"):
        gather([f"@{tmp_path}/absent"])
    with pytest.raises(OptionError, match="only local files and folders"):
        gather(["http://127.0.0.1:1/a.log"])


def test_list_that_names_itself_is_refused(tree, tmp_path):
    (tmp_path / "self.txt").write_text("@self.txt\n")
    (tmp_path / "one.txt").write_text("calculations/a\n@calculations/two.txt\n")
    (tree / "two.txt").write_text("@../one.txt\n")
    for name in ("self.txt", "one.txt"):
        with pytest.raises(FormatError, match="names itself"):
            gather([f"@{tmp_path}/{name}"])
    (tree / "two.txt").write_text("b\n")
    (tmp_path / "twice.txt").write_text("@one.txt\n@one.txt\n")
    assert len(gather([f"@{tmp_path}/twice.txt"])) == 3


def test_folder_is_converted_with_groups_roles_and_report(tree, tmp_path, capsys):
    assert run(tree, "-o", tmp_path / "s.zarr") == 0
    out = capsys.readouterr().out
    assert "3 taken, 1 ignored" in out
    store = HessianStore(tmp_path / "s.zarr")
    assert {store.group_label(int(g)) for g in store.group} == {"a", "b/deep"}
    (reaction,) = store.reactions()
    assert reaction.label == "a"
    assert store[reaction.transition_state].label == "ts"
    assert store[reaction.reactant].label == "reactant"
    report = json.loads((tmp_path / "s.zarr.report.json").read_text())
    assert report["counts"]["taken"] == 3
    taken = [entry for entry in report["entries"] if entry["status"] == "taken"]
    assert [entry["geometry"] for entry in taken] == [0, 1, 2]
    assert all(entry["checks"]["verdict"] == "ok" for entry in taken)
    assert all(abs(entry["checks"]["scale"] - 1) < 0.01 for entry in taken)
    assert validate(tmp_path / "s.zarr").valid


def test_one_bad_file_never_stops_the_others(tree, tmp_path, capsys):
    (tree / "a" / "bad.fchk").write_text("nonsense\n")
    damaged = emitters.fchk(emitters.made("H2CO", seed=4))
    (tree / "a" / "cut.fchk").write_text(damaged[: len(damaged) // 2])
    assert run(tree, tree / "absent.log", "-o", tmp_path / "s.zarr") == 3
    captured = capsys.readouterr()
    assert "3 taken, 3 refused" in captured.out
    for name in ("bad.fchk", "cut.fchk", "absent.log"):
        assert any(name in line for line in captured.err.splitlines())
    assert len(HessianStore(tmp_path / "s.zarr")) == 3


def test_nothing_taken_writes_nothing(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert run(tmp_path / "in", "-o", tmp_path / "s.zarr") == 1
    assert "no file there has the name of a known format" in capsys.readouterr().err
    (tmp_path / "in" / "a.log").write_text("hello\n")
    assert run(tmp_path / "in" / "a.log", "-o", tmp_path / "new" / "s.zarr") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_existing_store_is_kept_unless_told(tree, tmp_path, capsys):
    target = tmp_path / "s.zarr"
    assert run(tree / "b", "-o", target) == 0
    assert run(tree / "a", "-o", target) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert len(HessianStore(target)) == 1
    assert run(tree / "a", "-o", target, "--overwrite") == 0
    assert len(HessianStore(target)) == 2
    with pytest.raises(FormatError, match="Hessian store already"):
        gather([target])


def test_store_that_cannot_be_begun_is_no_fault_of_the_files(tree, tmp_path, capsys):
    (tmp_path / "s.zarr.unfinished").mkdir()
    assert run(tree, "-o", tmp_path / "s.zarr") == 1
    assert "left by a conversion that was killed" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert run(tree, "-o", tmp_path / "file" / "s.zarr") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert run(tree, "-o", tmp_path / "mine", "--overwrite") == 1
    assert "no Hessian store" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_overwrite_with_nothing_to_write_keeps_the_old_store(tree, tmp_path):
    target = tmp_path / "s.zarr"
    assert run(tree / "b", "-o", target) == 0
    (tree / "a" / "bad.fchk").write_text("nonsense\n")
    assert run(tree / "a" / "bad.fchk", "-o", target, "--overwrite") == 1
    assert len(HessianStore(target)) == 1


def test_library_call_refuses_unknown_options(tree, tmp_path):
    for wrong in ({"project": "all"}, {"group": "moon"}, {"dtype": "float16"}, {"format": "gaussian"}):
        with pytest.raises(ConfigError, match="expected one of"):
            convert([tree], tmp_path / "s.zarr", **wrong)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="something already"):
        convert([tree], tmp_path / "file")


@pytest.mark.parametrize("place", ["s.zarr", "s.zarr/r.json", "s.zarr.unfinished/a/r.json", "x/../s.zarr", "here"])
def test_report_in_the_place_of_the_store_is_refused_before_anything_is_read(tree, tmp_path, place, capsys):
    (tmp_path / "here").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert run(tree, "-o", tmp_path / "s.zarr", "--report", tmp_path / place) == (1 if place == "here" else 2)
    assert "report" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_report_replaces_a_report_and_nothing_else(tree, tmp_path, capsys):
    precious = tmp_path / "job.log"
    precious.write_text("a calculation of days")
    assert run(tree, "-o", tmp_path / "s.zarr", "--report", precious) == 1
    assert "is no report of a conversion" in capsys.readouterr().err
    assert precious.read_text() == "a calculation of days"
    assert not (tmp_path / "s.zarr").exists()
    for name in ("s.zarr", "t.zarr"):
        assert run(tree, "-o", tmp_path / name, "--report", tmp_path / "report.json") == 0
        assert json.loads((tmp_path / "report.json").read_text())["output"].endswith(name)


def test_float32_is_explicit(tree, tmp_path):
    assert run(tree, "-o", tmp_path / "s.zarr", "--dtype", "float32", "--report", tmp_path / "r" / "own.json") == 0
    assert HessianStore(tmp_path / "s.zarr").packed(0).dtype == np.float32
    assert json.loads((tmp_path / "r" / "own.json").read_text())["options"]["dtype"] == "float32"
    assert not (tmp_path / "s.zarr.report.json").exists()


def test_interrupt_leaves_nothing(tmp_path, formaldehyde):
    root = tmp_path / "in"
    for i in range(400):
        emitters.write(root / f"{i}.fchk", emitters.fchk(formaldehyde.replace(positions=formaldehyde.positions + 0.0)))
    command = [sys.executable, "-m", "nequip_hessian", "convert", str(root), "-o", str(tmp_path / "s.zarr")]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # a test run in the background of a shell ignores SIGINT, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("s.zarr*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_conversion_needs_neither_torch_nor_nequip():
    program = (
        "import sys; sys.modules['torch'] = sys.modules['nequip'] = None; import nequip_hessian.convert as c; "
        "from nequip_hessian.formats import formats; assert len(formats()) > 6"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# -- physics --------------------------------------------------------------------------------


def written(tmp_path: Path, record: LabelledGeometry) -> Path:
    write_extxyz(tmp_path / "a.xyz", [record])
    return tmp_path / "a.xyz"


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (lambda r: r.replace(forces=-r.forces), "sign"),
        (lambda r: r.replace(hessian=r.hessian / 97.1736), "unit"),
        (lambda r: r.replace(forces=r.forces / 27.2114), "unit"),
        (lambda r: r.replace(positions=r.positions @ Rotation.from_euler("x", 40, degrees=True).as_matrix().T,
                             forces=r.forces @ Rotation.from_euler("x", 40, degrees=True).as_matrix().T), "frame"),
        (lambda r: r.replace(positions=r.positions[[1, 0, 2, 3]]), "order"),
    ],
)  # fmt: skip
def test_faults_are_refused_by_name(tmp_path, capsys, formaldehyde, fault, verdict):
    wrong = fault(formaldehyde.replace(frequencies=None))
    assert run(written(tmp_path, wrong), "-o", tmp_path / "s.zarr") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"a\.xyz: {verdict}: ", line), line
    assert not (tmp_path / "s.zarr").exists()


def test_mass_weighted_matrix_is_refused(formaldehyde):
    root = np.sqrt(np.repeat(formaldehyde.masses, 3))
    with pytest.raises(PhysicsError):
        check(formaldehyde.replace(hessian=formaldehyde.hessian / np.outer(root, root), frequencies=None))


def test_partial_hessian_that_looks_complete_is_refused(formaldehyde):
    hessian = np.array(formaldehyde.hessian)
    hessian[:6], hessian[:, :6] = 0.0, 0.0
    with pytest.raises(PhysicsError, match="rows of 2 of 4 atoms are zero"):
        check(formaldehyde.replace(hessian=hessian, frequencies=None))


def test_asymmetric_matrix_is_refused(formaldehyde):
    hessian = np.array(formaldehyde.hessian)
    hessian[0, 5] += 20.0
    with pytest.raises(PhysicsError, match="not symmetric"):
        check(formaldehyde.replace(hessian=hessian, frequencies=None))


def test_frequencies_of_another_calculation_are_refused(formaldehyde):
    with pytest.raises(PhysicsError, match=r"disagree with the printed ones by \d+\.\d cm"):
        check(formaldehyde.replace(frequencies=formaldehyde.frequencies * 1.02))


def test_frequencies_of_some_atoms_only_are_refused():
    record = emitters.made("CH3OH")
    with pytest.raises(PhysicsError, match="6 frequencies are printed, which does not fit 6 atoms"):
        check(record.replace(frequencies=record.frequencies[-6:]))


def test_both_mass_conventions_are_tried_where_the_file_names_none():
    averaged = emitters.made("CH3Cl", average=True)  # 35.45 u against 34.97 u
    mixed = averaged.replace(masses=isotopic_masses(averaged.numbers))
    record, found = check(mixed)
    assert np.allclose(record.masses, averaged.masses)
    assert any("average masses" in text for text in found.warnings)
    assert found.frequency_deviation < 1e-6
    record, found = check(mixed.replace(provenance={"masses_from": "file"}))
    assert np.array_equal(record.masses, mixed.masses)
    assert any("differ from the printed ones" in text for text in found.warnings)


def test_frequencies_of_programs_that_do_not_project(formaldehyde):
    unprojected = normal_modes(formaldehyde.hessian, formaldehyde.positions, formaldehyde.masses, project=False)[0]
    projected_ones = formaldehyde.frequencies
    assert np.max(np.abs(np.sort(unprojected)[-6:] - projected_ones)) > 0.05  # not a stationary point: they differ
    arguments = (formaldehyde.hessian, formaldehyde.positions, formaldehyde.masses)
    for printed in (unprojected, np.sort(unprojected)[-6:], projected_ones):
        assert match_frequencies(printed, *arguments).deviation < 1e-6
    assert match_frequencies(np.delete(projected_ones, 2), *arguments).missing == 1
    assert match_frequencies(np.delete(projected_ones, 2), *arguments).deviation < 1e-6
    assert match_frequencies(np.arange(20.0), *arguments).deviation == np.inf


def test_kinds(minimum, formaldehyde):
    assert check(minimum)[0].kind == "minimum"
    assert check(minimum.replace(forces=None))[0].kind == "minimum"
    assert check(formaldehyde)[0].kind == "other"
    assert check(formaldehyde.replace(forces=None))[0].kind == "other"  # the Hessian itself implies the forces
    ammonia = next(read(DATA / "xtb_planar_ammonia" / "hessian"))
    record, found = check(ammonia)
    assert kind_of(record, found) == "transition_state"
    assert any("no imaginary mode" in text for text in check(minimum.replace(role="transition_state"))[1].warnings)
    assert any(
        "called transition_state" in text for text in check(minimum.replace(kind="transition_state"))[1].warnings
    )


def test_unit_error_without_forces_is_a_warning(minimum):
    _, found = check(minimum.replace(hessian=minimum.hessian / 97.1736, forces=None))
    assert found.verdict == "undetermined"
    assert any("unit of the Hessian" in text for text in found.warnings)


def test_partial_and_periodic_hessians_have_fewer_checks(formaldehyde):
    part = formaldehyde.replace(hessian=formaldehyde.hessian[:6, :6], active=[0, 1], frequencies=None)
    assert check(part)[1].verdict == "not applicable"
    assert check(part)[1].translation is None
    relaxed = np.array(formaldehyde.forces)
    relaxed[:2] = 0.0
    assert check(part)[0].kind == "other"
    assert check(part.replace(forces=relaxed))[0].kind != "other"  # forces on the atoms held fixed do not count
    crystal = formaldehyde.replace(cell=np.eye(3) * 20, pbc=True, frequencies=None)
    found = check(crystal)[1]
    assert found.verdict == "not applicable"
    assert found.translation < 1e-3


# -- projection -----------------------------------------------------------------------------


def noisy(record: LabelledGeometry, size: float) -> LabelledGeometry:
    noise = np.random.default_rng(0).normal(0, size, record.hessian.shape)
    return record.replace(hessian=record.hessian + noise + noise.T, frequencies=None)


@pytest.mark.parametrize("seed", range(5))
def test_grid_noise_is_a_warning_not_a_refusal(minimum, formaldehyde, seed):
    """A small integration grid breaks the translational identity by 1 eV/angstrom^2: bad, but not wrong."""
    rng = np.random.default_rng(seed)
    for record in (minimum, formaldehyde, minimum.replace(forces=None), formaldehyde.replace(forces=None)):
        noise = rng.normal(0, 1.0, record.hessian.shape)
        noise = noise + noise.T
        noise *= 1.0 / translation_residual(noise)
        checked, found = check(record.replace(hessian=record.hessian + noise, frequencies=None))
        assert found.verdict in ("ok", "undetermined")
        assert found.translation == pytest.approx(1.0, abs=0.05)
        assert any("--project asr" in text for text in found.warnings)
        assert checked.kind == check(record)[0].kind


@pytest.mark.parametrize("project", ["none", "asr", "asr+rot"])
def test_projection(tmp_path, formaldehyde, project):
    record = noisy(formaldehyde, 0.05)
    assert any("--project" in text for text in check(record)[1].warnings)
    assert run(written(tmp_path, record), "-o", tmp_path / "s.zarr", "--project", project) == 0
    stored = HessianStore(tmp_path / "s.zarr")[0]
    rotation = rotation_fit(stored.hessian, stored.positions, stored.forces).residual
    if project == "none":
        assert np.array_equal(stored.hessian, record.hessian)
        return
    assert translation_residual(stored.hessian) < 1e-10
    assert (rotation < 1e-6) == (project == "asr+rot")
    # Restoring what holds exactly brings the noisy Hessian nearer to the one without noise.
    assert np.linalg.norm(stored.hessian - formaldehyde.hessian) < np.linalg.norm(record.hessian - formaldehyde.hessian)


def test_projection_of_rotations_needs_forces_off_a_stationary_point(formaldehyde, minimum):
    record, _ = check(formaldehyde.replace(forces=None))
    with pytest.raises(PhysicsError, match="use --project asr"):
        projected(record, "asr+rot")
    mended, notes = projected(check(minimum.replace(forces=None))[0], "asr+rot")
    assert "changed the Hessian" in notes[0]
    assert rotation_fit(mended.hessian, mended.positions, 0 * mended.positions).residual < 1e-9


# -- duplicates, groups, companions ---------------------------------------------------------


def test_log_and_fchk_of_one_job_are_taken_once(tmp_path, capsys, formaldehyde):
    turn = Rotation.from_euler("zyx", [70, 20, 110], degrees=True).as_matrix()
    block = np.kron(np.eye(4), turn)
    turned = formaldehyde.replace(
        positions=formaldehyde.positions @ turn.T,
        forces=formaldehyde.forces @ turn.T,
        hessian=block @ formaldehyde.hessian @ block.T,
    )
    emitters.write(tmp_path / "a.fchk", emitters.fchk(turned))
    emitters.write(tmp_path / "a.log", emitters.gaussian_log(formaldehyde))
    assert run(tmp_path / "a.fchk", tmp_path / "a.log", "-o", tmp_path / "s.zarr") == 0
    out = capsys.readouterr().out
    assert "1 taken, 1 duplicate" in out
    assert "same geometry and Hessian as" in out


def test_mirror_images_are_two_geometries(tmp_path):
    chiral = emitters.made("H2O2", rattle=0.1).replace(frequencies=None)
    flip = np.diag([1.0, 1.0, -1.0])
    block = np.kron(np.eye(4), flip)
    mirrored = chiral.replace(
        positions=chiral.positions @ flip, forces=chiral.forces @ flip, hessian=block @ chiral.hessian @ block
    )
    write_extxyz(
        tmp_path / "a.xyz", [chiral.replace(label="1"), mirrored.replace(label="2"), chiral.replace(label="3")]
    )
    report = convert([tmp_path / "a.xyz"], tmp_path / "s.zarr")
    assert [entry.status for entry in report.entries] == ["taken", "taken", "duplicate"]


def test_a_duplicate_with_another_energy_is_left_out_and_named(tmp_path, capsys, formaldehyde):
    energies = [formaldehyde.energy, formaldehyde.energy + 1.0, None, formaldehyde.energy + 1e-4]
    records = [formaldehyde.replace(energy=e, label=str(i), frequencies=None) for i, e in enumerate(energies)]
    write_extxyz(tmp_path / "a.xyz", records)
    assert run(tmp_path / "a.xyz", "-o", tmp_path / "s.zarr") == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert f"energy {formaldehyde.energy + 1:.6g} eV here, {formaldehyde.energy:.6g} there; left out" in warnings[0]
    assert len(HessianStore(tmp_path / "s.zarr")) == 1


def test_other_forces_at_the_same_geometry_and_hessian_are_named(formaldehyde):
    seen, forces = Seen(), 1.1 * formaldehyde.forces
    assert seen.find(formaldehyde, "first") is None
    assert "RMS force" in seen.find(formaldehyde.replace(forces=forces), "second").contradiction
    assert seen.find(formaldehyde.replace(forces=None), "third").contradiction == ""


def test_a_crystal_is_no_duplicate_of_a_molecule(tmp_path, formaldehyde):
    free = formaldehyde.replace(frequencies=None, label="free")
    cells = [free.replace(cell=size * np.eye(3), pbc=True, label=str(size)) for size in (12.0, 12.0, 14.0)]
    write_extxyz(tmp_path / "a.xyz", [free, *cells])
    report = convert([tmp_path / "a.xyz"], tmp_path / "s.zarr")
    assert [entry.status for entry in report.entries] == ["taken", "taken", "duplicate", "taken"]
    assert "duplicate: " in report.table()
    assert "a.xyz [2]: same geometry" in report.table()


def test_displacements_of_finite_differences_are_not_duplicates(tmp_path, formaldehyde):
    records = []
    for i, step in enumerate((0.0, 1e-4, 1e-3, 1e-3)):
        moved = np.array(formaldehyde.positions)
        moved[0, 2] += step
        records.append(formaldehyde.replace(positions=moved, label=str(i), frequencies=None))
    write_extxyz(tmp_path / "a.xyz", records)
    report = convert([tmp_path / "a.xyz"], tmp_path / "s.zarr")
    assert [entry.status for entry in report.entries] == ["taken", "taken", "taken", "duplicate"]


def test_a_stray_copy_does_not_take_the_place_of_a_part_of_a_reaction(tmp_path, formaldehyde):
    part = formaldehyde.replace(role="transition_state", group="r1", label="ts")
    copy = formaldehyde.replace(role=None, group=None, label="a copy")
    for order, statuses in (([copy, part], ["taken", "taken"]), ([part, copy], ["taken", "duplicate"])):
        write_extxyz(tmp_path / "a.xyz", order)
        report = convert([tmp_path / "a.xyz"], tmp_path / "s.zarr", overwrite=True)
        assert [entry.status for entry in report.entries] == statuses
        store = HessianStore(tmp_path / "s.zarr")
        assert [store[k].role for k in range(len(store))].count("transition_state") == 1


def test_one_reactant_of_two_reactions_stays_in_both(tmp_path, formaldehyde):
    records = [formaldehyde.replace(role="reactant", group=name, label=name) for name in ("r1", "r2")]
    write_extxyz(tmp_path / "a.xyz", records)
    assert convert([tmp_path / "a.xyz"], tmp_path / "s.zarr").counts["taken"] == 2


@pytest.mark.parametrize(
    ("name", "role", "rest"),
    [
        ("rxn12_ts", "transition_state", "rxn12"),
        ("TS-rxn12", "transition_state", "rxn12"),
        ("reactant", "reactant", ""),
        ("h2co.product", "product", "h2co"),
        ("a_transition_state", "transition_state", "a"),
        ("correct_ts_mode", None, "correct_ts_mode"),
        ("atsb", None, "atsb"),
        ("production", None, "production"),
    ],
)
def test_role_words(name, role, rest):
    assert role_of(name) == (role, rest)


def test_group_rules(tmp_path):
    flat, deep = tmp_path / "x.log", tmp_path / "rxn" / "ts.log"
    assert group_of(flat, "x", tmp_path, "auto", "CH4") == ("x", None)
    assert group_of(flat, "x_ts", tmp_path, "auto", "CH4") == ("x", "transition_state")
    assert group_of(deep, "ts", tmp_path, "auto", "CH4") == ("rxn", "transition_state")
    assert group_of(deep, "ts", tmp_path, "file", "CH4") == ("rxn/ts", None)
    assert group_of(deep, "ts", tmp_path, "formula", "CH4") == ("CH4", None)
    assert group_of(deep, "ts", tmp_path, "none", "CH4") == (None, None)
    assert group_of(flat, "x", tmp_path, "folder", "CH4") == (tmp_path.name, None)


def test_role_of_other_atoms_is_left_out(tmp_path, capsys, formaldehyde):
    emitters.write(tmp_path / "r" / "reactant.fchk", emitters.fchk(formaldehyde))
    emitters.write(tmp_path / "r" / "ts.fchk", emitters.fchk(emitters.made("H2O")))
    assert run(tmp_path / "r", "-o", tmp_path / "s.zarr") == 0
    assert "role transition_state left out" in capsys.readouterr().out
    store = HessianStore(tmp_path / "s.zarr")
    assert [store[i].role for i in range(2)] == ["reactant", None]


def test_companions_are_not_refused(tmp_path, capsys):
    averaged = emitters.made(average=True)
    emitters.write(tmp_path / "orca" / "a.hess", emitters.orca_hess(averaged))
    emitters.write(tmp_path / "orca" / "a.out", emitters.orca_out(averaged))
    shutil.copytree(DATA / "xtb_planar_ammonia", tmp_path / "xtb")
    assert run(tmp_path / "orca", tmp_path / "xtb", "-o", tmp_path / "s.zarr") == 0
    out, err = capsys.readouterr()
    assert "2 taken" in out
    assert err == ""
    store = HessianStore(tmp_path / "s.zarr")
    assert np.allclose(store[0].forces, averaged.forces, atol=1e-6)
    sources = store.attributes["provenance"][0]["sources"]
    assert {"a.hess", "a.out", "hessian", "nh3.xyz", "vibspectrum", "xtb.out"} <= {source["name"] for source in sources}
    assert all(len(source["sha256"]) == 64 for source in sources)


def test_geometries_without_hessian_on_request(tmp_path, capsys, formaldehyde):
    records = [
        formaldehyde,
        formaldehyde.replace(hessian=None, frequencies=None, positions=formaldehyde.positions * 1.1),
    ]
    write_extxyz(tmp_path / "a.xyz", records)
    assert run(tmp_path / "a.xyz", "-o", tmp_path / "s.zarr") == 3
    assert "[1]: no Hessian in this geometry; --without-hessian" in capsys.readouterr().err
    assert run(tmp_path / "a.xyz", "-o", tmp_path / "s.zarr", "--overwrite", "--without-hessian") == 0
    store = HessianStore(tmp_path / "s.zarr")
    assert store.has_hessian.tolist() == [True, False]
    assert np.allclose(store[1].forces, formaldehyde.forces)


def test_damaged_frame_says_that_the_rest_was_not_read(tmp_path, formaldehyde):
    write_extxyz(tmp_path / "a.xyz", [emitters.made("H2CO", seed=s).replace(label=str(s)) for s in (1, 2, 3)])
    lines = (tmp_path / "a.xyz").read_text().split("\n")
    lines[8] = "C 0.0 zero 1.0"  # the first atom of the second frame
    (tmp_path / "a.xyz").write_text("\n".join(lines))
    report = convert([tmp_path / "a.xyz"], tmp_path / "s.zarr")
    assert [entry.status for entry in report.entries] == ["taken", "refused"]
    assert "line 7: frame 1" in report.entries[1].reason
    assert "what follows in the file was not read" in report.entries[1].reason


def test_the_same_warning_at_many_geometries_is_one_line(tmp_path, formaldehyde):
    records = [noisy(emitters.made("H2CO", seed=seed), 0.05).replace(label=str(seed)) for seed in range(5)]
    write_extxyz(tmp_path / "a.xyz", records)
    table = convert([tmp_path / "a.xyz"], tmp_path / "s.zarr").table()
    (line,) = [line for line in table.splitlines() if line.startswith("warning")]
    assert "5 geometries" in line
    assert "--project asr" in line


def test_units_of_the_provenance_are_invertible(tmp_path, formaldehyde):
    path = emitters.write(tmp_path / "a.fchk", emitters.fchk(formaldehyde))
    convert([path], tmp_path / "s.zarr")
    store = HessianStore(tmp_path / "s.zarr")
    (conversion,) = store.attributes["provenance"][0]["conversions"]
    factor = conversion["fields"]["hessian"]["factor"]
    printed = [float(v) for v in path.read_text().split("Cartesian Force Constants")[1].split("Number")[0].split()[3:]]
    assert np.allclose(store.packed(0) / factor, printed, rtol=1e-14)


# -- going on after a kill, roles of lone files, options --------------------------------------


KILLED = """
import os, signal, sys
from nequip_hessian.conversion import journal, target
from nequip_hessian.store import spool

spool.BATCH_BYTES = int(sys.argv[2])
calls = iter(range(1, 10**6))
owner, name = {"append": (target.StoreWriter, "append"), "journal": (journal.Journal, "add")}[sys.argv[3]]
original = getattr(owner, name)

def wrapper(*arguments, **options):
    if next(calls) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

setattr(owner, name, wrapper)
from nequip_hessian.cli import main
main(["convert", sys.argv[1], "-o", sys.argv[1] + "/../s.zarr"])
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Files with several geometries, duplicates, companions, refusals and roles, and their undisturbed store."""
    folder = tmp_path_factory.mktemp("mixed")
    root = folder / "in"
    one, two = emitters.made("H2CO"), emitters.made("H2O")
    for name, record in (
        ("r/reactant", one),
        ("r/ts", emitters.made("H2CO", seed=5)),
        ("z/copy", one),
        ("y/water", two),
    ):
        emitters.write(root / f"{name}.fchk", emitters.fchk(record))
    (root / "many").mkdir()
    write_extxyz(root / "many" / "m.xyz", [emitters.made("H2O", seed=seed) for seed in range(4)])
    (root / "many" / "bad.fchk").write_text("nonsense\n")
    shutil.copytree(DATA / "xtb_formaldehyde", root / "x")
    report = convert([root], folder / "whole.zarr")
    assert report.counts["taken"] == 7
    assert report.counts["duplicate"] == 2
    return folder


@pytest.mark.parametrize(("batch", "what", "call"), [(1, "append", 6), (10**9, "append", 6), (1, "journal", 3),
                                                     (5000, "append", 7), (1, "journal", 6)])  # fmt: skip
def test_killed_conversion_goes_on_to_the_same_store(mixed, tmp_path, capsys, batch, what, call):
    shutil.copytree(mixed / "in", tmp_path / "in", copy_function=shutil.copy2)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(batch), what, str(call)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    target = tmp_path / "s.zarr"
    assert not target.exists()
    assert run(tmp_path / "in", "-o", target) == 1
    assert "--resume to go on" in capsys.readouterr().err
    assert run(tmp_path / "in", "-o", target, "--resume", "--project", "asr") == 1
    assert "other inputs or options" in capsys.readouterr().err
    assert run(tmp_path / "in", "-o", target, "--resume") == 3
    assert differences(target, mixed / "whole.zarr") == []
    again, whole = (json.loads(Path(f"{path}.report.json").read_text()) for path in (target, mixed / "whole.zarr"))
    assert len(again["entries"]) == len(whole["entries"])
    for first, second in zip(again["entries"], whole["entries"], strict=True):
        for key in ("status", "geometry", "group", "role", "kind", "checks", "notes"):
            assert first.get(key) == second.get(key), key
    assert {path.name for path in tmp_path.iterdir()} == {"in", "s.zarr", "s.zarr.report.json"}


def test_resume_refuses_an_input_that_has_changed(mixed, tmp_path, capsys):
    shutil.copytree(mixed / "in", tmp_path / "in", copy_function=shutil.copy2)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), "1", "append", "6"]
    subprocess.run(command, check=False, capture_output=True)
    (tmp_path / "in" / "many" / "m.xyz").write_text("3\n")
    assert run(tmp_path / "in", "-o", tmp_path / "s.zarr", "--resume") == 1
    assert "has changed since the conversion was begun" in capsys.readouterr().err
    assert (tmp_path / "s.zarr.unfinished").is_dir()


def test_resume_and_overwrite_contradict_each_other(tree, tmp_path, capsys):
    assert run(tree, "-o", tmp_path / "s.zarr", "--resume", "--overwrite") == 2
    assert "say one of them" in capsys.readouterr().err
    assert run(tree, "-o", tmp_path / "s.zarr", "--resume") == 0  # with nothing to go on with it just begins


def test_lone_transition_state_is_no_reaction(tmp_path, formaldehyde):
    emitters.write(tmp_path / "in" / "ts_one.fchk", emitters.fchk(formaldehyde))
    emitters.write(tmp_path / "in" / "ts_one.log", emitters.gaussian_log(emitters.made("H2CO", seed=2)))
    emitters.write(tmp_path / "in" / "b" / "ts.fchk", emitters.fchk(emitters.made("H2O")))
    assert run(tmp_path / "in", "-o", tmp_path / "s.zarr") == 0
    store = HessianStore(tmp_path / "s.zarr")
    assert store.reactions() == []
    assert (store.role == -1).all()


@pytest.mark.parametrize("rows", ["-3", "x", "1.5"])
def test_rows_is_a_number(tree, tmp_path, rows, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tree, "-o", tmp_path / "s.zarr", "--rows", rows)
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "s.zarr").exists()


def test_profiles_hold_the_same(tree, tmp_path):
    assert run(tree, "-o", tmp_path / "s.zarr") == 0
    assert run(tree, "-o", tmp_path / "r.zarr", "--profile", "remote") == 0
    assert run(tree, "-o", tmp_path / "s.zarr.zip", "--profile", "publish") == 0
    assert run(tree, "-o", tmp_path / "t.zarr.zip") == 2  # a zip file wants --profile publish
    for other in ("r.zarr", "s.zarr.zip"):
        assert differences(tmp_path / "s.zarr", tmp_path / other) == []


def test_full_disk_is_no_fault_of_the_files(tree, tmp_path, capsys, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nequip_hessian.store.spool.BATCH_BYTES", 1)
    monkeypatch.setattr("os.fsync", full)
    assert run(tree, "-o", tmp_path / "s.zarr") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line
    assert [path.name for path in tmp_path.iterdir()] == ["calculations"]


# -- residuals in the store -----------------------------------------------------------------

QUALITY = ("largest", "translation", "rotation", "frequency")


@pytest.fixture(scope="module")
def real_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "s.zarr"
    convert([DATA], path, license="CC0-1.0", progress=False)
    return path


def stored_quality(path: Path) -> dict[str, np.ndarray]:
    folder = path / "extra" / "quality"
    return {name: zarr.open_array(folder / name, mode="r")[...] for name in QUALITY if (folder / name).is_dir()}


def test_store_keeps_the_residuals_of_the_report(real_store):
    report = json.loads(real_store.with_name("s.zarr.report.json").read_text())
    taken = [entry["checks"] for entry in report["entries"] if entry["status"] == "taken"]
    assert report["units"]["largest"] == "eV/angstrom^2"
    stored = stored_quality(real_store)
    assert set(stored) == set(QUALITY)
    for name, key in zip(QUALITY, (*QUALITY[:3], "frequency_deviation"), strict=True):
        np.testing.assert_allclose(stored[name], [one.get(key, np.nan) for one in taken], rtol=6e-4)  # four digits
    assert np.isnan(stored["translation"]).sum() == 1  # a partial one
    for index, record in enumerate(HessianStore(real_store)):
        assert stored["largest"][index] == pytest.approx(np.max(np.abs(record.hessian)), rel=6e-4)
        if record.active is None:
            assert stored["translation"][index] == pytest.approx(
                translation_residual(record.hessian), rel=6e-4, abs=1e-12
            )
    assert set(validate(real_store).counts) == {"HZ-1.5"}  # a level of theory that its file does not name


def test_table_has_the_largest_element(real_store, tmp_path, capsys):
    assert run(DATA / "psi4" / "mp2.h2o.hess", "-o", tmp_path / "s.zarr") == 0
    header, row = capsys.readouterr().out.splitlines()[:2]
    (largest,) = stored_quality(tmp_path / "s.zarr")["largest"]
    assert row.split()[header.split().index("max|H|")] == f"{largest:.1e}"


def test_residuals_survive_what_is_made_of_a_store(real_store, tmp_path):
    wanted = stored_quality(real_store)
    target = tmp_path / "repacked.zarr"
    assert main(["repack", str(real_store), "-o", str(target), "--profile", "remote"]) == 0
    assert main(["split", str(target), "--fractions", "train=0.5", "val=0.5"]) == 0
    for name, values in stored_quality(target).items():
        np.testing.assert_array_equal(values, wanted[name])
    other = tmp_path / "without.zarr"
    assert main(["repack", str(DATA.parents[1] / "conformance/valid/plain.zarr.zip"), "-o", str(other)]) == 0
    both = tmp_path / "both.zarr"
    assert main(["merge", str(target), str(other), str(real_store), "-o", str(both), "--drop-duplicates"]) == 0
    for name, values in stored_quality(both).items():
        np.testing.assert_array_equal(values, np.concatenate([wanted[name], np.full(3, np.nan, np.float32)]))
    assert validate(both).valid


def test_info_says_median_and_worst(real_store, tmp_path, capsys):
    stored = stored_quality(real_store)
    assert main(["info", str(real_store), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["quality"]
    for name in QUALITY:
        assert facts[name]["median"] == pytest.approx(np.nanmedian(stored[name]))
        assert facts[name]["most"] == np.nanmax(stored[name])
    assert main(["info", str(real_store)]) == 0
    printed = capsys.readouterr().out
    titles = ("max |H|, eV/A^2", "transl., eV/A^2", "rotation, eV/A", "freq., cm^-1")
    for title, name in zip(titles, QUALITY, strict=True):
        median, worst = np.nanmedian(stored[name]), np.nanmax(stored[name])
        assert f"\n{title:<18} median {median:.3g}, worst {worst:.3g}\n" in printed
    plain = DATA.parents[1] / "conformance" / "valid" / "plain.zarr.zip"
    assert main(["info", str(plain), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quality"] == {}


def test_residuals_of_the_source_stay_when_it_is_projected(tmp_path, formaldehyde):
    record = noisy(formaldehyde, 0.05)
    assert run(written(tmp_path, record), "-o", tmp_path / "s.zarr", "--project", "asr") == 0
    (stored,) = stored_quality(tmp_path / "s.zarr")["translation"]
    assert "frequency" not in stored_quality(tmp_path / "s.zarr")  # none are printed
    assert stored == pytest.approx(translation_residual(record.hessian), rel=6e-4)
    assert translation_residual(HessianStore(tmp_path / "s.zarr")[0].hessian) < 1e-9


@pytest.mark.parametrize("values", [np.arange(3.0), np.float32([1, 2, 3])])
def test_what_an_author_put_there_is_not_taken_for_residuals(tmp_path, values):
    plain = DATA.parents[1] / "conformance" / "valid" / "plain.zarr.zip"
    paths = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for path in paths:
        assert main(["repack", str(plain), "-o", str(path)]) == 0
        group = zarr.open_group(path, mode="r+").create_group("extra/quality")
        group.create_array("rotation", data=values)  # without a unit, or of another type
    report = merge(paths, tmp_path / "c.zarr")
    assert report.notes == [f"{path.name}: its group extra is left out" for path in paths]
    assert not (tmp_path / "c.zarr" / "extra").exists()
    assert summarise(paths[0])["quality"] == {}


def test_unknown_residual_is_an_error(tmp_path, formaldehyde):
    with pytest.raises(StoreError, match="unknown colour; known are largest"), StoreWriter(tmp_path / "s.zarr") as one:
        one.append(formaldehyde, {"colour": 1.0})
