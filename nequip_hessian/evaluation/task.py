"""A question of an evaluation as pieces of work: what is still to do, how it is done, what was found.

A piece is done in this process or in a worker, and kept in the model's `Cache` as soon as it is done; the
results are read from there. A piece that killed its worker is not kept: it is a failure of this run only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nequip_hessian.analysis.cache import Cache

if TYPE_CHECKING:
    from nequip_hessian.evaluation.bench import Bench

Key = tuple[int, ...]


class Task(Protocol):
    """One question."""

    name: str

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Return the pieces that are not kept yet."""

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Do one piece and keep it."""

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> Any:
        """Read all results; `lost` are pieces whose worker died, with the reason."""


def digest(settings: Mapping[str, Any]) -> str:
    """Return a short name of settings, for the files of what was found with them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
