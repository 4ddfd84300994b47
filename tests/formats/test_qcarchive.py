"""Records of QCArchive servers, old and new, alone or with their molecules beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nequip_hessian.checks import check
from nequip_hessian.errors import FormatError, NoHessianError
from nequip_hessian.formats import format_of, read

RESULT = json.loads((Path(__file__).parent / "data" / "water_hf_pyscf.json").read_text())


def molecule(number: int) -> dict:
    flat = RESULT["molecule"]
    return {**flat, "geometry": np.reshape(flat["geometry"], (-1, 3)).tolist(), "id": number}


def new_record(**changes) -> dict:
    """A singlepoint record of a server since 2023: the arrays under properties, the method in a specification."""
    properties = {**RESULT["properties"], "calcinfo_natom": 3, "return_result": RESULT["return_result"]}
    record = {
        "id": 17,
        "record_type": "singlepoint",
        "is_service": False,
        "status": "complete",
        "specification": {
            "program": "psi4",
            "driver": "hessian",
            "method": "hf",
            "basis": "sto-3g",
            "keywords": {"maxiter": 100},
        },
        "properties": properties,
        "extras": {},
        "molecule_id": 5,
    }
    return {**record, **changes}


def old_record(**changes) -> dict:
    """A result record of a server before: everything at the top, the molecule by number."""
    record = {
        "id": "17",
        "procedure": "single",
        "program": "psi4",
        "driver": "hessian",
        "method": "hf",
        "basis": "sto-3g",
        "keywords": "3",
        "molecule": "5",
        "status": "COMPLETE",
        "provenance": {"creator": "Psi4", "version": "1.3.2"},
        "properties": RESULT["properties"],
        "return_result": RESULT["return_result"],
    }
    return {**record, **changes}


CONTENTS = {
    "one": new_record(molecule=molecule(5)),
    "underscore": new_record(molecule_=molecule(5)),
    "list": [new_record(molecule=molecule(5))],
    "response": {"meta": {"n_found": 1}, "data": [new_record()], "molecules": [molecule(5)]},
    "by name": {"records": {"water": new_record()}, "molecules": {"5": molecule(5)}},
    "old": {"data": [old_record()], "molecules": [molecule(5)]},
}


@pytest.mark.parametrize("name", CONTENTS)
def test_records(tmp_path, name):
    reference = next(iter(read(Path(__file__).parent / "data" / "water_hf_pyscf.json")))
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(CONTENTS[name]))
    assert format_of(path).name == "qcschema"
    (record,) = read(path)
    assert record.numbers.tolist() == reference.numbers.tolist()
    assert np.array_equal(record.hessian, reference.hessian)
    assert np.array_equal(record.positions, reference.positions)
    assert record.energy == reference.energy
    assert (record.level.method, record.level.basis, record.level.program.lower()) == ("hf", "sto-3g", "psi4")
    assert record.label == ("water" if name == "by name" else "dump")
    assert check(record)[1].verdict in ("ok", "undetermined")


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (new_record(), FormatError, r"record 17: its molecule is named by number only \(5\)"),
        (old_record(molecule="9"), FormatError, r"named by number only \(9\)"),
        (new_record(molecule=molecule(5), status="error"), FormatError, "the calculation failed: the status"),
        (
            new_record(
                molecule=molecule(5),
                properties={"return_energy": -1.0},
                specification={"driver": "energy", "method": "hf", "program": "psi4"},
            ),
            NoHessianError,
            "no Hessian in this file: driver is 'energy'",
        ),
    ],
)
def test_refusals(tmp_path, content, kind, message):
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(content))
    with pytest.raises(kind, match=rf"dump\.json.*{message}"):
        list(read(path))


def test_a_failed_record_does_not_hide_those_behind_it(tmp_path):
    records = {
        "first": new_record(),
        "failed": new_record(status="error"),
        "energy": new_record(specification={"driver": "energy", "method": "hf"}, properties={"return_energy": -1.0}),
        "last": new_record(),
    }
    path = tmp_path / "dump.json"
    path.write_text(json.dumps({"records": records, "molecules": [molecule(5)]}))
    found = []
    with pytest.raises(FormatError, match=r"dump\.json: 1 of 4 results are refused, the first one: the calculation"):
        found.extend(read(path))
    assert [record.label for record in found] == ["first", "energy", "last"]
    assert found[1].hessian is None
