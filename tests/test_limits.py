"""The limits of `convert` and `validate` are the same, and the documentation has them with a reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from nequip_hessian import checks, identities, limits, misprints, printed
from nequip_hessian.checks import check
from nequip_hessian.curvature import rigid_motions
from nequip_hessian.errors import PhysicsError
from nequip_hessian.limits import closest_pair
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import StoreWriter, check_physics, check_values, near, validate

DOCS = Path(__file__).resolve().parents[1] / "docs"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _sizes(values: dict[str, float]) -> list[str]:
    units = {"element": "eV/Å²", "position": "Å", "force": "eV/Å"}
    return [f"{value:g} {units[what]}" for what, value in values.items()]


def _large(value: float) -> str:
    return f"{value:.0e}".replace("+0", "")


CONVERT = {
    "size": [f"{_large(checks.LARGEST_ELEMENT)} eV/Å²", f"{_large(checks.LARGEST_POSITION)} Å"],
    "symmetry": [_percent(checks.ASYMMETRY_REFUSAL), f"{checks.ASYMMETRY_WARNING:g} eV/Å²"],
    "translation": [
        _percent(limits.TRANSLATION_REFUSAL[0]),
        f"{limits.TRANSLATION_REFUSAL[1]:g} eV/Å²",
        f"{limits.TRANSLATION_WARNING:g} eV/Å²",
    ],
    "rotation": [
        _percent(identities.SCALE_TOLERANCE),
        f"{identities.NOISE:g} eV/Å",
        f"{identities.NOISE_FACTOR:g} times",
        _percent(identities.ROTATION_TOLERANCE),
        f"at most {identities.SCALE_ERROR:g}",
    ],
    "printed against": [
        f"{printed.FREQUENCY_REFUSAL[0]:g} cm⁻¹ + {_percent(printed.FREQUENCY_REFUSAL[1])}",
        f"{printed.FREQUENCY_WARNING:g} cm⁻¹",
    ],
    "one number": [
        *_sizes(misprints.SURE_SIZE),
        *_sizes(misprints.SMALLEST),
        _percent(misprints.SURE),
        _percent(misprints.EXPLAINED),
        f"three atoms: {_percent(misprints.EXPLAINED_OF_THREE)}",
        str(misprints._MOST_ATOMS),
    ],
    "two elements": [
        f"{misprints._LONE:g} times",
        f"{misprints._LONE_SIZE:g} eV/Å²",
        f"below {misprints._PARTIAL:g} eV/Å²",
    ],
    "dipole": [f"{identities.DIPOLE_SUM:g} e"],
    "Born": [f"{identities.BORN_MEAN:g} e an ion"],
    "dielectric": [_percent(identities.DIELECTRIC_ASYMMETRY)],
    "masses": [f"{checks.ISOTOPE_STEP:g} u"],
    "stiffest": [
        f"{limits.STIFFEST[0]:g} eV/Å²",
        f"{limits.STIFFEST[1]:g} eV/Å²",
        f"{limits.LONGEST_BOND_TO_HYDROGEN:g} Å",
    ],
    "closest two atoms": [f"below {limits.SPACING[0]:g}", f"above {limits.SPACING[1]:g}"],
}
VALIDATE = {
    "HZ-4.1": [f"{limits.TRANSLATION_WARNING:g} eV/Å²"],
    "HZ-4.2": [
        _percent(limits.TRANSLATION_REFUSAL[0]),
        f"{limits.TRANSLATION_REFUSAL[1]:g} eV/Å²",
        _percent(identities.ROTATION_TOLERANCE),
        f"{_percent(identities.SCALE_TOLERANCE)} or three",
    ],
    "HZ-4.3": [f"{check_physics.CLEARLY_IMAGINARY:g}i", f"{limits.IMAGINARY:g}i"],
    "HZ-4.7": [_percent(check_physics.PRODUCT_TOLERANCE)],
    "HZ-4.8": [f"{check_physics.FREQUENCY_TOLERANCE:g} cm⁻¹", f"{printed.FREQUENCY_WARNING:g} cm⁻¹"],
    "HZ-4.9": [f"{limits.STATIONARY_FORCE:g} eV/Å"],
    "HZ-4.10": [f"{limits.STIFFEST[0]:g} eV/Å²", f"{limits.STIFFEST[1]:g} eV/Å²"],
    "HZ-4.11": [f"{near.TOLERANCE:g} Å", {1_000_000: "a million"}[check_physics.MOST_COMPARED]],
    "HZ-4.12": [f"{identities.DIPOLE_SUM:g} e"],
    "HZ-4.13": [f"{identities.BORN_MEAN:g} e"],
    "HZ-4.14": [_percent(identities.DIELECTRIC_ASYMMETRY)],
}


def _rows(page: str) -> list[list[str]]:
    """Cells of the rows of the table that has a column of reasons."""
    text = (DOCS / page).read_text()
    table = text[text.index("| why there |") :].split("\n\n")[0]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()[2:]]


@pytest.mark.parametrize(("page", "expected"), [("convert.md", CONVERT), ("validate.md", VALIDATE)])
def test_tables_have_the_numbers_of_the_code(page, expected):
    rows = _rows(page)
    assert all(row[-1] for row in rows)
    for start, numbers in expected.items():
        (row,) = (row for row in rows if re.match(rf"{re.escape(start)}(\b|$)", row[0]))
        for number in numbers:
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]\d)", " | ".join(row)), (start, number)
    known = set(expected) | {"end mark"}
    assert {row[0] for row in rows if not row[0].startswith(tuple(known))} == set()


def test_limits_beside_the_tables_are_those_of_the_code():
    text = (DOCS / "convert.md").read_text()
    for number in (
        f"{limits.STATIONARY_FORCE:g} eV/Å: optimisers",
        f"{checks.IMPLIED_FORCE:g} eV/Å, and 5 times",
        f"{limits.IMAGINARY:g} cm⁻¹: softer",
    ):
        assert number in text
    text = (DOCS / "validate.md").read_text()
    for value in (check_values.PROBE_NORM, check_values.NO_VOLUME):
        assert f"{value:.0e}".replace("e-0", "e-") in text


def _diatomic(number: int, stiffness: float, **labels: object) -> LabelledGeometry:
    block = np.diag([stiffness / 2, 0.0, 0.0])
    return LabelledGeometry(
        numbers=np.array([number, number]),
        positions=np.array([[0.0, 0, 0], [1.1, 0, 0]]),
        forces=np.zeros((2, 3)),
        hessian=np.block([[block, -block], [-block, block]]),
        **labels,
    )


@pytest.mark.parametrize(
    ("number", "stiffness", "doubted"), [(1, 10.0, True), (1, 20.0, False), (6, 2.4, False), (6, 422.0, False),
                                         (6, 501.0, True)]
)  # fmt: skip
def test_stiffness_is_doubted_alike(tmp_path, number, stiffness, doubted):
    record, found = check(_diatomic(number, stiffness))
    assert any("stiffest" in text for text in found.warnings) is doubted
    with StoreWriter(tmp_path / "a.zarr") as writer:
        writer.append(record)
    assert ("HZ-4.10" in validate(tmp_path / "a.zarr").counts) is doubted


@pytest.mark.parametrize(("share", "wrong"), [(0.04, False), (0.2, True)])
def test_translation_of_a_crystal_is_judged_alike(tmp_path, share, wrong):
    """Between 2 and 10 % of the largest element a periodic Hessian was taken, and the store then not valid."""
    hessian = np.array(_diatomic(6, 200.0).hessian)
    hessian[0, 0] += share * 100.0
    record = _diatomic(6, 200.0).replace(cell=np.eye(3) * 9, pbc=True, hessian=hessian)
    with StoreWriter(tmp_path / "a.zarr") as writer:
        writer.append(record)
    counts = validate(tmp_path / "a.zarr").counts
    assert "HZ-4.1" in counts
    assert ("HZ-4.2" in counts) is wrong
    if wrong:
        with pytest.raises(PhysicsError, match="do not sum to zero"):
            check(record)
    else:
        assert check(record)[1].translation == pytest.approx(share * 100.0)


def test_dielectric_tensor_of_a_file_is_looked_at():
    crystal = _diatomic(6, 200.0).replace(cell=np.eye(3) * 9, pbc=True, supercell_matrix=np.eye(3, dtype=int))
    for tensor, said in (
        (2.4 * np.eye(3), None),
        (np.array([[2.4, 0.2, 0], [0, 2.4, 0], [0, 0, 2.4]]), "not symmetric"),
        (np.diag([2.4, 2.4, -1.0]), "eigenvalue -1"),
    ):
        texts = [text for text in check(crystal.replace(dielectric=tensor))[1].warnings if "dielectric" in text]
        assert (said is None and not texts) or (said is not None and said in texts[0])


@pytest.mark.parametrize(("name", "factor", "said"), [
    ("C6H6", 1.0, None), ("H2", 1 / 0.529177, None),
    ("C6H6", 1 / 0.529177, "bohr taken for angstrom"), ("C6H6", 0.529177, "angstrom taken for bohr"),
])  # fmt: skip
def test_positions_in_another_unit_at_a_stationary_point_without_frequencies(name, factor, said):
    """Nothing else sees them there: the identities hold in any unit where forces vanish."""
    atoms = molecule(name)
    n = len(atoms)
    motions = rigid_motions(atoms.positions, np.ones(n))
    hessian = 30 * (np.eye(3 * n) - motions @ motions.T)
    record = LabelledGeometry(
        numbers=atoms.numbers, positions=factor * atoms.positions, hessian=hessian, forces=np.zeros((n, 3))
    )
    warnings = [text for text in check(record)[1].warnings if "closest two atoms" in text]
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_noble_gases_may_be_far_apart():
    positions = 3.8 * np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0], [2.5, 0, 0]])
    assert closest_pair(np.array([18, 18, 18, 18]), positions) is None
    assert closest_pair(np.array([10, 1, 6, 18]), positions) > 1.7
