import numpy as np
import pytest
from molecules import labelled

from nequip_hessian.analysis.neighbours import distance_bin, distance_bins, size_bin, size_bins, stationary_distances
from nequip_hessian.store import HessianStore, StoreWriter


def test_bins_have_the_stated_borders():
    assert distance_bins() == [
        "stationary",
        "0 to 0.05 Å",
        "0.05 to 0.1 Å",
        "0.1 to 0.2 Å",
        "0.2 to 0.4 Å",
        "0.4 Å and more",
    ]
    assert [distance_bin(d) for d in (None, 0.0, 0.049, 0.05, 0.4)] == [
        None,
        "stationary",
        "0 to 0.05 Å",
        "0.05 to 0.1 Å",
        "0.4 Å and more",
    ]
    assert [size_bin(n) for n in (1, 5, 6, 20, 21)] == [
        "1 to 5 atoms",
        "1 to 5 atoms",
        "6 to 10 atoms",
        "16 to 20 atoms",
        "more than 20 atoms",
    ]
    assert len(size_bins()) == 5


def test_distances_are_to_the_nearest_stationary_point_of_the_group(tmp_path):
    first = labelled("H2O", 0).replace(kind="minimum", group="water")
    far = first.replace(
        positions=first.positions + np.array([[0, 0, 0], [0.3, 0, 0], [0, 0, 0]]), kind="transition_state"
    )
    # turned by 90 degrees about z: no distance at all; then one atom moved by 0.06 angstrom
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    near = first.replace(
        positions=first.positions @ turn.T + np.array([[0.06, 0, 0], [0, 0, 0], [0, 0, 0]]), kind="path"
    )
    alone = first.replace(group="other", kind="displaced")
    with StoreWriter(tmp_path / "s.zarr") as writer:
        writer.extend([r.replace(hessian=None, forces=None) for r in (first, far, near, alone)])
    found = stationary_distances(HessianStore(tmp_path / "s.zarr"), [0, 1, 2, 3])
    assert found[:2] == [0.0, 0.0]
    assert 0 < found[2] <= 0.06 / np.sqrt(3)
    assert found[2] == pytest.approx(0.06 * np.sqrt(2) / 3, rel=0.35)  # the centre follows
    assert found[3] is None
