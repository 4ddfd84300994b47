"""YAML from strangers: plain values, each written out where it stands."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

DEEPEST: Final = 100
"""Levels of lists and mappings; thousands overflow the stack of the parser, which is written in C."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BRACKET: Final = re.compile(r"[\[\]{}]")
_INDENT: Final = re.compile(rf"^[ ?:-]{{{2 * DEEPEST}}}", re.MULTILINE)


class RefusedYamlError(yaml.YAMLError):
    """YAML that takes more than its size: a value used by aliases, or nested without end."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _PlainLoader(_Loader):
    def construct_document(self, node: yaml.Node) -> Any:
        seen: set[int] = set()
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if id(one) in seen:
                raise RefusedYamlError(
                    "expected YAML without aliases, found one (*) of the value in this line; write the value out "
                    "wherever it is meant",
                    one.start_mark.line + 1,
                )
            seen.add(id(one))
            if isinstance(one, yaml.MappingNode):
                waiting += [part for pair in one.value for part in pair]
            elif isinstance(one, yaml.SequenceNode):
                waiting += one.value
        return super().construct_document(node)


def load_yaml(text: str) -> Any:
    """Read a YAML document; tags that would make objects are refused.

    Raises:
        RefusedYamlError: a value has an alias, or is nested too deep. yaml.YAMLError: anything else unreadable.
    """
    place = _too_deep(text)
    if place is not None:
        message = f"expected YAML of at most {DEEPEST} levels, found more; lists and mappings are nested too deep"
        raise RefusedYamlError(message, text.count("\n", 0, place) + 1)
    return yaml.load(text, Loader=_PlainLoader)


def _too_deep(text: str) -> int | None:
    """Return where brackets or indents go too deep, None where they do not."""
    indent = _INDENT.search(text)
    if indent is not None:
        return indent.start()
    depth = 0
    for match in _BRACKET.finditer(text):
        depth = depth + 1 if match[0] in "[{" else max(depth - 1, 0)
        if depth > DEEPEST:
            return match.start()
    return None
