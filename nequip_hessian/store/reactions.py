"""Elementary reactions of a store: groups whose geometries carry roles or a path coordinate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nequip_hessian.record import ROLES


@dataclass(frozen=True)
class Reaction:
    """One group read as a reaction; all its geometries have the same atoms in the same order.

    Attributes:
        group: number of the group
        label: its name
        reactant, transition_state, product: geometry index; the first one where several carry the
            role, `None` where none does
        path: geometry indices of those with a path coordinate, in its order
    """

    group: int
    label: str | None
    reactant: int | None
    transition_state: int | None
    product: int | None
    path: tuple[int, ...]


def find_reactions(
    group: npt.NDArray[np.int64],
    role: npt.NDArray[np.int8],
    path_coordinate: npt.NDArray[np.float64] | None,
    name: Callable[[int], str | None],
) -> list[Reaction]:
    """Collect the reactions of a store: groups of two geometries or more with a role or a path coordinate.

    In the order of their group number.

    Args:
        group: (G,) group numbers, -1 none
        role: (G,) index into `record.ROLES`, -1 none
        path_coordinate: (G,) u^(1/2) angstrom, NaN none; or `None`
        name: gives the name of a group
    """
    on_path = np.zeros(len(group), dtype=bool) if path_coordinate is None else ~np.isnan(path_coordinate)
    members = np.flatnonzero((group >= 0) & ((role >= 0) | on_path))
    order = members[np.argsort(group[members], kind="stable")]
    borders = np.flatnonzero(np.diff(group[order])) + 1
    found = []
    for indices in np.split(order, borders) if len(order) else []:
        if len(indices) < 2:  # a lone transition state is no reaction
            continue
        number = int(group[indices[0]])
        path: npt.NDArray[Any] = indices[on_path[indices]]
        if path_coordinate is not None:
            path = path[np.argsort(path_coordinate[path], kind="stable")]
        first = {code: int(indices[role[indices] == code][0]) for code in set(role[indices].tolist())}
        reactant, saddle, product = (first.get(ROLES.index(r)) for r in ("reactant", "transition_state", "product"))
        found.append(Reaction(number, name(number), reactant, saddle, product, tuple(path.tolist())))
    return found
