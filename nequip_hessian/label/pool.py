"""One label as one task: journalled when it is done, a message where it fails."""

from __future__ import annotations

from dataclasses import dataclass

from nequip_hessian.errors import HessianDataError
from nequip_hessian.label.engine import Engine
from nequip_hessian.label.journal import Journal
from nequip_hessian.record import LabelledGeometry

Outcome = str | None
"""None where a label is in the journal now, else why not."""


@dataclass(frozen=True)
class LabelOne:
    """Makes one label and puts it into the journal; it pickles, so that it runs anywhere.

    Attributes:
        engine: makes the label
        hessian: whether with a Hessian
        folder: of the journal
    """

    engine: Engine
    hessian: bool
    folder: str

    def __call__(self, task: tuple[str, LabelledGeometry]) -> Outcome:
        """Work on one (key, geometry)."""
        key, geometry = task
        try:
            labels = self.engine.calculate(geometry, self.hessian)
        except HessianDataError as exc:
            return str(exc)
        except Exception as exc:  # a bug in a foreign library must not cost the other labels
            return f"{geometry.formula}: {type(exc).__name__}: {exc}"
        Journal(self.folder).put(key, labels)
        return None
