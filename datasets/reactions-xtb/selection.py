"""Which of the attempts become reactions of the data set, and how reactions are split.

Accepted: confirmed down both sides, ends that differ as unlabelled molecules (conformational changes of one molecule
are kept and marked), one imaginary mode, one closed-shell configuration at both ends and the transition state, barrier
below 5 eV; distinct by the names of both ends and the energy of the transition state.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from graphs import heavy_atoms_of

SAME_ENERGY = 0.002  # eV, between transition states of one reaction
SAME_SHAPE = 0.01  # angstrom, between the distances of two minima, whatever the order of their atoms
CONFORMATIONAL = 1.0  # eV, highest barrier of a change without a change of bonds
PARTS = ("train", "val", "test", "test_irc", "test_displaced")
SHARES = {"test": 0.2, "val": 0.1}
SMALL = 2  # heavy atoms; H2, CO, HCN, N2, CH4 ... may be fragments on both sides of a split


def accepted(rounds: list[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Accepted reactions, by rounds and then by key, and how many attempts ended where."""
    funnel: Counter[str] = Counter()
    kept: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for records in rounds:
        for record in records:
            funnel["tried"] += 1
            if record["stage"] != "confirmed":
                funnel[f"{record['stage']}: {record['reason']}"] += 1
                continue
            funnel["confirmed"] += 1
            refused = _refused(record)
            if refused:
                funnel[f"refused: {refused}"] += 1
                continue
            twins = kept[tuple(sorted(record["names"]))]
            energy = record["transition_state"]["energy"]
            if any(abs(energy - twin["transition_state"]["energy"]) < SAME_ENERGY for twin in twins):
                funnel["duplicate"] += 1
                continue
            twins.append(record)
            funnel["conformational" if record["kind"] == "conformational" else "accepted"] += 1
    found = [record for twins in kept.values() for record in twins]
    return sorted(found, key=lambda record: record["key"]), funnel


def _refused(record: dict[str, Any]) -> str:
    """Why a confirmed reaction is not one that a chemist would accept; empty where it is."""
    if any(name == smiles for name, smiles in zip(record["names"], record["smiles"], strict=True)):
        return "an end without usual valences"
    if record["kind"] == "conformational" and record["barrier"] > CONFORMATIONAL:
        return "no change of bonds, yet a high barrier"
    return ""


def alike(numbers: list[int], first: dict[str, Any], other: list[int], second: dict[str, Any]) -> bool:
    """Whether two minima are one, or mirror images, whatever the order of their atoms: by energies and distances."""
    if sorted(numbers) != sorted(other) or abs(first["energy"] - second["energy"]) > SAME_ENERGY:
        return False
    distances = [shape(numbers, first), shape(other, second)]
    return all(np.max(np.abs(distances[0][pair] - distances[1][pair])) < SAME_SHAPE for pair in distances[0])


def shape(numbers: list[int], state: dict[str, Any]) -> dict[tuple[int, int], Any]:
    """Sorted distances between the atoms of each pair of elements, angstrom."""
    positions = np.asarray(state["positions"]).reshape(-1, 3)
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for i, j in zip(*np.triu_indices(len(numbers), 1), strict=True):
        low, high = sorted((numbers[i], numbers[j]))
        found[low, high].append(float(np.linalg.norm(positions[i] - positions[j])))
    return {pair: np.sort(values) for pair, values in found.items()}


def kind_of(record: dict[str, Any]) -> str:
    """`reaction`, `conformational` (no change of bonds), or `degenerate`: both ends are one minimum, but for the order
    of their atoms or a mirror image, such as the turn of a methyl group.
    """
    if alike(record["numbers"], record["reactant_state"], record["numbers"], record["product_state"]):
        return "degenerate"
    return str(record["kind"])


def shared_minima(records: list[dict[str, Any]], parts: list[str]) -> list[tuple[int, int]]:
    """Pairs of reactions, the first held out (test), the second trained or validated on, with an end in common."""
    by_atoms: dict[tuple[int, ...], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for index, record in enumerate(records):
        for state in ("reactant_state", "product_state"):
            by_atoms[tuple(sorted(record["numbers"]))].append((index, record[state]))
    found = set()
    for members in by_atoms.values():
        for i, first in members:
            for j, second in members:
                apart = parts[i] == "test" and parts[j] in ("train", "val")
                if apart and alike(records[i]["numbers"], first, records[j]["numbers"], second):
                    found.add((i, j))
    return sorted(found)


def species(record: dict[str, Any]) -> set[str]:
    """Names of the molecules at both ends; fragments of at most SMALL heavy atoms do not count."""
    parts = {part for name in record["names"] for part in name.split(".")}
    large = {part for part in parts if heavy_atoms_of(part) > SMALL}
    return large or set(record["names"])


def formula(record: dict[str, Any]) -> str:
    """Composition of a reaction, in Hill order."""
    from ase.formula import Formula

    return str(Formula.from_list([{1: "H", 6: "C", 7: "N", 8: "O"}[n] for n in record["numbers"]]).format("hill"))


def by_reaction(records: list[dict[str, Any]], seed: int) -> list[str]:
    """Part of each reaction: reactions that share a species stay together."""
    return _assign(_clusters([species(record) for record in records]), records, seed)


def by_composition(records: list[dict[str, Any]], seed: int) -> list[str]:
    """Part of each reaction: all reactions of a composition stay together."""
    return _assign(_clusters([{formula(record)} for record in records]), records, seed)


def _clusters(marks: list[set[str]]) -> list[int]:
    """Number of the connected cluster of each entry; entries that share a mark are connected."""
    root = list(range(len(marks)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    first: dict[str, int] = {}
    for index, own in enumerate(marks):
        for mark in sorted(own):
            root[find(index)] = find(first.setdefault(mark, index))
    return [find(i) for i in range(len(marks))]


def _assign(clusters: list[int], records: list[dict[str, Any]], seed: int) -> list[str]:
    """Fill test, then val, with whole clusters drawn at random; a reaction that shares a species is left out.

    A cluster with more than half of what a part may take goes to training.
    """
    sizes = Counter(clusters)
    names = {
        cluster: min(r["key"] for r, c in zip(records, clusters, strict=True) if c == cluster) for cluster in sizes
    }
    order = sorted(sizes, key=lambda cluster: zlib.crc32(f"{seed}{names[cluster]}".encode()))
    part_of: dict[int, str] = {}
    for part, share in SHARES.items():
        room = round(share * len(records))
        for cluster in order:
            if cluster not in part_of and sizes[cluster] <= room and sizes[cluster] <= share * len(records) / 2:
                part_of[cluster] = part
                room -= sizes[cluster]
    parts = [part_of.get(cluster, "train") for cluster in clusters]
    known = _species_of(r for r, part in zip(records, parts, strict=True) if part == "train")
    seen = known | _species_of(r for r, part in zip(records, parts, strict=True) if part == "val")
    leaks = {"train": set[str](), "val": known, "test": seen}
    return ["unused" if species(r) & leaks[part] else part for r, part in zip(records, parts, strict=True)]


def _species_of(records: Iterable[dict[str, Any]]) -> set[str]:
    return {name for record in records for name in species(record)}


def codes_of(parts: list[str], kinds: list[str], everything: bool) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Codes of a split scheme for geometries with the parts of their reactions.

    Path and displaced points of a test reaction are `test_irc` and `test_displaced`; those of training and validation
    reactions are used with `everything` only.
    """
    codes = []
    for part, kind in zip(parts, kinds, strict=True):
        stationary = kind in ("minimum", "transition_state")
        if part == "unused" or (part != "test" and not stationary and not everything):
            codes.append(-1)
        elif part == "test" and not stationary:
            codes.append(PARTS.index("test_irc" if kind == "path" else "test_displaced"))
        else:
            codes.append(PARTS.index(part))
    return np.array(codes, dtype=np.int8)
