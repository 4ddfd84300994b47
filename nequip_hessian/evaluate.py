"""Several models against one store: the chosen tasks, then figures.

The slow parts are kept in `OUT/cache` as they come, so an interrupted evaluation goes on where it was; a
changed model or store starts afresh. The report is made from the returned `Evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nequip_hessian.analysis.accuracy import geometry_errors, is_stationary
from nequip_hessian.analysis.cache import file_checksum
from nequip_hessian.analysis.gas_errors import GasErrors, gas_errors, gibbs_barrier_errors, has_gas
from nequip_hessian.analysis.neighbours import stationary_distances
from nequip_hessian.analysis.parity import parity, reference_path
from nequip_hessian.analysis.prediction import Prediction, refuse_unknown_elements
from nequip_hessian.analysis.reactions import reaction_errors
from nequip_hessian.analysis.relaxed import relaxed_errors
from nequip_hessian.analysis.results import Evaluation, Geometry, ModelResult
from nequip_hessian.analysis.saddle import require_sella
from nequip_hessian.analysis.selection import complete_reactions, select
from nequip_hessian.analysis.summary import apply_shift
from nequip_hessian.errors import ConfigError
from nequip_hessian.evaluate_bench import Bench, Piece, Plan, do_all
from nequip_hessian.evaluate_models import Model, hessian_note, load_models
from nequip_hessian.evaluate_options import Options
from nequip_hessian.evaluate_tasks import ALL_TASKS
from nequip_hessian.store import HessianStore

__all__ = ["Evaluation", "Model", "Options", "evaluate", "load_models"]


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
        options: what to do; None: the default tasks
        progress: show bars; None: only on a terminal

    Returns:
        The results; `nequip_hessian.report.write_report` makes the files from them.

    Raises:
        ConfigError: an empty selection, a model that knows the elements of no geometry, two models of one name.
        MissingExtraError: a task needs a package that is not installed.
        StoreError: a reference that cannot be read.
    """
    options = options or Options()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"output {out}: expected a folder, found a file; name another place with -o")
    if not models or len({model.name for model in models}) != len(models):
        raise ConfigError(f"models: expected one or more of different names, found {[m.name for m in models]}")
    if options.wants("saddle") or options.wants("irc"):
        require_sella()
    indices, parts, notes = select(store, options.split, options.limit, options.reactions)
    reactions = complete_reactions(store, indices, options.reactions) if store.reactions() else []
    offsets = store.atom_offset
    numbers = [store.number[offsets[i] : offsets[i + 1]].tolist() for i in indices]
    for model in models:
        refuse_unknown_elements(model.calculator, numbers, model.name)
    plan = Plan(
        Path(store.path).resolve(),
        file_checksum(Path(store.path)),
        indices,
        reactions,
        options,
        out,
        {model.name: model.identity for model in models},
        {model.name: model.source for model in models},
    )
    bench = Bench(plan, {model.name: model.calculator for model in models})
    lost = do_all(bench, list(models), None if progress is None else not progress)
    distances = stationary_distances(store, indices)
    return Evaluation(
        store=str(store.path),
        store_checksum=plan.checksum,
        attributes=store.attributes,
        settings=options.settings(),
        geometries=[_geometry(bench, *row) for row in zip(indices, parts, distances, strict=True)],
        models=[_result(bench, model, lost) for model in models],
        references=[reference_path(bench.name(r), *bench.members(r)) for r in reactions],
        notes=notes + _notes(bench),
    )


def _notes(bench: Bench) -> list[str]:
    notes = []
    wanted = [task for task in ("neb", "saddle", "irc") if bench.options.wants(task)]
    if not bench.reactions:
        missing = f"no barriers{''.join(f', no {task}' for task in wanted)}"
        notes.append(f"no reaction with reactant and product lies completely in what was evaluated: {missing}")
    elif len(bench.with_saddle) < len(bench.reactions) and {"saddle", "irc"} & set(wanted):
        without = len(bench.reactions) - len(bench.with_saddle)
        notes.append(f"{without} reactions have no labelled transition state: no saddle, no irc of them")
    if not bool(bench.store.has_hessian[bench.indices].any()):
        notes.append("no evaluated geometry has a Hessian: no Hessian and frequency figures")
    return notes


def _geometry(bench: Bench, index: int, part: str | None, distance: float | None) -> Geometry:
    record = bench.store[index]
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
        distance,
    )


def _result(bench: Bench, model: Model, lost: dict[Piece, str]) -> ModelResult:
    """Everything one model got, from what is kept."""
    found = {}
    for task in ALL_TASKS:
        gone = {p.key: reason for p, reason in lost.items() if (p.model, p.task) == (model.name, task.name)}
        if bench.options.wants(task.name):
            found[task.name] = task.collect(bench, bench.cache(model.name), gone)
    predictions: dict[int, Prediction] = found["accuracy"]
    store, indices = bench.store, bench.indices
    errors = [geometry_errors(store[i], predictions[i], bench.masses(store[i])) for i in indices]
    errors = apply_shift(errors, [np.asarray(store[i].numbers) for i in indices])
    result = ModelResult(model.name, model.path, model.checksum, errors)
    result.consistency = found.get("consistency", [])
    result.relaxed = {
        i: relaxed_errors(store[i], minimum, bench.masses(store[i])) for i, minimum in found.get("minima", {}).items()
    }
    result.paths = found.get("neb", {})
    result.saddles, result.ircs = found.get("saddle", []), found.get("irc", [])
    result.dynamics = found.get("md", [])
    for reaction in bench.reactions:
        named, points = bench.members(reaction)
        answers = {role: predictions[getattr(reaction, role)] for role in named}
        name = bench.name(reaction)
        result.reactions.append(reaction_errors(name, named, points, answers, result.paths.get(name)))
    if bench.options.wants("thermochemistry"):
        _gases(bench, result, predictions)
    result.parity = parity([store[i] for i in indices], [predictions[i] for i in indices], bench.options.masses)
    if (note := hessian_note(model.calculator)) is not None:
        result.notes.append(note)
    return result


def _gases(bench: Bench, result: ModelResult, predictions: dict[int, Prediction]) -> None:
    """Thermochemistry at the reference geometries, and of the barriers between them."""
    for index in bench.indices:
        record = bench.store[index]
        if has_gas(record):
            result.gases[index] = gas_errors(record, predictions[index], bench.masses(record))
    for reaction, error in zip(bench.reactions, result.reactions, strict=True):
        roles = {name: getattr(reaction, name) for name in ("reactant", "transition_state", "product")}
        gases: dict[str, GasErrors] = {role: result.gases[i] for role, i in roles.items() if i in result.gases}
        result.gibbs_barriers[error.name] = gibbs_barrier_errors((error.single_forward, error.single_reverse), gases)
