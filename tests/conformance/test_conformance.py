"""Our own validator over the fixtures that other implementations can run, too."""

from __future__ import annotations

import sys

import make_fixtures
import pytest
import run

from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore, validate
from nequip_hessian.store.layout import BY_PATH, SPLIT_PREFIX
from nequip_hessian.store.report import RULES

FIXTURES = run.fixtures()
MADE_BY_HAND = {"HZ-1.1_cut_zip", "HZ-1.1_random_bytes", "HZ-1.1_empty_file"}


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture[0].name)
def test_fixture(fixture):
    path, valid, rule = fixture
    report = validate(path)
    assert report.valid is valid, report.messages
    if path.parent.name == "valid":
        assert report.messages == []
        assert all(record is not None for record in HessianStore(path))
    else:  # exactly one fault: no other rule has anything to say
        assert set(report.counts) == {rule or path.name.split("_")[0]}, report.messages
    if rule:
        assert report.reached == int(rule.split("-")[1].split(".")[0])
    assert report.as_dict()["rule"] == rule


@pytest.mark.parametrize("fixture", [one for one in FIXTURES if not one[1]], ids=lambda fixture: fixture[0].name)
@pytest.mark.parametrize("mapped", [True, False])
def test_reader_gives_records_or_one_line(fixture, mapped):
    """Reading what is invalid ends in a store's error or in records, never in anything else."""
    try:
        store = HessianStore(fixture[0], mapped=mapped)
        for index in range(min(len(store), 10)):
            assert len(store.packed(index)) >= 0
            assert len(store[index]) > 0
        store.reactions()
        for scheme in store.split_schemes:
            store.split(scheme)
    except StoreError as exc:
        assert "\n" not in str(exc)  # noqa: PT017 - either way is fine


def _stem(path):
    return path.name.removesuffix(".zarr.zip")


def test_fixtures_are_those_of_the_script():
    for folder, cases in (("valid", make_fixtures.VALID), ("warning", make_fixtures.WARNING)):
        assert {path.name.removesuffix(".zarr.zip") for path, _, _ in FIXTURES if path.parent.name == folder} == set(
            cases
        )
    invalid = {_stem(path) for path, valid, _ in FIXTURES if not valid}
    assert invalid == set(make_fixtures.INVALID) | set(make_fixtures.ADDED) | MADE_BY_HAND


def test_every_array_is_in_a_valid_fixture():
    found = set()
    for path, _, _ in FIXTURES:
        if path.parent.name == "valid":
            found |= set(HessianStore(path).attributes["checksums"])
    assert {path for path in found if not path.startswith(SPLIT_PREFIX)} == set(BY_PATH)
    assert any(path.startswith(SPLIT_PREFIX) for path in found)


def test_every_rule_has_a_fixture():
    spoken = {path.name.split("_")[0] for path, _, _ in FIXTURES if path.parent.name != "valid"}
    assert spoken == set(RULES)


@pytest.mark.parametrize("case", ["HZ-3.5_one_element_too_many", "HZ-4.2_unit"])
def test_script_still_makes_what_is_committed(tmp_path, case):
    target = tmp_path / f"{case}.zarr.zip"
    make_fixtures.build(make_fixtures.INVALID[case], target, deflate=True)
    assert set(validate(target).counts) == {case.split("_")[0]}


def test_runner_with_a_command(capsys):
    command = [sys.executable, "-m", "nequip_hessian", "validate", "--json"]
    assert run.main(["--only", "HZ-2.4", "--", *command]) == 0
    assert "3 of 3" in capsys.readouterr().out
    # A validator that finds everything valid must fail the invalid ones.
    assert run.main(["--only", "HZ-3.6", "--", sys.executable, "-c", "print('{\"valid\": true}')"]) == 1
