"""Whether a model and the data section belong together: both run without a word where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict

from nequip_hessian.errors import ConfigError
from nequip_hessian.store import HessianStore

UNKNOWN_CHARGE: Final = -32768
UNKNOWN_MULTIPLICITY: Final = 0

Indices = npt.NDArray[np.int64]
Transforms = Iterable[Mapping[str, Any]]


def check_transforms(type_names: Sequence[str], r_max: float, pruned: bool, transforms: Transforms) -> None:
    """Hold a model against the transforms that make its input.

    Args:
        type_names: those of the model, in its order
        r_max: cutoff of the model, angstrom
        pruned: whether the model has cutoffs by pairs of types
        transforms: entries of the data section; others than the type mapper and the neighbour list pass

    Raises:
        ConfigError: types of another order, a cutoff below the model's, pruned pairs the model counts on.
    """
    for entry in transforms:
        kind = _kind(entry)
        if kind.endswith("ChemicalSpeciesToAtomTypeMapper"):
            _check_types(list(type_names), [str(name) for name in entry.get("model_type_names") or []])
        elif kind.endswith("NeighborListTransform"):
            _check_cutoff(r_max, pruned, entry)


def _check_types(model: list[str], data: list[str]) -> None:
    if data != model[: len(data)]:
        raise ConfigError(
            f"ChemicalSpeciesToAtomTypeMapper: model_type_names are {', '.join(data)}, but the model's types are "
            f"{', '.join(model)}, in this order: its elements would be mixed up. Give the data section "
            f"model_type_names: [{', '.join(model)}] (in our configurations: chemical_symbols)"
        )


def _check_cutoff(r_max: float, pruned: bool, entry: Mapping[str, Any]) -> None:
    found = float(entry.get("r_max") or 0.0)
    if found < r_max * (1 - 1e-6):
        raise ConfigError(
            f"NeighborListTransform: r_max is {found:g} angstrom, but the model's is {r_max:g}: neighbours would "
            f"be missing. Give the data section r_max: {r_max:g} (in our configurations: cutoff_radius)"
        )
    if entry.get("per_edge_type_cutoff") is not None and not pruned:
        raise ConfigError(
            "NeighborListTransform: per_edge_type_cutoff takes pairs away that the model, which has no such cutoffs, "
            "counts on; leave it out of the data section"
        )


def check_charges(store: HessianStore, indices: Indices, inputs: Iterable[str]) -> None:
    """Refuse several charges or multiplicities that a model does not embed.

    Args:
        store: the store
        indices: (G,) geometries that are used
        inputs: names of the model's input fields

    Raises:
        ConfigError: it names the field, the values and what to add to the model.
    """
    known = set(inputs)
    for name, field, values in (
        ("charges", AtomicDataDict.TOTAL_CHARGE_KEY, charges(store, indices)),
        ("multiplicities", AtomicDataDict.TOTAL_SPIN_KEY, multiplicities(store, indices)),
    ):
        if len(values) > 1 and field not in known:
            raise ConfigError(
                f"charge_and_spin: the data mix the {name} {values}, but the model does not embed `{field}`, so it "
                f"cannot tell them apart; add {{field: {field}, num_features: 4, min: {min(values)}, "
                f"max: {max(values)}}} to categorical_graph_field_embed of the model, or train on one of them"
            )


def charges(store: HessianStore, indices: Indices) -> list[int]:
    """Return the known charges of some geometries (G,), e, ascending."""
    return _values(store.charge, indices, UNKNOWN_CHARGE)


def multiplicities(store: HessianStore, indices: Indices) -> list[int]:
    """Return the known multiplicities of some geometries (G,), ascending."""
    return _values(store.multiplicity, indices, UNKNOWN_MULTIPLICITY)


def _values(values: Any, indices: Indices, unknown: int) -> list[int]:
    if values is None:
        return []
    found = np.unique(np.asarray(values)[indices])
    return [int(value) for value in found if value != unknown]


def check_elements(store: HessianStore, indices: Indices, part: str, transforms: Transforms) -> None:
    """Refuse elements that the type mapper among the transforms lacks; without one nothing is checked.

    Args:
        store: the store
        indices: (G,) geometries of the part
        part: name of the part, for the message
        transforms: entries of the data section

    Raises:
        ConfigError: it names the elements and a geometry for each.
    """
    names = mapped_types(transforms)
    if not names:
        return
    numbers = np.asarray(store.number)
    chosen = np.zeros(len(store), dtype=bool)
    chosen[indices] = True
    owner = np.repeat(np.arange(len(store)), np.diff(store.atom_offset))
    missing = []
    for number in np.unique(numbers[chosen[owner]]).tolist():
        if chemical_symbols[number] not in names:
            rows = np.unique(owner[(numbers == number) & chosen[owner]])
            missing.append(f"{chemical_symbols[number]} (in {len(rows)} of {len(indices)}, first geometry {rows[0]})")
    if missing:
        raise ConfigError(
            f"{store.path}: part {part!r} has elements that ChemicalSpeciesToAtomTypeMapper lacks: "
            f"{', '.join(missing)}; it knows {', '.join(names)}. Add them to the types of model and data "
            "(in our configurations: chemical_symbols), or leave these geometries out of the split"
        )


def mapped_types(transforms: Transforms) -> dict[str, str]:
    """Chemical symbol -> type name, as the type mapper among the transforms has it; empty without one."""
    for entry in transforms:
        if _kind(entry).endswith("ChemicalSpeciesToAtomTypeMapper"):
            names = entry["model_type_names"]
            return dict(entry.get("chemical_species_to_atom_type_map") or {name: name for name in names})
    return {}


def _kind(entry: Any) -> str:
    return str(entry.get("_target_", "")) if isinstance(entry, Mapping) else ""
