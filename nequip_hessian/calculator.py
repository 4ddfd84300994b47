"""ASE calculator for NequIP-framework models, with Hessians.

It takes any model NequIP can load, trained on Hessians or not: a checkpoint, a
package or a compiled file.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, all_changes
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict
from nequip.integrations.ase import NequIPCalculator
from nequip.utils import torch_default_dtype
from scipy.sparse import bsr_array

from nequip_hessian.compiled import gives_products, with_zero_probe
from nequip_hessian.curvature import SECOND_ORDER, difference_hessian, displaced, symmetrise
from nequip_hessian.errors import ConfigError, HessianDataWarning, OptionError
from nequip_hessian.exact import ATOMS_PER_BATCH, INPUT_DTYPE, ExactHessians
from nequip_hessian.model.matrix import Plan
from nequip_hessian.model.target import HESSIAN_TARGET

Float = npt.NDArray[np.float64]

_STEP = {torch.float64: 2e-4, torch.float32: 1e-2}  # angstrom; balances truncation against rounding of the forces


class HessianCalculator(ExactHessians, NequIPCalculator):
    """`NequIPCalculator` with `get_hessian`, and with many geometries in one pass.

    Build it with `from_file`. `results` hold energy (eV), forces (eV/angstrom) and, when asked for,
    `hessian` (3N, 3N) in eV/angstrom^2. In Sella: `hessian_function=calc.get_hessian`.
    """

    implemented_properties = [*NequIPCalculator.implemented_properties, "hessian"]  # noqa: RUF012 (ASE's convention)

    @classmethod
    def from_file(cls, path: str | Path, device: str = "cpu", **kwargs: Any) -> HessianCalculator:
        """Load a model.

        Args:
            path: `.ckpt` of nequip-train, `.nequip.zip` of nequip-package, `.nequip.pt2` of nequip-compile
            device: `cpu` or `cuda`
            **kwargs: for NequIPCalculator's own loaders

        Raises:
            ConfigError: no such file, an unknown ending, or a file that NequIP cannot load.
        """
        name = os.fspath(path)
        if not Path(name).is_file():
            found = "a folder, not a file" if Path(name).is_dir() else "no such file"
            raise ConfigError(f"model {name}: {found}; expected a .ckpt, .nequip.zip or .nequip.pt2 file")
        _check_device(device)
        kwargs.setdefault("chemical_species_to_atom_type_map", True)
        compiled = name.endswith((".nequip.pt2", ".nequip.pth"))
        if not compiled and not name.endswith((".ckpt", ".nequip.zip")):
            raise ConfigError(f"model {name}: expected a file ending in .ckpt, .nequip.zip or .nequip.pt2")
        with_products = not compiled or gives_products(name)
        load = cls.from_compiled_model if compiled else cls._from_saved_model
        if compiled and with_products:
            load = _ProductCalculator.from_compiled_model
        try:
            with _quiet():
                calculator: HessianCalculator = load(name, device=device, **kwargs)
        except Exception as exc:  # NequIP, torch and zip each raise their own for a file that is no model
            reason = f"{type(exc).__name__}: {_first_line(exc)}"
            raise ConfigError(f"model {name}: not a NequIP model, or cut: copy or make it again ({reason})") from exc
        calculator.compiled, calculator.products = compiled, with_products
        if not compiled:
            calculator.dtype = calculator.model.model_dtype
        return calculator

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that the model knows."""
        mapper = self.transforms[0]
        known = torch.nonzero(mapper.lookup_table >= 0).view(-1).tolist()
        return tuple(chemical_symbols[number] for number in known)

    def atoms_to_data(self, atoms: Atoms) -> AtomicDataDict.Type:
        """Return the model's inputs for one geometry.

        Raises:
            ConfigError: an element that the model has not seen, or no atoms.
            CalculationFailed: a position or cell vector that is not finite; neighbour lists drop such atoms, and what
                is left would look like a result.
        """
        if not len(atoms):
            raise ConfigError("expected a geometry of one atom or more, found no atoms")
        if not (np.all(np.isfinite(atoms.positions)) and np.all(np.isfinite(np.asarray(atoms.cell)))):
            lost = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1)).tolist()
            raise CalculationFailed(f"expected finite positions and cell, found others (atoms {lost})")
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(self.species))
        if unknown:
            raise ConfigError(f"the model has not seen {', '.join(unknown)}; it knows {', '.join(self.species)}")
        with torch_default_dtype(INPUT_DTYPE):
            return super().atoms_to_data(atoms)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """ASE's entry point; `hessian` among the properties adds `results["hessian"]`."""
        with torch_default_dtype(INPUT_DTYPE):
            super().calculate(atoms, properties, system_changes)
        if "hessian" in properties:
            self.results["hessian"] = self.get_hessian(self.atoms)

    def get_hessian(self, atoms: Atoms | None = None, indices: Sequence[int] | None = None) -> Float:
        """Second derivatives of the energy, exact where the model can be differentiated again.

        That is so for checkpoints, packages and files compiled with `--target hessian`. Another compiled file
        gives central differences of its forces, with a warning. 3n products are needed, or fewer in a large
        geometry with blocks that are exactly zero (`plan`).

        Args:
            atoms: geometry; default: the calculator's own
            indices: (n,) atoms to cover, the others held fixed; default all N

        Returns:
            (3n, 3n) float64, eV/angstrom^2, symmetric, index 3*atom + xyz.

        Raises:
            ConfigError: no geometry, an unknown element, indices out of range.
        """
        (found,) = self._hessians([self._given(atoms)], [indices])
        return found.toarray() if isinstance(found, bsr_array) else found

    def get_sparse_hessian(self, atoms: Atoms | None = None, indices: Sequence[int] | None = None) -> bsr_array:
        """The same as blocks of 3x3, those left out being exactly zero; for what is too large as a full matrix.

        Arguments and errors are those of `get_hessian`.

        Returns:
            (3n, 3n) float64, eV/angstrom^2, symmetric, index 3*atom + xyz.
        """
        (found,) = self._hessians([self._given(atoms)], [indices])
        return found if isinstance(found, bsr_array) else bsr_array(found, blocksize=(3, 3))

    def get_hessians(self, geometries: Sequence[Atoms]) -> list[Float]:
        """Hessians of several geometries, (3N, 3N) each in eV/angstrom^2; 3 max(N) passes a batch."""
        found = self._hessians(geometries, [None] * len(geometries))
        return [matrix.toarray() if isinstance(matrix, bsr_array) else matrix for matrix in found]

    def plan(self, atoms: Atoms, indices: Sequence[int] | None = None) -> Plan:
        """Which products `get_hessian` would ask for (`n_products`), without asking; see `nequip_hessian.model.matrix`.

        Raises:
            ConfigError: an unknown element, indices out of range.
        """
        return self.plan_products(self.atoms_to_data(atoms), _check_indices(atoms, indices))

    def evaluate_many(self, geometries: Sequence[Atoms]) -> list[tuple[float, Float]]:
        """Energy (eV) and forces (N, 3) (eV/angstrom) of several geometries, batch by batch."""
        result: list[tuple[float, Float]] = []
        for batch in _batches(geometries):
            result += self._evaluate_one_by_one(batch) if self.compiled else self._evaluate_batch(batch)
        return result

    def call_model(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        """NequIP's hook: run the model."""
        return super().call_model(with_zero_probe(data) if self.compiled and self.products else data)

    def _given(self, atoms: Atoms | None) -> Atoms:
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ConfigError("get_hessian: give a geometry")
        return atoms

    def _hessians(self, geometries: Sequence[Atoms], indices: Sequence[Sequence[int] | None]) -> list[Any]:
        chosen = [_check_indices(atoms, index) for atoms, index in zip(geometries, indices, strict=True)]
        if not self.products:
            warnings.warn(
                "a compiled model cannot be differentiated again: its Hessian comes from central differences of forces "
                f"({_STEP[self.dtype]} angstrom); load the package or the checkpoint for exact ones, or compile with "
                "--target hessian",
                HessianDataWarning,
                stacklevel=3,
            )
            return [self._central_differences(a, i) for a, i in zip(geometries, chosen, strict=True)]
        scale = self.energy_units_to_eV / self.length_units_to_A**2
        found: list[Any] = []
        for frames in self.batches(geometries):
            part = chosen[len(found) : len(found) + len(frames)]
            found += [scale * hessian for hessian in self.exact_hessians(frames, part)]
        return found

    def _evaluate_batch(self, geometries: Sequence[Atoms]) -> list[tuple[float, Float]]:
        data = AtomicDataDict.batched_from_list([self.atoms_to_data(atoms) for atoms in geometries])
        with torch_default_dtype(INPUT_DTYPE):
            out = self.call_model(data)
        energies = self.energy_units_to_eV * out[AtomicDataDict.TOTAL_ENERGY_KEY].detach().cpu().numpy().ravel()
        scale = self.energy_units_to_eV / self.length_units_to_A
        forces = scale * out[AtomicDataDict.FORCE_KEY].detach().cpu().numpy().astype(np.float64)
        cuts = np.cumsum([len(atoms) for atoms in geometries])[:-1]
        return [(float(e), f) for e, f in zip(energies, np.split(forces, cuts), strict=True)]

    def _evaluate_one_by_one(self, geometries: Sequence[Atoms]) -> list[tuple[float, Float]]:
        result = []
        for atoms in geometries:
            NequIPCalculator.calculate(self, atoms)
            result.append((float(self.results["energy"]), np.asarray(self.results["forces"], dtype=np.float64)))
        return result

    def _central_differences(self, atoms: Atoms, indices: npt.NDArray[np.int64]) -> Float:
        step = _STEP[self.dtype]
        moved = []
        for positions in displaced(atoms.positions, step, SECOND_ORDER, indices):
            moved.append(atoms.copy())
            moved[-1].positions = positions
        forces = [f[indices] for _, f in self.evaluate_many(moved)]
        return np.asarray(symmetrise(difference_hessian(forces, step, SECOND_ORDER))[0], dtype=np.float64)


class _ProductCalculator(HessianCalculator):
    """Round a file of the target `hessian`, whose inputs and outputs NequIP's loader compares with these."""

    @classmethod
    def _get_aoti_compile_target(cls) -> dict[str, Any]:
        return HESSIAN_TARGET


def _check_device(device: str) -> None:
    kind = str(device).split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise OptionError(f"device {device!r}: expected cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: PyTorch sees no CUDA device here; take cpu")


def _check_indices(atoms: Atoms, indices: Sequence[int] | None) -> npt.NDArray[np.int64]:
    if indices is None:
        return np.arange(len(atoms))
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu" or len(np.unique(chosen)) != len(chosen):
        raise ConfigError(f"indices: expected different atom indices, found {indices!r}")
    if chosen.min() < 0 or chosen.max() >= len(atoms):
        raise ConfigError(f"indices: expected 0 to {len(atoms) - 1}, found {chosen.min()} to {chosen.max()}")
    return chosen.astype(np.int64)


def _batches(geometries: Sequence[Atoms]) -> list[list[Atoms]]:
    """Cut a list into batches of at most ATOMS_PER_BATCH atoms (one geometry at least)."""
    batches: list[list[Atoms]] = []
    held = 0
    for atoms in geometries:
        if not batches or held + len(atoms) > ATOMS_PER_BATCH:
            batches.append([])
            held = 0
        batches[-1].append(atoms)
        held += len(atoms)
    return batches


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep torch.package's and Lightning's loading warnings from a user who can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [""])[0][:200]
