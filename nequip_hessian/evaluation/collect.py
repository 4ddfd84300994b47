"""From what is kept to the results of a model."""

from __future__ import annotations

import numpy as np

from nequip_hessian.analysis.accuracy import geometry_errors, is_stationary
from nequip_hessian.analysis.gas_errors import GasErrors, gas_errors, gibbs_barrier_errors, has_gas
from nequip_hessian.analysis.parity import parity
from nequip_hessian.analysis.prediction import Prediction
from nequip_hessian.analysis.reactions import reaction_errors
from nequip_hessian.analysis.relaxed import relaxed_errors
from nequip_hessian.analysis.results import Geometry, ModelResult
from nequip_hessian.analysis.summary import apply_shift
from nequip_hessian.evaluation.bench import ALL_TASKS, Bench, Piece
from nequip_hessian.evaluation.models import Model, hessian_note


def bench_notes(bench: Bench) -> list[str]:
    """Return what could not be evaluated, and why."""
    notes = []
    wanted = [task for task in ("neb", "saddle", "irc") if bench.options.wants(task)]
    if not bench.reactions:
        missing = f"no barriers{''.join(f', no {task}' for task in wanted)}"
        notes.append(f"no reaction with reactant and product lies completely in what was evaluated: {missing}")
    if wanted and (periodic := len(bench.reactions) - len(bench.free)):
        notes.append(f"reactions in periodic cells, {periodic}: no {', no '.join(wanted)} of them")
    searched = [task for task in wanted if task != "neb"]
    if searched and (without := len(bench.free) - len(bench.with_saddle)):
        notes.append(f"reactions without a labelled transition state, {without}: no {', no '.join(searched)} of them")
    if not bool(bench.store.has_hessian[bench.indices].any()):
        notes.append("no evaluated geometry has a Hessian: no Hessian and frequency figures")
    return notes


def geometry_row(bench: Bench, index: int, part: str | None, distance: float | None) -> Geometry:
    """Return what the report says of one geometry; distance: from the nearest stationary one, angstrom."""
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


def model_result(bench: Bench, model: Model, lost: dict[Piece, str]) -> ModelResult:
    """Return everything one model got, from what is kept; lost: pieces whose worker died, and why."""
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
    result.consistency, failures = found.get("consistency", ([], []))
    result.notes += failures
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
