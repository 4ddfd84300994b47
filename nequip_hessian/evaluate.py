"""Several models against one store: the chosen tasks, then figures.

The slow parts are kept in `OUT/cache` as they come, so an interrupted evaluation goes on where it was; a
changed model or store starts afresh. The report is made from the returned `Evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nequip_hessian.analysis.cache import file_checksum
from nequip_hessian.analysis.neighbours import stationary_distances
from nequip_hessian.analysis.parity import reference_path
from nequip_hessian.analysis.prediction import refuse_unknown_elements
from nequip_hessian.analysis.results import Evaluation
from nequip_hessian.analysis.saddle import require_sella
from nequip_hessian.analysis.selection import complete_reactions, select
from nequip_hessian.errors import ConfigError
from nequip_hessian.evaluation.bench import Bench, Plan, do_all
from nequip_hessian.evaluation.collect import bench_notes, geometry_row, model_result
from nequip_hessian.evaluation.models import Model, load_models
from nequip_hessian.evaluation.options import DEFAULT_TASKS, TASKS, Options
from nequip_hessian.outputs import claim_folder
from nequip_hessian.store import HessianStore

__all__ = ["DEFAULT_TASKS", "TASKS", "Evaluation", "Model", "Options", "evaluate", "load_models"]


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
        out: folder for `cache/`; the command `evaluate` may go on in it
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
    _refuse(models, out, options)
    indices, parts, notes = select(store, options.split, options.limit, options.reactions)
    bench = _bench(models, store, indices, out, options)
    claim_folder(out, "evaluate")
    lost = do_all(bench, list(models), None if progress is None else not progress)
    distances = stationary_distances(store, indices)
    return Evaluation(
        store=str(store.path),
        store_checksum=bench.plan.checksum,
        attributes=store.attributes,
        settings=options.settings(),
        geometries=[geometry_row(bench, *row) for row in zip(indices, parts, distances, strict=True)],
        models=[model_result(bench, model, lost) for model in models],
        references=[reference_path(bench.name(r), *bench.members(r)) for r in bench.reactions],
        notes=notes + bench_notes(bench),
    )


def _refuse(models: Sequence[Model], out: Path, options: Options) -> None:
    """Raise before anything is computed where the evaluation could not be finished."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"output {out}: expected a folder, found a file; name another place with -o")
    if not models or len({model.name for model in models}) != len(models):
        raise ConfigError(f"models: expected one or more of different names, found {[m.name for m in models]}")
    if options.wants("saddle") or options.wants("irc"):
        require_sella()


def _bench(models: Sequence[Model], store: HessianStore, indices: list[int], out: Path, options: Options) -> Bench:
    """Bring models and selection together.

    Raises:
        ConfigError: a model that knows the elements of no geometry.
    """
    offsets = store.atom_offset
    numbers = [store.number[offsets[i] : offsets[i + 1]].tolist() for i in indices]
    for model in models:
        refuse_unknown_elements(model.calculator, numbers, model.name)
    plan = Plan(
        Path(store.path).resolve(),
        file_checksum(Path(store.path)),
        indices,
        complete_reactions(store, indices, options.reactions) if store.reactions() else [],
        options,
        out,
        {model.name: model.identity for model in models},
        {model.name: model.source for model in models},
    )
    return Bench(plan, {model.name: model.calculator for model in models})
