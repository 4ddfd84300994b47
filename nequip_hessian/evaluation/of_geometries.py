"""The questions about single geometries: predictions, consistency, minima, molecular dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nequip_hessian.analysis.cache import Cache
from nequip_hessian.analysis.connectivity import bonds, fragments
from nequip_hessian.analysis.consistency import consistency_error
from nequip_hessian.analysis.md import Dynamics, RampState, run_dynamics
from nequip_hessian.analysis.prediction import Prediction, atoms_of, predict, unknown_elements
from nequip_hessian.analysis.relaxed import RelaxedMinimum, can_relax, relaxed_minimum
from nequip_hessian.errors import MissingExtraError, reason_of
from nequip_hessian.evaluation.task import Key, digest

if TYPE_CHECKING:
    from nequip_hessian.evaluation.bench import Bench

BATCH: Final = 16
"""Geometries that are predicted and kept together."""

PROBED: Final = 3
"""Geometries whose Hessian is held against differences of the model's own forces."""


class Predictions:
    """Energies, forces and Hessians at the reference geometries; a key is a batch."""

    name = "accuracy"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Batches of geometries."""
        done = cache.predictions()
        left = [i for i in bench.indices if i not in done]
        return [tuple(left[k : k + BATCH]) for k in range(0, len(left), BATCH)]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Predict one batch; elements the model has not seen are failures."""
        records = bench.store[list(key)]
        reasons = [unknown_elements(calculator, record.numbers.tolist()) for record in records]
        known = [record for record, reason in zip(records, reasons, strict=True) if reason is None]
        answers = iter(predict(calculator, known) if known else [])
        found = [next(answers) if reason is None else Prediction(failure=reason) for reason in reasons]
        cache.put_predictions(key, found)

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> dict[int, Prediction]:
        """By geometry index."""
        gone = {index: Prediction(failure=reason) for key, reason in lost.items() for index in key}
        return gone | cache.predictions()


class Consistency:
    """The Hessian against differences of the model's own forces."""

    name = "consistency"

    def _chosen(self, bench: Bench) -> list[int]:
        store = bench.store
        fit = [i for i in bench.indices if store.has_hessian[i] and store.active(i) is None]
        fit = [i for i in fit if np.diff(store.atom_offset[i : i + 2])[0] > 1]
        return sorted({fit[k] for k in np.linspace(0, len(fit) - 1, PROBED).astype(int)}) if fit else []

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Up to PROBED geometries, evenly spread."""
        return [(i,) for i in self._chosen(bench) if cache.json(f"consistency-{i}") is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Take the differences at one geometry; of a compiled model without products they are its Hessian."""
        value, failure = None, None
        record = bench.store[key[0]]
        if getattr(calculator, "products", True):
            failure = unknown_elements(calculator, record.numbers.tolist())
            try:
                value = None if failure else consistency_error(atoms_of(record), calculator)
            except MissingExtraError:
                raise
            except Exception as exc:  # whatever a model raises is that model's failure
                failure = reason_of(exc)
        cache.put_json(f"consistency-{key[0]}", {"value": value, "failure": failure})

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> tuple[list[float], list[str]]:
        """The errors that there are, and a sentence for each geometry that should have one."""
        values, failures = [], []
        for index in self._chosen(bench):
            kept = cache.json(f"consistency-{index}") or {"value": None, "failure": lost.get((index,), "not done")}
            if kept["value"] is not None:
                values.append(kept["value"])
            elif kept.get("failure"):
                failures.append(f"consistency of geometry {index}: {kept['failure']}")
        return values, failures


class Minima:
    """The models' own minima."""

    name = "minima"

    def _wanted(self, bench: Bench) -> list[int]:
        return [i for i in bench.indices if bench.store.has_hessian[i] and can_relax(bench.store[i])]

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Reference minima with a Hessian."""
        return [(i,) for i in self._wanted(bench) if cache.minimum(i) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Minimise one."""
        record = bench.store[key[0]]
        reason = unknown_elements(calculator, record.numbers.tolist())
        failed = RelaxedMinimum(np.asarray(record.positions), np.zeros((0, 0)), 0, reason)
        cache.put_minimum(key[0], failed if reason else relaxed_minimum(record, calculator))

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> dict[int, RelaxedMinimum]:
        """By geometry index."""
        found = {}
        for index in self._wanted(bench):
            kept = cache.minimum(index)
            reason = lost.get((index,), "not done")
            found[index] = kept or RelaxedMinimum(np.zeros((0, 3)), np.zeros((0, 0)), 0, reason)
        return found


class Ramps:
    """Molecular dynamics of some minima; a temperature that is over is not run again."""

    name = "md"

    def _chosen(self, bench: Bench) -> list[int]:
        store, fit = bench.store, []
        for index in bench.indices:
            record = store[index]
            free = not np.any(record.pbc) and record.active is None and len(record) > 1
            if free and record.kind == "minimum":
                bonded = bonds(record.numbers, np.asarray(record.positions))
                fit += [index] if len(fragments(bonded)) == 1 else []
        count = min(bench.options.molecules, len(fit))
        return [fit[k] for k in np.linspace(0, len(fit) - 1, count).round().astype(int)] if fit else []

    def _file(self, bench: Bench, index: int) -> str:
        return f"md-{index}-{digest(asdict(bench.options.ramp))}"

    def missing(self, bench: Bench, cache: Cache) -> list[Key]:
        """Minima of one molecule each, evenly spread."""
        return [(i,) for i in self._chosen(bench) if cache.json(self._file(bench, i)) is None]

    def work(self, bench: Bench, cache: Cache, calculator: Any, key: Key) -> None:
        """Run one molecule."""
        record, file = bench.store[key[0]], self._file(bench, key[0])
        label = record.label or f"geometry {key[0]}"
        if reason := unknown_elements(calculator, record.numbers.tolist()):
            found = Dynamics(label, record.formula, len(record), failure=reason)
        else:
            atoms = atoms_of(record)
            atoms.set_masses(bench.masses(record))
            kept = cache.json(f"{file}-state")
            state = None if kept is None else RampState(**kept)
            found = run_dynamics(
                atoms,
                calculator,
                bench.options.ramp,
                label=label,
                state=state,
                on_stage=lambda now: cache.put_json(f"{file}-state", asdict(now)),
            )
        cache.put_json(file, asdict(found))

    def collect(self, bench: Bench, cache: Cache, lost: Mapping[Key, str]) -> list[Dynamics]:
        """One a molecule."""
        found = []
        for index in self._chosen(bench):
            kept, record = cache.json(self._file(bench, index)), bench.store[index]
            failed = Dynamics(
                record.label or f"geometry {index}",
                record.formula,
                len(record),
                failure=lost.get((index,), "not done"),
            )
            found.append(failed if kept is None else Dynamics(**kept))
        return found
