"""Small models and batches for the tests of the model room."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.utils.global_state import set_global_state

R_MAX = 4.0
SYMBOLS = ["H", "C", "N", "O", "Al"]
COMMON = {
    "seed": 1,
    "model_dtype": "float64",
    "r_max": R_MAX,
    "type_names": SYMBOLS,
    "avg_num_neighbors": 5.0,
    "per_type_energy_scales": 1.0,
    "per_type_energy_shifts": 0.0,
}
NEQUIP = {**COMMON, "num_layers": 2, "l_max": 1, "num_features": 8, "radial_mlp_width": 16}
ALLEGRO = {
    **COMMON,
    "l_max": 1,
    "num_layers": 1,
    "num_scalar_features": 8,
    "num_tensor_features": 4,
    "allegro_mlp_hidden_layers_width": 16,
    "readout_mlp_hidden_layers_width": 8,
    "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed"},
    "radial_chemical_embed_dim": 8,
    "scalar_embed_mlp_hidden_layers_width": 16,
}


@pytest.fixture(autouse=True)
def nequip_state():
    """NequIP's state, left as it is afterwards: it is set once in a process, so undoing it would break later tests."""
    set_global_state()
    torch.set_default_dtype(torch.float64)


def frame(atoms: Atoms, *, keep_cell: bool = False):
    """Model inputs of one geometry; molecules without a cell unless `keep_cell`."""
    data = from_ase(atoms)
    if not keep_cell and not atoms.pbc.any():
        data.pop(AtomicDataDict.CELL_KEY)
    for transform in (ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)):
        data = transform(data)
    return data


def rattled(name: str, seed: int = 0) -> Atoms:
    """A molecule of ASE's G2 set, or a periodic aluminium cell, displaced at random."""
    atoms = bulk("Al", cubic=True) if name == "Al4" else molecule(name)
    atoms.rattle(0.05, seed=seed)
    return atoms


def with_probes(data, n_probes: int, seed: int = 0):
    """The same inputs with random unit-norm probes (N, 3K)."""
    n = len(data["pos"])
    probes = torch.randn(n_probes, n, 3, generator=torch.Generator().manual_seed(seed))
    probes = probes / probes.flatten(1).norm(dim=1)[:, None, None]
    return {**data, "hessian_probe": probes.transpose(0, 1).reshape(n, -1).contiguous()}


def plain(data):
    """The inputs without anything of ours."""
    return {key: value for key, value in data.items() if not key.startswith("hessian")}
