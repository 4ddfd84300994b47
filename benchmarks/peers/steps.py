"""One Hessian step and one energy-force step of another package, on the molecules of a file; runs in its environment.

    python steps.py PEER MOLECULES.npz RESULT.json [--repeats 3]

A function a peer gives the two steps by that package's own way, with a model of its own about as large as ours.
Labels are zeros: they do not change what a step costs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.utils.data.dataloader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import Work, machine, peak_bytes, seconds

ELEMENTS = [1, 6, 7, 8]
R_MAX = 5.0
Molecule = tuple[np.ndarray, np.ndarray]
"""Atomic numbers (N,) and positions (N, 3), angstrom."""


def backward(model: Any, loss: torch.Tensor) -> None:
    """Gradients of the parameters, made and let go of."""
    loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


def schnetpack(molecules: list[Molecule]) -> tuple[Work, Work, str]:
    """PaiNN with the response layer's `hessian`, in training."""
    # schnetpack 2.1.1 imports this name of a type variable, which torch has dropped
    torch.utils.data.dataloader.T_co = TypeVar("T_co", covariant=True)  # type: ignore[attr-defined]
    from schnetpack import properties
    from schnetpack.atomistic import Atomwise, PairwiseDistances, Response
    from schnetpack.data.loader import _atoms_collate_fn
    from schnetpack.model import NeuralNetworkPotential
    from schnetpack.nn import CosineCutoff, GaussianRBF
    from schnetpack.representation import PaiNN
    from schnetpack.transform import ASENeighborList

    neighbours = ASENeighborList(cutoff=R_MAX)
    frames = []
    for numbers, positions in molecules:
        frame = {
            properties.Z: torch.as_tensor(numbers, dtype=torch.long),
            properties.R: torch.as_tensor(positions),
            properties.cell: torch.zeros(1, 3, 3),
            properties.pbc: torch.zeros(3, dtype=torch.bool),
            properties.idx: torch.tensor([len(frames)]),
            properties.n_atoms: torch.tensor([len(numbers)]),
        }
        frames.append(neighbours(frame))
    batch = _atoms_collate_fn(frames)

    def build(*responses: str) -> Any:
        basis, cutoff = GaussianRBF(n_rbf=20, cutoff=R_MAX), CosineCutoff(R_MAX)
        body = PaiNN(n_atom_basis=32, n_interactions=3, radial_basis=basis, cutoff_fn=cutoff)
        heads = [Atomwise(n_in=32, output_key="energy"), Response("energy", list(responses))]
        return NeuralNetworkPotential(body, input_modules=[PairwiseDistances()], output_modules=heads).double().train()

    torch.set_default_dtype(torch.float32)  # its basis is made in single precision, whatever the default

    forces, hessians = build("forces"), build("forces", "hessian")
    torch.set_default_dtype(torch.float64)

    def step(model: Any) -> None:
        out = model(dict(batch))
        backward(model, sum(out[key].square().mean() for key in ("energy", "forces", "hessian") if key in out))

    return lambda: step(forces), lambda: step(hessians), "full-matrix training step, PaiNN of 3 layers, 32 features"


def mace(molecules: list[Molecule]) -> tuple[Work, Work, str]:
    """MACE's Hessians; it cannot train on them, so theirs is an evaluation, molecule by molecule."""
    from ase import Atoms
    from e3nn import o3
    from mace import data, modules
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_geometric import Batch

    table = AtomicNumberTable(ELEMENTS)
    configurations = [data.config_from_atoms(Atoms(numbers, positions)) for numbers, positions in molecules]
    frames = [data.AtomicData.from_config(one, z_table=table, cutoff=R_MAX) for one in configurations]
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.MACE(
        **{"r_max": R_MAX, "num_bessel": 8, "num_polynomial_cutoff": 5, "max_ell": 2, "num_interactions": 2},
        **{"interaction_cls": block, "interaction_cls_first": block, "num_elements": len(ELEMENTS), "correlation": 3},
        **{"hidden_irreps": o3.Irreps("32x0e + 32x1o"), "MLP_irreps": o3.Irreps("16x0e"), "avg_num_neighbors": 8.0},
        **{"gate": torch.nn.functional.silu, "atomic_energies": np.zeros(len(ELEMENTS)), "atomic_numbers": ELEMENTS},
    ).double()

    def forces() -> None:
        out = model(Batch.from_data_list(frames).to_dict(), training=True)
        backward(model, out["energy"].square().mean() + out["forces"].square().mean())

    def hessians() -> None:
        for frame in frames:
            model(Batch.from_data_list([frame]).to_dict(), compute_hessian=True)

    return forces, hessians, "evaluation of the full matrices (no training on them), 2 layers, 32 features, l = 1"


def deepmd(molecules: list[Molecule]) -> tuple[Work, Work, str]:
    """DeePMD-kit's `hessian_mode` with the DPA-1 descriptor, in training; frames of one size at a time."""
    import deepmd.env

    # its compiled operators are built for one version of torch; this model trains without them (they serve compression
    # and other descriptors)
    deepmd.env.SHARED_LIB_DIR = Path(__file__).parent / "none"
    from deepmd.pt.model.model import get_model
    from deepmd.pt.utils import env

    descriptor = {
        **{"type": "dpa1", "sel": 40, "rcut": R_MAX, "rcut_smth": 0.5, "neuron": [16, 32, 64], "axis_neuron": 8},
        **{"attn_layer": 0, "tebd_dim": 8, "precision": "float64", "seed": 1},
    }
    fitting = {"neuron": [64, 64, 64], "precision": "float64", "seed": 1}

    def build() -> Any:
        settings = {"type_map": ["H", "C", "N", "O"], "descriptor": dict(descriptor), "fitting_net": dict(fitting)}
        return get_model(settings).to(env.DEVICE).train()

    forces, hessians = build(), build()
    hessians.enable_hessian()
    frames = [
        (torch.as_tensor(positions)[None], torch.tensor([[ELEMENTS.index(int(z)) for z in numbers]]))
        for numbers, positions in molecules
    ]

    def step(model: Any, keys: tuple[str, ...]) -> None:
        total = torch.zeros(())
        for coordinates, types in frames:
            out = model(coordinates.clone().requires_grad_(True), types)
            total = total + sum(out[key].square().mean() for key in keys)
        backward(model, total)

    return (
        lambda: step(forces, ("energy", "force")),
        lambda: step(hessians, ("energy", "force", "hessian")),
        "full-matrix training step, DPA-1 without attention",
    )


PEERS: dict[str, tuple[str, Callable[[list[Molecule]], tuple[Work, Work, str]]]] = {
    "deepmd": ("deepmd-kit", deepmd),
    "mace": ("mace-torch", mace),
    "schnetpack": ("schnetpack", schnetpack),
}


def main() -> None:
    """Measure one peer and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("molecules", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    held = np.load(args.molecules)
    cuts = np.cumsum(held["counts"])[:-1]
    molecules = list(zip(np.split(held["numbers"], cuts), np.split(held["positions"], cuts), strict=True))
    package, make = PEERS[args.peer]
    forces, hessians, what = make(molecules)
    forces()
    hessians()
    ratios, units = [], []
    for _ in range(args.repeats):
        units.append(seconds(forces))
        ratios.append(seconds(hessians) / units[-1])
    memory = peak_bytes(hessians) / peak_bytes(forces)
    found = {
        "what": what, "version": version(package), "where": machine(), "seconds": float(np.median(units)),
        "time": float(np.median(ratios)), "memory": memory,
    }  # fmt: skip
    args.result.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
