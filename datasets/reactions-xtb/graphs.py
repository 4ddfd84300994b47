"""Molecular graphs as bond-order matrices, and the elementary rearrangements of their bonds.

A graph is a symmetric integer matrix of bond orders without formal charges (Dugundji and Ugi, Top. Curr. Chem.
1973, 39, 19): H 1, C 4, N 3, O 2 bonds. Formally charged groups are written with a nitrogen of five bonds (nitro,
azide, nitrone, diazo), and carbon monoxide, isocyanides and carbenes with a carbon of two. A rearrangement is an
alternating cycle of bonds broken and formed, or a carbon or nitrogen that gives up or takes up two bonds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rdkit import Chem, RDLogger

RDLogger.DisableLog("rdApp.*")

Orders = npt.NDArray[np.int8]

VALENCES = {1: (1,), 6: (4, 2), 7: (3, 5), 8: (2,)}
BOND = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
CHANGE = {(True, True): Chem.BondType.SINGLE, (True, False): Chem.BondType.DOUBLE, (False, True): Chem.BondType.TRIPLE}


@dataclass(frozen=True, eq=False)
class Graph:
    """Atomic numbers (N,) and bond orders (N, N), hydrogen atoms included."""

    numbers: npt.NDArray[np.int64]
    orders: Orders

    @property
    def bonds(self) -> npt.NDArray[np.bool_]:
        """Which atoms are bonded, (N, N)."""
        return self.orders > 0


def from_smiles(smiles: str) -> Graph:
    """Read a molecule; raises ValueError for one that is charged, open-shell or outside H, C, N, O."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"{smiles}: not a SMILES string")
    return from_molecule(Chem.AddHs(molecule))


def from_molecule(molecule: Chem.Mol) -> Graph:
    """Read an RDKit molecule with all its hydrogen atoms; formal charges are folded into bonds."""
    molecule = Chem.Mol(molecule)
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    orders = np.zeros((len(numbers), len(numbers)), dtype=np.int8)
    for bond in molecule.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        orders[i, j] = orders[j, i] = int(bond.GetBondTypeAsDouble())
    charges = [atom.GetFormalCharge() for atom in molecule.GetAtoms()]
    for i, j in itertools.permutations(range(len(numbers)), 2):
        if charges[i] == 1 and charges[j] == -1 and orders[i, j]:
            orders[i, j] = orders[j, i] = orders[i, j] + (-1 if numbers[j] == 6 and orders[i, j] == 3 else 1)
            charges[i] = charges[j] = 0
    graph = Graph(numbers, orders)
    if any(charges) or not is_acceptable(graph):
        raise ValueError(f"{Chem.MolToSmiles(Chem.RemoveHs(molecule))}: not a closed-shell molecule of H, C, N, O")
    return graph


def is_acceptable(graph: Graph) -> bool:
    """Usual valences, at most one atom with an unusual one, no triple bond in a ring, at most two fragments."""
    unusual = 0
    for number, valence in zip(graph.numbers.tolist(), graph.orders.sum(axis=1).tolist(), strict=True):
        if valence not in VALENCES.get(number, ()):
            return False
        unusual += valence != VALENCES[number][0]
    ammonium = (graph.numbers == 7) & (graph.orders.sum(axis=1) == 5) & (graph.orders.max(axis=1) == 1)
    if ammonium.any() or unusual > 1 or graph.orders.max() > 3:
        return False
    linear = (graph.orders == 3).any(axis=1) | ((graph.orders == 2).sum(axis=1) > 1) & (graph.numbers == 6)
    return len(fragments(graph.bonds)) <= 2 and not np.any(linear & in_ring(graph.bonds))


def fragments(bonds: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Atoms of each connected part."""
    left, parts = set(range(len(bonds))), []
    while left:
        part, edge = set(), {min(left)}
        while edge:
            part |= edge
            edge = set(np.flatnonzero(bonds[list(edge)].any(axis=0)).tolist()) - part
        parts.append(sorted(part))
        left -= part
    return parts


def in_ring(bonds: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which atoms are members of a ring, (N,)."""
    core = bonds.copy()
    while True:
        ends = core.sum(axis=1) == 1
        if not ends.any():
            break
        core[ends] = core[:, ends] = False
    return np.asarray(core.any(axis=1))  # a chain between two rings counts as one: good enough for a filter


def connectivity_name(numbers: npt.NDArray[np.int64], bonds: npt.NDArray[np.bool_]) -> str:
    """Canonical name of an unlabelled molecule from its connectivity alone: no bond orders, no stereochemistry."""
    molecule = Chem.RWMol()
    for number in numbers:
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    for i, j in zip(*np.nonzero(np.triu(bonds)), strict=True):
        molecule.AddBond(int(i), int(j), Chem.BondType.SINGLE)
    return Chem.MolToSmiles(molecule)


def heavy_atoms_of(name: str) -> int:
    """Number of atoms beyond hydrogen in a connectivity name."""
    return Chem.MolFromSmiles(name, sanitize=False).GetNumHeavyAtoms()


def change_name(before: Graph, after: Graph) -> str:
    """Canonical name of a change of connectivity: equal for changes that differ by a symmetry of the molecule."""
    molecule = Chem.RWMol()
    for number in before.numbers:
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    old, new = before.bonds, after.bonds
    for i, j in zip(*np.nonzero(np.triu(old | new)), strict=True):
        molecule.AddBond(int(i), int(j), CHANGE[bool(old[i, j]), bool(new[i, j])])
    return Chem.MolToSmiles(molecule)


def smiles_of(graph: Graph) -> str:
    """SMILES with bond orders and formal charges, hydrogen atoms implicit; for people."""
    try:
        molecule = to_molecule(graph)
        Chem.SanitizeMol(molecule)
        return Chem.MolToSmiles(Chem.RemoveHs(molecule))
    except (ValueError, RuntimeError):
        return connectivity_name(graph.numbers, graph.bonds)


def to_molecule(graph: Graph) -> Chem.Mol:
    """RDKit molecule with formal charges, atoms in the same order."""
    orders = graph.orders.astype(int)
    charges = np.zeros(len(orders), dtype=int)
    valence = orders.sum(axis=1)
    for i in np.flatnonzero((graph.numbers == 7) & (valence == 5)):
        j = min(np.flatnonzero(orders[i] > 1), key=lambda j: (-int(graph.numbers[j]), -int(orders[i, j])))
        orders[i, j] = orders[j, i] = orders[i, j] - 1
        charges[i], charges[j] = 1, -1
    for i in np.flatnonzero((graph.numbers == 6) & (valence == 2)):
        for j in np.flatnonzero((orders[i] == 2) & (graph.numbers > 6)):
            orders[i, j] = orders[j, i] = 3
            charges[i], charges[j] = -1, 1
    molecule = Chem.RWMol()
    for index, number in enumerate(graph.numbers):
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        atom.SetFormalCharge(int(charges[index]))
        if number == 6 and valence[index] == 2 and not charges[index]:
            atom.SetNumRadicalElectrons(2)
        molecule.AddAtom(atom)
    for i, j in zip(*np.nonzero(np.triu(orders)), strict=True):
        molecule.AddBond(int(i), int(j), BOND[int(orders[i, j])])
    return molecule.GetMol()


def from_connectivity(numbers: npt.NDArray[np.int64], bonds: npt.NDArray[np.bool_]) -> Graph | None:
    """Bond orders for a connectivity, None where there are none with usual valences."""
    open_valence = np.array([VALENCES[n][0] for n in numbers.tolist()]) - bonds.sum(axis=1)
    for relaxed in itertools.chain([None], np.flatnonzero((numbers == 6) | (numbers == 7)).tolist()):
        need = open_valence.copy()
        if relaxed is not None:
            need[relaxed] += VALENCES[int(numbers[relaxed])][1] - VALENCES[int(numbers[relaxed])][0]
        orders = _distribute(bonds.astype(np.int8), need)
        if orders is not None and is_acceptable(Graph(numbers, orders)):
            return Graph(numbers, orders)
    return None


def _distribute(orders: Orders, need: npt.NDArray[np.int64]) -> Orders | None:
    """Raise bond orders until every atom has what it needs."""
    if np.any(need < 0):
        return None
    if not need.any():
        return orders
    candidates = [i for i in np.flatnonzero(need) if np.any((orders[i] > 0) & (need > 0) & (orders[i] < 3))]
    if len(candidates) < np.count_nonzero(need):
        return None
    i = min(candidates, key=lambda i: int(np.sum((orders[i] > 0) & (need > 0))))
    for j in np.flatnonzero((orders[i] > 0) & (need > 0) & (orders[i] < 3)):
        if j == i:
            continue
        raised, left = orders.copy(), need.copy()
        raised[i, j] = raised[j, i] = raised[i, j] + 1
        left[[i, j]] -= 1
        found = _distribute(raised, left)
        if found is not None:
            return found
    return None


def rearrangements(graph: Graph) -> dict[str, Graph]:
    """All products of one elementary rearrangement that are other molecules, by `change_name`, in a fixed order.

    Two bonds broken and two formed; three and three where at most three sigma bonds take part (pericyclic); two
    broken and one formed at one atom (extrusion: carbenes, CO, nitrites from nitro) and the reverse (insertion).
    Exchanges of like atoms, which lead back to the same molecule, are left out.
    """
    here = connectivity_name(graph.numbers, graph.bonds)
    found: dict[str, Graph] = {}
    for orders in itertools.chain(_cycles(graph, 2), _cycles(graph, 3), _pairs(graph)):
        product = Graph(graph.numbers, orders)
        if not is_acceptable(product) or connectivity_name(graph.numbers, product.bonds) == here:
            continue
        found.setdefault(change_name(graph, product), product)
    return dict(sorted(found.items()))


def _cycles(graph: Graph, length: int) -> Iterator[Orders]:
    """Alternating cycles: `length` bonds lose one order, as many pairs gain one."""
    orders = graph.orders
    n = len(orders)
    heavy = graph.numbers > 1

    def walk(path: list[int], now: Orders) -> Iterator[Orders]:
        last = path[-1]
        if len(path) == 2 * length:
            first = path[0]
            if now[last, first] < 3 and (heavy[last] or heavy[first] or length == 2):
                final = now.copy()
                final[last, first] = final[first, last] = now[last, first] + 1
                yield final
            return
        breaking = len(path) % 2 == 1
        for j in range(n):
            if j in path or (breaking and now[last, j] == 0) or (not breaking and now[last, j] == 3):
                continue
            if not breaking and length == 3 and not orders[last, j] and _sigma(orders, now) >= 3:
                continue
            after = now.copy()
            after[last, j] = after[j, last] = now[last, j] + (-1 if breaking else 1)
            yield from walk([*path, j], after)

    for i in range(n):
        for final in walk([i], orders.copy()):
            if length == 2 or _sigma(orders, final) <= 3:
                yield final


def _sigma(before: Orders, after: Orders) -> int:
    """Number of sigma bonds broken or formed."""
    return int(np.count_nonzero((before > 0) != (after > 0))) // 2


def _pairs(graph: Graph) -> Iterator[Orders]:
    """One atom gives up bonds to two neighbours, which bond to each other; and the reverse."""
    orders, valence = graph.orders, graph.orders.sum(axis=1)
    for a in np.flatnonzero((graph.numbers == 6) | (graph.numbers == 7)):
        low, high = min(VALENCES[int(graph.numbers[a])]), max(VALENCES[int(graph.numbers[a])])
        sign = -1 if valence[a] == high else 1 if valence[a] == low else 0
        for b, c in itertools.combinations([i for i in range(len(orders)) if i != a], 2):
            final = orders.copy()
            for i, j, step in ((a, b, sign), (a, c, sign), (b, c, -sign)):
                final[i, j] = final[j, i] = final[i, j] + step
            if sign and final.min() >= 0 and final.max() <= 3:
                yield final
