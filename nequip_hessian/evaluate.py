"""Several models against one store: predictions, minima, paths; then figures.

The slow parts are kept in `OUT/cache` as they come, so an interrupted evaluation goes on where it was; a
changed model or store starts afresh. The report is made from the returned `Evaluation`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from nequip_hessian import __version__
from nequip_hessian.analysis.accuracy import geometry_errors, is_stationary
from nequip_hessian.analysis.cache import Cache, file_checksum, file_name
from nequip_hessian.analysis.consistency import STEP, consistency_error
from nequip_hessian.analysis.parity import parity, reference_path
from nequip_hessian.analysis.path import IMAGES, NEB_STEPS, NEB_TOLERANCE, ReactionPath, reaction_path
from nequip_hessian.analysis.prediction import Prediction, atoms_of, masses_of, predict, refuse_unknown_elements
from nequip_hessian.analysis.reactions import reaction_errors
from nequip_hessian.analysis.relaxed import RelaxedMinimum, can_relax, relaxed_errors, relaxed_minimum
from nequip_hessian.analysis.results import Evaluation, Geometry, ModelResult
from nequip_hessian.analysis.selection import complete_reactions, select
from nequip_hessian.analysis.summary import apply_shift
from nequip_hessian.analysis.vibrations import IMAGINARY_THRESHOLD
from nequip_hessian.errors import ConfigError, HessianDataError, HessianDataWarning
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, Reaction

BATCH: Final = 16
"""Geometries that are predicted and kept together."""

PROBED: Final = 3
"""Geometries whose Hessian is held against differences of the model's own forces."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model under test: any ASE calculator with `get_hessian` (see `analysis.prediction`)."""

    name: str
    calculator: Any
    path: str | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Options:
    """What to do besides energies, forces and Hessians at the reference geometries.

    Attributes:
        split: `scheme:part` each, see `analysis.selection.select`
        limit: at most so many geometries
        masses: `standard`, `isotopic` or `source`
        neb: run a NEB for each reaction; relax: relax the minima with each model
        images: images of a NEB with both ends
        neb_steps: optimiser steps after which a NEB counts as failed, see `analysis.path.reaction_path`
    """

    split: tuple[str, ...] = ()
    limit: int | None = None
    masses: str = "standard"
    neb: bool = True
    relax: bool = True
    images: int = IMAGES
    neb_steps: int = NEB_STEPS


def load_models(entries: Sequence[str], device: str = "cpu") -> list[Model]:
    """Load models from files.

    Args:
        entries: `path` or `name=path`; the name is the file's, with folders before it where two agree
        device: `cpu` or `cuda`

    Raises:
        ConfigError: a file that is no model, or two models of one name.
    """
    from nequip_hessian.calculator import HessianCalculator

    pairs = [entry.split("=", 1) if "=" in entry else ["", entry] for entry in entries]
    names = _distinct_names([(name, Path(path)) for name, path in pairs])
    models = []
    for name, (_, path) in zip(names, pairs, strict=True):
        calculator = HessianCalculator.from_file(path, device=device)
        models.append(Model(name, calculator, path, file_checksum(Path(path))))
    return models


def _stem(path: Path) -> str:
    name = path.name
    for ending in (".nequip.zip", ".nequip.pt2", ".nequip.pth", ".ckpt"):
        name = name.removesuffix(ending)
    return name


def _distinct_names(pairs: Sequence[tuple[str, Path]]) -> list[str]:
    names = [name or _stem(path) for name, path in pairs]
    for depth in range(1, 8):
        doubled = {name for name in names if names.count(name) > 1}
        for i, (given, path) in enumerate(pairs):
            if names[i] in doubled and not given:
                parents = [part for part in path.resolve().parent.parts[-depth:] if part != "/"]
                names[i] = "/".join([*parents, _stem(path)])
    if len(set(names)) != len(names):
        raise ConfigError(f"models: two have the same name: {', '.join(names)}; name them: first=PATH second=PATH")
    return names


def evaluate(
    models: Sequence[Model],
    store: HessianStore,
    out: Path,
    options: Options | None = None,
    *,
    progress: bool | None = None,
) -> Evaluation:
    """Evaluate models on labelled geometries.

    Args:
        models: one or more; the first is the baseline of comparisons
        store: labelled geometries
        out: folder for `cache/`
        options: what to do; None: everything with the defaults
        progress: show bars; None: only on a terminal

    Returns:
        The results; `nequip_hessian.report.write_report` makes the files from them.

    Raises:
        ConfigError: an empty selection, an element a model has not seen, two models of one name.
        StoreError: a reference that cannot be read.
    """
    options = options or Options()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"output {out}: expected a folder, found a file; name another place with -o")
    if not models or len({model.name for model in models}) != len(models):
        raise ConfigError(f"models: expected one or more of different names, found {[m.name for m in models]}")
    if options.neb_steps < 1:
        raise ConfigError(f"neb-steps: expected 1 or more, found {options.neb_steps}")
    if options.images < 4:
        raise ConfigError(f"images: expected 4 or more with both ends, found {options.images}")
    indices, parts, notes = select(store, options.split, options.limit)
    reactions = complete_reactions(store, indices) if store.reactions() else []
    if not reactions:
        notes.append("no reaction with reactant and product lies completely in what was evaluated: no barriers, no NEB")
    offsets = store.atom_offset
    numbers = np.unique(np.concatenate([store.number[offsets[i] : offsets[i + 1]] for i in indices]))
    for model in models:
        refuse_unknown_elements(model.calculator, numbers.tolist(), model.name)
    if not bool(store.has_hessian[indices].any()):
        notes.append("no evaluated geometry has a Hessian: no Hessian and frequency figures")
    checksum = file_checksum(store.path)
    run = _Run(store, indices, options, reactions, checksum, out, None if progress is None else not progress)
    return Evaluation(
        store=str(store.path),
        store_checksum=checksum,
        attributes=store.attributes,
        settings=_settings(options),
        geometries=[_geometry(store[i], i, part) for i, part in zip(indices, parts, strict=True)],
        models=[run.model(model) for model in models],
        references=[reference_path(_name(r), *run.members(r)) for r in reactions],
        notes=notes,
    )


def _settings(options: Options) -> dict[str, Any]:
    return {
        "split": list(options.split),
        "limit": options.limit,
        "masses": options.masses,
        "imaginary_threshold_cm": IMAGINARY_THRESHOLD,
        "relax": options.relax,
        "neb": options.neb,
        "neb_images": options.images,
        "neb_force_tolerance_eV_per_angstrom": NEB_TOLERANCE,
        "neb_steps": options.neb_steps,
        "consistency_step_angstrom": STEP,
    }


def _geometry(record: LabelledGeometry, index: int, part: str | None) -> Geometry:
    return Geometry(
        index,
        record.label,
        record.formula,
        len(record),
        record.kind,
        record.group,
        part,
        record.hessian is not None,
        is_stationary(record),
    )


def _name(reaction: Reaction) -> str:
    return reaction.label or f"reaction {reaction.group}"


@dataclass(frozen=True, eq=False)
class _Run:
    """One evaluation under way: what all models share."""

    store: HessianStore
    indices: list[int]
    options: Options
    reactions: list[Reaction]
    checksum: str
    out: Path
    quiet: bool | None

    def bar(self, items: Iterable[Any], model: Model, what: str) -> Any:
        return tqdm(items, desc=f"{model.name}: {what}", disable=self.quiet, leave=False, dynamic_ncols=True)

    def masses(self, record: LabelledGeometry) -> Any:
        return masses_of(record.numbers, self.options.masses, record.masses)

    def members(self, reaction: Reaction) -> tuple[dict[str, LabelledGeometry], list[LabelledGeometry]]:
        roles = {name: getattr(reaction, name) for name in ("reactant", "transition_state", "product")}
        named = {role: self.store[index] for role, index in roles.items() if index is not None}
        return named, [self.store[i] for i in reaction.path if i not in roles.values()]

    def model(self, model: Model) -> ModelResult:
        key = {"model": model.checksum or model.name, "store": self.checksum, "version": __version__}
        cache = Cache(self.out / "cache" / file_name(model.name), key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HessianDataWarning)  # said once, in the notes
            predictions = self.predictions(model, cache)
            minima = self.minima(model, cache) if self.options.relax else {}
            paths = self.paths(model, cache) if self.options.neb else {}
            consistency = self.consistency(model)
        records = (self.store[i] for i in self.indices)
        errors = [
            geometry_errors(r, predictions[i], self.masses(r)) for i, r in zip(self.indices, records, strict=True)
        ]
        errors = apply_shift(errors, [self.store[i].numbers for i in self.indices])
        result = ModelResult(model.name, model.path, model.checksum, errors, consistency=consistency)
        result.relaxed = {
            i: relaxed_errors(self.store[i], minimum, self.masses(self.store[i])) for i, minimum in minima.items()
        }
        result.paths = paths
        for reaction in self.reactions:
            named, points = self.members(reaction)
            answers = {role: predictions[getattr(reaction, role)] for role in named}
            result.reactions.append(
                reaction_errors(_name(reaction), named, points, answers, paths.get(_name(reaction)))
            )
        result.parity = parity(
            [self.store[i] for i in self.indices], [predictions[i] for i in self.indices], self.options.masses
        )
        if getattr(model.calculator, "compiled", False):
            result.notes.append("compiled model: its Hessians are central differences of its forces")
        return result

    def predictions(self, model: Model, cache: Cache) -> dict[int, Prediction]:
        done = cache.predictions()
        missing = [i for i in self.indices if i not in done]
        batches = [missing[k : k + BATCH] for k in range(0, len(missing), BATCH)]
        for batch in self.bar(batches, model, f"energies, forces, Hessians (batches of {BATCH})"):
            found = predict(model.calculator, self.store[batch])
            cache.put_predictions(batch, found)
            done |= dict(zip(batch, found, strict=True))
        return done

    def minima(self, model: Model, cache: Cache) -> dict[int, RelaxedMinimum]:
        found = {}
        wanted = [i for i in self.indices if self.store.has_hessian[i] and can_relax(self.store[i])]
        for index in self.bar(wanted, model, "minima"):
            minimum = cache.minimum(index)
            if minimum is None:
                minimum = relaxed_minimum(self.store[index], model.calculator)
                cache.put_minimum(index, minimum)
            found[index] = minimum
        return found

    def paths(self, model: Model, cache: Cache) -> dict[str, ReactionPath]:
        found = {}
        for reaction in self.bar(self.reactions, model, "reaction paths"):
            searched = (reaction.group, self.options.images, self.options.neb_steps)
            path = cache.path(*searched)
            if path is None:
                named, _ = self.members(reaction)
                ends = [atoms_of(named[role]) for role in ("reactant", "product")]
                images, steps = self.options.images, self.options.neb_steps
                path = reaction_path(ends[0], ends[1], model.calculator, images=images, steps=steps)
                cache.put_path(*searched, path)
            found[_name(reaction)] = path
        return found

    def consistency(self, model: Model) -> list[float]:
        candidates = [i for i in self.indices if self.store.has_hessian[i] and self.store.active(i) is None]
        candidates = [i for i in candidates if np.diff(self.store.atom_offset[i : i + 2])[0] > 1]
        if getattr(model.calculator, "compiled", False) or not candidates:
            return []
        chosen = sorted({candidates[k] for k in np.linspace(0, len(candidates) - 1, PROBED).astype(int)})
        found = []
        for index in chosen:
            try:
                found.append(consistency_error(atoms_of(self.store[index]), model.calculator))
            except HessianDataError:
                raise
            except Exception:  # a failure of the model that the predictions have already counted
                continue
        return found
