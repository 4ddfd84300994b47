"""Split schemes: nothing that belongs together is torn apart, and the same seed gives the same split for ever."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation

from nequip_hessian.cli import main
from nequip_hessian.errors import ConfigError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, near, validate
from nequip_hessian.store.annotate import add_split, split
from nequip_hessian.store.near import clusters_of, distance_superposed
from nequip_hessian.store.splitting import assign, clusters, species


def geometry(name, seed, group=None):
    atoms = molecule(name)
    moved = atoms.positions + np.random.default_rng(seed).normal(scale=0.01, size=atoms.positions.shape)
    return LabelledGeometry(numbers=atoms.numbers, positions=moved, energy=-1.0, group=group)


def store_of(path, records):
    with StoreWriter(path, attributes={"license": "CC0-1.0"}) as writer:
        writer.extend(records)
    return HessianStore(path)


@pytest.fixture
def forty(tmp_path):
    """20 groups of 2 geometries, and one geometry that stands in two of them."""
    records = [geometry("CH3OH", i, f"g{i // 2}") for i in range(40)]
    records.append(geometry("CH3OH", 5, "g9"))  # geometry 5, of g2, again in g9
    return store_of(tmp_path / "a.zarr", records)


@pytest.mark.parametrize("seed", range(5))
def test_groups_and_twins_stay_together(forty, seed):
    found = split(forty.path, "s", {"train": 0.6, "val": 0.2, "test": 0.2}, seed=seed)
    codes, parts = HessianStore(forty.path).split("s")
    assert parts == ("train", "val", "test")
    for group in range(20):
        assert len(set(codes[forty.group == group])) == 1
    assert codes[5] == codes[4] == codes[18] == codes[40]  # g2 and g9, tied by the twin
    assert found["train"] == pytest.approx(0.6 * 41, abs=5)
    assert sum(found.values()) == 41
    report = validate(forty.path, 3)
    assert report.valid, report.errors
    assert not {"HZ-4.5", "HZ-4.6"} & set(validate(forty.path).counts)


def turned(record, group, *, mirror=False, decimals=4):
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation)) * (-1 if mirror else 1)
    return record.replace(positions=np.round(record.positions @ rotation + 1.5, decimals), group=group)


@pytest.mark.parametrize("mirror", [False, True])
def test_moved_turned_mirrored_and_rounded_geometries_stay_together(tmp_path, mirror):
    """No number of theirs is the same, and yet a potential cannot tell them apart."""
    records = [geometry("CH3OH", i, f"g{i}") for i in range(6)]
    records += [turned(records[i], f"h{i}", mirror=mirror) for i in range(3)]
    cluster = clusters(store_of(tmp_path / "a.zarr", records))
    assert cluster.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_geometries_further_apart_than_rounding_are_not_tied(tmp_path):
    first = geometry("CH3OH", 0, "a")
    moved = first.positions.copy()
    moved[0, 0] += 0.01
    other_order = first.replace(positions=first.positions[::-1], numbers=first.numbers[::-1], group="c")
    store = store_of(tmp_path / "a.zarr", [first, first.replace(positions=moved, group="b"), other_order])
    assert clusters(store).tolist() == [0, 1, 2]


def test_periodic_geometries_are_compared_where_they_lie(tmp_path):
    atoms = geometry("CH3OH", 0)
    cell = 8.0 * np.eye(3)
    first = atoms.replace(cell=cell, pbc=True, group="a")
    near = first.replace(positions=np.round(first.positions, 4), group="b")
    larger = first.replace(cell=1.01 * cell, group="c")
    store = store_of(tmp_path / "a.zarr", [first, near, larger, turned(first, "d")])
    assert clusters(store).tolist() == [0, 0, 2, 3]


def test_same_seed_same_split_for_ever(forty):
    cluster = clusters(forty)
    fractions = {"train": 0.5, "val": 0.25, "test": 0.25}
    codes = assign(np.arange(12), fractions, 7)
    assert codes.tolist() == assign(np.arange(12), fractions, 7).tolist()
    assert codes.tolist() != assign(np.arange(12), fractions, 8).tolist()
    assert np.bincount(codes).tolist() == [6, 3, 3]
    # The order is that of SHA-256 of "seed:number": written out here, so that no release changes it unnoticed.
    assert assign(np.arange(6), {"train": 0.5, "val": 0.5}, 0).tolist() == [1, 1, 0, 1, 0, 0]
    assert (cluster[:4] == [0, 0, 2, 2]).all()


def test_composition_and_species_tie_more(tmp_path):
    names = ["C2H6", "CH3OH", "CH3CH2OH", "CH3OCH3", "isobutane", "trans-butane", "H2O", "C6H6"]
    store = store_of(tmp_path / "a.zarr", [geometry(name, i) for name in names for i in range(2)])
    assert len(set(clusters(store).tolist())) == 16
    by_atoms = clusters(store, "composition")
    assert by_atoms[4] == by_atoms[6]  # ethanol and dimethyl ether
    assert len(set(by_atoms.tolist())) == 6
    by_species = clusters(store, "species")
    assert by_species[4] != by_species[6]
    assert by_species[8] == by_species[9] != by_species[10]
    # Water and what has fewer than three heavy atoms ties nothing together.
    assert len(set(by_species.tolist())) == 6 + 5 - 0


def test_species_are_molecules_not_geometries():
    one, other = molecule("CH3CH2OH"), molecule("C6H6")
    both = one.copy()
    both.extend(other)
    both.positions[len(one) :] += 20.0
    apart = species(one.numbers, one.positions) | species(other.numbers, other.positions)
    assert species(both.numbers, both.positions) == apart
    order = np.random.default_rng(1).permutation(len(one))
    assert species(one.numbers[order], one.positions[order]) == species(one.numbers, one.positions)
    ether = molecule("CH3OCH3")
    assert species(ether.numbers, ether.positions) != species(one.numbers, one.positions)


def test_scheme_is_kept_unless_told(forty, capsys):
    path = str(forty.path)
    assert main(["split", path]) == 0
    assert "split group by group: train" in capsys.readouterr().out
    before = HessianStore(path).split("group")[0].tolist()
    assert main(["split", path, "--seed", "1"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert HessianStore(path).split("group")[0].tolist() == before
    assert main(["split", path, "--seed", "1", "--overwrite"]) == 0
    assert HessianStore(path).split("group")[0].tolist() != before
    attributes = json.loads((forty.path / "split/group/zarr.json").read_text())["attributes"]
    assert attributes["extra"]["recipe"] == {"rule": "group", "seed": 1,
                                             "fractions": {"train": 0.8, "val": 0.1, "test": 0.1}}  # fmt: skip
    assert HessianStore(path).attributes["provenance"][-1]["routine"] == "split"
    assert os.listdir(forty.path.parent) == ["a.zarr"]


def test_zip_gets_a_scheme_and_nothing_else_changes(forty, tmp_path):
    from nequip_hessian.store.repack import repack

    repack(forty.path, tmp_path / "a.zip", profile="publish")
    split(tmp_path / "a.zip", "s", {"train": 0.7, "val": 0.3})
    new = HessianStore(tmp_path / "a.zip")
    assert new.split_schemes == ["s"]
    assert validate(tmp_path / "a.zip").valid
    checksums = dict(new.attributes["checksums"])
    checksums.pop("split/s")
    assert checksums == HessianStore(forty.path).attributes["checksums"]


def test_old_store_stays_until_the_new_one_is_there(forty, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    before = {file: file.read_bytes() for file in forty.path.rglob("*") if file.is_file()}
    monkeypatch.setattr("nequip_hessian.store.target.os.fsync", full)
    assert main(["split", str(forty.path)]) == 1
    assert {file: file.read_bytes() for file in forty.path.rglob("*") if file.is_file()} == before
    assert os.listdir(forty.path.parent) == ["a.zarr"]


@pytest.mark.parametrize(
    ("fractions", "text"),
    [
        (["train=0.8", "test=0.3"], "train, val, test in this order"),
        (["train=0.8", "val=0.3"], "at most 1"),
        (["train=0", "val=0.3"], "above 0"),
        (["train=nan"], "above 0"),
        (["train=0.5", "val=nan"], "above 0"),
        (["train=0.5", "train=0.5"], "train more than once"),
        (["train=0.99", "val=0.005"], "stays empty"),
    ],
)
def test_bad_shares(forty, capsys, fractions, text):
    assert main(["split", str(forty.path), "--fractions", *fractions]) == (1 if text == "stays empty" else 2)
    assert text in capsys.readouterr().err
    assert HessianStore(forty.path).split_schemes == []


def test_unused_rest_and_further_parts(forty):
    found = split(forty.path, "s", {"train": 0.3, "val": 0.1, "test": 0.1, "test_far": 0.1})
    assert found["unused"] == pytest.approx(0.4 * 41, abs=4)
    assert HessianStore(forty.path).split("s")[1] == ("train", "val", "test", "test_far")


def test_codes_of_another_length_are_refused(forty):
    with pytest.raises(ValueError, match="expected 41 codes"):
        add_split(forty.path, "s", ["train"], np.zeros(3, dtype=np.int8), {})
    with pytest.raises(ConfigError, match="expected a name"):
        split(forty.path, "../x", {"train": 1.0})


# -- near geometries --------------------------------------------------------------------------


def test_near_pairs_agree_with_comparing_all_with_all():
    """The tree and the cheap numbers before it lose no pair; a chain of small steps is one cluster."""
    rng = np.random.default_rng(3)
    shapes = rng.normal(size=(1, 7, 3)) + 0.002 * rng.normal(size=(60, 7, 3))
    shapes[20:40] = [x @ Rotation.random(random_state=i).as_matrix() + i for i, x in enumerate(shapes[:20])]
    shapes[40:60] = shapes[:20] * [-1, 1, 1] + 2e-4 * rng.normal(size=(20, 7, 3))
    for tolerance in (1e-3, 5e-3):
        every = [(i, j) for i in range(60) for j in range(i) if distance_superposed(shapes[i], shapes[j]) <= tolerance]
        found = near._near(shapes, None, tolerance, None)
        assert clusters_of(found) == clusters_of(every)
        assert len(found) == sum(len(cluster) - 1 for cluster in clusters_of(every))
    assert len(clusters_of(near._near(shapes, None, 1e-3, None))) == 20


def test_comparisons_can_be_bounded():
    shapes = np.random.default_rng(4).normal(size=(1, 5, 3)) + 1e-5 * np.random.default_rng(5).normal(size=(400, 5, 3))
    (cluster,) = clusters_of(near._near(shapes, None, 1e-3, 5_000))
    assert 50 < len(cluster) < 150
    assert len(near._near(shapes, None, 1e-3, None)) == 399


def test_validate_warns_of_near_geometries_in_two_parts_only(tmp_path):
    first, other = geometry("CH3OH", 0, "a"), geometry("CH3OH", 1, "b")
    near_one = first.replace(positions=np.round(first.positions, 4), group="c")
    for codes, warned in (([0, 1, 1], True), ([0, 1, 0], False), ([0, 1, -1], False)):
        with StoreWriter(tmp_path / f"{codes[2]}.zarr") as writer:
            writer.extend([first, other, near_one])
            writer.set_split("s", ["train", "val"], np.array(codes, dtype=np.int8))
        found = [m for m in validate(tmp_path / f"{codes[2]}.zarr").messages if m.rule == "HZ-4.11"]
        assert bool(found) == warned
