"""Put the finished calculations of `recipe.py` into raw/: `python datasets/demo/export.py --work WORK`.

Each result gets its place in the reaction (`extras.nequip_hessian`), stationary
points also masses and wavenumbers from PySCF's own harmonic analysis, so that
whoever converts them can check the Hessian against numbers of another program.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pyscf import gto
from pyscf.hessian import thermo
from raw import dump

from nequip_hessian.formats.extxyz import write_extxyz
from nequip_hessian.formats.qcschema import read_qcschema

HERE = Path(__file__).parent
ROLES = {"reactant": "minimum", "transition_state": "transition_state", "product": "minimum"}


def harmonic(result: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Masses (N,), u, and projected wavenumbers, cm^-1, imaginary negative, both PySCF's."""
    molecule = result["molecule"]
    n = len(molecule["symbols"])
    positions = np.reshape(molecule["geometry"], (n, 3))
    mole = gto.M(
        atom=list(zip(molecule["symbols"], positions.tolist(), strict=True)), unit="Bohr", basis="sto-3g", verbose=0
    )
    matrix = np.reshape(result["return_result"], (n, 3, n, 3)).transpose(0, 2, 1, 3)
    waves = np.asarray(thermo.harmonic_analysis(mole, matrix)["freq_wavenumber"])
    signed = np.where(np.abs(waves.imag) > 0, -np.abs(waves.imag), waves.real)
    return np.asarray(mole.atom_mass_list(isotope_avg=True)).tolist(), np.sort(signed).tolist()


def placed(path: Path, name: str, side: int) -> dict[str, Any]:
    """Read one result and say where in the reaction it belongs; `side` is the sign of the reactant's arc length."""
    result = json.loads(path.read_text())
    stem = path.stem
    found = result["extras"]["nequip_hessian"]
    place: dict[str, Any] = {"group": name, "label": f"{name} {stem.replace('_', ' ')}"}
    if stem in ROLES:
        place |= {"role": stem, "kind": ROLES[stem]}
        if stem == "transition_state":
            place["path_coordinate"] = 0.0
        result["molecule"]["masses"], place["frequencies"] = harmonic(result)
    elif "path" in stem:
        place |= {"kind": "path", "path_coordinate": -side * found["arc"]}
    else:
        place |= {"kind": "displaced"}
    result["extras"]["nequip_hessian"] = place
    result["keywords"]["hessian"] = "analytic"
    return result


def finished(folder: Path, part: str) -> bool:
    """Whether all calculations of a reaction are there."""
    from recipe import DISPLACED

    last = folder / f"displaced_{DISPLACED[part] - 1:02d}.json"
    if part == "train" and not (folder / "heldout_displaced_01.json").exists():
        return False
    return last.exists() and all((folder / f"{stem}.json").exists() for stem in ROLES)


def export(folder: Path, name: str, part: str, target: Path) -> int:
    """Write stationary.json, path.json and displaced.json (held out: displaced.extxyz); returns how many results."""
    target.mkdir(parents=True, exist_ok=True)
    side = json.loads((folder / "reactant.json").read_text())["extras"]["nequip_hessian"]["side"]
    groups = {
        "stationary": [folder / f"{stem}.json" for stem in ROLES],
        "path": sorted(folder.glob("path_*.json")),
        "displaced": sorted(folder.glob("displaced_*.json")),
        "held_out": sorted(folder.glob("heldout_*.json")),
    }
    for kind, paths in groups.items():
        results = [placed(path, name, side) for path in paths]
        if not results:
            continue
        if kind == "displaced" and part == "test":
            with tempfile.TemporaryDirectory() as aside:
                dump(Path(aside) / "displaced.json", results)
                write_extxyz(target / "displaced.extxyz", read_qcschema(Path(aside) / "displaced.json"))
        else:
            dump(target / f"{kind}.json", results)
    return sum(map(len, groups.values()))


def main() -> int:
    """Export all finished reactions; returns 1 while some are not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the folder recipe.py worked in")
    args = parser.parse_args()
    missing = []
    for name, entry in json.loads((HERE / "reactions.json").read_text())["reactions"].items():
        if finished(args.work / name, entry["part"]):
            count = export(args.work / name, name, entry["part"], HERE / "raw" / name)
            print(f"{name}: {count} results")
        else:
            missing.append(name)
    print("not finished:", ", ".join(missing) or "none")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
