"""What predicting nothing costs: `python experiments/seed-table/baseline.py --store STORE --work WORK`.

The test stores of the experiment against a constant energy, zero forces and a zero Hessian, by the same evaluation as
the models. Writes results/no-model.json, with the checksums of the test stores, in seconds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from figures import figures_of
from reading import HERE, NO_MODEL
from stores import make_stores

from nequip_hessian.errors import StoreError
from nequip_hessian.evaluate import Model
from nequip_hessian.store import HessianStore
from nequip_hessian.store.checksum import content_checksum


class Nothing(Calculator):
    """Zero energy, forces and Hessian."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        """ASE's entry point."""
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}

    def get_hessian(self, atoms: Any) -> Any:
        """(3N, 3N) of zeros, eV/angstrom^2."""
        return np.zeros((3 * len(atoms), 3 * len(atoms)))


def main() -> int:
    """Evaluate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="the built data set reactions-xtb")
    parser.add_argument("--work", type=Path, required=True, help="folder of derived stores, as that of run.py")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder of results (default: beside this)"
    )
    args = parser.parse_args()
    stores = args.work.resolve() / "stores"
    try:
        make_stores(args.store, stores)
    except StoreError as exc:
        parser.error(f"--store: {exc}")
    found = figures_of([Model("no model", Nothing(), checksum="none")], args.work.resolve() / "no-model", stores, False)
    for name in ("all.zarr", "train.zarr", "neb.zarr"):
        found["stores"][name] = content_checksum(HessianStore(stores / name).attributes)
    kept = {name: found[name] for name in ("versions", "stores", "figures", "geometries")}
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / NO_MODEL).write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
