"""The stores of the experiment, made from datasets/reactions-xtb.

all.zarr     the data set in the profile `local`: the shipped one is compressed, which would starve the training.
train.zarr   training and validation reactions of the split `reaction`. Off-equilibrium points keep energies and forces
             and lose their Hessians, so that both training sets of every table hold the same Hessians: those of the
             stationary points. Schemes `stationary-N` and `mixed-N`: the first 1/N of the training reactions, without
             and with the off-equilibrium points.
test.zarr    held-out reactions: parts test (reactants, transition states, products), test_irc, test_displaced, the
             last two thinned evenly.
neb.zarr     the held-out reactions whose paths are searched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nequip_hessian.errors import StoreError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter
from nequip_hessian.store.checksum import content_checksum
from nequip_hessian.store.repack import repack

SCHEME = "reaction"
FRACTIONS = (1, 2, 4, 8, 16)
THINNED = 150  # points of test_irc and of test_displaced
NEB_REACTIONS = 20
SMALL = 150  # geometries of the comparison of one probe with the full matrix
STATIONARY = ("minimum", "transition_state")


def make_stores(source: Path, folder: Path, seed: int = 1) -> None:
    """Write the stores, where they are missing.

    Raises:
        StoreError: another data set, without the splits of this one, or a folder that was made from another one.
    """
    store = HessianStore(source)
    for scheme in (SCHEME, f"{SCHEME}_all"):
        _part(store, scheme, "train", "test")
    made_from, checksum = folder / "source.txt", content_checksum(store.attributes)
    if folder.exists() and any(folder.glob("*.zarr")):
        found = made_from.read_text().strip() if made_from.exists() else "an unknown one"
        if found != checksum:
            raise StoreError(f"{folder}: made from another data set ({found}) than {source}; name another --work")
    folder.mkdir(parents=True, exist_ok=True)
    made_from.write_text(f"{checksum}\n")
    if not (folder / "all.zarr").exists():
        repack(source, folder / "all.zarr", profile="local")
    attributes = _attributes(store)
    if not (folder / "train.zarr").exists():
        _train(store, folder / "train.zarr", attributes, seed)
    if not (folder / "test.zarr").exists():
        _test(store, folder / "test.zarr", attributes)
    reactions_store(source, folder / "neb.zarr", NEB_REACTIONS)


def _part(store: HessianStore, scheme: str, *names: str) -> list[int]:
    codes, parts = store.split(scheme)
    return np.flatnonzero(np.isin(codes, [parts.index(name) for name in names])).tolist()


def training_order(store: HessianStore, seed: int = 1) -> list[str]:
    """Training reactions in the order in which the smaller training sets take them."""
    groups = {str(store.group_label(int(store.group[i]))) for i in _part(store, f"{SCHEME}_all", "train")}
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(groups))]


def training_counts(store: HessianStore, fraction: int) -> tuple[int, int, int]:
    """Reactions, geometries and Hessians of the training set `mixed-FRACTION`."""
    order = training_order(store)
    chosen = set(order[: round(len(order) / fraction)])
    groups = [int(store.group[i]) for i in _part(store, f"{SCHEME}_all", "train")]
    stationary = [int(store.group[i]) for i in _part(store, SCHEME, "train")]
    geometries, hessians = (sum(store.group_label(g) in chosen for g in found) for found in (groups, stationary))
    return len(chosen), geometries, hessians


def _train(store: HessianStore, path: Path, attributes: dict[str, Any], seed: int) -> None:
    indices = _part(store, f"{SCHEME}_all", "train", "val")
    training = set(_part(store, f"{SCHEME}_all", "train"))
    records = [store[i] for i in indices]
    order = training_order(store, seed)
    rank = {name: place for place, name in enumerate(order)}
    with StoreWriter(path, dtype="float32", attributes=attributes) as writer:
        writer.extend(r if r.kind in STATIONARY else without_hessian(r) for r in records)
        for fraction in FRACTIONS:
            limit = round(len(order) / fraction)
            for name, kinds in (("stationary", STATIONARY), ("mixed", (*STATIONARY, "path", "displaced"))):
                codes = [_code(i in training, r, kinds, rank, limit) for i, r in zip(indices, records, strict=True)]
                writer.set_split(f"{name}-{fraction}", ["train", "val"], np.array(codes, dtype=np.int8))
        few = [_code(i in training, r, STATIONARY, rank, SMALL // 3) for i, r in zip(indices, records, strict=True)]
        writer.set_split("stationary-few", ["train", "val"], np.array(few, dtype=np.int8))


def _code(training: bool, record: LabelledGeometry, kinds: tuple[str, ...], rank: dict[str, int], limit: int) -> int:
    if record.kind not in kinds:
        return -1
    if not training:
        return 1
    return 0 if rank[str(record.group)] < limit else -1


def without_hessian(record: LabelledGeometry) -> LabelledGeometry:
    """The same geometry with energy and forces alone."""
    return record.replace(hessian=None, asymmetry=None)


def _test(store: HessianStore, path: Path, attributes: dict[str, Any]) -> None:
    chosen, codes = [], []
    for code, part in ((0, "test"), (1, "test_irc"), (2, "test_displaced")):
        indices = _part(store, SCHEME, part)
        if code and len(indices) > THINNED:
            indices = [indices[i] for i in np.linspace(0, len(indices) - 1, THINNED).round().astype(int)]
        chosen += indices
        codes += [code + 2] * len(indices)
    with StoreWriter(path, dtype="float32", attributes=attributes) as writer:
        writer.extend(store[i] for i in chosen)
        writer.set_split("test", ["train", "val", "test", "test_irc", "test_displaced"], np.array(codes, dtype=np.int8))


def reactions_store(source: Path, path: Path, count: int) -> None:
    """Write `count` held-out reactions, evenly spread, with their paths, where that store is missing."""
    if path.exists():
        return
    store = HessianStore(source)
    held_out = set(_part(store, SCHEME, "test"))
    reactions = [r for r in store.reactions() if r.transition_state in held_out and r.reactant in held_out]
    if len(reactions) > count:
        reactions = [reactions[i] for i in np.linspace(0, len(reactions) - 1, count).round().astype(int)]
    with StoreWriter(path, dtype="float32", attributes=_attributes(store)) as writer:
        for reaction in reactions:
            members = [reaction.reactant, reaction.transition_state, reaction.product, *reaction.path]
            writer.extend(store[i] for i in dict.fromkeys(members) if i is not None)


def _attributes(store: HessianStore) -> dict[str, Any]:
    return {name: store.attributes[name] for name in ("license", "title") if store.attributes.get(name)}
