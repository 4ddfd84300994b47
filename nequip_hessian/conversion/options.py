"""The options of a conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nequip_hessian.conversion.read import Reading
from nequip_hessian.errors import OptionError
from nequip_hessian.formats import formats
from nequip_hessian.gather import GROUP_RULES
from nequip_hessian.projection import PROJECTIONS
from nequip_hessian.store.build import PROFILES

_MEANING: Final = ("format", "dtype", "project", "group", "without_hessian")


@dataclass(frozen=True)
class Options:
    """How to convert; see `convert`."""

    format: str | None = None
    dtype: str | None = None
    project: str = "none"
    group: str = "auto"
    without_hessian: bool = False
    profile: str = "local"
    license: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, (None, *formats())),
            ("dtype", self.dtype, (None, "float32", "float64")),
            ("profile", self.profile, PROFILES),
            ("project", self.project, PROJECTIONS),
            ("group", self.group, GROUP_RULES),
        ):
            if value not in allowed:
                names = ", ".join(str(entry) for entry in allowed if entry)
                raise OptionError(f"{name}: expected one of {names}, found {value!r}")

    @property
    def meaning(self) -> dict[str, Any]:
        """What of them changes what is in the store, not how it lies on disk; without what is not said."""
        return {name: vars(self)[name] for name in _MEANING if vars(self)[name] is not None}

    @property
    def reading(self) -> Reading:
        """What of them concerns one file alone."""
        return Reading(self.format, self.project, self.without_hessian)
