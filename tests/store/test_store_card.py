"""Dataset cards: what follows from the store is held against it, what authors know is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from nequip_hessian.cli import main
from nequip_hessian.errors import StoreError
from nequip_hessian.store import HessianStore
from nequip_hessian.store.card import AUTHORED, DERIVED, check_card, derived, make_card, read_card
from nequip_hessian.store.repack import repack
from nequip_hessian.store.schema import load_schema

RICH = Path(__file__).parents[1] / "conformance" / "valid" / "rich.zarr.zip"
AUTHORS = {"version": "1.0", "description": "a fixture", "authors": [{"name": "A. Author"}]}


def test_members_are_those_of_the_schema():
    schema = load_schema("card")
    assert set(schema["properties"]) == {*AUTHORED, *DERIVED}
    assert set(DERIVED) < set(schema["required"])


def test_card_says_what_the_store_says():
    card = make_card(RICH, AUTHORS)
    store = HessianStore(RICH)
    assert card["title"] == "fixture"  # from the store
    assert card["license"] == "CC0-1.0"
    assert card["counts"] == store.attributes["counts"]
    assert card["elements"] == {"H": 8, "O": 4}
    assert card["splits"] == {"by_group": {"train": 3, "val": 0, "test": 1}}
    assert card["labels"]["partial hessian"] == 1
    assert check_card(card, RICH) == []


def test_content_is_one_number_for_all_values(tmp_path):
    repack(RICH, tmp_path / "a.zarr", profile="remote")
    assert derived(tmp_path / "a.zarr")["content"] == derived(RICH)["content"]
    repack(RICH, tmp_path / "b.zarr", dtype="float32")
    assert derived(tmp_path / "b.zarr")["content"] != derived(RICH)["content"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card["counts"].update(atoms=7), "counts/atoms: the card says 7, the store 12"),
        (lambda card: card["elements"].pop("H"), "elements/H: the card says None, the store 8"),
        (lambda card: card["elements"].update(C=1), "elements/C: the card says 1, the store None"),
        (lambda card: card.update(license="MIT"), "license: the card says 'MIT', the store 'CC0-1.0'"),
        (lambda card: card.update(content="sha256:" + "0" * 64), "content: "),
        (lambda card: card.pop("known_defects"), "'known_defects' is a required property"),
        (lambda card: card.update(licence="MIT"), "'licence' was unexpected"),
        (lambda card: card["authors"].clear(), "authors: "),
        (lambda card: card["levels_of_theory"][0].update(method="HF"), "levels_of_theory: "),
    ],
)
def test_check_finds_what_is_wrong(tmp_path, capsys, change, said):
    card = make_card(RICH, AUTHORS)
    change(card)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    assert main(["card", str(RICH), "--check", str(tmp_path / "card.yaml")]) == 1
    assert said in capsys.readouterr().out


def test_command_writes_keeps_and_checks(tmp_path, capsys):
    store, card = tmp_path / "a.zip", tmp_path / "card.yaml"
    shutil.copyfile(RICH, store)
    command = ["card", str(store), "-o", str(card)]
    assert main(command) == 1
    assert "the card needs version (--version-of-data), description (--description), authors" in capsys.readouterr().err
    assert not card.exists()
    texts = ["--version-of-data", "1", "--description", "x: [1", "--author", "Jürgen Gauß", "--author", "B"]
    assert main([*command, *texts, "--defect", "one"]) == 0
    assert main(["card", str(store), "--check", str(card)]) == 0
    assert main([*command, *texts]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["split", str(store), "--fractions", "train=0.5", "val=0.5"]) == 0
    assert main(["card", str(store), "--check", str(card)]) == 1
    assert main([*command, "--from", str(card), "--version-of-data", "2", "--overwrite"]) == 0
    found = read_card(card)
    assert (found["version"], found["description"], found["known_defects"]) == ("2", "x: [1", ["one"])
    assert [author["name"] for author in found["authors"]] == ["Jürgen Gauß", "B"]
    assert "group" in found["splits"]
    capsys.readouterr()
    assert main(["card", str(store), "-o", "-", "--from", str(card)]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == found


@pytest.mark.parametrize("text", ["- 1", "a: [", "!!python/object/apply:os.system ['true']", "\x00", "a: 2020-01-01"])
def test_no_card_is_one_line(tmp_path, text, capsys):
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(StoreError):
        read_card(tmp_path / "card.yaml")
    assert main(["card", str(RICH), "--check", str(tmp_path / "card.yaml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "card.yaml" in line


@pytest.mark.parametrize("option", [["--title", "Other"], ["--overwrite"], ["--from", "a.yaml"], ["--author", "A"]])
def test_check_takes_no_options_of_writing(tmp_path, option, capsys):
    assert main(["card", str(RICH), "--check", str(tmp_path / "card.yaml"), *option]) == 2
    assert option[0] in capsys.readouterr().err


ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "line 1: expected YAML without aliases"),
        ("a: {x: 1}\nb: &b {y: 2}\nc: {<<: *b}\nd: *b", "line 2: expected YAML without aliases"),
        ("[" * 200_000, "line 1: expected YAML of at most 100 levels"),
        ("a:\n- " + "- " * 200_000, "line 2: expected YAML of at most 100 levels"),
    ],
    ids=["bomb", "merge", "brackets", "dashes"],
)
def test_card_that_is_more_than_it_looks_is_refused(tmp_path, text, said, capsys):
    (tmp_path / "card.yaml").write_text(text)
    assert main(["card", str(RICH), "--check", str(tmp_path / "card.yaml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
