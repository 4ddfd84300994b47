"""The transform that turns a reference Hessian into probes and reference products.

A matrix cannot be batched with others of another size; its products with k
vectors can. The transform takes the matrix out of the data and puts in two
per-atom fields of constant width, `hessian_probe` and `hessian_product`, and
the geometry's weight in the loss. It works in our own dataset and in the list
of transforms of NequIP's datasets alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from warnings import warn

import numpy as np
import numpy.typing as npt
import torch
from nequip.data import AtomicDataDict

from nequip_hessian import _keys
from nequip_hessian.curvature import packed_product, unpack
from nequip_hessian.data.labels import Label, describe, no_label, take_label, unsound
from nequip_hessian.data.modes import ProbeCache, mode_probes, rigid_basis
from nequip_hessian.data.probes import choose, draw, geometry_digest, geometry_rng
from nequip_hessian.data.settings import DEFAULT_DISPLACEMENT, ProbeSettings
from nequip_hessian.data.stream import ProbeStream
from nequip_hessian.data.taylor import displace
from nequip_hessian.errors import ConfigError, HessianDataError, HessianDataWarning

Float64 = npt.NDArray[np.float64]

_MAX_RIGID = 6


class HessianProbes:
    """Draw probes for one geometry and multiply its reference Hessian with them.

    Takes `hessian` out of the data (and `hessian_active`, the atoms of a partial one, and
    `hessian_mass`): packed (n(n+1)/2,) or of any customary shape, eV/angstrom^2; a raw matrix is
    symmetrised. Mode `stored` takes `hessian_probe` and `hessian_product` (N, 3k) instead, which the
    data hold. A geometry without a label gets zero probes and NaN products: NaN marks a missing
    label in products only, because a NaN probe would leave the loss finite and make every gradient NaN.

    Args:
        mode, k, distribution, mass_weighted, project, probe_fraction, method, step, displacement: see
            `nequip_hessian.data.settings.ProbeSettings`
        max_atoms: largest number of atoms in the dataset; needed for `full` only
        seed: seed of the probes
        fixed: the same probes for the same geometry each time (validation and test)
        labelled_fraction: share of the dataset's geometries that have a label; it keeps the
            loss at its scale where labels are sparse
        cache_mb: memory for the probes of mode `modes`, megabytes in each dataloader worker

    Raises:
        ConfigError: options that do not fit together.
    """

    def __init__(
        self,
        mode: str = "random",
        k: int | None = None,
        distribution: str = "rademacher",
        max_atoms: int | None = None,
        seed: int = 0,
        fixed: bool = False,
        labelled_fraction: float = 1.0,
        mass_weighted: bool = False,
        project: bool = False,
        probe_fraction: float = 1.0,
        method: str = "autograd",
        step: float | None = None,
        displacement: float | None = None,
        cache_mb: float | None = None,
    ) -> None:
        self.settings = ProbeSettings(
            mode, k, distribution, mass_weighted, project, probe_fraction, method, step, displacement
        )
        if mode == "full" and max_atoms is None:
            raise ConfigError("hessian mode `full`: give max_atoms, the largest number of atoms in the dataset")
        if not 0.0 < labelled_fraction <= 1.0:
            raise ConfigError(f"labelled_fraction: expected a share above 0 and up to 1, found {labelled_fraction}")
        if cache_mb is not None and (mode != "modes" or not cache_mb >= 0):
            raise ConfigError(f"hessian cache_mb: a number of 0 or more, for mode `modes` only; found {cache_mb!r}")
        if fixed and (method == "taylor" or probe_fraction != 1.0):
            raise ConfigError(
                "val_hessian: method `taylor` and probe_fraction are for training; leave them out, so that each "
                "validation figure covers all labelled geometries"
            )
        self.max_atoms = max_atoms
        self.seed = int(seed)
        self.fixed = fixed
        self.labelled_fraction = labelled_fraction
        self.stream = ProbeStream(self.seed)
        self._cache = ProbeCache(int(1e6 * (256 if cache_mb is None else cache_mb)))
        self._warned = False
        self._width = 0 if method == "taylor" else self.settings.width(max_atoms or 0)

    def carriers(self, n_geometries: int) -> npt.NDArray[np.bool_]:
        """Choose which of the labelled geometries of a batch carry a probe: (n_geometries,) boolean."""
        fraction = self.settings.probe_fraction
        return choose(n_geometries, fraction, self.stream.rng() if fraction < 1.0 else np.random.default_rng(0))

    def __call__(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        """Return the data of one geometry with `hessian_probe` and `hessian_product` (N, 3K) and `hessian_weight`.

        Raises:
            HessianDataError: a label of a shape that does not fit the geometry, or one with NaN.
            ConfigError: an unlabelled geometry while `labelled_fraction` is 1, or more atoms than `max_atoms`.
        """
        self._check(data)
        return self.apply(data, carries=bool(self.carriers(1)[0]))

    def _check(self, data: AtomicDataDict.Type) -> None:
        """Hold a raw matrix against physics: nobody has before, as `convert` does for a store."""
        matrix, active = data.get(_keys.HESSIAN_KEY), data.get(_keys.HESSIAN_ACTIVE_KEY)
        if matrix is None or self.settings.mode == "stored":
            return
        n_atoms = len(data[AtomicDataDict.POSITIONS_KEY] if active is None else active)
        found = unsound(np.asarray(matrix), n_atoms, partial=active is not None)
        if found is None:
            return
        refused, text = found
        if refused:
            raise HessianDataError(f"hessian of {describe(data)}: {text}; the matrix is damaged or mixed up")
        if not self._warned:
            self._warned = True
            warn(f"hessian of {describe(data)}: {text} (said once)", HessianDataWarning, stacklevel=2)

    def apply(self, data: AtomicDataDict.Type, *, carries: bool) -> AtomicDataDict.Type:
        """The same where a dataset has chosen, for a whole batch, which geometries carry a probe."""
        data = dict(data)
        whole, stored = dict(data), self.settings.mode == "stored"
        label = take_label(data, stored=stored)
        n_atoms = len(data[AtomicDataDict.POSITIONS_KEY])
        if self.max_atoms is not None and n_atoms > self.max_atoms:
            raise ConfigError(f"max_atoms: {self.max_atoms} was given, but {describe(data)} has {n_atoms} atoms")
        if label is None and self.labelled_fraction == 1.0 and self.settings.method != "taylor":
            raise ConfigError(no_label(whole, stored=stored))
        if self.settings.method == "taylor":
            if label is not None and carries:
                with _naming(data):
                    self._displace(data, label)
            return data
        with _naming(data):
            self._put_probes(data, label, carries)
        return data

    def _displace(self, data: AtomicDataDict.Type, label: Label) -> None:
        if label.active is not None:
            raise ConfigError(
                "hessian method `taylor`: a partial Hessian does not say how the forces on the other atoms change; "
                "take another method"
            )
        shape = tuple(data[AtomicDataDict.POSITIONS_KEY].shape)
        scale = self.settings.displacement or DEFAULT_DISPLACEMENT
        displace(data, label.packed(shape[0]), self.stream.rng().normal(scale=scale, size=shape))

    def _put_probes(self, data: AtomicDataDict.Type, label: Label | None, carries: bool) -> None:
        settings = self.settings
        n_atoms, dtype = len(data[AtomicDataDict.POSITIONS_KEY]), data[AtomicDataDict.POSITIONS_KEY].dtype
        probes = np.zeros((self._width, n_atoms, 3))
        products = np.full((self._width, n_atoms, 3), np.nan)
        basis = np.zeros((n_atoms, 3, _MAX_RIGID))
        atoms = np.arange(n_atoms) if label is None else label.atoms(n_atoms)
        if label is not None and carries:
            vectors, values, rigid = self._probe(data, label, atoms)
            probes[: len(vectors), atoms] = vectors.reshape(len(vectors), -1, 3)
            products[: len(values), atoms] = values.reshape(len(values), -1, 3)
            basis[atoms, :, : rigid.shape[1]] = rigid.reshape(len(atoms), 3, -1)
        share = self.labelled_fraction * settings.probe_fraction
        weight = 1.0 / share if label is not None and carries else 0.0
        data[_keys.HESSIAN_PROBE_KEY] = _as_columns(probes, dtype)
        data[_keys.HESSIAN_PRODUCT_KEY] = _as_columns(products, dtype)
        data[_keys.HESSIAN_WEIGHT_KEY] = torch.full((1, 1), weight, dtype=dtype)
        if settings.step is not None:
            other = -settings.step if settings.method == "finite_difference" else 0.0
            data[_keys.HESSIAN_DIFFERENCE_KEY] = torch.tensor([[settings.step, other]], dtype=dtype)
        if settings.mass_weighted:
            inverse_root = 1.0 / np.sqrt(_masses(data, label))
            data[_keys.HESSIAN_ROW_WEIGHT_KEY] = torch.from_numpy(inverse_root[:, None]).to(dtype)
        if settings.project:
            data[_keys.HESSIAN_RIGID_KEY] = _as_columns(basis.transpose(2, 0, 1), dtype)

    def _probe(
        self, data: AtomicDataDict.Type, label: Label, atoms: npt.NDArray[np.integer[Any]]
    ) -> tuple[Float64, Float64, Float64]:
        """Probes (k', n), products (k', n), eV/angstrom^2, and what is projected out (n, m)."""
        settings, nothing = self.settings, np.zeros((3 * len(atoms), 0))
        rng = self._rng(data)
        if settings.mode == "stored":
            return *label.stored(settings.k, rng), nothing
        packed = label.packed(len(atoms))
        positions = data[AtomicDataDict.POSITIONS_KEY].detach().numpy().astype(np.float64)[atoms]
        masses = _masses(data, label)[atoms] if settings.mass_weighted or settings.mode == "modes" else None
        if settings.mode == "modes" and masses is not None:
            return *self._modes(data, label, packed, positions, masses), nothing
        vectors, basis = draw(settings, 3 * len(atoms), rng), nothing
        if settings.project:
            basis = rigid_basis(positions, masses, periodic=_periodic(data), partial=label.active is not None)
            vectors = vectors - (vectors @ basis) @ basis.T
        if masses is not None:
            vectors = vectors / np.sqrt(np.repeat(masses, 3))
        values = packed_product(packed, vectors.astype(packed.dtype, copy=False))
        return vectors, np.asarray(values, dtype=np.float64), basis

    def _modes(
        self,
        data: AtomicDataDict.Type,
        label: Label,
        packed: npt.NDArray[np.floating[Any]],
        positions: Float64,
        masses: Float64,
    ) -> tuple[Float64, Float64]:
        def make() -> tuple[Float64, Float64]:
            full = unpack(packed).astype(np.float64)
            vectors = mode_probes(
                full,
                positions,
                masses,
                self.settings.k or 1,
                periodic=_periodic(data),
                partial=label.active is not None,
                mass_weighted=self.settings.mass_weighted,
            )
            return vectors, vectors @ full

        return self._cache.get(geometry_digest(*_identity(data)), make)

    def _rng(self, data: AtomicDataDict.Type) -> np.random.Generator:
        return geometry_rng(*_identity(data), self.seed) if self.fixed else self.stream.rng()


@contextmanager
def _naming(data: AtomicDataDict.Type) -> Iterator[None]:
    """Say in errors which geometry they are of."""
    try:
        yield
    except HessianDataError as exc:
        raise type(exc)(f"{describe(data)}: {exc}") from exc


def _identity(data: AtomicDataDict.Type) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    kind = data.get(AtomicDataDict.ATOMIC_NUMBERS_KEY, data.get(AtomicDataDict.ATOM_TYPE_KEY))
    numbers = np.zeros(0) if kind is None else kind.numpy().ravel()
    return numbers, data[AtomicDataDict.POSITIONS_KEY].numpy()


def _masses(data: AtomicDataDict.Type, label: Label | None) -> Float64:
    """(N,), u: those of the data, or the standard ones where an atom has none."""
    numbers = data.get(AtomicDataDict.ATOMIC_NUMBERS_KEY)
    given = None if label is None else label.masses
    if given is not None and np.isfinite(given).all():
        return given
    if numbers is None:
        raise ConfigError(
            "hessian: masses are needed: add the field hessian_mass (N,), u, or atomic_numbers (N,) to the data"
        )
    from ase.data import atomic_masses

    standard = np.asarray(atomic_masses[numbers.numpy().ravel()], dtype=np.float64)
    return standard if given is None else np.where(np.isfinite(given), given, standard)


def _periodic(data: AtomicDataDict.Type) -> bool:
    return AtomicDataDict.PBC_KEY in data and bool(data[AtomicDataDict.PBC_KEY].any())


def _as_columns(rows: npt.NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """(K, N, 3) -> (N, 3K), probe c in columns 3c to 3c + 2; unit unchanged."""
    columns = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(rows.shape[1], -1)
    return torch.from_numpy(columns).to(dtype)
