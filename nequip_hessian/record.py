"""LabelledGeometry: the one in-memory object that formats, labellers and the store exchange.

Units are those of the package (eV, angstrom, eV/angstrom, eV/angstrom^2, u, e,
cm^-1). A missing label is `None`, never zeros. The record is validated once,
when it is made, and is immutable from then on: its arrays are read-only copies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.curvature import as_square, symmetrise
from nequip_hessian.errors import RecordError

KINDS: Final = ("minimum", "transition_state", "higher_saddle", "path", "displaced", "other")
ROLES: Final = ("reactant", "transition_state", "product", "intermediate")

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LevelOfTheory:
    """How the labels were computed; equal levels share one entry in a store.

    Attributes:
        method: functional or method, e.g. `B3LYP`, `GFN2-xTB`, `CCSD(T)`
        basis: basis set, `None` where there is none
        dispersion: dispersion correction, e.g. `D3BJ`
        solvation: solvent model and solvent
        program: program that made the labels
        program_version: its version
        hessian: `analytic`, `finite_difference` or `None` (unknown)
        displacement: step of a finite-difference Hessian, angstrom
    """

    method: str
    basis: str | None = None
    dispersion: str | None = None
    solvation: str | None = None
    program: str | None = None
    program_version: str | None = None
    hessian: str | None = None
    displacement: float | None = None

    def __post_init__(self) -> None:
        if not self.method or not isinstance(self.method, str):
            raise RecordError(f"level of theory: expected a method name, found {self.method!r}")
        for name in ("basis", "dispersion", "solvation", "program", "program_version"):
            if not isinstance(getattr(self, name), str | None):
                raise RecordError(f"level of theory: {name} must be text or None, found {getattr(self, name)!r}")
        if not isinstance(self.displacement, float | int | None):
            raise RecordError(f"level of theory: displacement must be a length or None, found {self.displacement!r}")
        if self.hessian not in (None, "analytic", "finite_difference"):
            raise RecordError(
                f"level of theory: hessian must be 'analytic', 'finite_difference' or None, found {self.hessian!r}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary (all keys present, `None` for unknown)."""
        return asdict(self)


UNKNOWN_LEVEL: Final = LevelOfTheory(method="unknown")


_NAMES = ("label", "kind", "role", "group", "charge", "multiplicity")  # that say which one it is
_SCALARS = frozenset((*_NAMES, "energy", "path_coordinate", "level", "provenance"))  # no array depends on them
_MOST_CHARGE = 32767  # what a store keeps them in
_ARRAYS = ("forces", "hessian", "products", "dipole_derivatives", "born_charges", "frequencies")


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LabelledGeometry:
    """One geometry with its labels. N atoms; n = 3N, or 3 x len(active) for a partial Hessian.

    Degree of freedom i = 3*atom + xyz. Sign of the Hessian: +d2E/dxdx. It is
    Cartesian, neither mass-weighted nor projected.

    Attributes:
        numbers: (N,) uint8, atomic numbers 1 to 118
        positions: (N, 3) float64, angstrom
        cell: (3, 3) float64, angstrom, rows are the vectors; zeros where not periodic
        pbc: (3,) bool
        charge: total charge, e; `None` unknown
        multiplicity: 2S + 1; `None` unknown
        energy: total energy, eV
        forces: (N, 3), eV/angstrom (forces, not gradients); NaN rows where a force is unknown
        hessian: (n, n) float32 or float64, eV/angstrom^2; given raw, kept as (H + H^T)/2. The
            shapes (n,), (n, n), (N, 3, N, 3), (3N, N, 3) and (N, N, 3, 3) are accepted
        asymmetry: max|H - H^T| before symmetrising, eV/angstrom^2; computed unless given
        active: strictly increasing indices of the atoms of a partial Hessian, the others
            are held fixed; `None` = all atoms
        masses: (N,) float64, u: the masses the source used
        born_charges: (N, 3, 3) float64, e; element [atom, i, j] is the change of the force component j
            by a field along i, as in phonopy
        supercell_matrix: (3, 3) int32, where the geometry is the supercell of a phonon calculation: cell =
            supercell_matrix^T @ unit cell, vectors in rows (phonopy's convention), atoms in phonopy's order
        primitive_matrix: (3, 3) float64: primitive cell = primitive_matrix^T @ unit cell; only with the former
        dielectric: (3, 3) float64, high-frequency dielectric tensor; only with the supercell matrix
        probes: (k, N, 3) unit-norm probes of stored Hessian products, dimensionless
        products: (k, N, 3) H v of each probe, eV/angstrom^2
        dipole_derivatives: (3N, 3), e; row 3*atom + xyz, column dipole component
        frequencies: (m,) what the source printed, cm^-1, imaginary negative; for checks only
        frequencies_projected: whether translations and rotations were projected out of them
        kind: one of KINDS; role: one of ROLES
        group: name of the reaction, molecule or trajectory it belongs to (leakage-safe splits)
        path_coordinate: signed position along the group's path, u^(1/2) angstrom, 0 at the TS
        label: free text without control characters
        level: level of theory
        provenance: JSON-able facts on where it came from (file, size, sha256, conversions)
    """

    numbers: npt.NDArray[np.uint8]
    positions: FloatArray
    cell: FloatArray | None = None
    pbc: npt.NDArray[np.bool_] | bool = False
    charge: int | None = None
    multiplicity: int | None = None
    energy: float | None = None
    forces: FloatArray | None = None
    hessian: FloatArray | None = None
    asymmetry: float | None = None
    active: npt.NDArray[np.int32] | None = None
    masses: FloatArray | None = None
    born_charges: FloatArray | None = None
    supercell_matrix: npt.NDArray[np.int32] | None = None
    primitive_matrix: FloatArray | None = None
    dielectric: FloatArray | None = None
    probes: FloatArray | None = None
    products: FloatArray | None = None
    dipole_derivatives: FloatArray | None = None
    frequencies: FloatArray | None = None
    frequencies_projected: bool | None = None
    kind: str | None = None
    role: str | None = None
    group: str | None = None
    path_coordinate: float | None = None
    label: str | None = None
    level: LevelOfTheory = UNKNOWN_LEVEL
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say in a line what it is: the formula, the names, and the labels that there are, arrays by their shape."""
        from ase.symbols import Symbols

        formula = Symbols(self.numbers).get_chemical_formula()
        words = [f"{name}={value!r}" for name in _NAMES if (value := getattr(self, name)) is not None]
        if self.energy is not None:
            words.append(f"energy={self.energy:.6f} eV")
        words += [f"{name} {value.shape}" for name in _ARRAYS if (value := getattr(self, name)) is not None]
        return f"<LabelledGeometry {', '.join([formula, *words])}>"

    def __post_init__(self) -> None:
        self._set_atoms()
        self._set_cell()
        self._set_scalars()
        n = len(self)
        self._set_array("forces", (n, 3), finite=False)
        self._set_active()
        self._set_hessian()
        self._set_array("masses", (n,), dtype=np.float64)
        if self.masses is not None and not np.all(self.masses > 0):
            raise RecordError(f"masses must be positive, found {float(np.min(self.masses))} u{self._where()}")
        self._set_array("born_charges", (n, 3, 3), dtype=np.float64)
        self._set_array("dipole_derivatives", (3 * n, 3))
        self._set_array("frequencies", (None,))
        self._set_products()
        self._set_phonon()

    def __len__(self) -> int:
        return len(self.numbers)

    def replace(self, **changes: Any) -> LabelledGeometry:
        """Return a new, validated record with some fields changed (`hessian=None` drops the asymmetry too)."""
        if "hessian" in changes and "asymmetry" not in changes:
            changes["asymmetry"] = None
        if not _SCALARS.issuperset(changes):
            return replace(self, **changes)
        changed = copy.copy(self)  # the arrays are read-only and fit each other already
        for name, value in changes.items():
            changed._put(name, value)
        changed._set_scalars()
        return changed

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> LabelledGeometry:
        """Make a record of what another one held, without looking at it again: numbers read back from our own file.

        Args:
            values: fields of a valid record; arrays must be those that it held, and become read-only
        """
        record = object.__new__(cls)
        for one in fields(cls):
            default = one.default if one.default_factory is MISSING else one.default_factory()
            value = values.get(one.name, default)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            record._put(one.name, value)
        return record

    @property
    def formula(self) -> str:
        """Chemical formula in Hill order, e.g. `CH2O`."""
        from ase.formula import Formula
        from ase.symbols import Symbols

        return str(Formula(str(Symbols(np.asarray(self.numbers, dtype=int)))).convert("hill"))

    # -- validation, one method a concept ------------------------------------------------

    def _where(self) -> str:
        source = self.provenance.get("source") if isinstance(self.provenance, Mapping) else None
        parts = [str(part) for part in (self.label, source) if part]
        return f" ({', '.join(parts)})" if parts else ""

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _set_array(
        self, name: str, shape: tuple[int | None, ...], dtype: type | None = None, finite: bool = True
    ) -> None:
        value = getattr(self, name)
        if value is None:
            return
        array = np.array(value)  # a copy: the record owns what it holds
        if array.dtype.kind not in "fiu":
            raise RecordError(f"{name}: expected numbers, found dtype {array.dtype}{self._where()}")
        if dtype is not None or array.dtype not in (np.float32, np.float64):
            array = array.astype(dtype or np.float64)
        fits = array.ndim == len(shape) and all(w is None or w == g for w, g in zip(shape, array.shape, strict=True))
        if not fits:
            wanted = tuple("any" if w is None else w for w in shape)
            raise RecordError(f"{name}: expected shape {wanted}, found {array.shape}{self._where()}")
        if finite and not np.all(np.isfinite(array)):
            raise RecordError(f"{name}: expected finite numbers, found NaN or infinity{self._where()}")
        if not finite and np.any(np.isinf(array)):
            raise RecordError(f"{name}: infinity found; a missing value is NaN{self._where()}")
        array.setflags(write=False)
        self._put(name, array)

    def _set_atoms(self) -> None:
        numbers = np.asarray(self.numbers)
        if numbers.ndim != 1 or len(numbers) == 0:
            raise RecordError(f"numbers: expected (N,) with at least one atom, found shape {numbers.shape}")
        if numbers.dtype.kind not in "iu" or numbers.min() < 1 or numbers.max() > 118:
            raise RecordError(f"numbers: expected atomic numbers 1 to 118, found {numbers.tolist()[:8]}{self._where()}")
        numbers = numbers.astype(np.uint8)
        numbers.setflags(write=False)
        self._put("numbers", numbers)
        self._set_array("positions", (len(numbers), 3), dtype=np.float64)
        distinct = np.unique(self.positions, axis=0)
        if len(distinct) != len(numbers):
            raise RecordError(f"positions: two atoms at the same place{self._where()}")

    def _set_cell(self) -> None:
        pbc = np.array(np.broadcast_to(np.asarray(self.pbc, dtype=bool), (3,)))
        pbc.setflags(write=False)
        self._put("pbc", pbc)
        if self.cell is None:
            self._put("cell", np.zeros((3, 3)))
        self._set_array("cell", (3, 3), dtype=np.float64)
        if pbc.any() and abs(np.linalg.det(np.asarray(self.cell))) < 1e-8:
            raise RecordError(f"cell: periodic geometry with a cell of no volume{self._where()}")

    def _set_scalars(self) -> None:
        for name in ("energy", "path_coordinate", "asymmetry"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise RecordError(f"{name}: expected a finite number or None, found {value}{self._where()}")
            if value is not None:
                self._put(name, float(value))
        for name in ("charge", "multiplicity"):
            value = getattr(self, name)
            if value is not None:
                if int(value) != value or abs(value) > _MOST_CHARGE:
                    raise RecordError(
                        f"{name}: expected an integer of at most {_MOST_CHARGE} in size, found {value}{self._where()}"
                    )
                self._put(name, int(value))
        if self.multiplicity is not None and self.multiplicity < 1:
            raise RecordError(f"multiplicity: expected 1 or more, found {self.multiplicity}{self._where()}")
        for name, allowed in (("kind", KINDS), ("role", ROLES)):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise RecordError(f"{name}: expected one of {', '.join(allowed)}, found {value!r}{self._where()}")
        for name in ("group", "label"):
            value = getattr(self, name)
            if value is not None and (
                not value or any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in value)
            ):
                raise RecordError(f"{name}: expected text without control characters, found {value!r}")

    def _set_active(self) -> None:
        if self.active is None:
            return
        active = np.array(self.active)
        ok = active.ndim == 1 and active.dtype.kind in "iu" and len(active) > 0 and np.all(np.diff(active) > 0)
        if not ok or active[0] < 0 or active[-1] >= len(self):
            raise RecordError(
                f"active: expected strictly increasing atom indices 0 to {len(self) - 1}, found {active.tolist()[:8]}"
                f"{self._where()}"
            )
        if self.hessian is None:
            raise RecordError(f"active: given without a Hessian{self._where()}")
        active = active.astype(np.int32)
        active.setflags(write=False)
        self._put("active", None if len(active) == len(self) else active)

    def _set_hessian(self) -> None:
        if self.hessian is None:
            if self.asymmetry is not None:
                raise RecordError(f"asymmetry: given without a Hessian{self._where()}")
            return
        atoms = len(self) if self.active is None else len(self.active)
        raw = np.asarray(self.hessian)
        if raw.dtype not in (np.float32, np.float64):
            raw = raw.astype(np.float64)
        if not np.all(np.isfinite(raw)):
            raise RecordError(f"hessian: expected finite numbers, found NaN or infinity{self._where()}")
        try:
            square = as_square(raw, atoms)
        except ValueError as exc:
            raise RecordError(f"{exc}{self._where()}") from exc
        symmetric, asymmetry = symmetrise(square)
        symmetric.setflags(write=False)
        self._put("hessian", symmetric)
        if self.asymmetry is None:
            self._put("asymmetry", asymmetry)

    def _set_products(self) -> None:
        if (self.probes is None) != (self.products is None):
            raise RecordError(f"probes and products: give both or neither{self._where()}")
        for name in ("probes", "products"):
            self._set_array(name, (None, len(self), 3))
        if self.probes is None or self.products is None:
            return
        if len(self.probes) != len(self.products):
            raise RecordError(f"probes: {len(self.probes)} of them, but {len(self.products)} products{self._where()}")
        norms = np.linalg.norm(self.probes.reshape(len(self.probes), -1), axis=1)
        if np.any(np.abs(norms - 1) > 1e-5):
            raise RecordError(f"probes: expected norm 1, found {norms.min():.6g} to {norms.max():.6g}{self._where()}")

    def _set_phonon(self) -> None:
        for name in ("primitive_matrix", "dielectric"):
            self._set_array(name, (3, 3), dtype=np.float64)
            if getattr(self, name) is not None and self.supercell_matrix is None:
                raise RecordError(f"{name}: given without a supercell matrix{self._where()}")
        if self.supercell_matrix is None:
            return
        matrix = np.array(self.supercell_matrix)
        if matrix.shape != (3, 3) or matrix.dtype.kind not in "iu":
            raise RecordError(
                f"supercell_matrix: expected (3, 3) integers, found {matrix.dtype} of shape {matrix.shape}"
            )
        cells = abs(round(float(np.linalg.det(matrix))))
        if cells == 0 or len(self) % cells or not np.all(self.pbc):
            raise RecordError(
                f"supercell_matrix: expected the multiple of a unit cell, found determinant {cells} for {len(self)} "
                f"atoms{'' if np.all(self.pbc) else ' that are not periodic'}{self._where()}"
            )
        matrix = matrix.astype(np.int32)
        matrix.setflags(write=False)
        self._put("supercell_matrix", matrix)


FIELD_NAMES: Final = tuple(f.name for f in fields(LabelledGeometry))
