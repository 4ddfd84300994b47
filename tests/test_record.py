import numpy as np
import pytest
from springs import spring_network

from nequip_hessian.errors import RecordError
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

POSITIONS, FORCES, HESSIAN = spring_network(4, 0)
GOOD = {"numbers": [6, 8, 1, 1], "positions": POSITIONS, "forces": FORCES, "hessian": HESSIAN, "energy": -1.0}


def test_raw_hessian_is_symmetrised_once_and_its_asymmetry_kept():
    raw = HESSIAN.copy()
    raw[0, 5] += 0.01
    record = LabelledGeometry(**{**GOOD, "hessian": raw.reshape(4, 3, 4, 3)})
    assert record.asymmetry == pytest.approx(0.01)
    np.testing.assert_array_equal(record.hessian, record.hessian.T)
    again = record.replace(label="x")
    assert again.asymmetry == pytest.approx(0.01)
    assert record.replace(hessian=None).asymmetry is None


def test_it_is_immutable_and_owns_its_arrays():
    positions = POSITIONS.copy()
    record = LabelledGeometry(**{**GOOD, "positions": positions})
    positions[0] = 99.0
    np.testing.assert_array_equal(record.positions, POSITIONS)
    with pytest.raises(ValueError, match="read-only"):
        record.hessian[0, 0] = 1.0
    with pytest.raises(AttributeError):
        record.energy = 2.0
    assert record.formula == "CH2O"


def test_single_precision_stays_single():
    record = LabelledGeometry(**{**GOOD, "hessian": HESSIAN.astype(np.float32)})
    assert record.hessian.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": []}, "at least one atom"),
        ({"numbers": [6, 8, 1, 0]}, "1 to 118"),
        ({"numbers": [6.0, 8, 1, 1]}, "1 to 118"),
        ({"positions": POSITIONS[:3]}, r"expected shape \(4, 3\), found \(3, 3\)"),
        ({"positions": POSITIONS * np.nan}, "NaN or infinity"),
        ({"positions": POSITIONS[[0, 0, 1, 2]]}, "same place"),
        ({"hessian": HESSIAN[:9, :9]}, r"expected shape \(12, 12\)"),
        ({"hessian": np.full((12, 12), np.nan)}, "NaN or infinity"),
        ({"forces": np.full((4, 3), np.inf)}, "infinity"),
        ({"energy": float("nan")}, "finite number or None"),
        ({"multiplicity": 0}, "1 or more"),
        ({"charge": 0.5}, "integer"),
        ({"kind": "saddle"}, "transition_state"),
        ({"role": "ts"}, "reactant"),
        ({"label": "a\nb"}, "control characters"),
        ({"active": [2, 1]}, "strictly increasing"),
        ({"active": [0, 4]}, "0 to 3"),
        ({"active": [0, 1]}, r"expected shape \(6, 6\)"),
        ({"masses": [12.0, 16.0, 1.0, -1.0]}, "positive"),
        ({"pbc": True}, "no volume"),
        ({"probes": np.zeros((1, 4, 3))}, "both or neither"),
        ({"probes": np.ones((1, 4, 3)), "products": np.ones((1, 4, 3))}, "norm 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(change, message):
    with pytest.raises(RecordError, match=message):
        LabelledGeometry(**{**GOOD, **change})


def test_partial_hessian_covers_its_atoms_only():
    record = LabelledGeometry(**{**GOOD, "hessian": HESSIAN[:6, :6], "active": [0, 1]})
    assert record.hessian.shape == (6, 6)
    assert LabelledGeometry(**{**GOOD, "active": [0, 1, 2, 3]}).active is None


def test_level_of_theory_says_what_is_wrong():
    with pytest.raises(RecordError, match="method name"):
        LevelOfTheory("")
    with pytest.raises(RecordError, match="finite_difference"):
        LevelOfTheory("HF", hessian="numerical")
    assert LevelOfTheory("HF", "STO-3G") == LevelOfTheory(method="HF", basis="STO-3G")


def test_a_record_is_printed_in_one_short_line():
    record = LabelledGeometry(
        numbers=np.array([8, 1, 1], dtype=np.uint8),
        positions=np.eye(3),
        energy=-1.5,
        hessian=np.eye(9),
        label="water",
        kind="minimum",
    )
    assert repr(record) == "<LabelledGeometry H2O, label='water', kind='minimum', energy=-1.500000 eV, hessian (9, 9)>"
