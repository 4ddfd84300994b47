"""Several stores into one: levels of theory unified, groups numbered anew, duplicates found, nothing recomputed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import OptionError, StoreError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store.attributes import author_attributes, provenance_entry, same_provenance
from nequip_hessian.store.build import Builder
from nequip_hessian.store.check_values import refuse_damaged
from nequip_hessian.store.checksum import canonical, content_checksum
from nequip_hessian.store.compose import Composer, Source, group_names
from nequip_hessian.store.files import open_files
from nequip_hessian.store.fingerprint import fingerprints, runs_of
from nequip_hessian.store.layout import EXTRA_GROUP, FLOATS, VERSION
from nequip_hessian.store.quality import has_other_extra
from nequip_hessian.store.reader import HessianStore
from nequip_hessian.store.target import Target

SAME_LABEL: Final = {"energy": 0.01, "forces": 0.01, "hessian": 0.1}
"""Labels of one geometry at one level of theory agree within this, eV, eV/angstrom, eV/angstrom^2, and 1 % of the
largest element of forces and Hessian: wider than integration grids and differences of gradients make them."""


@dataclass
class MergeReport:
    """What a merge found.

    Attributes:
        geometries: taken from each store, in order
        levels: levels of theory of the new store, and how many the old ones had together
        groups: groups of the new store, and how many the old ones had together
        renamed: (store, old name, new name) of groups that share a name with a group of other atoms
        duplicates: ((store, geometry), (store, geometry)): the second one repeats the first one
        contradictions: the same for two geometries that are one with labels that are not, and which label; never
            left out
        dropped: whether those that repeat were left out
        splits: split schemes of the new store; left_out: those that are not, with the reason
        notes: what else was not carried over
    """

    geometries: list[int] = field(default_factory=list)
    levels: tuple[int, int] = (0, 0)
    groups: tuple[int, int] = (0, 0)
    renamed: list[tuple[str, str, str]] = field(default_factory=list)
    duplicates: list[tuple[tuple[str, int], tuple[str, int]]] = field(default_factory=list)
    contradictions: list[tuple[tuple[str, int], tuple[str, int], str]] = field(default_factory=list)
    dropped: bool = False
    splits: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def merge(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    dtype: str | None = None,
    profile: str = "local",
    attributes: Mapping[str, Any] | None = None,
    drop_duplicates: bool = False,
    overwrite: bool = False,
) -> MergeReport:
    """Merge stores, in the order given, their geometries in the order they have.

    Groups of one name become one group where their atoms are the same in the same order (the same
    reaction at two levels of theory must not be torn apart in a split); where they are not, the later
    one gets the name of its store behind its own. A duplicate is a geometry of the same numbers, bit for
    bit, at the same level of theory. A split scheme is carried over where each store has it with the
    same parts and nothing leaks between them. Of what stands below `extra`, the residuals in `extra/quality` are
    kept and all else is left out.

    Args:
        paths: two stores or more
        output: the new store
        dtype: `float32` or `float64` of Hessian data and stored products; `None`: float64 if one store
            has them in float64 (what was float32 is widened, no digit is lost)
        profile: see `StoreWriter`
        attributes: id, title, license, ... of the new store; the licence is that of the stores where all
            have the same
        drop_duplicates: leave out what repeats; of several the first one with a Hessian stays
        overwrite: replace a store at `output`

    Raises:
        StoreError: an unreadable store, one named twice, licences that differ and none given, or
            something at `output`.
    """
    if dtype not in (None, *FLOATS):
        raise StoreError(f"dtype: expected None, 'float32' or 'float64', found {dtype!r}")
    _check_paths(paths)
    target = Target(output, profile=profile, overwrite=overwrite)
    stores = [HessianStore(path) for path in paths]
    for path, store in zip(paths, stores, strict=True):
        refuse_damaged(open_files(path), store.attributes)
    author = _author(stores, attributes)
    report = MergeReport(dropped=drop_duplicates)
    maps, entries = _unify_levels(stores, report)
    kept = _duplicates(stores, maps, report)
    if not drop_duplicates:
        kept = [np.ones(len(store), dtype=bool) for store in stores]
    groups, group_labels = _unify_groups(stores, kept, report)
    sources = [Source(*one) for one in zip(stores, map(runs_of, kept), maps, groups, strict=True)]
    report.geometries = [source.geometries for source in sources]
    report.notes = [
        f"{_name(store)}: its group {EXTRA_GROUP} is left out" for store in stores if has_other_extra(store)
    ]
    splits = _splits(stores, kept, groups, report)
    options = {"dtype": dtype, "drop_duplicates": drop_duplicates}
    provenance = _provenance(stores, report, options, {"dtype": dtype, "profile": profile})
    with target.workshop() as built:
        builder = Builder(built, profile)
        composer = Composer(sources, group_labels, dtype)
        counts = composer.write(builder, target.path.name)
        composer.write_quality(builder)
        for scheme, (parts, codes) in splits.items():
            builder.add_split(scheme, parts, codes)
        own = {"version": VERSION, **author, "counts": counts}
        builder.finish({**own, "levels_of_theory": entries, "provenance": provenance})
    return report


def _check_paths(paths: Sequence[str | Path]) -> None:
    names = Counter(os.path.realpath(path) for path in paths)
    twice = [name for name, count in names.items() if count > 1]
    if twice or len(names) < 2:
        raise OptionError(f"merge: {f'{twice[0]} is named twice' if twice else 'expected two stores or more'}")


def _name(store: HessianStore) -> str:
    return store.path.name


def _author(stores: Sequence[HessianStore], attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    given = author_attributes(attributes)
    licences = {store.attributes.get("license") for store in stores}
    if "license" not in given and len(licences) > 1:
        listed = ", ".join(f"{_name(store)}: {store.attributes.get('license') or 'none'}" for store in stores)
        raise StoreError(f"the licences differ ({listed}); say under which one the whole stands: --license SPDX")
    if "license" not in given and licences != {None}:
        given["license"] = licences.pop()
    dois = [doi for store in stores for doi in store.attributes.get("doi", [])]
    if dois and "doi" not in given:
        given["doi"] = list(dict.fromkeys(dois))
    return given


def _unify_levels(
    stores: Sequence[HessianStore], report: MergeReport
) -> tuple[list[npt.NDArray[np.int64]], list[dict[str, Any]]]:
    known: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    maps = []
    for store in stores:
        numbers = []
        for level, entry in zip(store.levels, store.attributes["levels_of_theory"], strict=True):
            full = {**level.as_dict(), **entry}
            key = canonical(full)
            if key not in known:
                known[key] = len(entries)
                entries.append(full)
            numbers.append(known[key])
        maps.append(np.array(numbers, dtype=np.int64))
    if len(entries) > 65536:
        raise StoreError(f"more than 65536 levels of theory ({len(entries)}); a store cannot count them")
    report.levels = (len(entries), sum(map(len, maps)))
    return maps, entries


def _duplicates(
    stores: Sequence[HessianStore], maps: Sequence[npt.NDArray[np.int64]], report: MergeReport
) -> list[npt.NDArray[np.bool_]]:
    """Report duplicates; return which geometries stay if they are dropped."""
    found: dict[tuple[bytes, int], list[tuple[int, int]]] = {}
    for which, store in enumerate(stores):
        levels = maps[which][store.level]
        for index, fingerprint in enumerate(fingerprints(store)):
            found.setdefault((fingerprint, int(levels[index])), []).append((which, index))
    kept = [np.ones(len(store), dtype=bool) for store in stores]
    for places in found.values():
        if len(places) < 2:
            continue
        stays = next((place for place in places if stores[place[0]].has_hessian[place[1]]), places[0])
        for which, index in places:
            if (which, index) == stays:
                continue
            pair = ((_name(stores[stays[0]]), stays[1]), (_name(stores[which]), index))
            if label := _contradiction(stores[stays[0]][stays[1]], stores[which][index]):
                report.contradictions.append((*pair, label))
            else:
                kept[which][index] = False
                report.duplicates.append(pair)
    return kept


def _contradiction(first: LabelledGeometry, second: LabelledGeometry) -> str | None:
    """Name of a label that both have with values apart by more than `SAME_LABEL`, None where all agree."""
    for name, least in SAME_LABEL.items():
        values = [getattr(record, name) for record in (first, second)]
        if any(value is None for value in values):
            continue
        one, other = (np.asarray(value, dtype=np.float64) for value in values)
        if name == "hessian":
            one, other = common_blocks(first, second)
        if one.shape != other.shape:
            return name
        known = np.isfinite(one) & np.isfinite(other)
        scale = 0.0 if name == "energy" else 0.01 * float(np.max(np.abs(one[known]), initial=0.0))
        if np.any(np.abs(one[known] - other[known]) > least + scale):
            return name
    return None


def common_blocks(first: LabelledGeometry, second: LabelledGeometry) -> list[npt.NDArray[np.float64]]:
    """Return the blocks of two Hessians of the atoms that both are of, (n, n) each: one may be partial."""
    atoms = [np.arange(len(r)) if r.active is None else np.asarray(r.active) for r in (first, second)]
    common = np.intersect1d(atoms[0], atoms[1])
    found = []
    for record, own in zip((first, second), atoms, strict=True):
        rows = (3 * np.searchsorted(own, common)[:, None] + np.arange(3)).ravel()
        found.append(np.asarray(record.hessian, dtype=np.float64)[np.ix_(rows, rows)])
    return found


def _atoms_of_groups(store: HessianStore) -> dict[int, bytes]:
    """Atomic numbers of the first geometry of each group that has to agree with the others, see HZ-4.4."""
    found: dict[int, bytes] = {}
    path = store.path_coordinate
    member = store.role >= 0 if path is None else (store.role >= 0) | ~np.isnan(path)
    for index in np.flatnonzero((store.group >= 0) & member).tolist():
        rows = slice(int(store.atom_offset[index]), int(store.atom_offset[index + 1]))
        found.setdefault(int(store.group[index]), store.number[rows].tobytes())
    return found


def _unify_groups(
    stores: Sequence[HessianStore], kept: Sequence[npt.NDArray[np.bool_]], report: MergeReport
) -> tuple[list[npt.NDArray[np.int64]], list[str | None]]:
    names: list[str | None] = []
    known: dict[str, int] = {}
    atoms: dict[int, bytes] = {}
    maps, before = [], 0
    for store, chosen in zip(stores, kept, strict=True):
        own, mine = group_names(store), _atoms_of_groups(store)
        before += len(own)
        numbers = np.full(len(own), -1, dtype=np.int64)
        used = set(np.unique(store.group[chosen]).tolist())
        for old in range(len(own)):
            if old not in used:
                continue
            name, number = own[old], None
            if name is not None and name in known:
                number = known[name]
                if old in mine and atoms.get(number, mine[old]) != mine[old]:
                    name = _free(f"{name} ({_name(store)})", known)
                    report.renamed.append((_name(store), str(own[old]), name))
                    number = None
            if number is None:
                number = len(names)
                names.append(name)
                if name is not None:
                    known[name] = number
            if old in mine:
                atoms.setdefault(number, mine[old])
            numbers[old] = number
        maps.append(numbers)
    report.groups = (len(names), before)
    return maps, names


def _free(name: str, known: Mapping[str, int]) -> str:
    number, free = 1, name
    while free in known:
        number += 1
        free = f"{name} {number}"
    return free


def _splits(
    stores: Sequence[HessianStore],
    kept: Sequence[npt.NDArray[np.bool_]],
    groups: Sequence[npt.NDArray[np.int64]],
    report: MergeReport,
) -> dict[str, tuple[tuple[str, ...], npt.NDArray[np.int8]]]:
    found = {}
    for scheme in sorted({scheme for store in stores for scheme in store.split_schemes}):
        having = [store for store in stores if scheme in store.split_schemes]
        parts = {store.split(scheme)[1] for store in having}
        if len(having) < len(stores):
            report.left_out[scheme] = f"only {len(having)} of {len(stores)} stores have it"
        elif len(parts) > 1:
            report.left_out[scheme] = "its parts have other names"
        else:
            codes = np.concatenate([store.split(scheme)[0][chosen] for store, chosen in zip(stores, kept, strict=True)])
            if _leaks(stores, kept, groups, scheme, codes):
                report.left_out[scheme] = "a group or a geometry would stand in two of its parts"
            else:
                found[scheme] = (parts.pop(), codes)
    report.splits = list(found)
    return found


def _leaks(
    stores: Sequence[HessianStore],
    kept: Sequence[npt.NDArray[np.bool_]],
    groups: Sequence[npt.NDArray[np.int64]],
    scheme: str,
    codes: npt.NDArray[np.int8],
) -> bool:
    """Whether a joined scheme tears apart a group that was whole, or a geometry that occurs twice."""
    numbers, prints = [], []
    for store, chosen, new in zip(stores, kept, groups, strict=True):
        old = store.group[chosen]
        numbers.append(np.where(old < 0, -1, new[np.maximum(old, 0)] if len(new) else -1))
        prints += [one for one, keep in zip(fingerprints(store), chosen, strict=True) if keep]
    part_of: dict[Any, int] = {}
    for key, code in (*zip(np.concatenate(numbers).tolist(), codes.tolist(), strict=True),
                      *zip(prints, codes.tolist(), strict=True)):  # fmt: skip
        if key != -1 and code >= 0 and part_of.setdefault(key, code) != code:
            return True
    return False


def _provenance(
    stores: Sequence[HessianStore], report: MergeReport, options: dict[str, Any], written: dict[str, Any]
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for store in stores:
        for entry in store.attributes["provenance"]:
            if not any(same_provenance(entry, other) for other in entries):
                entries.append(entry)
    sources = [
        {"name": _name(store), "extra": {"geometries": taken, "content": content_checksum(store.attributes)}}
        for store, taken in zip(stores, report.geometries, strict=True)
    ]
    merged = provenance_entry({"routine": "merge", "options": options, "sources": sources})
    return [*entries, merged, provenance_entry({"routine": "store", "options": written})]
