"""Engines for tests of the pool: real ones wrapped so that calls are counted, fail or kill their process."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from nequip_hessian.errors import EngineError
from nequip_hessian.label.engine import Labels
from nequip_hessian.label.tblite import TbliteEngine
from nequip_hessian.record import LabelledGeometry, LevelOfTheory


@dataclass(frozen=True)
class Counting:
    """GFN2-xTB that writes a line to `folder/calls` for each calculation, and does what files there tell.

    `folder/fail-<formula>` makes that molecule fail, `folder/die-<formula>` ends the process,
    `folder/slow` makes each calculation take 0.3 s longer.
    """

    folder: str

    def level(self, hessian: bool) -> LevelOfTheory:
        return TbliteEngine().level(hessian)

    def check(self, geometry: LabelledGeometry) -> None:
        TbliteEngine().check(geometry)

    def calculate(self, geometry: LabelledGeometry, hessian: bool) -> Labels:
        folder = Path(self.folder)
        with (folder / "calls").open("a") as file:
            file.write(f"{geometry.formula}\n")
        if (folder / f"fail-{geometry.formula}").exists():
            raise EngineError(f"{geometry.formula}: told to fail")
        if (folder / f"die-{geometry.formula}").exists():
            os._exit(9)
        if (folder / "slow").exists():
            time.sleep(0.3)
        return TbliteEngine().calculate(geometry, hessian)

    def calls(self) -> list[str]:
        path = Path(self.folder) / "calls"
        return path.read_text().split() if path.exists() else []
