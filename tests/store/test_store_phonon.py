"""What belongs to a phonon supercell survives the store, and is absent where it was not given."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from molecules import labelled

from nequip_hessian.errors import RecordError
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter, validate

MATRIX = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])  # primitive to conventional cell of a face-centred lattice


def supercell(**changes) -> LabelledGeometry:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    fields = {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "pbc": True,
        "supercell_matrix": MATRIX,
        "primitive_matrix": np.eye(3),
        "dielectric": 2.43 * np.eye(3),
        "born_charges": np.array([np.eye(3) * (1.08 if z == 11 else -1.08) for z in atoms.numbers]),
    }
    return LabelledGeometry(**{**fields, **changes})


def test_round_trip_beside_a_molecule(tmp_path):
    with StoreWriter(tmp_path / "s.zarr") as writer:
        writer.extend([labelled("H2O", 0), supercell(), supercell(primitive_matrix=None, dielectric=None)])
    assert validate(tmp_path / "s.zarr", level=4).valid
    molecule, whole, bare = HessianStore(tmp_path / "s.zarr")
    assert molecule.supercell_matrix is None
    assert molecule.dielectric is None
    assert whole.supercell_matrix.tolist() == MATRIX.tolist()
    assert whole.primitive_matrix.tolist() == np.eye(3).tolist()
    assert np.array_equal(whole.dielectric, 2.43 * np.eye(3))
    assert np.array_equal(whole.born_charges, supercell().born_charges)
    assert bare.supercell_matrix.tolist() == MATRIX.tolist()
    assert bare.primitive_matrix is None
    assert bare.dielectric is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"supercell_matrix": np.zeros((3, 3), dtype=int)}, "determinant 0"),
        ({"supercell_matrix": np.diag([3, 1, 1])}, "determinant 3 for 8 atoms"),
        ({"supercell_matrix": np.eye(3)}, "integers"),
        ({"supercell_matrix": None}, "without a supercell matrix"),
        ({"pbc": (True, True, False)}, "not periodic"),
        ({"dielectric": np.ones(3)}, "dielectric: expected shape"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(RecordError, match=message):
        supercell(**changes)
