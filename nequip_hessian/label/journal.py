"""The journal of a labelling run: one small file a label, beside the store to be.

An entry is named by the sha256 of everything that decides its content:
geometry, charge, multiplicity, engine settings and versions, and whether a
Hessian was asked for. So it stays right when files are added, reordered or
renamed, and a change of settings never takes an old label for a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nequip_hessian.label.engine import Engine, Labels
from nequip_hessian.record import LabelledGeometry


def fingerprint(geometry: LabelledGeometry, engine: Engine, hessian: bool) -> str:
    """Return the sha256 (hexadecimal) that names the label of this geometry."""
    settings = {
        "engine": type(engine).__name__,
        "settings": asdict(engine),  # type: ignore[call-overload]
        "level": engine.level(hessian).as_dict(),
        "state": [geometry.charge, geometry.multiplicity],
        "hessian": hessian,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
    for array in (geometry.numbers, geometry.positions, geometry.cell, geometry.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


class Journal:
    """A folder of finished labels.

    Args:
        folder: made when the first label is put in
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def get(self, key: str) -> Labels | None:
        """Return a finished label, or None where there is none or its file is damaged."""
        try:
            with np.load(self._path(key), allow_pickle=False) as entry:
                content: dict[str, Any] = {name: entry[name] for name in entry.files}
            return Labels(float(content["energy"]), content["forces"], content.get("hessian"))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def failure(self, key: str) -> str | None:
        """Return why a label could not be made, or None where that is not known."""
        try:
            return (self.folder / f"{key}.failed").read_text(encoding="utf-8")
        except OSError:
            return None

    def fail(self, key: str, reason: str) -> None:
        """Note why a label could not be made, for who writes the store."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f"{key}.{platform.node()}.{os.getpid()}.part"
        aside.write_text(reason, encoding="utf-8")
        aside.replace(self.folder / f"{key}.failed")

    def put(self, key: str, labels: Labels) -> None:
        """Put a label in, whole or not at all: written aside, then renamed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"energy": np.float64(labels.energy), "forces": labels.forces}
        if labels.hessian is not None:
            arrays["hessian"] = labels.hessian
        aside = self.folder / f"{key}.{platform.node()}.{os.getpid()}.part"
        with aside.open("wb") as file:
            np.savez(file, **arrays)
        aside.replace(self._path(key))

    def remove(self) -> None:
        """Remove what was put in, and the folder if nothing else is in it."""
        for pattern in ("*.npz", "*.failed", "*.part"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @property
    def empty(self) -> bool:
        """Whether there is no finished label in it."""
        return next(self.folder.glob("*.npz"), None) is None
