"""Holding one labelled geometry against physics before it enters a store.

What applies is computed for every record: asymmetry, the exact identities of
translation and rotation, recomputed against printed frequencies, the stiffest
eigenvalue. What is plainly wrong raises a PhysicsError that says what would mend
it; what one should know becomes a warning in the result. Partial Hessians have
only their symmetry, periodic ones symmetry and translation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from nequip_hessian.curvature import principal_moments
from nequip_hessian.errors import PhysicsError
from nequip_hessian.formats._atoms import is_mass_of, isotopic_masses
from nequip_hessian.identities import (
    born_warnings,
    diagnose,
    dielectric_warnings,
    dipole_warnings,
    implied_forces,
    translation_residual,
)
from nequip_hessian.limits import (
    IMAGINARY,
    SPACING,
    STATIONARY_FORCE,
    TRANSLATION_WARNING,
    closest_pair,
    largest_translation,
    stiffness_range,
)
from nequip_hessian.misprints import find_misprint
from nequip_hessian.printed import against_printed, partial_modes, projected_wavenumbers
from nequip_hessian.record import LabelledGeometry

LARGEST_ELEMENT: Final = 1e8  # eV/angstrom^2; beyond, a digit of an exponent was changed, and products overflow
LARGEST_POSITION: Final = 1e8  # angstrom
ASYMMETRY_WARNING: Final = 0.1  # eV/angstrom^2; 99 of 103 published outputs stay below 0.08
ASYMMETRY_REFUSAL: Final = 0.05  # of the largest element; ORCA's analytic Hessians reach 0.004
ISOTOPE_STEP: Final = 0.4  # u; isotopes of one element are about 1 u apart, an average may lie half-way
IMPLIED_FORCE: Final = 0.5  # eV/angstrom; grid noise alone implies up to this
_STATIONARY_KINDS: Final = ("minimum", "transition_state", "higher_saddle")


@dataclass(frozen=True)
class Checks:
    """What was found out about one record.

    Attributes:
        verdict: of `identities.diagnose`; `not applicable` for partial and periodic Hessians and
            for records without one
        message: the diagnosis in a sentence
        asymmetry: max|H - H^T| in the source, eV/angstrom^2
        largest: max|H|, eV/angstrom^2
        translation: residual of the translational identity, eV/angstrom^2
        rotation: residual of the rotational identity, eV/angstrom
        rotation_relative: the same over the largest it could be, dimensionless
        scale, scale_error: fit of unit and sign, dimensionless; None where there are no forces
        stiffest: largest eigenvalue, eV/angstrom^2
        imaginary: number of imaginary modes beyond IMAGINARY
        lowest: lowest wavenumber, cm^-1, imaginary negative
        max_force: largest force component (of a partial Hessian: on its active atoms), eV/angstrom
        frequency_deviation: largest difference of recomputed and printed wavenumbers, cm^-1
        warnings: what the user should know, one sentence each
    """

    verdict: str = "not applicable"
    message: str = ""
    asymmetry: float | None = None
    largest: float | None = None
    translation: float | None = None
    rotation: float | None = None
    rotation_relative: float | None = None
    scale: float | None = None
    scale_error: float | None = None
    stiffest: float | None = None
    imaginary: int | None = None
    lowest: float | None = None
    max_force: float | None = None
    frequency_deviation: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def quality(self) -> dict[str, float | None]:
        """What a store keeps of it, see `StoreWriter.append`: to four digits, which are those of any processor."""
        found = {
            "largest": self.largest,
            "translation": self.translation,
            "rotation": self.rotation,
            "frequency": self.frequency_deviation,
        }
        return {name: None if value is None else float(f"{value:.4g}") for name, value in found.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return what is known as a JSON-able dictionary (None left out)."""
        items = {**vars(self), "warnings": list(self.warnings)}
        return {key: value for key, value in items.items() if value not in (None, "", [])}


@np.errstate(over="ignore", invalid="ignore")  # of numbers that are refused: an error says so, no warning of NumPy's
def check(record: LabelledGeometry) -> tuple[LabelledGeometry, Checks]:
    """Check one record and fill in its kind.

    Args:
        record: any record; one without a Hessian passes with its forces alone

    Returns:
        The record, with `kind` set where it was unknown (see `kind_of`) and with the other mass
        convention where only that one reproduces the printed frequencies, and the findings.

    Raises:
        PhysicsError: an identity or the printed frequencies contradict the Hessian.
    """
    force = _max_force(record)
    if record.hessian is None:
        return record, Checks(max_force=force)
    hessian = np.asarray(record.hessian, dtype=np.float64)
    for name, values, most in (
        ("Hessian", hessian, LARGEST_ELEMENT),
        ("positions", record.positions, LARGEST_POSITION),
    ):
        if np.max(np.abs(values)) > most:
            raise PhysicsError(f"{name}: found numbers up to {np.max(np.abs(values)):.3g}; no molecule has them")
    found = Checks(
        asymmetry=record.asymmetry,
        largest=float(np.max(np.abs(hessian))),
        max_force=force,
        stiffest=float(np.linalg.eigvalsh(hessian)[-1]),
    )
    found = _check_symmetry(hessian, found)
    if record.active is None:
        found = _check_translation(record, hessian, found)
        if not np.any(record.pbc):
            found = _check_rotation(record, hessian, found)
            found = _check_misprints(record, hessian, found)
            found = _check_spacing(record, found)
    for text in record.provenance.get("warnings") or ():
        found = _warn(found, str(text))
    found = _check_dipole(record, found)
    found = _check_masses(record, found)
    record, found = _check_frequencies(record, hessian, found)
    found = _check_stiffest(record, found)
    found = _count_modes(record, hessian, found)
    kind = kind_of(record, found)
    if record.kind is None:
        record = record.replace(kind=kind)
    elif record.kind in _STATIONARY_KINDS and record.kind != kind:
        found = _warn(found, f"called {record.kind} in its file, but forces and imaginary modes make it {kind}")
    if record.role == "transition_state" and found.imaginary == 0:
        found = _warn(found, "called a transition state in its file, but it has no imaginary mode")
    return record, found


def _warn(found: Checks, text: str) -> Checks:
    return replace(found, warnings=(*found.warnings, text))


def _check_spacing(record: LabelledGeometry, found: Checks) -> Checks:
    """Positions in another unit: at a stationary point of no printed frequencies no identity sees them."""
    closest, (least, most) = closest_pair(record.numbers, record.positions), SPACING
    if closest is None or least <= closest <= most:
        return found
    unit = "bohr taken for angstrom" if closest > most else "angstrom taken for bohr"
    return _warn(
        found,
        f"the closest two atoms are {closest:.2g} times the sum of their covalent radii apart: positions in {unit}?",
    )


def _max_force(record: LabelledGeometry) -> float | None:
    if record.forces is None or np.all(np.isnan(record.forces)):
        return None
    forces = record.forces if record.active is None else record.forces[record.active]
    return None if np.all(np.isnan(forces)) else float(np.nanmax(np.abs(forces)))


def _check_symmetry(hessian: npt.NDArray[np.float64], found: Checks) -> Checks:
    size = float(np.max(np.abs(hessian)))
    if size == 0.0 and len(hessian) > 3:
        raise PhysicsError("all elements of the Hessian are zero; the job wrote none")
    asymmetry = found.asymmetry or 0.0
    if asymmetry > ASYMMETRY_REFUSAL * size and size > 0:
        raise PhysicsError(
            f"the Hessian is not symmetric: max|H - H^T| is {asymmetry:.3g} eV/A^2 at elements up to {size:.3g}; "
            "the matrix is damaged, mixed up or not a Hessian"
        )
    if asymmetry > ASYMMETRY_WARNING:
        return _warn(found, f"asymmetry {asymmetry:.2g} eV/A^2 before symmetrising")
    return found


def _check_translation(record: LabelledGeometry, hessian: npt.NDArray[np.float64], found: Checks) -> Checks:
    blocks = np.abs(hessian).reshape(len(record), -1).max(axis=1)
    if len(record) > 1 and np.any(blocks == 0.0):
        raise PhysicsError(
            f"the rows of {int(np.sum(blocks == 0))} of {len(record)} atoms are zero: a partial Hessian (frozen "
            "atoms?) that looks complete; give it as extended XYZ with 'active'"
        )
    residual = translation_residual(hessian)
    size = float(np.max(np.abs(hessian)))
    if len(record) > 1 and residual > largest_translation(hessian):
        raise PhysicsError(
            f"the block columns of the Hessian do not sum to zero ({residual:.3g} eV/A^2 at elements up to "
            f"{size:.3g}): mass-weighted, partial or damaged; a Cartesian Hessian of all atoms is needed"
        )
    if len(record) > 1 and residual > TRANSLATION_WARNING:
        found = _warn(
            found, f"translational identity broken by {residual:.2g} eV/A^2 (integration grid?); see --project asr"
        )
    return replace(found, translation=residual)


def _check_rotation(record: LabelledGeometry, hessian: npt.NDArray[np.float64], found: Checks) -> Checks:
    diagnosis = diagnose(hessian, record.positions, record.forces, asymmetry=record.asymmetry or 0.0)
    if diagnosis.verdict not in ("ok", "undetermined"):
        raise PhysicsError(f"{diagnosis.verdict}: {diagnosis.message}")
    fit = diagnosis.rotation
    found = replace(found, verdict=diagnosis.verdict, message=diagnosis.message)
    if fit is None:
        return found
    scale = (fit.scale, fit.error) if np.isfinite(fit.error) else (None, None)
    return replace(found, rotation=fit.residual, rotation_relative=fit.relative, scale=scale[0], scale_error=scale[1])


def _check_misprints(record: LabelledGeometry, hessian: npt.NDArray[np.float64], found: Checks) -> Checks:
    forces = record.forces
    if forces is None or np.any(np.isnan(forces)):
        stationary = _implies_no_forces(record, hessian)
        forces = np.zeros((len(record), 3)) if stationary else None
    misprint = find_misprint(hessian, record.positions, forces)
    if misprint is None:
        return found
    if misprint.certain(len(record)):
        raise PhysicsError(f"one number of the file is wrong: {misprint}")
    return _warn(found, f"is one number of the file wrong? {str(misprint)[0].upper()}{str(misprint)[1:]}")


def _implies_no_forces(record: LabelledGeometry, hessian: npt.NDArray[np.float64]) -> bool:
    forces, noise = implied_forces(hessian, record.positions)
    return float(np.max(np.abs(forces))) <= max(IMPLIED_FORCE, 5 * noise)


def _check_dipole(record: LabelledGeometry, found: Checks) -> Checks:
    """Hold Born charges and dipole derivatives against their sum rules, and look at the dielectric tensor."""
    for text in () if record.born_charges is None else born_warnings(record.born_charges):
        found = _warn(found, text)
    for text in () if record.dipole_derivatives is None else dipole_warnings(record.dipole_derivatives, record.charge):
        found = _warn(found, text)
    for text in () if record.dielectric is None else dielectric_warnings(record.dielectric):
        found = _warn(found, text)
    return found


def _check_masses(record: LabelledGeometry, found: Checks) -> Checks:
    if record.masses is None:
        return found
    for index, (number, mass) in enumerate(zip(record.numbers.tolist(), record.masses.tolist(), strict=True)):
        if not is_mass_of(number, mass):
            return _warn(
                found,
                f"atom {index} is {chemical_symbols[number]} but has the mass {mass:.3f} u, which is no isotope of it: "
                "element or mass is wrong in the file",
            )
    for number in np.unique(record.numbers):
        masses = np.unique(record.masses[record.numbers == number])
        close = np.diff(masses)
        if np.any((close > 1e-3) & (close < ISOTOPE_STEP)):
            return _warn(
                found,
                f"atoms of {chemical_symbols[int(number)]} have the masses {masses[0]:.4f} to {masses[-1]:.4f} u, "
                "too close for isotopes: is one of them wrong in the file?",
            )
    return found


def _check_frequencies(
    record: LabelledGeometry, hessian: npt.NDArray[np.float64], found: Checks
) -> tuple[LabelledGeometry, Checks]:
    record, deviation, warnings = against_printed(record, hessian)
    return record, replace(found, frequency_deviation=deviation, warnings=(*found.warnings, *warnings))


def _check_stiffest(record: LabelledGeometry, found: Checks) -> Checks:
    stiffest = found.stiffest or 0.0
    least, most = stiffness_range(record.numbers, record.positions)
    if not least <= stiffest <= most:
        return _warn(
            found,
            f"the stiffest eigenvalue is {stiffest:.3g} eV/A^2; bonds to hydrogen and multiple bonds have "
            "20 to 150 or, added up, a few times that: is the unit of the Hessian right?",
        )
    return found


def _count_modes(record: LabelledGeometry, hessian: npt.NDArray[np.float64], found: Checks) -> Checks:
    masses = isotopic_masses(record.numbers) if record.masses is None else record.masses
    if record.active is not None:
        values = partial_modes(record, hessian)
    else:
        values = projected_wavenumbers(hessian, record.positions, masses, periodic=bool(np.any(record.pbc)))
    if not len(values):
        return replace(found, imaginary=0)
    return replace(found, imaginary=int(np.sum(values < -IMAGINARY)), lowest=float(values[0]))


def kind_of(record: LabelledGeometry, found: Checks) -> str:
    """Name the kind of a geometry from its forces and its number of imaginary modes.

    `other` where the largest force exceeds 0.1 eV/angstrom, or, without forces, where the Hessian
    implies forces above 0.5 eV/angstrom and five times its grid noise; else `minimum`,
    `transition_state` or `higher_saddle` for none, one or more modes beyond 10 cm^-1 imaginary
    (translations and rotations projected out, in the masses of the record).
    """
    if found.max_force is not None:
        stationary = found.max_force <= STATIONARY_FORCE
    elif record.active is None and not np.any(record.pbc) and len(record) > 1:
        stationary = _implies_no_forces(record, np.asarray(record.hessian, dtype=np.float64))
    else:
        stationary = True
    if not stationary:
        return "other"
    return ("minimum", "transition_state", "higher_saddle")[min(found.imaginary or 0, 2)]


def invariants(record: LabelledGeometry) -> npt.NDArray[np.float64]:
    """Numbers that two outputs of one calculation share whatever frame they print: moments, then eigenvalues.

    Returns:
        (3 + n,) the principal moments of unit masses, angstrom^2, and the eigenvalues of the Hessian,
        eV/angstrom^2, ascending; without a Hessian the moments and the lengths of the forces.
    """
    moments = principal_moments(record.positions, np.ones(len(record)))
    if record.hessian is not None:
        rest = np.linalg.eigvalsh(np.asarray(record.hessian, dtype=np.float64))
    else:
        rest = np.zeros(0) if record.forces is None else np.linalg.norm(record.forces, axis=1)
    return np.concatenate([moments, rest])
