"""NequIP's view of a Hessian store: one geometry at a time, its Hessian already turned into products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from nequip.data import AtomicDataDict, from_dict
from nequip.data.dataset import AtomicDataset

from nequip_hessian import _keys
from nequip_hessian.data.fits import UNKNOWN_CHARGE, UNKNOWN_MULTIPLICITY, charges, multiplicities
from nequip_hessian.data.settings import parse
from nequip_hessian.data.split import select
from nequip_hessian.data.transform import HessianProbes
from nequip_hessian.errors import ConfigError, HessianDataError
from nequip_hessian.store import HessianStore


class HessianDataset(AtomicDataset):
    """A part of a Hessian store as a NequIP dataset.

    Energies and forces that are missing come out as NaN. Works with any number of dataloader
    workers: each opens the store for itself.

    Args:
        store: path of the store
        split: name of a scheme in the store, or shares of the groups, e.g. {train: 0.9, val: 0.1}
        part: the part of the split to take; with `split: null` all geometries are taken
        hessian: settings of `HessianProbes` (mode, k, distribution, mass_weighted, project, probe_fraction,
            method, step, displacement, cache_mb); `null` leaves Hessians out
        fixed_probes: the same probes for the same geometry each time (validation and test)
        level: index of the level of theory to take where the store has several
        charge_and_spin: hand out `charge` and `spin` fields, for models that embed them
        seed: seed of splits by shares and of probes
        transforms: NequIP's data transforms (types, neighbour list)

    Raises:
        ConfigError: several levels, charges or multiplicities that were not asked for; empty parts.
    """

    def __init__(
        self,
        store: str,
        split: str | Mapping[str, float] | None = None,
        part: str | None = None,
        hessian: Mapping[str, Any] | None = None,
        fixed_probes: bool = False,
        level: int | None = None,
        charge_and_spin: bool = False,
        seed: int = 0,
        transforms: list[Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__(transforms=list(transforms or []))
        self.store = HessianStore(store)
        self.part = part
        self.indices = self._choose(split, part, level, seed)
        self.charge_and_spin = charge_and_spin
        if not charge_and_spin:
            self._refuse_mixed()
        counts = np.diff(self.store.atom_offset)[self.indices]
        self.max_atoms = int(counts.max())
        # A zero cell would give molecules a NaN stress, which nequip-compile's check of a model stumbles over.
        self.periodic = bool(np.asarray(self.store.pbc)[self.indices].any())
        self.probes = self._make_probes(hessian, fixed_probes, seed)
        self._label_mask = np.zeros(0, dtype=bool) if hessian is None else labelled_geometries(self.store, hessian)

    def __len__(self) -> int:
        return len(self.indices)

    def _choose(
        self, split: str | Mapping[str, float] | None, part: str | None, level: int | None, seed: int
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        if (split is None) != (part is None):
            raise ConfigError(f"dataset: give split and part together, found split = {split!r}, part = {part!r}")
        if split is None or part is None:
            indices = np.arange(len(self.store), dtype=np.int64)
        else:
            indices = select(self.store, split, part, seed)
        levels = np.asarray(self.store.level)[indices]
        if level is not None:
            indices = indices[levels == level]
            if not len(indices):
                raise ConfigError(f"level: no geometry of this part has level {level}; found {np.unique(levels)}")
        elif len(found := np.unique(levels)) > 1:
            names = "; ".join(f"{i}: {self.store.levels[i].method}/{self.store.levels[i].basis}" for i in found)
            raise ConfigError(f"level: one model learns one level of theory; choose one with `level:` ({names})")
        return indices

    def _refuse_mixed(self) -> None:
        for name, found in (
            ("charges", charges(self.store, self.indices)),
            ("multiplicities", multiplicities(self.store, self.indices)),
        ):
            if len(found) > 1:
                raise ConfigError(
                    f"{name}: this part mixes {found}, which a model without them cannot tell apart; "
                    "set charge_and_spin: true and let the model embed them (categorical_graph_field_embed)"
                )

    def _make_probes(self, hessian: Mapping[str, Any] | None, fixed: bool, seed: int) -> HessianProbes | None:
        if hessian is None:
            return None
        parse(hessian)
        labelled = float(np.mean(labelled_geometries(self.store, hessian)[self.indices]))
        if labelled == 0.0:
            what = "stored Hessian products" if hessian.get("mode") == "stored" else "a Hessian"
            advice = {
                "train": "leave the `hessian` entry out to train on energies and forces",
                "val": "set val_hessian: null in the data section to validate on energies and forces, and let "
                "val_metrics have no coefficient for Hessians (nequip.train.EnergyForceMetrics, or hessian_rmse: null)",
            }.get(self.part or "", "leave the `hessian` entry of the dataset out")
            raise ConfigError(
                f"hessian: {self.store.path}: none of the {len(self.indices)} geometries of part "
                f"{self.part or 'all'!r} has {what}; {advice}"
            )
        options = dict(hessian)
        if options.get("mode") == "stored" and options.get("k") is None:
            options["k"] = int(_stored_counts(self.store)[self.indices].max())
        if options.get("method") == "taylor" and self._partial()[self.indices].any():
            raise ConfigError(
                "hessian method `taylor`: this part has partial Hessians, which do not say how the forces on the other "
                "atoms change; take another method"
            )
        return HessianProbes(**options, max_atoms=self.max_atoms, seed=seed, fixed=fixed, labelled_fraction=labelled)

    def _partial(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(G,) whether a geometry's Hessian covers some of its atoms only."""
        offset = self.store.array("hessian/active_offset")
        return np.zeros(len(self.store), dtype=bool) if offset is None else np.diff(offset) > 0

    def _get_data_list(self, indices: list[int] | torch.Tensor | np.ndarray[Any, Any] | slice) -> list[Any]:
        if isinstance(indices, slice):
            chosen = self.indices[indices]
        else:
            chosen = self.indices[np.asarray([int(i) for i in indices], dtype=np.int64)]
        return [self._read(int(i)) for i in chosen]

    def _read(self, index: int) -> AtomicDataDict.Type:
        store = self.store
        atoms = slice(int(store.atom_offset[index]), int(store.atom_offset[index + 1]))
        data: dict[str, Any] = {
            AtomicDataDict.POSITIONS_KEY: np.array(store.position[atoms]),
            AtomicDataDict.ATOMIC_NUMBERS_KEY: np.asarray(store.number[atoms], dtype=np.int64),
            AtomicDataDict.PBC_KEY: np.array(store.pbc[index]),
            AtomicDataDict.TOTAL_ENERGY_KEY: np.array([store.energy[index]]),
            AtomicDataDict.FORCE_KEY: np.array(store.force[atoms]),
        }
        if self.periodic:
            data[AtomicDataDict.CELL_KEY] = np.array(store.cell[index])
        if self.charge_and_spin:
            data.update(self._charge_and_spin(index))
        return from_dict(data)

    def _charge_and_spin(self, index: int) -> dict[str, Any]:
        charge = None if self.store.charge is None else int(self.store.charge[index])
        multiplicity = None if self.store.multiplicity is None else int(self.store.multiplicity[index])
        if charge in (None, UNKNOWN_CHARGE) or multiplicity in (None, UNKNOWN_MULTIPLICITY):
            raise HessianDataError(f"geometry {index}: charge_and_spin was asked for, but it is unknown in the store")
        return {
            AtomicDataDict.TOTAL_CHARGE_KEY: np.array([charge]),
            AtomicDataDict.TOTAL_SPIN_KEY: np.array([multiplicity]),
        }

    def _packed(self, index: int) -> np.ndarray[Any, Any]:
        packed = self.store.packed(index)
        # A NaN here is no missing label (that has no elements at all) but a damaged or incomplete store, and the
        # loss would leave it out without a word.
        if not np.isfinite(packed).all():
            raise HessianDataError(
                f"{self.store.path}: geometry {index}: expected a finite Hessian, found NaN: the store is damaged or a "
                "chunk file of hessian/data is missing; run nequip-hessian validate on it"
            )
        return packed

    def __getitems__(self, indices: list[int] | torch.Tensor | np.ndarray[Any, Any] | slice) -> list[Any]:
        """Return the data of the given geometries, probes drawn and transforms applied."""
        if isinstance(indices, slice):
            indices = list(range(*indices.indices(len(self))))
        positions = [int(i) for i in indices]
        batch = self._get_data_list(positions)
        if self.probes is not None:
            batch = self._with_probes(self.probes, [int(self.indices[p]) for p in positions], batch)
        return [self._transform(data) for data in batch]

    def _with_probes(self, probes: HessianProbes, indices: list[int], batch: list[Any]) -> list[Any]:
        stored = probes.settings.mode == "stored"
        for index, data in zip(indices, batch, strict=True):
            data[_keys.HESSIAN_GEOMETRY_KEY] = torch.tensor([[index]])
            data[_keys.HESSIAN_ACTIVE_KEY] = None if stored else self.store.active(index)
            if self.store.mass is not None:
                atoms = slice(int(self.store.atom_offset[index]), int(self.store.atom_offset[index + 1]))
                data[_keys.HESSIAN_MASS_KEY] = np.array(self.store.mass[atoms])
            if stored:
                self._put_stored(index, data)
            else:
                packed = self._packed(index)
                data[_keys.HESSIAN_KEY] = packed if len(packed) else None
        labelled = self._label_mask[indices]
        carries = np.ones(len(batch), dtype=bool)
        carries[labelled] = probes.carriers(int(labelled.sum()))
        return [probes.apply(data, carries=bool(c)) for data, c in zip(batch, carries, strict=True)]

    def _put_stored(self, index: int, data: dict[str, Any]) -> None:
        record = self.store[index]
        if record.probes is None or record.products is None:
            return
        for key, rows in ((_keys.HESSIAN_PROBE_KEY, record.probes), (_keys.HESSIAN_PRODUCT_KEY, record.products)):
            data[key] = rows.transpose(1, 0, 2).reshape(len(record), -1)


def labelled_geometries(store: HessianStore, hessian: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which geometries of a store have what a `hessian:` entry learns from: (G,) boolean."""
    return _stored_counts(store) > 0 if hessian.get("mode") == "stored" else np.asarray(store.has_hessian)


def _stored_counts(store: HessianStore) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(G,) number of stored probes of each geometry."""
    offset = store.array("product/row_offset")
    if offset is None:
        return np.zeros(len(store), dtype=np.int64)
    return np.asarray(np.diff(offset) // np.diff(store.atom_offset), dtype=np.int64)
