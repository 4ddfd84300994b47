"""The frequencies that a program printed against those that follow from its Hessian.

Complete vibrational analyses are compared with translations and rotations projected out, in the masses of the file or
the convention that fits; partial Hessians with the modes of the atoms that move.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import mass_weight, rigid_motions, signed_wavenumbers
from nequip_hessian.errors import PhysicsError
from nequip_hessian.formats._atoms import average_masses, isotopic_masses
from nequip_hessian.frequencies import FrequencyMatch, match_frequencies
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.units import WAVENUMBER

FREQUENCY_WARNING: Final = 0.5  # cm^-1; 87 of 88 published outputs stay below 0.35
FREQUENCY_REFUSAL: Final = (2.0, 2e-3)  # cm^-1, and of the wavenumber; the worst sound published output has 1.53

Found = tuple[LabelledGeometry, float | None, tuple[str, ...]]


def against_printed(record: LabelledGeometry, hessian: npt.NDArray[np.float64]) -> Found:
    """Compare the printed frequencies of a record, where it has some.

    Args:
        record: with `frequencies`, cm^-1, or without
        hessian: (3n, 3n), eV/angstrom^2, n the atoms that it covers

    Returns:
        The record, with the other mass convention where only that one reproduces the printed frequencies; the largest
        difference, cm^-1, None where nothing was compared; what the user should know, one sentence each.

    Raises:
        PhysicsError: they contradict the Hessian, or are too few or many.
    """
    wanted = record.frequencies
    if wanted is None or len(wanted) == 0:
        return record, None, ()
    if record.active is not None:
        return _against_partial(record, hessian)
    masses = isotopic_masses(record.numbers) if record.masses is None else record.masses
    match, warnings = _match(record, hessian, masses), []
    if match.deviation > FREQUENCY_WARNING and not str(record.provenance.get("masses_from", "")).startswith("file"):
        for name, other in (("average", average_masses), ("isotopic", isotopic_masses)):
            again = _match(record, hessian, other(record.numbers))
            if again.deviation < match.deviation / 2:
                record = record.replace(masses=other(record.numbers))
                warnings.append(f"printed frequencies follow from {name} masses, which were taken")
                match = again
    if not np.isfinite(match.deviation):
        raise PhysicsError(
            f"{len(wanted)} frequencies are printed, which does not fit {len(record)} atoms: a job with "
            "frozen atoms, or a list that is cut; only complete vibrational analyses are taken"
        )
    if not _agrees(match):
        raise PhysicsError(
            f"the frequencies that follow from the Hessian disagree with the printed ones by {match.deviation:.1f} "
            f"cm^-1 (printed {match.printed:.2f}, recomputed {match.recomputed:.2f}): Hessian and frequencies are of "
            "different geometries, masses or units"
        )
    if match.deviation > FREQUENCY_WARNING:
        warnings.append(f"recomputed frequencies differ from the printed ones by up to {match.deviation:.2g} cm^-1")
    if match.missing:
        warnings.append(f"{match.missing} mode(s) are not among the printed frequencies")
    return record, match.deviation, tuple(warnings)


def _against_partial(record: LabelledGeometry, hessian: npt.NDArray[np.float64]) -> Found:
    """Of a partial Hessian the modes of the atoms that move, with nothing projected out.

    Programs of differences diagonalise one triangle (CP2K the upper one), so a soft mode may differ by what
    the asymmetry is to an eigenvalue.
    """
    values = partial_modes(record, hessian)
    wanted = np.sort(np.asarray(record.frequencies))
    if len(values) != len(wanted):
        text = f"{len(wanted)} frequencies are printed, {len(values)} follow from the partial Hessian"
        return record, None, (text,)
    worst = int(np.argmax(np.abs(values - wanted)))
    match = FrequencyMatch(float(abs(values - wanted)[worst]), float(wanted[worst]), float(values[worst]), False, 0)
    masses = isotopic_masses(record.numbers) if record.masses is None else record.masses
    slack = WAVENUMBER**2 * (record.asymmetry or 0.0) / float(np.min(masses[record.active]))
    distance = np.abs(values * np.abs(values) - wanted * np.abs(wanted))[worst]
    if not _agrees(match) and distance > slack:
        raise PhysicsError(
            f"the frequencies that follow from the partial Hessian disagree with the printed ones by "
            f"{match.deviation:.1f} cm^-1 (printed {match.printed:.2f}, recomputed {match.recomputed:.2f}): other "
            "atoms, masses or units"
        )
    if match.deviation <= FREQUENCY_WARNING:
        return record, match.deviation, ()
    text = (
        f"frequencies of the partial Hessian differ from the printed ones by up to {match.deviation:.2g} cm^-1, within "
        "what its asymmetry is worth: the program diagonalised one triangle"
    )
    return record, match.deviation, (text,)


def partial_modes(record: LabelledGeometry, hessian: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Wavenumbers of the atoms that move, the others held fixed.

    Args:
        record: with `active`
        hessian: (n, n), n = 3 x active atoms, eV/angstrom^2

    Returns:
        (n,) cm^-1, ascending, imaginary negative.
    """
    masses = isotopic_masses(record.numbers) if record.masses is None else record.masses
    root = np.sqrt(np.repeat(masses[record.active], 3))
    values = signed_wavenumbers(np.linalg.eigvalsh(hessian / root[:, None] / root[None, :]))
    return np.asarray(values, dtype=np.float64)


def _match(
    record: LabelledGeometry, hessian: npt.NDArray[np.float64], masses: npt.NDArray[np.floating[Any]]
) -> FrequencyMatch:
    return match_frequencies(
        np.asarray(record.frequencies), hessian, record.positions, masses, periodic=bool(np.any(record.pbc))
    )


def _agrees(match: FrequencyMatch) -> bool:
    absolute, relative = FREQUENCY_REFUSAL
    return match.deviation <= absolute + relative * abs(match.printed)


def projected_wavenumbers(
    hessian: npt.NDArray[np.float64], positions: npt.NDArray[Any], masses: npt.NDArray[Any], *, periodic: bool
) -> npt.NDArray[np.float64]:
    """The wavenumbers of `curvature.normal_modes` without the modes, which cost most of the time and memory.

    Args:
        hessian: (3N, 3N), eV/angstrom^2; positions: (N, 3), angstrom; masses: (N,), u
        periodic: no rotations are projected out

    Returns:
        (3N - 5, 6 or 3,) cm^-1, ascending, imaginary negative.
    """
    weighted = mass_weight(hessian, masses)
    reflectors, factors = np.linalg.qr(rigid_motions(positions, masses, periodic=periodic), mode="raw")
    for index, factor in enumerate(factors):  # Q^T W Q: its last rows and columns are those without rigid motions
        v = reflectors[index].copy()
        v[:index], v[index] = 0.0, 1.0
        along = factor * (weighted @ v)
        along -= (factor / 2 * (v @ along)) * v
        weighted -= np.outer(v, along)
        weighted -= np.outer(along, v)
    inner = weighted[len(factors) :, len(factors) :]
    return np.asarray(signed_wavenumbers(np.linalg.eigvalsh(inner)), dtype=np.float64)
