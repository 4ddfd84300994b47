"""Phonons from force constants: bands, density of states, thermal properties, instabilities; and against a reference.

Phonopy does the lattice dynamics. Frequencies are in THz, imaginary ones negative; times THZ_TO_CM they are in cm^-1.
Thermal properties are per mole of primitive cells. An imaginary mode lies below IMAGINARY; thermal properties leave
imaginary modes out, as phonopy does.

The comparison takes both force constants at the same wave vectors, in fractions of the reciprocal primitive cell:

frequency_rmse      root mean square difference of the sorted frequencies over the mesh, THz; with its bias and maximum
dos_distance        Wasserstein-1 distance of the two spectra over the mesh, THz: mean shift of a mode's place in them
heat_capacity_*     of the difference of C_v over the temperatures, J/(K mol)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase.cell import Cell
from ase.dft.kpoints import parse_path_string

from nequip_hessian.analysis.force_constants import drift
from nequip_hessian.errors import ConfigError, OptionError
from nequip_hessian.ranges import MESH_POINTS, TEMPERATURE

Array = npt.NDArray[np.float64]

THZ_TO_CM: Final = 1e12 / 2.99792458e10  # cm^-1 per THz
IMAGINARY: Final = -0.1
"""Frequency, THz, below which a mode counts as imaginary: acoustic modes at Gamma come out within a tenth of that."""

MESH_LENGTH: Final = 60.0
"""The mesh has about this length, angstrom, over the lattice constant divisions along each direction."""

_NEAR_GAMMA: Final = 0.002  # 1/angstrom, where slopes of the acoustic branches are taken


@dataclass(frozen=True, eq=False)
class Segment:
    """Bands between two special points.

    Attributes:
        ends: labels of its two ends
        distance: (k,), 1/angstrom, without 2 pi, counted from the first segment's begin
        q: (k, 3), fractions of the reciprocal primitive cell
        frequencies: (k, m), THz
        speeds: (k, m), norms of the group velocities, km/s
        joined: whether the next segment goes on from its end
    """

    ends: tuple[str, str]
    distance: Array
    q: Array
    frequencies: Array
    speeds: Array
    joined: bool


@dataclass(frozen=True, eq=False)
class Thermal:
    """Harmonic thermal properties per mole of primitive cells.

    Attributes:
        temperatures: (t,), K; free_energy: (t,), kJ/mol; entropy, heat_capacity: (t,), J/(K mol)
    """

    temperatures: Array
    free_energy: Array
    entropy: Array
    heat_capacity: Array


@dataclass(frozen=True, eq=False)
class Phonons:
    """Lattice dynamics of one crystal.

    Attributes:
        phonon: the `phonopy.Phonopy`, with the force constants that were used
        drift_before, drift_after: violation of the acoustic sum rule, eV/angstrom^2, raw and as used
        gamma_before: (m,) frequencies at Gamma with the raw force constants, THz; gamma: as used
        bands: along the special points
        mesh: divisions; q: (k, 3), weights: (k,), frequencies: (k, m) THz on its irreducible points
        dos_grid, dos: (g,), THz, and states per THz and primitive cell
        thermal: thermal properties
        sound: direction -> speeds (3,) of sound, km/s, ascending, from the slopes at Gamma; NaN where a branch is
            imaginary
    """

    phonon: Any
    drift_before: float
    drift_after: float
    gamma_before: Array
    gamma: Array
    bands: list[Segment]
    mesh: tuple[int, int, int]
    q: Array
    weights: Array
    frequencies: Array
    dos_grid: Array
    dos: Array
    thermal: Thermal
    sound: dict[str, Array]

    @property
    def n_imaginary_gamma(self) -> int:
        """Imaginary modes at Gamma."""
        return int(np.sum(self.gamma < IMAGINARY))

    @property
    def imaginary_share(self) -> float:
        """Share of the modes on the mesh that are imaginary."""
        below = (self.frequencies < IMAGINARY).sum(axis=1)
        return float(below @ self.weights / (self.weights.sum() * self.frequencies.shape[1]))

    @property
    def lowest(self) -> tuple[float, Array]:
        """Lowest frequency on mesh and bands, THz, and its wave vector (3,)."""
        values = np.concatenate([self.frequencies.min(axis=1), *(s.frequencies.min(axis=1) for s in self.bands)])
        places = np.concatenate([self.q, *(s.q for s in self.bands)])
        index = int(np.argmin(values))
        return float(values[index]), places[index]

    @property
    def n_atoms(self) -> int:
        """Atoms of the primitive cell."""
        return len(self.phonon.primitive)


def check_settings(mesh: Sequence[int] | None, points: int, temperatures: tuple[float, float, float]) -> None:
    """Refuse settings of `lattice_dynamics` that are none, before anything is computed.

    Raises:
        OptionError: divisions, points or temperatures (K) out of range.
    """
    first, last, step = temperatures
    if not (0 <= first < last and step > 0 and (last - first) / step <= 1e5):
        raise OptionError(
            "temperatures: expected first, last and step in K, 0 <= first < last, step above 0, at most 100000 steps; "
            f"found {first:g} {last:g} {step:g}"
        )
    if last > TEMPERATURE[1]:
        raise OptionError(f"temperatures: expected a last one of {TEMPERATURE[1]:g} K or less, found {last:g} K")
    if points < 2:
        raise OptionError(f"points: expected 2 or more a segment, found {points}")
    if mesh is not None and (len(mesh) != 3 or min(mesh) < 1):
        raise OptionError(f"mesh: expected three divisions above 0, found {' '.join(map(str, mesh))}")
    if mesh is not None and math.prod(mesh) > MESH_POINTS:
        raise OptionError(
            f"mesh: expected at most {MESH_POINTS} wave vectors, found {math.prod(mesh)} ({' '.join(map(str, mesh))}); "
            "a mesh some 60 Å long is the default"
        )


def lattice_dynamics(
    phonon: Any,
    constants: Array,
    *,
    symmetrise: bool = True,
    mesh: Sequence[int] | None = None,
    points: int = 51,
    temperatures: tuple[float, float, float] = (0.0, 1000.0, 10.0),
) -> Phonons:
    """Everything from force constants.

    Args:
        phonon: `phonopy.Phonopy` of the crystal, left with the force constants used
        constants: (N, N, 3, 3), eV/angstrom^2
        symmetrise: restore the acoustic sum rule and the symmetry of the pairs
        mesh: divisions (3,) for density of states and thermal properties; default: MESH_LENGTH
        points: wave vectors on a segment of the bands
        temperatures: first, last, step, K

    Raises:
        ConfigError: divisions, points or temperatures that are none.
    """
    check_settings(mesh, points, temperatures)
    first, last, step = temperatures
    before = drift(constants)
    phonon.force_constants = np.array(constants, dtype="double", order="C")
    raw = _at(phonon, np.zeros((1, 3)))[0]
    if symmetrise:
        phonon.symmetrize_force_constants(show_drift=False)
    after, gamma = drift(np.asarray(phonon.force_constants)), _at(phonon, np.zeros((1, 3)))[0]
    bands = band_structure(phonon, points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phonon.run_mesh(list(mesh) if mesh is not None else MESH_LENGTH, is_gamma_center=True)
        phonon.run_total_dos()
        phonon.run_thermal_properties(t_min=first, t_max=last, t_step=step, cutoff_frequency=1e-3)
    grid, dos, thermal = phonon.mesh, phonon.total_dos, phonon.thermal_properties
    return Phonons(
        phonon,
        before,
        after,
        raw,
        gamma,
        bands,
        tuple(int(n) for n in phonon.mesh_numbers),  # type: ignore[arg-type]
        np.asarray(grid.qpoints),
        np.asarray(grid.weights, dtype=np.float64),
        np.asarray(grid.frequencies),
        np.asarray(dos.frequency_points),
        np.asarray(dos.dos),
        _thermal(thermal),
        _speeds_of_sound(phonon, bands),
    )


def _thermal(found: Any) -> Thermal:
    names = ("temperatures", "free_energy", "entropy", "heat_capacity")
    return Thermal(*(np.nan_to_num(np.asarray(getattr(found, name), dtype=np.float64)) for name in names))


def _at(phonon: Any, q: Array) -> Array:
    phonon.run_qpoints(q)
    return np.asarray(phonon.qpoints.frequencies)


def special_points(cell: npt.NDArray[Any]) -> tuple[list[list[str]], dict[str, Array]]:
    """Pieces of the usual path through the Brillouin zone of a primitive cell, and its special points.

    Args:
        cell: (3, 3), angstrom

    Returns:
        Labels of each connected piece, and label -> (3,) in fractions of the reciprocal cell (Setyawan and
        Curtarolo, Comput. Mater. Sci. 2010, 49, 299, as in ASE).
    """
    lattice = Cell(np.asarray(cell))
    try:
        path = lattice.bandpath(npoints=0, eps=1e-3)
    except (RuntimeError, ValueError):  # no lattice is recognised in a cell that is nearly several
        path = lattice.bandpath(npoints=0, eps=1e-5)
    return parse_path_string(path.path), {name: np.asarray(q) for name, q in path.special_points.items()}


def band_structure(phonon: Any, points: int = 51) -> list[Segment]:
    """Bands along the usual path of the primitive cell, `points` wave vectors a segment."""
    cell = np.asarray(phonon.primitive.cell)
    pieces, places = special_points(cell)
    pairs, joined = [], []
    for piece in pieces:
        for k, pair in enumerate(pairwise(piece)):
            pairs.append(pair)
            joined.append(k < len(piece) - 2)
    fractions = np.linspace(0, 1, points)[:, None]
    paths = [places[a] + fractions * (places[b] - places[a]) for a, b in pairs]
    phonon.run_band_structure(paths, with_group_velocities=True, path_connections=joined)
    found = phonon.band_structure
    segments, begin = [], 0.0
    columns = zip(pairs, paths, found.frequencies, found.group_velocities, joined, strict=True)
    for pair, q, frequencies, velocities, goes_on in columns:
        length = float(np.linalg.norm((q[-1] - q[0]) @ np.linalg.inv(cell).T))
        distance = begin + np.linspace(0, length, points)
        begin += length
        speeds = np.linalg.norm(np.asarray(velocities), axis=2) / 10  # angstrom THz -> km/s
        ends = tuple("Γ" if name == "G" else name for name in pair)
        segments.append(Segment(ends, distance, q, np.asarray(frequencies), speeds, goes_on))  # type: ignore[arg-type]
    return segments


def bands_at(phonon: Any, bands: Sequence[Segment]) -> list[Segment]:
    """Bands of a calculation at the wave vectors of another one's, drawn at the other's distances; no speeds."""
    return [replace(s, frequencies=_at(phonon, s.q), speeds=np.full_like(s.speeds, np.nan)) for s in bands]


def _speeds_of_sound(phonon: Any, bands: Sequence[Segment]) -> dict[str, Array]:
    reciprocal = np.linalg.inv(np.asarray(phonon.primitive.cell)).T
    found: dict[str, Array] = {}
    for segment in bands:
        if "Γ" not in segment.ends:
            continue
        far = segment.ends[1 if segment.ends[0] == "Γ" else 0]
        q = segment.q[-1] if segment.ends[0] == "Γ" else segment.q[0]
        near = q * _NEAR_GAMMA / np.linalg.norm(q @ reciprocal)
        speeds = np.sort(_at(phonon, near[None])[0][:3]) / _NEAR_GAMMA / 10
        found.setdefault(f"Γ–{far}", np.where(speeds < 0, np.nan, speeds))  # no wave runs along an imaginary branch
    return found


@dataclass(frozen=True, eq=False)
class PhononErrors:
    """A model's phonons against a reference; THz unless said otherwise.

    Attributes:
        frequency_rmse, frequency_mae, frequency_bias, frequency_max: over the mesh, sorted frequencies
        worst_q: (3,) where the largest difference is
        dos_distance: Wasserstein-1 distance of the spectra
        heat_capacity_rmse, heat_capacity_max: over the temperatures, J/(K mol); heat_capacity_300: difference at 300 K
        free_energy_300: difference at 300 K, kJ/mol; None where 300 K was not among the temperatures
        cell_change: (3,) relative change of the lattice constants
    """

    frequency_rmse: float
    frequency_mae: float
    frequency_bias: float
    frequency_max: float
    worst_q: Array
    dos_distance: float
    heat_capacity_rmse: float
    heat_capacity_max: float
    heat_capacity_300: float | None
    free_energy_300: float | None
    cell_change: Array


def same_primitive_cell(model: Any, reference: Any) -> None:
    """Make sure that wave vectors mean the same for two phonopy calculations.

    Raises:
        ConfigError: other atoms, or cells of another shape.
    """
    kinds = [np.asarray(calculation.primitive.numbers).tolist() for calculation in (model, reference)]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"reference: its primitive cell has atoms {kinds[1][:8]}, the model's {kinds[0][:8]}: another crystal, "
            "or another order of its atoms"
        )
    shapes = [Cell(np.asarray(calculation.primitive.cell)).cellpar() for calculation in (model, reference)]
    if np.any(np.abs(shapes[0][:3] / shapes[1][:3] - 1) > 0.15) or np.any(np.abs(shapes[0][3:] - shapes[1][3:]) > 5):
        text = [", ".join(f"{value:.3f}" for value in shape) for shape in shapes]
        raise ConfigError(
            f"reference: its primitive cell is {text[1]} (Å, degrees), the model's {text[0]}: expected the same to "
            "15 % and 5 degrees; give both in the same setting"
        )


def compare_phonons(model: Phonons, reference: Phonons) -> PhononErrors:
    """Measure a model against a reference at the wave vectors of the model's mesh.

    Raises:
        ConfigError: they are not of the same crystal.
    """
    from scipy.stats import wasserstein_distance

    same_primitive_cell(model.phonon, reference.phonon)
    other = np.sort(_at(reference.phonon, model.q), axis=1)
    mine = np.sort(model.frequencies, axis=1)
    difference = mine - other
    share = np.repeat(model.weights / model.weights.sum(), mine.shape[1]) / mine.shape[1]
    flat = difference.ravel()
    worst = int(np.argmax(np.abs(difference).max(axis=1)))
    heat = model.thermal.heat_capacity - reference.thermal.heat_capacity
    room = np.flatnonzero(np.abs(model.thermal.temperatures - 300) < 1e-6)
    energy = model.thermal.free_energy - reference.thermal.free_energy
    lengths = [Cell(np.asarray(p.phonon.primitive.cell)).cellpar()[:3] for p in (model, reference)]
    return PhononErrors(
        float(np.sqrt(share @ flat**2)),
        float(share @ np.abs(flat)),
        float(share @ flat),
        float(np.max(np.abs(flat))),
        model.q[worst],
        float(wasserstein_distance(mine.ravel(), other.ravel(), share, share)),
        float(np.sqrt(np.mean(heat**2))),
        float(np.max(np.abs(heat))),
        float(heat[room[0]]) if len(room) else None,
        float(energy[room[0]]) if len(room) else None,
        np.asarray(lengths[0] / lengths[1] - 1),
    )
