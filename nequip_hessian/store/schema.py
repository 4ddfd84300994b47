"""The JSON Schemas of the convention, loaded once, and their complaints in one line each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from nequip_hessian.store.layout import SCHEMA_FOLDER


@cache
def load_schema(name: str) -> dict[str, Any]:
    """Return a schema, `root` or `arrays`, as it is shipped."""
    resource = files("nequip_hessian.schemas") / SCHEMA_FOLDER / f"{name}.schema.json"
    return dict(json.loads(resource.read_text(encoding="utf-8")))


@cache
def _validator(name: str, pointer: tuple[str, ...]) -> Draft202012Validator:
    schema = load_schema(name)
    part: Any = schema
    for key in pointer:
        part = part[key]
    return Draft202012Validator({**part, "$defs": schema.get("$defs", {})})


def complaints(value: Any, name: str, *pointer: str) -> Iterator[ValidationError]:
    """Yield what a (part of a) schema has to say against a value, in a stable order.

    Args:
        value: the JSON value
        name: `root` or `arrays`
        pointer: keys that lead to the part of the schema; none = all of it
    """
    errors = _validator(name, pointer).iter_errors(value)
    yield from sorted(errors, key=lambda error: ([str(key) for key in error.absolute_path], error.message))


def place(error: ValidationError) -> str:
    """Return where a complaint belongs, e.g. `levels_of_theory/0/method`."""
    return "/".join(str(key) for key in error.absolute_path)


def brief(value: Any, length: int = 120) -> str:
    """Return a value as short JSON text."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= length else f"{text[:length]}..."
