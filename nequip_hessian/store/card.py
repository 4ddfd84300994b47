"""Dataset cards: what the authors of a store know, beside what the store says of itself and is held to."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from nequip_hessian._yaml import RefusedYamlError, load_yaml
from nequip_hessian.errors import StoreError
from nequip_hessian.store.attributes import jsonable
from nequip_hessian.store.checksum import content_checksum
from nequip_hessian.store.layout import NAME, VERSION
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.schema import complaints, place
from nequip_hessian.store.summary import summarise

CARD_VERSION: Final = "0.1"
DERIVED: Final = (
    "card_version", "format", "levels_of_theory", "elements", "atoms_per_geometry", "counts", "labels", "splits",
    "hessian_dtype", "content",
)  # fmt: skip
"""Members that follow from the store; a check recomputes them."""

AUTHORED: Final = (
    "id", "title", "version", "description", "license", "authors", "citation", "doi", "sources", "known_defects",
    "extra",
)  # fmt: skip
_OPTIONS: Final = {
    "title": "--title",
    "version": "--version-of-data",
    "description": "--description",
    "license": "--license",
    "authors": "--author",
}


def derived(path: str | Path) -> dict[str, Any]:
    """Return the members of a card that follow from a store.

    Raises:
        StoreError: no readable store.
    """
    facts, store = summarise(path), HessianStore(path)
    sizes = [int(size) for size in facts["atoms_per_geometry"]]
    levels = [
        {key: value for key, value in level.items() if key not in ("index", "name") and value is not None}
        for level in facts["levels_of_theory"]
    ]
    return {
        "card_version": CARD_VERSION,
        "format": {"name": NAME, "version": VERSION},
        "levels_of_theory": levels,
        "elements": facts["elements"],
        "atoms_per_geometry": {"least": min(sizes), "most": max(sizes)},
        "counts": facts["counts"],
        "labels": {label: count for label, count in facts["labels"].items() if count},
        "splits": facts["splits"],
        "hessian_dtype": facts["hessian_dtype"],
        "content": content_checksum(store.attributes),
    }


def make_card(path: str | Path, authored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of a store.

    Args:
        path: the store; its own id, title, description, version, licence and DOIs are taken where
            `authored` has none
        authored: members of AUTHORED

    Raises:
        StoreError: something that only an author knows is missing, or of another kind than the schema says.
    """
    own = HessianStore(path).attributes
    from_store = {key: own[key] for key in ("id", "title", "description", "license", "doi") if own.get(key)}
    if own.get("dataset_version"):
        from_store["version"] = own["dataset_version"]
    known = {**from_store, "known_defects": [], **{key: value for key, value in authored.items() if value}}
    missing = [f"{key} ({option})" for key, option in _OPTIONS.items() if key not in known]
    if missing:
        raise StoreError(f"the card needs {', '.join(missing)}: {path} does not say")
    card = jsonable({**{key: known[key] for key in AUTHORED if key in known}, **derived(path)}, "card")
    for error in complaints(card, "card"):
        raise StoreError(f"card: {place(error) or 'top'}: {error.message}")
    return dict(card)


def to_yaml(card: Mapping[str, Any]) -> str:
    """Return a card as YAML, authored members first; marks that no one sees are escaped."""
    text = str(yaml.safe_dump(dict(card), sort_keys=False, allow_unicode=True, width=100))
    if any(unicodedata.category(character) in ("Cc", "Cf") and character != "\n" for character in text):
        text = str(yaml.safe_dump(dict(card), sort_keys=False, width=100))
    return text


def read_card(path: str | Path) -> dict[str, Any]:
    """Read a card; tags that would make objects are refused, and aliases (see `load_yaml`).

    Raises:
        StoreError: no readable YAML object.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise StoreError(f"{path}: expected a card, found a folder, pipe or device")
    try:
        found = load_yaml(Path(path).read_text(encoding="utf-8"))
        card = jsonable(found, f"{path}")
    except UnicodeDecodeError:
        raise StoreError(f"{path}: expected a card, YAML in UTF-8, found another file or encoding") from None
    except OSError as exc:
        raise StoreError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except RefusedYamlError as exc:
        raise StoreError(f"{path}, line {exc.line}: {exc}") from None
    except (yaml.YAMLError, RecursionError) as exc:
        raise StoreError(f"{path}: is no YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(card, dict):
        raise StoreError(f"{path}: expected a YAML object, found {type(card).__name__}")
    return card


def check_card(card: Mapping[str, Any], path: str | Path) -> list[str]:
    """Hold a card against the schema and against its store.

    Returns:
        One line for each thing that is wrong, none where all is right.

    Raises:
        StoreError: no readable store.
    """
    found = [f"{place(error) or 'top'}: {error.message}" for error in complaints(card, "card")]
    if found:
        return found
    own = HessianStore(path).attributes
    for key, value in derived(path).items():
        found += _differences(key, card[key], value)
    for key in ("license", "id"):
        if own.get(key) and card.get(key) != own[key]:
            found.append(f"{key}: the card says {card.get(key)!r}, the store {own[key]!r}")
    return found


def _differences(where: str, card: Any, store: Any) -> list[str]:
    if isinstance(card, dict) and isinstance(store, dict):
        keys = [*store, *(key for key in card if key not in store)]
        return [line for key in keys for line in _differences(f"{where}/{key}", card.get(key), store.get(key))]
    return [] if card == store else [f"{where}: the card says {card!r}, the store {store!r}"]
