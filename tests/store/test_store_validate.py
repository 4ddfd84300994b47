"""Whatever lies at the path, the validator answers in messages; what it says of physics is true."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hostile import MIXED, obeyed
from molecules import labelled

from nequip_hessian.cli import main
from nequip_hessian.curvature import unpack
from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore, differences, validate
from nequip_hessian.store.page import page
from nequip_hessian.store.report import MAX_MESSAGES
from nequip_hessian.store.summary import histogram, summarise

VALID = Path(__file__).parents[1] / "conformance" / "valid"


def _text(content):
    return lambda path: path.write_bytes(content)


UNREADABLE = {
    "nothing there": lambda path: None,
    "empty directory": lambda path: path.mkdir(),
    "empty file": _text(b""),
    "random bytes": _text(np.random.default_rng(1).bytes(3000)),
    "text file": _text(b"3\nwater\nO 0 0 0\n"),
    "HDF5 signature": _text(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "directory of something else": lambda path: (path.mkdir(), (path / "a.txt").write_text("x")),
    "json that is a list": lambda path: (path.mkdir(), (path / "zarr.json").write_text("[]")),
    "json of deep nesting": lambda path: (path.mkdir(), (path / "zarr.json").write_text("[" * 100000)),
    "zarr.json of bytes": lambda path: (path.mkdir(), (path / "zarr.json").write_bytes(b"\xff\xfe\x00")),
    "zarr.json that is a directory": lambda path: (path / "zarr.json").mkdir(parents=True),
    "another zarr group": lambda path: (
        path.mkdir(),
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}'),
    ),
    "attributes that are none": lambda path: (
        path.mkdir(),
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": 3}'),
    ),
    "version alone": lambda path: (
        path.mkdir(),
        (path / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {"hessian_zarr": {"version": "0.1"}}}'
        ),
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_things_give_messages(tmp_path, capsys, name):
    path = tmp_path / "thing"
    UNREADABLE[name](path)
    report = validate(path)
    assert not report.valid
    assert report.reached == 1
    assert main(["validate", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["rule"].startswith("HZ-1.")
    if name != "version alone":
        with pytest.raises(StoreError, match="thing"):
            HessianStore(path)
    assert main(["info", str(path)]) == 1
    assert capsys.readouterr().err.startswith("nequip-hessian info: error: ")


def test_zip_cut_anywhere_gives_a_message(write, tmp_path):
    raw = write("a.zip", profile="publish").read_bytes()
    for share in (0.01, 0.3, 0.7, 0.9, 0.99, 0.9999):
        path = tmp_path / "cut.zip"
        path.write_bytes(raw[: int(len(raw) * share)])
        report = validate(path)
        assert set(report.counts) == {"HZ-1.1"}, share


def test_zip_with_damaged_bytes_gives_a_message(write, tmp_path):
    raw = bytearray(write("a.zip", profile="publish").read_bytes())
    rng = np.random.default_rng(2)
    for _ in range(40):
        damaged = bytearray(raw)
        for place in rng.integers(0, len(raw), 3):
            damaged[place] ^= 1 << rng.integers(0, 8)
        (tmp_path / "b.zip").write_bytes(damaged)
        report = validate(tmp_path / "b.zip", 3)
        # Bytes of zip headers that nobody reads and padding may be damaged without a number changing.
        assert not report.valid or differences(tmp_path / "b.zip", tmp_path / "a.zip") == []


def test_each_file_can_be_missing(write, tmp_path):
    """Without any one of its files a store is invalid, or its numbers are still the same (fill values)."""
    whole = write()
    shutil.copytree(whole, tmp_path / "b.zarr")
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    for file in files:
        (whole / file).rename(tmp_path / "kept")
        report = validate(whole, 3)
        assert not report.valid or differences(whole, tmp_path / "b.zarr") == [], file
        (tmp_path / "kept").rename(whole / file)
    assert validate(whole, 3).valid


@pytest.mark.parametrize("word", [b"null", b"-1", b'"x"', b"[]", b"{}", b"1e400"])
def test_wrong_json_anywhere_gives_a_message(write, word):
    path = write()
    for file in (path / "atom/position/zarr.json", path / "zarr.json"):
        raw = file.read_bytes()
        value = json.loads(raw)
        for key in value:
            file.write_text(json.dumps({**value, key: "@@"}).replace('"@@"', word.decode()))
            report = validate(path, 3)
            assert report.messages or key in ("consolidated_metadata", "dimension_names", "storage_transformers"), key
        file.write_bytes(raw)
    assert validate(path, 3).valid


def test_level_is_1_to_4(write):
    path = write()
    assert [validate(path, level).reached for level in (1, 2, 3, 4)] == [1, 2, 3, 4]
    with pytest.raises(StoreError, match="1 to 4"):
        validate(path, 5)


def _rewrite(path, change):
    """A store of one xTB geometry, changed before it is written."""
    from nequip_hessian.store import StoreWriter

    with StoreWriter(path, attributes={"license": "CC0-1.0"}) as writer:
        writer.append(change(labelled("H2CO", 4)))
    return validate(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one, ""),
        (lambda one: one.replace(hessian=np.asarray(one.hessian) * 0.0102908), "Eh/a0^2"),
        (lambda one: one.replace(forces=-np.asarray(one.forces)), "gradients were stored as forces"),
        (lambda one: one.replace(hessian=-np.asarray(one.hessian)), "opposite sign"),
        (lambda one: one.replace(positions=np.asarray(one.positions)[:, [1, 0, 2]]), "identities"),
        (lambda one: one.replace(hessian=np.asarray(one.hessian) + np.eye(12) * 5), "do not sum to zero"),
    ],
)
def test_physics_of_a_real_molecule(tmp_path, change, said):
    report = _rewrite(tmp_path / "a.zarr", change)
    assert report.valid is (said == "")
    if said:
        assert report.errors[0].rule == "HZ-4.2"
        assert report.errors[0].geometry == 0
        assert said in str(report.errors[0])


def test_same_rule_many_times_is_counted(tmp_path, records):
    from nequip_hessian.store import StoreWriter

    with StoreWriter(tmp_path / "a.zarr") as writer:
        for _ in range(MAX_MESSAGES + 5):
            writer.append(records[0].replace(forces=-np.asarray(records[0].forces), kind="minimum"))
    report = validate(tmp_path / "a.zarr")
    worst = max(report.counts.values())
    assert worst == MAX_MESSAGES + 5
    assert len(report.messages) <= MAX_MESSAGES * len(report.counts)


def test_command_lines(write, records, capsys):
    path = write()
    assert main(["validate", str(path)]) == 0
    assert "valid (levels 1 to 4 checked" in capsys.readouterr().out
    assert main(["validate", str(path), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    other = write("b.zarr", these=records[:3])
    assert main(["validate", "--same", str(path), str(path)]) == 0
    assert main(["validate", "--same", str(path), str(other), "--json"]) == 1
    assert "hessian/data" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["validate", "--same", str(path)])
    assert caught.value.code == 2


def test_one_changed_number_is_found(write, tmp_path):
    one = write()
    two = shutil.copytree(one, tmp_path / "b.zarr")
    chunk = two / "hessian/data/c/0"
    raw = np.frombuffer(chunk.read_bytes(), dtype="<f8").copy()
    raw[7] = np.nextafter(raw[7], np.inf)
    chunk.write_bytes(raw.tobytes())
    assert differences(one, two) == ["hessian/data: rows differ, the first one is 7"]
    assert set(validate(two).counts) == {"HZ-1.5", "HZ-3.12"}


def test_info(write, capsys):
    path = write(splits={"s": (("train", "val", "test"), np.arange(15) % 3)})
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    store = HessianStore(path)
    assert facts["elements"]["C"] == int(np.sum(store.number == 6))
    assert facts["labels"]["hessian"] == int(store.has_hessian.sum())
    assert facts["labels"]["forces"] == 13  # one has none, one has a missing row
    assert facts["splits"] == {"s": {"train": 5, "val": 5, "test": 5}}
    (reaction,) = facts["reactions"]
    assert reaction["barrier"] == pytest.approx(store.energy[9] - store.energy[10])
    assert sum(facts["atoms_per_geometry"].values()) == 15
    assert sum(level["geometries"] for level in facts["levels_of_theory"]) == 15
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out
    for word in ("HCN to HNC", "GFN2-xTB", "atoms a geometry", "charges", "+1 1", "CC0-1.0"):
        assert word in printed


@pytest.mark.parametrize(
    ("fixture", "said"),
    [
        ("rich", ["multiplicity 4", "path coordinate 3", "masses 3"]),
        ("phonon", ["born charges 1", "supercell matrix 2", "primitive matrix 1", "dielectric tensor 1"]),
    ],
)
def test_info_names_every_label(fixture, said, capsys):
    path = VALID / f"{fixture}.zarr.zip"
    assert main(["info", str(path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("labels ")]
    for words in said:
        assert words in line
        assert words in page(path)


def test_histogram_of_integers_has_integers_for_edges():
    sizes = np.concatenate([np.arange(8, 22), np.full(50, 9)])
    found = histogram(sizes)
    assert found[0] == ("8 to 9", 52)
    assert found[-1] == ("20 to 21", 2)
    assert sum(count for _, count in found) == len(sizes)
    assert histogram(np.array([1, 1, 30, 2, 3, 4, 5, 6, 7, 8, 9, 10]))[-1] == ("25 to 30", 1)
    assert histogram(np.array([3, 5, 5])) == [("3", 1), ("5", 2)]


def test_packed_matches_record(write):
    store = HessianStore(write())
    np.testing.assert_array_equal(unpack(store.packed(4)), store[4].hessian)


def _nodes(value, path=()):
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _nodes(part, (*path, key))


ODD = [None, -1, 0, 2**70, 1.5, True, "", [], {}, [1], {"a": 1}, "NaN", [[]], "float16", "/", 1e308, 10**9]


@pytest.mark.filterwarnings("ignore")
def test_damaged_metadata_never_gives_a_traceback(write):
    """30 random changes of single metadata values: validator, reader and summary answer in our own errors."""
    path = write()
    files = sorted(path.rglob("zarr.json"))
    rng = np.random.default_rng(11)
    for _ in range(30):
        file = files[rng.integers(len(files))]
        raw = file.read_text()
        value = json.loads(raw)
        places = list(_nodes(value))
        *way, last = places[rng.integers(len(places))]
        node = value
        for key in way:
            node = node[key]
        node[last] = ODD[rng.integers(len(ODD))]
        file.write_text(json.dumps(value))
        validate(path)
        for mapped in (True, False):
            with contextlib.suppress(StoreError):
                store = HessianStore(path, mapped=mapped)
                _ = [store[i] for i in range(min(len(store), 3))], store.reactions()
        with contextlib.suppress(StoreError):
            summarise(path)
        file.write_text(raw)
    assert validate(path, 3).valid


@pytest.fixture
def hostile(tmp_path):
    """A store whose every text tries to command the terminal or the browser."""
    from nequip_hessian.record import LabelledGeometry, LevelOfTheory
    from nequip_hessian.store import StoreWriter

    records = [
        LabelledGeometry(
            numbers=np.array([1, 1]),
            positions=np.array([[0.0, 0, 0], [0.7 + 0.1 * i, 0, 0]]),
            energy=-1.0 * i,
            label=f"{MIXED}{i}",
            group=MIXED,
            role=role,
            level=LevelOfTheory(MIXED, basis="\x1b[2J", program_version=str(i)),
        )
        for i, role in enumerate(("reactant", "transition_state", "product"))
    ]
    path = tmp_path / "a.zarr"
    with StoreWriter(path, attributes={"title": f"\x1b]0;pwned\x07{MIXED}", "license": MIXED}) as writer:
        writer.extend(records)
    return path


def test_texts_command_neither_terminal_nor_browser(hostile, tmp_path, capsys):
    page = tmp_path / "a.html"
    for command in (["info"], ["info", "--html", str(page)], ["validate"], ["split", "--fractions", "train=1"],
                    ["card", "-o", "-", "--version-of-data", "1", "--description", "x", "--author", "a"]):  # fmt: skip
        assert main([command[0], str(hostile), *command[1:]]) == 0
        captured = capsys.readouterr()
        assert obeyed(captured.out + captured.err) == set()
    assert main(["merge", str(hostile), str(tmp_path / "\x1b[31m.zarr"), "-o", str(tmp_path / "b.zarr")]) == 1
    assert "\x1b" not in capsys.readouterr().err
    assert main(["export", str(hostile), "--format", "extxyz", "-o", str(tmp_path / "\x1b[31m.xyz")]) == 0
    assert "\\x1b[31m.xyz" in capsys.readouterr().out
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("https://", "http://").split("<body>")[1].split("data:image")[0]
    assert text.count("data:image/png;base64,") >= 2


def test_levels_of_one_name_are_told_apart(hostile, capsys):
    facts = summarise(hostile)
    names = [level["name"] for level in facts["levels_of_theory"]]
    assert len(set(names)) == 3
    assert [name.endswith(f"(program version {i})") for i, name in enumerate(names)] == [True] * 3


def test_level_names():
    from nequip_hessian.record import LevelOfTheory
    from nequip_hessian.store.summary import level_names

    assert level_names([LevelOfTheory("HF", "STO-3G"), LevelOfTheory("GFN2-xTB")]) == ["HF/STO-3G", "GFN2-xTB"]
    pair = [
        LevelOfTheory("HF", hessian="analytic"),
        LevelOfTheory("HF", hessian="finite_difference", displacement=0.01),
    ]
    assert level_names(pair) == [
        "HF (hessian analytic, displacement unknown)",
        "HF (hessian finite_difference, displacement 0.01)",
    ]
