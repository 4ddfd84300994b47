"""Table, JSON Schemas and the normative text say the same."""

from __future__ import annotations

import importlib.resources
import re

import pytest
from jsonschema import Draft202012Validator

from nequip_hessian.errors import StoreError
from nequip_hessian.record import KINDS, ROLES
from nequip_hessian.store import HessianStore, StoreWriter, validate
from nequip_hessian.store.attributes import AUTHOR_KEYS, LEVEL_KEYS, PROVENANCE_KEYS, SOURCE_KEYS
from nequip_hessian.store.check_metadata import TOGETHER
from nequip_hessian.store.checksum import KEY
from nequip_hessian.store.layout import ARRAYS, BY_PATH, RAGGED, SPLIT, UUID, VERSION, dimension_names, spec_of
from nequip_hessian.store.repack import repack
from nequip_hessian.store.report import RULES
from nequip_hessian.store.schema import load_schema

SPEC = (importlib.resources.files("nequip_hessian.schemas") / "SPEC.md").read_text(encoding="utf-8")
TABLES = SPEC[: SPEC.index("## 14 Worked example")]
ROWS = dict(re.findall(r"^\| `(\w+/[\w<>]+)` (\|.*\|)$", TABLES, flags=re.MULTILINE))


def _schema_of(spec):
    arrays = load_schema("arrays")
    return arrays["properties"][spec.path] if spec is not SPLIT else next(iter(arrays["patternProperties"].values()))


@pytest.mark.parametrize("name", ["root", "arrays"])
def test_schemas_are_schemas(name):
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("spec", [*ARRAYS, SPLIT], ids=lambda spec: spec.path)
def test_table_is_the_schema(spec):
    schema = _schema_of(spec)["properties"]
    kinds = schema["data_type"]
    assert kinds.get("enum", [kinds.get("const")]) == list(spec.dtypes)
    shape = schema["shape"]
    assert shape["minItems"] == shape["maxItems"] == len(spec.shape)
    assert [item["const"] for item in shape["prefixItems"][1:]] == list(spec.row_shape)
    assert schema["dimension_names"]["const"] == dimension_names(spec)
    attributes = schema["attributes"]
    assert attributes["additionalProperties"] is False
    constants = {key: value["const"] for key, value in attributes["properties"].items() if "const" in value}
    assert constants == spec.attributes
    assert set(attributes["properties"]) == {*constants, *spec.free, "extra"}
    assert set(attributes["required"]) == {*constants, *spec.free}


@pytest.mark.parametrize("spec", [*ARRAYS, SPLIT], ids=lambda spec: spec.path)
def test_table_is_the_text(spec):
    dtype, shape, units, rest = (cell.strip() for cell in ROWS[spec.path].strip("|").split("|", 3))
    assert dtype == " or ".join(spec.dtypes)
    assert shape == f"({', '.join(str(size) for size in spec.shape)})"
    assert units == (spec.units or "")
    optional = spec.path.split("/")[0] in ("product", "dipole", "frequency", "phonon", "split") or "optional" in rest
    assert optional is not spec.required


def test_nothing_in_schema_or_text_that_is_not_in_the_table():
    arrays = load_schema("arrays")
    assert set(arrays["properties"]) == set(BY_PATH)
    assert set(ROWS) == {*BY_PATH, SPLIT.path}
    assert arrays["required"] == [spec.path for spec in ARRAYS if spec.required]
    assert arrays["additionalProperties"] is False
    for together in TOGETHER:
        for path in together:
            assert set(arrays["dependentRequired"][path]) == set(together) - {path}
    assert set().union(*TOGETHER) == set(arrays["dependentRequired"])


def test_offsets_cut_what_exists():
    for offset, data in RAGGED.items():
        assert BY_PATH[offset].dtypes == ("int64",)
        assert len({BY_PATH[path].shape[0] for path in data}) == 1
    assert spec_of("split/a") is SPLIT
    assert spec_of("split/a/b") is None


def test_root_schema_and_constants():
    root = load_schema("root")
    own = root["$defs"]["hessian_zarr"]
    assert own["properties"]["version"]["const"] == VERSION
    assert root["properties"]["zarr_conventions"]["contains"]["properties"]["uuid"]["const"] == UUID
    assert UUID in SPEC
    assert SPEC.startswith(f"# hessian_zarr {VERSION.removesuffix('.dev')}\n")
    assert set(own["properties"]) == {*AUTHOR_KEYS, *own["required"], KEY}
    assert set(root["$defs"]["level_of_theory"]["properties"]) == {*LEVEL_KEYS, "extra"}
    provenance = root["$defs"]["provenance"]["properties"]
    assert set(provenance) == set(PROVENANCE_KEYS)
    assert set(provenance["sources"]["items"]["properties"]) == set(SOURCE_KEYS)
    for name in (*own["properties"], *LEVEL_KEYS, *provenance, *KINDS, *ROLES):
        assert f"`{name}`" in SPEC, name


def test_rules_of_the_text_are_those_of_the_validator():
    found = re.findall(r"^\| (HZ-[\d.]+)( W)? \| [^|]+ \| (.+) \|$", SPEC, flags=re.MULTILINE)
    assert {rule: ("warning" if mark else "error", text) for rule, mark, text in found} == RULES


def test_closed_objects():
    def walk(value):
        if isinstance(value, dict):
            if value.get("type") == "object" and "properties" in value and "zarr_format" not in value["properties"]:
                yield value
            for part in value.values():
                yield from walk(part)
        elif isinstance(value, list):
            for part in value:
                yield from walk(part)

    root = load_schema("root")
    open_on_purpose = (root, root["properties"]["zarr_conventions"]["contains"])
    for schema in walk(root["$defs"]):
        assert schema in open_on_purpose or schema["additionalProperties"] is False


@pytest.mark.parametrize("version", ["0.2", "1.0", None, 3])
def test_other_version_names_both_and_a_way_out(tmp_path, records, version, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("nequip_hessian.store.writer.VERSION", version)
        with StoreWriter(tmp_path / "a.zarr") as writer:
            writer.append(records[0])
    way_out = "update the package" if version in ("0.2", "1.0") else "convert the sources again"
    with pytest.raises(StoreError, match=rf"reads hessian_zarr '0\.1'.*{way_out}") as caught:
        HessianStore(tmp_path / "a.zarr")
    assert repr(version) in str(caught.value)
    assert "written by nequip-hessian" in str(caught.value)
    found = validate(tmp_path / "a.zarr").as_dict()
    assert found["rule"] == "HZ-1.3"
    assert way_out in found["message"]


def test_repack_turns_the_development_version_into_the_release(tmp_path, records, monkeypatch):
    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("nequip_hessian.store.writer.VERSION", "0.1.dev")
        with StoreWriter(path, attributes={"title": "old"}) as writer:
            writer.extend(records)
    old = HessianStore(path)
    assert old.attributes["version"] == "0.1.dev"
    assert "nequip-hessian repack" in validate(path).as_dict()["message"]
    checksums = old.attributes["checksums"]
    assert repack(path, path, overwrite=True) == []
    new = HessianStore(path).attributes
    assert (new["version"], new["title"], new["checksums"]) == ("0.1", "old", checksums)
    assert validate(path).valid
