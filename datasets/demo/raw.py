"""Raw outputs of the demo: QCSchema JSON, in atomic units, with full precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
from ase import Atoms

from nequip_hessian.label.engine import Labels
from nequip_hessian.label.pyscf import PyscfEngine
from nequip_hessian.units import BOHR, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR2


def dump(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, default=_plain) + "\n")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def save(path: Path, atoms: Atoms, labels: Labels, engine: PyscfEngine, **extras: Any) -> None:
    """Write one calculation as a QCSchema result (schema version 1)."""
    n = len(atoms)
    gradient = (-labels.forces / HARTREE_PER_BOHR).ravel()
    properties = {"calcinfo_natom": n, "return_energy": labels.energy / HARTREE, "return_gradient": gradient}
    if labels.hessian is not None:
        properties["return_hessian"] = (labels.hessian / HARTREE_PER_BOHR2).ravel()
    hessian = labels.hessian is not None
    result = {
        "schema_name": "qcschema_output",
        "schema_version": 1,
        "molecule": {
            "schema_name": "qcschema_molecule",
            "schema_version": 2,
            "symbols": atoms.get_chemical_symbols(),
            "geometry": (atoms.positions / BOHR).ravel(),
            "molecular_charge": 0,
            "molecular_multiplicity": 1,
            "fix_com": True,
            "fix_orientation": True,
        },
        "driver": "hessian" if hessian else "gradient",
        "model": {"method": engine.method, "basis": engine.basis},
        "keywords": {"grid_level": engine.grid_level, "conv_tol": engine.conv_tol},
        "return_result": properties["return_hessian" if hessian else "return_gradient"],
        "properties": properties,
        "success": True,
        "provenance": {
            "creator": "PySCF",
            "version": pyscf.__version__,
            "routine": "pyscf.hessian" if hessian else "pyscf.grad",
        },
        "extras": {"nequip_hessian": extras},
    }
    dump(path, result)


def load(path: Path) -> tuple[Atoms, Labels]:
    """Read back what `save` wrote, in eV and angstrom."""
    result = json.loads(path.read_text())
    molecule, properties = result["molecule"], result["properties"]
    n = len(molecule["symbols"])
    atoms = Atoms(molecule["symbols"], np.reshape(molecule["geometry"], (n, 3)) * BOHR)
    hessian = properties.get("return_hessian")
    return atoms, Labels(
        properties["return_energy"] * HARTREE,
        -np.reshape(properties["return_gradient"], (n, 3)) * HARTREE_PER_BOHR,
        None if hessian is None else np.reshape(hessian, (3 * n, 3 * n)) * HARTREE_PER_BOHR2,
    )
