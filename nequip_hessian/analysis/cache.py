"""Predictions kept on disk while an evaluation runs, so that it can be interrupted and goes on where it was.

One folder a model. Its `key.json` says which model file and which store the content belongs to; with
another key the old content is thrown away. Every file is written beside its name and then renamed, so that
what is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.analysis.answers import Answers
from nequip_hessian.analysis.path import ReactionPath
from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.relaxed import RelaxedMinimum
from nequip_hessian.curvature import pack, unpack


def file_checksum(path: Path) -> str:
    """Return the sha256 of a file, or of all names and contents below a folder, as hex digits."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def file_name(name: str) -> str:
    """Return a name that any file system takes; where characters had to go, part of its checksum makes it distinct."""
    safe = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)
    safe = safe.lstrip(".")[:100] or "_"
    return safe if safe == name.replace(" ", "_") else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _path_name(group: int, images: int, steps: int) -> str:
    return f"path-{group}-{images}-{steps}"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")


class Cache:
    """The folder of one model.

    Args:
        folder: made if it is not there
        key: JSON-able facts that make the content valid; content of another key is removed
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(dict(key), indent=1, sort_keys=True)
        marker = folder / "key.json"
        if folder.exists() and (not marker.is_file() or marker.read_text(encoding="utf-8") != text):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not marker.is_file():
            marker.write_text(text, encoding="utf-8")

    def _save(self, name: str, arrays: Mapping[str, Any]) -> None:
        unfinished = self.folder / f".{name}.{os.getpid()}.tmp"
        with unfinished.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})
        unfinished.replace(self.folder / f"{name}.npz")

    def _load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}

    def answers(self, name: str) -> Answers:
        """What a model has answered to a search of this name."""
        return Answers(self._answers_file(name))

    def _answers_file(self, name: str) -> Path:
        return self.folder / f"{name}.answers"

    def put_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep what JSON can hold; numbers come back exactly."""
        unfinished = self.folder / f".{name}.{os.getpid()}.tmp"
        unfinished.write_text(json.dumps(dict(content), default=_plain), encoding="utf-8")
        unfinished.replace(self.folder / f"{name}.json")

    def json(self, name: str) -> dict[str, Any] | None:
        """Return what `put_json` kept, None where there is nothing."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def put_predictions(self, indices: Sequence[int], predictions: Sequence[Prediction]) -> None:
        """Keep the predictions of a batch of geometries."""
        arrays: dict[str, Any] = {"index": np.asarray(indices, dtype=np.int64)}
        for index, prediction in zip(indices, predictions, strict=True):
            if prediction.failure is not None:
                arrays[f"{index}.failure"] = prediction.failure
                continue
            arrays[f"{index}.energy"] = prediction.energy
            arrays[f"{index}.forces"] = prediction.forces
            if prediction.hessian is not None:
                arrays[f"{index}.hessian"] = pack(prediction.hessian)
        self._save(f"predictions-{indices[0]}-{indices[-1]}", arrays)

    def predictions(self) -> dict[int, Prediction]:
        """Return all predictions kept so far, by geometry index."""
        found = {}
        for path in sorted(self.folder.glob("predictions-*.npz")):
            arrays = self._load(path.stem) or {}
            for index in arrays["index"].tolist():
                failure, packed = arrays.get(f"{index}.failure"), arrays.get(f"{index}.hessian")
                if failure is not None:
                    found[index] = Prediction(failure=str(failure))
                    continue
                hessian = None if packed is None else unpack(packed)
                found[index] = Prediction(float(arrays[f"{index}.energy"]), arrays[f"{index}.forces"], hessian)
        return found

    def put_minimum(self, index: int, minimum: RelaxedMinimum) -> None:
        """Keep the model's minimum near one geometry."""
        arrays = {"positions": minimum.positions, "hessian": minimum.hessian, "steps": minimum.steps}
        self._save(f"minimum-{index}", arrays | {"failure": minimum.failure or ""})

    def minimum(self, index: int) -> RelaxedMinimum | None:
        """Return the minimum near one geometry, None where it was not done yet."""
        kept = self._load(f"minimum-{index}")
        if kept is None:
            return None
        return RelaxedMinimum(kept["positions"], kept["hessian"], int(kept["steps"]), str(kept["failure"]) or None)

    def put_path(self, group: int, images: int, steps: int, path: ReactionPath) -> None:
        """Keep the path of one reaction, searched with so many images and steps."""
        arrays: dict[str, Any] = {name: getattr(path, name) for name in ("positions", "energies", "forces", "steps")}
        arrays |= {"converged": path.converged, "residual": path.residual, "guess": path.guess}
        arrays |= {"n_imaginary": -1 if path.n_imaginary is None else path.n_imaginary, "failure": path.failure or ""}
        arrays["state"] = json.dumps(dict(path.state), default=_plain)
        name = _path_name(group, images, steps)
        self._save(name, arrays)
        self._answers_file(name).unlink(missing_ok=True)  # the end is kept, so the way there need not be

    def path_answers(self, group: int, images: int, steps: int) -> Answers:
        """What a model has answered along the path of one reaction that is not done yet."""
        return self.answers(_path_name(group, images, steps))

    def path(self, group: int, images: int, steps: int) -> ReactionPath | None:
        """Return the path of one reaction with so many images and steps, None where it was not done yet."""
        kept = self._load(_path_name(group, images, steps))
        if kept is None:
            return None
        count = int(kept["n_imaginary"])
        return ReactionPath(
            kept["positions"],
            kept["energies"],
            kept["forces"],
            bool(kept["converged"]),
            int(kept["steps"]),
            float(kept["residual"]),
            str(kept["guess"]),
            None if count < 0 else count,
            str(kept["failure"]) or None,
            json.loads(str(kept["state"])) if "state" in kept else {},
        )
