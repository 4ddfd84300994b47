"""What a command may name as its MODEL: a NequIP file, `tblite`, or any ASE calculator.

Whatever it is, an ASE calculator with `get_hessian(atoms, indices=None)` comes back, so that everything in
`analysis` treats it alike. A calculator that has no Hessian of its own gets one by central differences.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from nequip_hessian.curvature import SECOND_ORDER, as_square, difference_hessian, displaced, symmetrise
from nequip_hessian.errors import ConfigError, HessianDataError, ModelError, OptionError, reason_of

Array = npt.NDArray[np.float64]

DISPLACEMENT: Final = 0.005
"""Step of the central differences, angstrom."""

DEBYE: Final = 0.20819433  # e angstrom, as ase.units.Debye
_TBLITE_SOLVATION: Final = tuple(
    f"{model}_solvation" for model in ("alpb", "gbsa", "cosmo", "cpcm", "pcm", "gbe", "gb")
)
_TBLITE_ACCURACY: Final = 0.01  # keeps the noise of the forces near 1e-6 eV/angstrom


@contextmanager
def _said(title: str) -> Iterator[None]:
    """Turn whatever a foreign calculator raises into one line."""
    try:
        yield
    except HessianDataError:
        raise
    except Exception as exc:  # any exception may come out of any calculator
        raise ModelError(f"{title}: {reason_of(exc)}") from exc


class ForeignPotential(Calculator):
    """Any ASE calculator with a Hessian added.

    The Hessian is the calculator's own where it has `get_hessian(atoms)`, else central differences of its
    forces. `charge` and `multiplicity` in `atoms.info` become initial charges and magnetic moments, which is
    where most molecular calculators look, and stay in `info`, where the others do. What the calculator raises
    comes back as `ModelError`.

    Args:
        inner: the calculator
        title: for messages and reports
        displacement: step of the differences, angstrom
    """

    implemented_properties = ["energy", "forces", "dipole", "stress"]  # noqa: RUF012 (ASE's convention)

    def __init__(self, inner: Any, title: str, displacement: float = DISPLACEMENT) -> None:
        super().__init__()
        self.inner, self.title, self.displacement = inner, title, displacement

    @property
    def has_stress(self) -> bool:
        """Whether the calculator gives the stress of a periodic cell."""
        return "stress" in getattr(self.inner, "implemented_properties", ())

    @property
    def has_dipole(self) -> bool:
        """Whether the calculator gives dipole moments."""
        return "dipole" in getattr(self.inner, "implemented_properties", ())

    def _probe(self, atoms: Atoms) -> Atoms:
        probe = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=dict(atoms.info))
        first = np.eye(1, len(atoms))[0]
        if atoms.info.get("charge"):
            probe.set_initial_charges(float(atoms.info["charge"]) * first)
        if atoms.info.get("multiplicity"):
            probe.set_initial_magnetic_moments((float(atoms.info["multiplicity"]) - 1) * first)
        probe.calc = self.inner
        return probe

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation, as ASE asks; a new electronic state counts."""
        changes = list(super().check_state(atoms, tol))
        # ASE does not look at `info`: without this, an ion would get the energy of the molecule before it
        if self.atoms is not None and _state(atoms) != _state(self.atoms):
            changes.append("initial_charges")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """ASE's entry point."""
        super().calculate(atoms, properties, system_changes)
        probe = self._probe(self.atoms)
        with _said(self.title):
            self.results = {"energy": float(probe.get_potential_energy()), "forces": np.array(probe.get_forces())}
        if "dipole" in properties:
            self.results["dipole"] = np.array(probe.get_dipole_moment())
        if "stress" in properties:
            self.results["stress"] = np.array(probe.get_stress())  # raises ASE's own error where there is none

    def get_hessian(self, atoms: Atoms | None = None, indices: Sequence[int] | None = None) -> Array:
        """Return the Hessian (3n, 3n) of n = len(indices), default all, atoms, eV/angstrom^2, symmetric."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ConfigError("get_hessian: give a geometry")
        chosen = np.arange(len(atoms)) if indices is None else np.asarray(indices, dtype=int)
        with _said(self.title):
            return self._hessian(atoms, chosen)

    def _hessian(self, atoms: Atoms, chosen: npt.NDArray[np.intp]) -> Array:
        if hasattr(self.inner, "get_hessian"):
            full = as_square(np.asarray(self.inner.get_hessian(self._probe(atoms)), dtype=np.float64), len(atoms))
            rows = (3 * chosen[:, None] + np.arange(3)).ravel()
            return np.asarray(symmetrise(full)[0][np.ix_(rows, rows)])
        moved = displaced(atoms.positions, self.displacement, SECOND_ORDER, chosen)
        forces = [forces[chosen] for forces in self._forces_at(atoms, moved)]
        return np.asarray(symmetrise(difference_hessian(forces, self.displacement, SECOND_ORDER))[0])

    def _forces_at(self, atoms: Atoms, moved: Iterable[Array]) -> Iterator[Array]:
        """Forces (N, 3), eV/angstrom, of the atoms at other positions, one after the other."""
        probe = self._probe(atoms)
        for positions in moved:
            probe.positions = positions
            yield np.array(probe.get_forces())


def _state(atoms: Atoms) -> tuple[Any, ...]:
    return tuple(atoms.info.get(name) for name in ("charge", "multiplicity", "spin"))


def load_potential(name: str, *, device: str = "cpu", options: Mapping[str, Any] | None = None) -> Any:
    """Make the calculator that a command line names.

    Args:
        name: a NequIP file (`.ckpt`, `.nequip.zip`, `.nequip.pt2`); `tblite` or `tblite:GFN1-xTB`; `ase:NAME`,
            where NAME is `package.module:Name` or a name ASE knows, e.g. `ase:emt`
        device: `cpu` or `cuda`, for NequIP files
        options: keyword arguments of an ASE calculator or of tblite's

    Returns:
        An ASE calculator with `get_hessian`.

    Raises:
        ConfigError: no such file, a damaged one, options for a NequIP file, or some that tblite does not know
        EngineError: no such calculator, or one that cannot be made
        MissingExtraError: tblite is not installed
    """
    given = dict(options or {})
    if name == "tblite" or name.startswith("tblite:"):
        return _tblite(name.partition(":")[2] or "GFN2-xTB", given)
    if name.startswith("ase:"):
        return _foreign(name.removeprefix("ase:"), given)
    if given:
        raise OptionError(f"model {name}: options are for ase:... and tblite, not for a NequIP file")
    from nequip_hessian.calculator import HessianCalculator

    return HessianCalculator.from_file(name, device=device)


@dataclass(frozen=True)
class PotentialSource:
    """How to make a calculator again, in another process too.

    Attributes:
        text: a NequIP file, `tblite`, `tblite:METHOD` or `ase:NAME`, see `load_potential`
        device: `cpu` or `cuda`, for NequIP files
        options: keyword arguments of an ASE calculator or of tblite's
        workers: processes among which geometries asked for together are divided, for `tblite` and `ase:`

    Raises:
        OptionError: fewer than one worker, or several for a NequIP file.
    """

    text: str
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise OptionError(f"workers: expected 1 or more, found {self.workers}")
        if self.workers > 1 and not self.foreign:
            raise OptionError(
                f"workers: {self.text} is a NequIP file, which answers several geometries in one call; leave "
                "--workers out (OMP_NUM_THREADS sets its threads)"
            )

    @property
    def foreign(self) -> bool:
        """Whether it is no NequIP file."""
        return self.text == "tblite" or self.text.startswith(("tblite:", "ase:"))

    @property
    def is_model(self) -> bool:
        """Whether it names a calculator at all: a NequIP file by its ending, or what `foreign` says."""
        return self.foreign or self.text.endswith((".ckpt", ".nequip.zip", ".nequip.pt2", ".nequip.pth"))

    def load(self) -> Any:
        """Make the calculator; raises as `load_potential`."""
        calculator = load_potential(self.text, device=self.device, options=self.options)
        if self.workers == 1:
            return calculator
        from nequip_hessian.pooled import PooledPotential

        return PooledPotential(calculator, self)

    @cached_property
    def identity(self) -> str:
        """What the results belong to: a file's checksum; of another calculator its name, options and versions."""
        if not self.foreign:
            from nequip_hessian.analysis.cache import file_checksum

            return file_checksum(Path(self.text))
        packages = {name: _version(name) for name in ("ase", "tblite", self.text.partition(":")[2].split(".")[0])}
        text = json.dumps([self.text, dict(self.options), packages], sort_keys=True, default=str)
        return f"{self.text} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return None


def _tblite(method: str, options: dict[str, Any]) -> ForeignPotential:
    from nequip_hessian.label.tblite import TbliteEngine

    TbliteEngine(method=method)  # says what is wrong with the name, or that tblite is not installed
    from tblite.ase import TBLite

    known = sorted({*TBLite.default_parameters, *_TBLITE_SOLVATION} - {"method"})
    if unknown := sorted(set(options) - set(known)):  # the class keeps what it does not know and never looks at it
        named = "the method is part of the name, as in tblite:GFN1-xTB; " if "method" in unknown else ""
        raise OptionError(
            f"calculator options of tblite: unknown: {', '.join(unknown)}; {named}it knows {', '.join(known)}"
        )
    settings = {"accuracy": _TBLITE_ACCURACY, "verbosity": 0, **options}
    title = f"{method} (tblite {version('tblite')})"
    with _said(title):
        return ForeignPotential(TBLite(method=method, **settings), title)


def _foreign(path: str, options: dict[str, Any]) -> ForeignPotential:
    from nequip_hessian.errors import EngineError
    from nequip_hessian.label.ase import find_calculator

    maker = find_calculator(path)
    try:
        inner = maker(**options)
    except Exception as exc:  # any exception may come out of any calculator
        raise EngineError(f"calculator {path!r} cannot be made: {type(exc).__name__}: {exc}") from exc
    return ForeignPotential(inner, path)


def dipole_derivatives(calculator: Any, atoms: Atoms, displacement: float = DISPLACEMENT) -> Array | None:
    """Derivatives of the dipole moment by central differences, where the calculator gives dipole moments.

    Args:
        calculator: ASE calculator whose dipole moment is in e angstrom, as ASE has it
        atoms: geometry, angstrom
        displacement: angstrom

    Returns:
        (3N, 3), e: row 3*atom + xyz is the displacement, column the dipole component; None without dipoles.
    """
    if not getattr(calculator, "has_dipole", "dipole" in getattr(calculator, "implemented_properties", ())):
        return None
    probe, dipoles = atoms.copy(), []
    probe.calc = calculator
    for positions in displaced(atoms.positions, displacement, SECOND_ORDER):
        probe.positions = positions
        dipoles.append(np.array(probe.get_dipole_moment(), dtype=np.float64))
    pairs = np.array(dipoles).reshape(3 * len(atoms), 2, 3)
    return np.asarray((pairs[:, 0] - pairs[:, 1]) / (2 * displacement))
