"""Figures of one trained run: `python figures.py FOLDER STORES [--paths]` writes FOLDER/figures.json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nequip_hessian.errors import HessianDataError
from nequip_hessian.evaluate import Evaluation, Model, Options, evaluate, load_models
from nequip_hessian.report.tables import versions
from nequip_hessian.store import HessianStore
from nequip_hessian.store.checksum import content_checksum

PARTS = ("test", "test_irc", "test_displaced")
NEB_STEPS = 200
OF_A_BAND = ("forward_error", "reverse_error", "ts_rmsd", "failure")


def numbers(figures: Any) -> dict[str, Any]:
    """Figures as value, count and unit; those without a case are left out."""
    return {
        name: {"value": figure.value, "count": figure.n, "unit": figure.unit}
        for name, figure in figures.items()
        if figure.value is not None
    }


def figures_of(models: list[Model], folder: Path, stores: Path, paths: bool) -> dict[str, Any]:
    """All figures of one model; predictions are kept in `folder`."""
    found: dict[str, Any] = {"versions": versions(), "model_sha256": models[0].checksum, "stores": {}, "figures": {}}

    def part(store: str, options: Options) -> Evaluation:
        result = evaluate(models, HessianStore(stores / store), folder / "evaluation" / store, options, progress=False)
        found["stores"][store] = content_checksum(HessianStore(stores / store).attributes)
        return result

    result = part("test.zarr", Options(split=tuple(f"test:{name}" for name in PARTS), neb=False, relax=False))
    for name, figures in result.by_part(result.models[0]).items():
        found["figures"][name] = numbers(figures)
    stationary = [i for i, geometry in enumerate(result.geometries) if geometry.stationary]
    found["geometries"] = {name: sum(g.part == name for g in result.geometries) for name in PARTS}
    found["stationary"] = numbers(result.figures(result.models[0], stationary))
    found["reactions"], found["reaction_list"] = {}, []
    if paths:
        bands = part("neb.zarr", Options(neb=True, relax=False, neb_steps=NEB_STEPS))
        found["reactions"] = numbers(bands.all_figures(bands.models[0]))
        found["reaction_list"] = [
            {"name": r.name, "barrier": r.reference_forward, **{name: getattr(r, name) for name in OF_A_BAND}}
            for r in bands.models[0].reactions
        ]
    return found


def main() -> int:
    """Evaluate the last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the training")
    parser.add_argument("stores", type=Path, help="folder of the test stores")
    parser.add_argument("--paths", action="store_true", help="search bands, too")
    args = parser.parse_args()
    try:
        models = load_models([f"model={args.folder / 'last.ckpt'}"])
        found = figures_of(models, args.folder, args.stores, args.paths)
    except HessianDataError as exc:
        parser.error(str(exc))
    (args.folder / "figures.json").write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
