"""DeePMD-kit systems in and out: numbers, frames, elements, periodicity and the signs that the identities fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from molecules import labelled

from nequip_hessian.checks import check
from nequip_hessian.cli import main
from nequip_hessian.errors import FormatError, HessianDataError, PhysicsError
from nequip_hessian.formats import format_of, read
from nequip_hessian.formats.deepmd_npy import write_deepmd_npy
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore

CASE = Path(__file__).resolve().parents[3] / "shared" / "cases" / "deepmd-kit" / "H10C5N2O"


@pytest.fixture(scope="module")
def records():
    return [labelled("H2O", 0), labelled("HCN", 1), labelled("H2O", 2), labelled("H2O", 3, hessian=False)]


def system(folder: Path, records, *, box: float | None = None, sign: int = 1) -> Path:
    """Write one system the way its documentation says, without this package's writer."""
    data = folder / "set.000"
    data.mkdir(parents=True)
    first = records[0]
    names = ["O", "H"] if 8 in first.numbers else ["H", "C", "N"]
    symbols = {8: "O", 1: "H", 6: "C", 7: "N"}
    (folder / "type_map.raw").write_text("\n".join(names) + "\n")
    (folder / "type.raw").write_text("\n".join(str(names.index(symbols[int(z)])) for z in first.numbers))
    np.save(data / "coord.npy", np.array([record.positions.ravel() for record in records]))
    np.save(data / "energy.npy", np.array([record.energy for record in records]))
    np.save(data / "force.npy", np.array([sign * record.forces.ravel() for record in records]))
    np.save(data / "hessian.npy", np.array([record.hessian.ravel() for record in records]))
    if box is None:
        (folder / "nopbc").touch()
    else:
        np.save(data / "box.npy", np.array([box * np.eye(3).ravel() for _ in records]))
    return data / "hessian.npy"


def test_frames_of_a_system(tmp_path, records):
    path = system(tmp_path / "water", [records[0], records[2]])
    assert format_of(path).name == "deepmd-npy"
    for record, made in zip(read(path), (records[0], records[2]), strict=True):
        assert record.numbers.tolist() == made.numbers.tolist()
        assert np.array_equal(record.hessian, made.hessian)
        assert np.array_equal(record.positions, made.positions)
        assert np.array_equal(record.forces, made.forces)
        assert record.energy == made.energy
        assert not record.pbc.any()
        assert check(record)[1].verdict == "ok"


def test_folder_of_systems_becomes_a_store(tmp_path, records):
    system(tmp_path / "in" / "water", [records[0], records[2]])
    system(tmp_path / "in" / "hcn", [records[1]])
    assert main(["convert", str(tmp_path / "in"), "-o", str(tmp_path / "s.zarr")]) == 0
    store = HessianStore(tmp_path / "s.zarr")
    assert sorted(record.formula for record in store) == ["CHN", "H2O", "H2O"]
    assert len(set(store.group.tolist())) == 2


def test_a_box_of_vacuum_holds_a_molecule_a_small_one_a_crystal(tmp_path, records):
    (far,) = read(system(tmp_path / "far", records[:1], box=50.0))
    (near,) = read(system(tmp_path / "near", records[:1], box=9.0))
    assert not far.pbc.any()
    assert near.pbc.all()
    assert np.array_equal(near.cell, 9.0 * np.eye(3))


def test_gradients_in_place_of_forces_are_found(tmp_path, records):
    (record,) = read(system(tmp_path / "a", records[:1], sign=-1, box=100.0))
    with pytest.raises(PhysicsError, match="sign"):
        check(record)


@pytest.mark.cases
def test_published_example():
    """Its 9 frames have -1.00 +- 0.06 times the forces that belong to their Hessians."""
    found = list(read(CASE / "set.000" / "hessian.npy"))
    raw = np.load(CASE / "set.000" / "hessian.npy")
    assert len(found) == 9
    for record, matrix in zip(found, raw, strict=True):
        assert record.formula == "C5H10N2O"
        assert np.array_equal(record.hessian, matrix.reshape(54, 54))
        with pytest.raises(PhysicsError, match="sign"):
            check(record)
        assert check(record.replace(forces=-record.forces))[1].verdict == "ok"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "type_map.raw").unlink(), "type_map.raw"),
        (lambda f: (f / "type.raw").write_text("0 1 7"), "expected types 0 to 1"),
        (lambda f: (f / "set.000" / "coord.npy").unlink(), "expected coord.npy"),
        (lambda f: np.save(f / "set.000" / "energy.npy", np.zeros(5)), "as many frames each"),
        (lambda f: np.save(f / "set.000" / "hessian.npy", np.zeros((1, 80))), "frame 0: hessian"),
        (lambda f: np.save(f / "set.000" / "coord.npy", np.array([["a"]])), "expected numbers"),
        (lambda f: np.save(f / "set.000" / "coord.npy", np.array([{}]), allow_pickle=True), "pickle|object"),
        (lambda f: (f / "set.000" / "coord.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{"), "damaged NumPy array"),
    ],
)
def test_damage(tmp_path, records, damage, message):
    path = system(tmp_path / "a", records[:1])
    damage(tmp_path / "a")
    with pytest.raises(HessianDataError, match=f"(type.raw|hessian.npy).*({message})"):
        list(read(path, "deepmd-npy"))


# -- writing --------------------------------------------------------------------------------


def test_written_systems_are_read_back_to_the_last_bit(tmp_path, records):
    places = write_deepmd_npy(tmp_path / "out", records)
    assert places == ["H2O/set.000#0", "CHN/set.000#0", "H2O/set.000#1", "H2O-2/set.000#0"]
    for place, record in zip(places[:3], records[:3], strict=True):
        folder, frame = place.split("#")
        back = list(read(tmp_path / "out" / folder / "hessian.npy"))[int(frame)]
        assert np.array_equal(back.hessian, record.hessian)
        assert np.array_equal(back.positions, record.positions)
        assert np.array_equal(back.forces, record.forces)
        assert back.energy == record.energy
    plain = tmp_path / "out" / "H2O-2" / "set.000"
    assert not (plain / "hessian.npy").exists()
    assert np.load(plain / "coord.npy").shape == (1, 9)
    assert (tmp_path / "out" / "H2O" / "nopbc").is_file()


def test_crystals_keep_their_box(tmp_path):
    atoms = bulk("Cu", cubic=True)
    record = LabelledGeometry(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True, hessian=np.eye(12)
    )
    write_deepmd_npy(tmp_path / "out", [record])
    (back,) = read(tmp_path / "out" / "Cu4" / "set.000" / "hessian.npy")
    assert np.array_equal(back.cell, record.cell)
    assert back.pbc.all()
    assert not (tmp_path / "out" / "Cu4" / "nopbc").exists()


def test_nothing_is_left_of_a_failed_write(tmp_path, records):
    partial = records[0].replace(hessian=records[0].hessian[:3, :3], active=[0])
    with pytest.raises(FormatError, match="of 1 of 3 atoms only"):
        write_deepmd_npy(tmp_path / "out", [records[1], partial])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(FormatError, match="something already"):
        write_deepmd_npy(tmp_path / "out", records)
    gaps = records[0].replace(forces=np.where(np.arange(9).reshape(3, 3) < 3, np.nan, records[0].forces))
    with pytest.raises(FormatError, match="unknown forces"):
        write_deepmd_npy(tmp_path / "other", [gaps])
