"""Split schemes that leak nothing: what belongs together stays in one part.

Geometries are first put into clusters, and whole clusters then go to the parts.
Geometries of one group are always in one cluster, and so are those that are the
same, moved, turned, mirrored or rounded, in two groups (the reactant of two
reactions); by composition or by species, clusters grow further.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Hashable, Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.store.fingerprint import fingerprints
from nequip_hessian.store.near import near_pairs
from nequip_hessian.store.reader import HessianStore

RULES: Final = ("group", "composition", "species")
SMALLEST_SPECIES: Final = 3
"""Atoms other than hydrogen from which on a species ties geometries together; water or CO would tie all."""

BOND_SCALE: Final = 1.25
"""Two atoms are bonded below this multiple of the sum of their covalent radii (Cordero et al., 2008)."""

Clusters = npt.NDArray[np.int64]


def clusters(store: HessianStore, rule: str = "group") -> Clusters:
    """Number the clusters of geometries that must not be torn apart.

    Args:
        store: the store
        rule: `group`: groups alone. `composition`: also all geometries with the same atoms. `species`:
            also all geometries that share a connected species, a molecule (or fragment) with the same
            bonds between the same elements, of SMALLEST_SPECIES atoms other than hydrogen or more

    Returns:
        (G,) the index of the first geometry of each one's cluster.

    Raises:
        ConfigError: no such rule.
    """
    if rule not in RULES:
        raise OptionError(f"split: expected one of {', '.join(RULES)}, found {rule!r}")
    ties: list[Iterable[Hashable]] = [
        (() if group < 0 else (("group", group),)) for group in np.asarray(store.group).tolist()
    ]
    pairs: dict[int, list[Hashable]] = {}
    for first, second in near_pairs(store):
        for index in (first, second):
            pairs.setdefault(index, []).append(("same", first, second))
    ties = [
        (*tie, print_, *pairs.get(index, ()))
        for index, (tie, print_) in enumerate(zip(ties, fingerprints(store), strict=True))
    ]
    if rule == "composition":
        ties = [(*tie, ("atoms", numbers)) for tie, numbers in zip(ties, _compositions(store), strict=True)]
    elif rule == "species":
        ties = [(*tie, *found) for tie, found in zip(ties, _species(store), strict=True)]
    return _connect(ties)


def _connect(ties: list[Iterable[Hashable]]) -> Clusters:
    """Join all geometries that share a tie, also over others."""
    parent = list(range(len(ties)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    for index, tie in enumerate(ties):
        for key in tie:
            a, b = root(first.setdefault(key, index)), root(index)
            parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(len(ties))], dtype=np.int64)


def _compositions(store: HessianStore) -> list[bytes]:
    offset, number = store.atom_offset, store.number
    return [np.sort(number[a:b]).tobytes() for a, b in itertools.pairwise(offset)]


def _species(store: HessianStore) -> list[set[Hashable]]:
    offset = store.atom_offset
    found = []
    for i in tqdm(range(len(store)), desc="species", disable=None, delay=3):
        rows = slice(int(offset[i]), int(offset[i + 1]))
        found.append(species(store.number[rows], store.position[rows]))
    return found


def species(numbers: npt.NDArray[np.uint8], positions: npt.NDArray[np.float64]) -> set[Hashable]:
    """Return what names the connected species of a molecule, those that are large enough to tie geometries.

    Two species have one name where elements and bonds are the same, by Weisfeiler-Lehman refinement of
    the graph of bonds (Shervashidze et al., JMLR 2011, 12, 2539): conformers have one name, constitutional
    isomers two. Mirror images have one.

    Args:
        numbers: (N,) atomic numbers
        positions: (N, 3), angstrom; periodicity is not looked at
    """
    from ase.data import covalent_radii

    radii = covalent_radii[np.asarray(numbers, dtype=int)]
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    bonded = (distance < BOND_SCALE * (radii[:, None] + radii[None])) & ~np.eye(len(numbers), dtype=bool)
    neighbours = [np.flatnonzero(row).tolist() for row in bonded]
    heavy = [members for members in _components(neighbours) if np.sum(numbers[members] > 1) >= SMALLEST_SPECIES]
    return {("species", *_refined(numbers, neighbours, members)) for members in heavy}


def _refined(numbers: npt.NDArray[np.uint8], neighbours: list[list[int]], members: list[int]) -> list[str]:
    """Sorted names of the atoms of one connected species, refined until no class of atoms falls apart any more."""
    names = {i: str(numbers[i]) for i in members}
    for _ in members:
        texts = {i: f"{names[i]}({','.join(sorted(names[j] for j in neighbours[i]))})" for i in members}
        finer = {i: hashlib.blake2b(text.encode(), digest_size=12).hexdigest() for i, text in texts.items()}
        stable = len(set(finer.values())) == len(set(names.values()))
        names = finer
        if stable:
            break
    return sorted(names.values())


def _components(neighbours: list[list[int]]) -> list[list[int]]:
    left, found = set(range(len(neighbours))), []
    while left:
        members, edge = [], [left.pop()]
        while edge:
            members.append(edge.pop())
            new = [j for j in neighbours[members[-1]] if j in left]
            left.difference_update(new)
            edge += new
        found.append(members)
    return found


def assign(cluster: Clusters, fractions: Mapping[str, float], seed: int) -> npt.NDArray[np.int8]:
    """Send whole clusters to parts, so that each part gets its share of the geometries as nearly as that goes.

    Clusters come in an order drawn from the seed (by SHA-256, so that it is the same for ever and on
    every machine); each goes to the part that lacks most.

    Args:
        cluster: (G,) number of each geometry's cluster
        fractions: part -> share of the geometries; what they leave of 1 is unused
        seed: any integer

    Returns:
        (G,) int8 index into the parts, -1 unused.

    Raises:
        ConfigError: shares not above 0 or above 1 together, wrong names, or a part that stays empty.
    """
    names, shares = list(fractions), np.array(list(fractions.values()), dtype=np.float64)
    wrong = []
    if not names or names[:3] != ["train", "val", "test"][: len(names)]:
        wrong.append(f"parts begin with train, val, test in this order, found {', '.join(names) or 'none'}")
    if not (np.all(shares > 0) and shares.sum() <= 1 + 1e-9):  # NaN is neither
        wrong.append(f"expected shares above 0 that sum to at most 1, found {dict(fractions)}")
    if wrong:
        raise OptionError(f"split: {'; '.join(wrong)}")
    numbers, sizes = np.unique(cluster, return_counts=True)
    order = sorted(range(len(numbers)), key=lambda i: hashlib.sha256(f"{seed}:{numbers[i]}".encode()).digest())
    rest = 1.0 - float(shares.sum())
    wanted = np.concatenate([shares, [rest if rest > 1e-9 else 0.0]]) * len(cluster)
    lacks, code_of = wanted.copy(), np.empty(len(numbers), dtype=np.int8)
    for i in order:
        part = int(np.argmax(lacks))
        lacks[part] -= sizes[i]
        code_of[i] = part if part < len(names) else -1
    codes = code_of[np.searchsorted(numbers, cluster)]
    for index, name in enumerate(names):
        if not np.any(codes == index):
            largest = f"the largest of {len(numbers)} clusters has {sizes.max()} of {len(cluster)} geometries"
            raise ConfigError(f"split: part {name!r} stays empty ({largest}); choose other shares or another rule")
    return codes
