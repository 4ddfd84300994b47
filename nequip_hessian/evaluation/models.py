"""The models of an evaluation: where each comes from, what it is called, and by what its results are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nequip_hessian.errors import OptionError
from nequip_hessian.potentials import PotentialSource


@dataclass(frozen=True, eq=False)
class Model:
    """A model under test: any ASE calculator with `get_hessian` (see `analysis.prediction`).

    Attributes:
        name: what tables call it
        calculator: the calculator
        path: the file or the name it was made from; checksum: sha256 of the file
        source: how to make it again; needed where other processes are to work with it
    """

    name: str
    calculator: Any
    path: str | None = None
    checksum: str | None = None
    source: PotentialSource | None = None

    @property
    def identity(self) -> str:
        """What kept results of it belong to."""
        return self.checksum or (self.source.identity if self.source else self.name)


def load_models(
    entries: Sequence[str], device: str = "cpu", options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Model]:
    """Make the models that a command line names.

    Args:
        entries: `MODEL` or `NAME=MODEL`, MODEL as in `nequip_hessian.potentials.load_potential`; the name is the
            file's, with folders before it where two agree
        device: `cpu` or `cuda`, for NequIP files
        options: keyword arguments by name of the model, for `ase:...` and tblite

    Raises:
        ConfigError: an empty name, a file that is no model, two models of one name, options for a model that is not
            there.
        EngineError, MissingExtraError: as `load_potential`.
    """
    pairs = [_split(entry) for entry in entries]
    names = distinct_names(pairs)
    given = dict(options or {})
    models = []
    for name, (_, text) in zip(names, pairs, strict=True):
        source = PotentialSource(text, device, given.pop(name, {}))
        calculator = source.load()
        models.append(Model(name, calculator, text, None if source.foreign else source.identity, source))
    if given:
        raise OptionError(f"options for {', '.join(given)}: no model of that name; there are {', '.join(names)}")
    return models


def model_text(entry: str) -> str:
    """What `MODEL` or `NAME=MODEL` names, without the name."""
    return _split(entry)[1]


def _split(entry: str) -> tuple[str, str]:
    name, equals, text = entry.partition("=")
    if (equals and not name.strip()) or not (text if equals else name).strip():
        raise OptionError(f"model {entry!r}: expected MODEL or NAME=MODEL, found nothing in place of one of them")
    return (name, text) if equals else ("", entry)


def _stem(text: str) -> str:
    if text.startswith(("tblite", "ase:")):
        return text.partition(":")[2] or "GFN2-xTB"
    name = Path(text).name
    for ending in (".nequip.zip", ".nequip.pt2", ".nequip.pth", ".ckpt"):
        name = name.removesuffix(ending)
    return name


def distinct_names(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names of models given as (name or nothing, what it is made from).

    Raises:
        ConfigError: two have the same name, folders and all.
    """
    names = [name or _stem(text) for name, text in pairs]
    for depth in range(1, 8):
        doubled = {name for name in names if names.count(name) > 1}
        for i, (given, text) in enumerate(pairs):
            if names[i] in doubled and not given:
                parents = [part for part in Path(text).resolve().parent.parts[-depth:] if part != "/"]
                names[i] = "/".join([*parents, _stem(text)])
    if len(set(names)) != len(names):
        raise OptionError(f"models: two have the same name: {', '.join(names)}; name them: first=PATH second=PATH")
    return names


def hessian_note(calculator: Any) -> str | None:
    """What a reader has to know of where a model's Hessians come from; None where they are its own, exact ones."""
    if not getattr(calculator, "products", True):
        return "compiled model without Hessian products: its Hessians are central differences of its forces"
    inner = getattr(calculator, "inner", None)
    if inner is None:
        return None
    if hasattr(inner, "get_hessian"):
        return "its Hessians are those of the calculator's own get_hessian"
    return f"its Hessians are central differences of its forces, steps of {calculator.displacement:g} Å"
