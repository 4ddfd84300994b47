"""The normative text: its reader reads, its worked example is true, and each clause that a rule names is there."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

import numpy as np
import pytest

from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store import HessianStore, StoreWriter, validate
from nequip_hessian.store.checksum import canonical, content_checksum
from nequip_hessian.store.layout import ARRAYS, VERSION
from nequip_hessian.store.repack import repack

SPEC = (importlib.resources.files("nequip_hessian.schemas") / "SPEC.md").read_text(encoding="utf-8")
VALID = Path(__file__).parents[1] / "conformance" / "valid"
CLAUSES = re.findall(r"^(\d+\.\d+) ", SPEC, flags=re.MULTILINE)


@pytest.fixture
def reader():
    (text,) = re.findall(r"```python\n(.*?)```", SPEC, flags=re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 32
    assert set(re.findall(r"^(?:import|from) (\w+)", text, flags=re.MULTILINE)) == {"json", "pathlib", "numpy"}
    space: dict = {}
    exec(text, space)
    return space


@pytest.mark.parametrize("name", ["rich", "phonon", "plain", "one_atom", "periodic", "no_hessians", "single_precision"])
def test_reader_of_the_text_reads_what_the_package_reads(reader, tmp_path, name):
    repack(VALID / f"{name}.zarr.zip", tmp_path / "a.zarr")
    store = HessianStore(tmp_path / "a.zarr")
    for path in store.attributes["checksums"]:
        np.testing.assert_array_equal(reader["read"](tmp_path / "a.zarr", path), store.array(path))
    for index, record in enumerate(store):
        numbers, positions, hessian, atoms = reader["geometry"](tmp_path / "a.zarr", index)
        np.testing.assert_array_equal(numbers, record.numbers)
        np.testing.assert_array_equal(positions, record.positions)
        assert (hessian is None) is (record.hessian is None)
        if record.hessian is not None:
            np.testing.assert_array_equal(hessian, record.hessian)
            wanted = np.arange(len(record)) if record.active is None else record.active
            np.testing.assert_array_equal(atoms, wanted)


def test_reader_of_the_text_refuses_what_it_cannot_read(reader, tmp_path):
    repack(VALID / "plain.zarr.zip", tmp_path / "a.zarr", profile="remote")
    with pytest.raises(ValueError, match="use a Zarr library"):
        reader["read"](tmp_path / "a.zarr", "hessian/data")


def test_worked_example_is_true(tmp_path):
    block = np.diag([36.0, 0.0, 0.0])
    level = LevelOfTheory("spring")
    hydrogen = LabelledGeometry(
        numbers=np.array([1, 1]),
        positions=np.array([[0.0, 0, 0], [0.74, 0, 0]]),
        energy=-31.7,
        hessian=np.block([[block, -block], [-block, block]]),
        kind="minimum",
        group="hydrogen",
        level=level,
    )
    helium = LabelledGeometry(numbers=np.array([2]), positions=np.zeros((1, 3)), level=level)
    with StoreWriter(tmp_path / "a.zarr", attributes={"license": "CC0-1.0"}) as writer:
        writer.extend([hydrogen, helium])
    assert validate(tmp_path / "a.zarr", 3).messages == []
    store = HessianStore(tmp_path / "a.zarr")
    section = SPEC[SPEC.index("## 14") : SPEC.index("## 15")]
    rows = re.findall(r"^\| `(\w+/\w+)` \| (.*) \|$", section, flags=re.MULTILINE)
    assert len(rows) == 10
    for path, text in rows:
        np.testing.assert_array_equal(store.array(path), [float(word) for word in text.split(", ")], err_msg=path)


def test_clauses_are_numbered_once_and_in_order():
    assert len(CLAUSES) == len(set(CLAUSES)) > 55
    assert sorted(CLAUSES, key=lambda text: [int(part) for part in text.split(".")]) == CLAUSES


def test_every_paragraph_that_binds_has_a_number():
    for section in re.split(r"^## ", SPEC[: SPEC.index("\n## 11 ")], flags=re.MULTILINE)[1:]:
        for paragraph in re.split(r"\n\s*\n", section.strip())[1:]:
            assert re.match(r"\d+\.\d+ |\||```|- |\d\. ", paragraph), paragraph


def test_rules_name_clauses_that_are_there():
    sections = {clause.split(".")[0] for clause in CLAUSES}
    for rule, named in re.findall(r"^\| (HZ-[\d.]+)(?: W)? \| ([^|]+) \|", SPEC, flags=re.MULTILINE):
        for clause in re.split(r", | - ", named.strip()):
            assert clause in CLAUSES or clause in sections, (rule, clause)


def test_every_array_has_words_of_its_own():
    text = re.sub(r"^\|.*$", "", SPEC[: SPEC.index("## 14")], flags=re.MULTILINE)
    for spec in ARRAYS:
        name = spec.path.split("/")[1]
        assert re.search(rf"\b{name}s?\b", text, flags=re.IGNORECASE), spec.path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, "ü\n\x1f"]}, '{"a":[true,null,"ü\\n\\u001f"],"b":1}'),
        ({"\ud83d\ude00": 1, "\ufb33": 2}, '{"\ud83d\ude00":1,"\ufb33":2}'),  # by UTF-16 units, not by code points
        ([1.0, 0.0, -0.0, 0.5, 1e21, 1e-7, 123456.789, 1e-6, 5e-324, 1.5e300, 333333333.33333329], None),
    ],
)
def test_canonical_json(value, text):
    if text is None:
        # What RFC 8785 gives for these numbers (its appendix B, and ECMAScript's Number.toString).
        text = "[1,0,0,0.5,1e+21,1e-7,123456.789,0.000001,5e-324,1.5e+300,333333333.3333333]"
    assert canonical(value) == text


def test_content_checksum_is_of_values_alone(tmp_path):
    repack(VALID / "rich.zarr.zip", tmp_path / "a.zarr", profile="remote")
    one, other = (HessianStore(path).attributes for path in (VALID / "rich.zarr.zip", tmp_path / "a.zarr"))
    assert content_checksum(one) == content_checksum(other)
    assert one["metadata_checksum"] != other["metadata_checksum"]  # another entry of provenance
    assert one["version"] == VERSION
