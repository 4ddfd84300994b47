"""Merging and repacking: what is in the new store is what was in the old ones, number by number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from molecules import labelled

from nequip_hessian.cli import main
from nequip_hessian.errors import OptionError, StoreError
from nequip_hessian.record import FIELD_NAMES, LevelOfTheory
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate
from nequip_hessian.store.merge import merge
from nequip_hessian.store.repack import repack

VALID = Path(__file__).parents[1] / "conformance" / "valid"


def same_record(one, other, *, but=()):
    for name in FIELD_NAMES:
        if name in ("provenance", *but):
            continue
        first, second = getattr(one, name), getattr(other, name)
        if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
            np.testing.assert_array_equal(first, second, err_msg=name)
        else:
            assert first == second, name


@pytest.fixture
def three(write, records, tmp_path):
    """Three stores that share levels, have different optional arrays and different precision."""
    small = [labelled(name, 2, group=f"g {name}") for name in ("H2O", "CH4")]
    half = [one.replace(hessian=np.asarray(one.hessian, dtype=np.float32)) for one in small]
    other = records[1].replace(level=LevelOfTheory("PM6", program="MOPAC"), group="HCN to HNC")
    return [write("a.zarr"), write("b.zarr", these=half), write("c.zarr", these=[other, records[6], records[8]])]


def test_merged_geometries_are_those_of_the_parts(three, tmp_path):
    report = merge(three, tmp_path / "m.zarr", attributes={"title": "all"})
    merged = HessianStore(tmp_path / "m.zarr")
    parts = [record for path in three for record in HessianStore(path)]
    assert len(merged) == len(parts) == sum(report.geometries)
    for one, other in zip(merged, parts, strict=True):
        same_record(one, other, but=("frequencies_projected",))
    assert merged.packed(0).dtype == np.float64
    assert len(merged.levels) == len(set(merged.levels)) == 4
    found = validate(tmp_path / "m.zarr")
    assert found.valid, found.errors
    assert merged.attributes["license"] == "CC0-1.0"
    assert merged.attributes["counts"]["hessians"] == sum(HessianStore(path).has_hessian.sum() for path in three)
    routines = [entry.get("routine") for entry in merged.attributes["provenance"]]
    assert routines[-2:] == ["merge", "store"]


def test_groups_of_one_name_and_other_atoms_are_kept_apart(three, tmp_path):
    report = merge(three, tmp_path / "m.zarr")
    merged = HessianStore(tmp_path / "m.zarr")
    # The neon atom of the third store carries no role, so it may join; a reaction of other atoms may not.
    assert report.groups[0] == len({merged.group_label(g) for g in set(merged.group.tolist()) if g >= 0})
    renamed = labelled("H2O", 3).replace(group="HCN to HNC", role="reactant")
    with StoreWriter(tmp_path / "d.zarr", attributes={"license": "CC0-1.0"}) as writer:
        writer.append(renamed)
    report = merge([three[0], tmp_path / "d.zarr"], tmp_path / "n.zarr")
    assert report.renamed == [("d.zarr", "HCN to HNC", "HCN to HNC (d.zarr)")]
    assert validate(tmp_path / "n.zarr").valid
    assert [reaction.label for reaction in HessianStore(tmp_path / "n.zarr").reactions()] == ["HCN to HNC"]


def test_same_reaction_at_two_levels_is_one_group(write, records, tmp_path):
    reaction = [one for one in records if one.group == "HCN to HNC"]
    again = [one.replace(level=LevelOfTheory("HF"), energy=one.energy + 1) for one in reaction]
    paths = [write("a.zarr", these=reaction), write("b.zarr", these=again)]
    report = merge(paths, tmp_path / "m.zarr")
    assert report.groups == (1, 2)
    assert report.duplicates == []  # the same geometry at another level of theory is no duplicate
    assert validate(tmp_path / "m.zarr").valid


def test_duplicates_are_reported_and_dropped(write, records, tmp_path):
    bare = [one.replace(hessian=None) for one in records[4:7]]
    paths = [write("a.zarr", these=bare), write("b.zarr", these=records)]
    report = merge(paths, tmp_path / "m.zarr")
    assert [second[1] for _, second in report.duplicates] == [0, 1, 2]  # of the first store: they have no Hessian
    assert not report.dropped
    report = merge(paths, tmp_path / "n.zarr", drop_duplicates=True)
    assert report.geometries == [0, len(records)]
    for one, other in zip(HessianStore(tmp_path / "n.zarr"), records, strict=True):
        same_record(one, other, but=("asymmetry",))  # kept in single precision


@pytest.mark.parametrize("name", ["energy", "forces", "hessian"])
def test_the_same_geometry_with_other_labels_is_kept_and_told(write, records, tmp_path, capsys, name):
    one = next(r for r in records if r.hessian is not None and r.forces is not None and r.energy is not None)
    wrong = one.replace(**{name: 27.2114 * getattr(one, name)})
    paths = [write("a.zarr", these=[one]), write("b.zarr", these=[wrong])]
    report = merge(paths, tmp_path / "m.zarr", drop_duplicates=True)
    assert report.contradictions == [(("a.zarr", 0), ("b.zarr", 0), name)]
    assert report.duplicates == []
    assert len(HessianStore(tmp_path / "m.zarr")) == 2
    assert main(["merge", *map(str, paths), "-o", str(tmp_path / "n.zarr"), "--drop-duplicates"]) == 0
    assert f"with another {name}; both are kept" in capsys.readouterr().out


def test_precision_rule(write, records, tmp_path):
    half = [one.replace(hessian=np.asarray(one.hessian, dtype=np.float32)) for one in records[:2]]
    single = [write("a.zarr", these=half), write("b.zarr", these=[half[0].replace(label="again")])]
    merge(single, tmp_path / "m.zarr")
    assert HessianStore(tmp_path / "m.zarr").packed(0).dtype == np.float32
    merge([*single, write("c.zarr", these=records[2:3])], tmp_path / "n.zarr")
    wide = HessianStore(tmp_path / "n.zarr")
    assert wide.packed(0).dtype == np.float64
    np.testing.assert_array_equal(wide[0].hessian, half[0].hessian)  # widened, no digit lost
    merge(single, tmp_path / "o.zarr", dtype="float64")
    assert HessianStore(tmp_path / "o.zarr").packed(0).dtype == np.float64


def test_splits_are_carried_over_where_nothing_leaks(records, write, tmp_path):
    groups = [labelled("H2O", i, group=f"g{i % 4}") for i in range(8)]
    parts = ("train", "val")
    first = write("a.zarr", these=groups[:4], splits={"s": (parts, [0, 0, 1, 1]), "only": (parts, [0, 0, 1, 1])})
    second = write("b.zarr", these=groups[4:], splits={"s": (parts, [0, 0, 1, -1])})
    leaking = write("c.zarr", these=groups[4:], splits={"s": (parts, [1, 0, 1, 1])})
    report = merge([first, second], tmp_path / "m.zarr")
    assert report.splits == ["s"]
    assert "only 1 of 2" in report.left_out["only"]
    np.testing.assert_array_equal(HessianStore(tmp_path / "m.zarr").split("s")[0], [0, 0, 1, 1, 0, 0, 1, -1])
    report = merge([first, leaking], tmp_path / "n.zarr")
    assert "two of its parts" in report.left_out["s"]
    assert validate(tmp_path / "n.zarr").valid


def test_refusals(write, records, tmp_path):
    first = write("a.zarr")
    with pytest.raises(OptionError, match="named twice"):
        merge([first, tmp_path / "x" / ".." / "a.zarr"], tmp_path / "m.zarr")
    with pytest.raises(OptionError, match="two stores or more"):
        merge([first], tmp_path / "m.zarr")
    with StoreWriter(tmp_path / "mit.zarr", attributes={"license": "MIT"}) as writer:
        writer.append(records[0])
    with pytest.raises(StoreError, match="licences differ"):
        merge([first, tmp_path / "mit.zarr"], tmp_path / "m.zarr")
    with pytest.raises(StoreError, match="exists already"):
        merge([first, tmp_path / "mit.zarr"], first, attributes={"license": "MIT"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "mit.zarr"]


def test_failure_in_the_middle_leaves_nothing(three, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr("nequip_hessian.store.target.os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        merge(three, tmp_path / "m.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_merge_command(three, tmp_path, capsys):
    paths = [str(path) for path in three]
    assert main(["merge", *paths, "-o", str(tmp_path / "m.zarr")]) == 0
    printed = capsys.readouterr().out
    assert "4 levels of theory (of 6)" in printed
    assert main(["merge", *paths, "-o", str(tmp_path / "n.zip"), "--profile", "publish", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["geometries"] == [15, 2, 3]
    assert differences(tmp_path / "m.zarr", tmp_path / "n.zip") == []


@pytest.mark.parametrize("profile", ["local", "remote", "publish"])
def test_repack_keeps_every_checksum(write, tmp_path, profile):
    path = write(splits={"s": (("train",), np.zeros(15, dtype=int))})
    new = tmp_path / ("b.zip" if profile == "publish" else "b.zarr")
    assert repack(path, new, profile=profile) == []
    assert differences(path, new) == []
    assert validate(new).valid
    assert HessianStore(new).attributes["checksums"] == HessianStore(path).attributes["checksums"]
    back = tmp_path / "c.zarr"
    repack(new, back)
    assert differences(path, back) == []


def test_repack_to_single_precision_is_logged(write, tmp_path, capsys):
    path = write()
    assert main(["repack", str(path), "-o", str(tmp_path / "b.zarr"), "--dtype", "float32"]) == 0
    assert "hessian/data" in capsys.readouterr().out
    new, old = HessianStore(tmp_path / "b.zarr"), HessianStore(path)
    assert new.packed(0).dtype == np.float32
    np.testing.assert_array_equal(new.packed(6), old.packed(6).astype(np.float32))
    assert {"routine": "repack", "options": {"dtype": "float32"}}.items() <= new.attributes["provenance"][-2].items()
    assert new.attributes["checksums"]["atom/position"] == old.attributes["checksums"]["atom/position"]


def test_repack_in_place(write):
    path = write()
    old = HessianStore(path)
    values = np.array(old.packed(3))
    repack(path, path, profile="remote", overwrite=True)
    np.testing.assert_array_equal(HessianStore(path).packed(3), values)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_extra_and_other_conventions_survive_a_repack(tmp_path):
    for name in ("extra_group", "other_convention", "extra_attributes"):
        source = VALID / f"{name}.zarr.zip"
        repack(source, tmp_path / name)
        assert differences(source, tmp_path / name) == []
    import zarr

    np.testing.assert_array_equal(zarr.open_group(tmp_path / "extra_group")["extra/anything"][:], [0, 1, 2])
    assert zarr.open_group(tmp_path / "other_convention").attrs["other"] == {"anything": 1}


def damage(store, array):
    """Change one byte of the values of an array of a store directory."""
    path = sorted(path for path in (store / array).rglob("c/*") if path.is_file())[0]
    raw = bytearray(path.read_bytes())
    raw[3] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("array", ["hessian/data", "geometry/energy"])
def test_a_damaged_store_gets_no_new_checksums(write, tmp_path, array, capsys):
    bad, good = write("bad.zarr"), write("good.zarr")
    damage(bad, array)
    for command in (
        ["repack", bad],
        ["repack", bad, "--dtype", "float32"],
        ["merge", good, bad],
    ):
        assert main([*map(str, command), "-o", str(tmp_path / "new.zarr")]) == 1
        error = capsys.readouterr().err
        assert f"{array} has other values than its checksum was made of (HZ-3.12)" in error
        assert len(error.strip().splitlines()) == 1
        assert not list(tmp_path.glob("new.zarr*"))


def test_a_block_of_a_hessian_does_not_contradict_the_whole(tmp_path):
    whole = labelled("H2O", 1)
    part = whole.replace(hessian=whole.hessian[3:, 3:], active=[1, 2])
    wrong = whole.replace(hessian=np.asarray(whole.hessian)[:3, :3] + np.eye(3), active=[0])
    for name, record in (("whole", whole), ("part", part), ("wrong", wrong)):
        with StoreWriter(tmp_path / f"{name}.zarr") as writer:
            writer.append(record)
    found = merge([tmp_path / "whole.zarr", tmp_path / "part.zarr"], tmp_path / "a.zarr")
    assert (len(found.duplicates), found.contradictions) == (1, [])
    found = merge([tmp_path / "whole.zarr", tmp_path / "wrong.zarr"], tmp_path / "b.zarr")
    assert [one[2] for one in found.contradictions] == ["hessian"]
