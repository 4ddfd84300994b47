"""Which kernels for the tensor product go with which way to make Hessian products, tried one by one on a GPU.

    python benchmarks/kernels.py [--write docs/training.md]

Rows are NequIP's and Allegro's modifiers (`nequip.model.modify`). A cell is tried by running it: the largest deviation
from the same model without the kernel, relative to the largest element, or the error that came instead. Columns:

    forces                  the kernel itself
    product                 H v by differentiating the forces
    its gradient            of a loss of H v, with respect to the weights: third derivatives of the kernel
    finite differences      H v from forces at displaced copies, against the same without the kernel
    their gradient          of a loss of those: second derivatives of the kernel

Without a GPU, and for a kernel that is not installed, the row says so.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

import torch
from ase.build import molecule
from measuring import add_write_option, machine, write_block
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model.modify_utils import modify
from nequip.utils.global_state import set_global_state
from untrained import R_MAX, SYMBOLS, our_model

SCRIPT = "benchmarks/kernels.py"
# model, modifier, package that has the kernel
KERNELS: tuple[tuple[str, str, str], ...] = (
    ("nequip", "enable_OpenEquivariance", "openequivariance"),
    ("nequip", "enable_CuEquivariance", "cuequivariance_torch"),
    ("allegro", "enable_TritonContracter", "triton"),
    ("allegro", "enable_CuEquivarianceContracter", "cuequivariance_torch"),
)
COLUMNS = ("forces", "product", "its gradient", "finite differences", "their gradient")
STEP = 0.01  # angstrom
Batch = dict[str, torch.Tensor]


def inputs(device: str) -> Batch:
    """Two molecules with one random probe each."""
    frames = []
    for seed, name in enumerate(("CH3CH2OH", "CH3OH")):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=seed)
        data = from_ase(atoms)
        data.pop(AtomicDataDict.CELL_KEY)
        for transform in (ChemicalSpeciesToAtomTypeMapper(SYMBOLS), NeighborListTransform(r_max=R_MAX)):
            data = transform(data)
        probe = torch.randn(len(atoms), 3, generator=torch.Generator().manual_seed(seed))
        data["hessian_probe"] = probe / probe.norm()
        frames.append(data)
    return {key: value.to(device) for key, value in AtomicDataDict.batched_from_list(frames).items()}


def quantity(model: Any, batch: Batch, column: str) -> torch.Tensor:
    """What a column compares, flat."""
    data = dict(batch)
    if column == "forces":
        data.pop("hessian_probe")
        return model(data)["forces"].detach().flatten()
    if column in ("finite differences", "their gradient"):
        steps = torch.tensor([[STEP, -STEP]], device=data["pos"].device, dtype=data["pos"].dtype)
        data["hessian_difference"] = steps.repeat(len(data["num_atoms"]), 1)
    product = model(data)["hessian_product"]
    if "gradient" not in column:
        return product.detach().flatten()
    weights = [p for p in model.parameters() if p.requires_grad and p.numel()]
    found = torch.autograd.grad(product.square().sum(), weights, allow_unused=True)
    pairs = zip(found, weights, strict=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs])


def try_kernel(kind: str, modifier: str, device: str) -> dict[str, str | float]:
    """For each column the relative deviation, or the error."""
    batch, plain = inputs(device), our_model(kind).to(device)
    cells: dict[str, str | float] = {}
    try:
        fast = modify(our_model(kind).to(device), [{"modifier": modifier}]).to(device)
    except Exception as exc:  # kernels raise what they like, and that is what the table is to tell
        return dict.fromkeys(COLUMNS, reason(exc))
    for column in COLUMNS:
        expected = quantity(plain, batch, column)
        try:
            found = quantity(fast, batch, column)
            cells[column] = float((found - expected).abs().max() / expected.abs().max())
        except Exception as exc:
            cells[column] = reason(exc)
    return cells


def reason(exc: Exception) -> str:
    """The first line of an error."""
    return f"{type(exc).__name__}: {(str(exc).strip().splitlines() or [''])[0][:80]}".replace("|", "/")


def measure(device: str | None) -> dict[str, dict[str, str | float]]:
    """All rows; without a device each says so."""
    set_global_state()
    torch.set_default_dtype(torch.float64)
    rows: dict[str, dict[str, str | float]] = {}
    for kind, modifier, package in KERNELS:
        name = f"{'NequIP' if kind == 'nequip' else 'Allegro'}, `{modifier}`"
        if device is None:
            rows[name] = dict.fromkeys(COLUMNS, "not measured: no GPU")
        elif importlib.util.find_spec(package) is None:
            rows[name] = dict.fromkeys(COLUMNS, f"not measured: {package} is not installed")
        else:
            rows[name] = try_kernel(kind, modifier, device)
    return rows


def table(rows: dict[str, dict[str, str | float]], where: str) -> str:
    """The markdown."""
    lines = [where, "", f"| model and kernel | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for name, cells in rows.items():
        text = [cell if isinstance(cell, str) else f"{cell:.0e}" for cell in (cells[column] for column in COLUMNS)]
        lines.append(f"| {name} | {' | '.join(text)} |")
    return "\n".join(lines)


def main() -> None:
    """Try, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_write_option(parser)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else None
    text = table(measure(device), f"{machine(device or 'cpu')}, float64.")
    print(text)
    if args.write is not None:
        write_block(args.write, SCRIPT, text)


if __name__ == "__main__":
    main()
