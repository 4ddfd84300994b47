"""`nequip-hessian info`: what is in a Hessian store."""

from __future__ import annotations

import argparse
import json
from typing import Any

from nequip_hessian.cli._show import plain
from nequip_hessian.errors import ConfigError
from nequip_hessian.places import refuse_same, require_name

EXAMPLES = """examples:
  nequip-hessian info store.zarr             sizes, elements, labels, reactions, splits, histograms
  nequip-hessian info s3://bucket/store.zarr over a network (extra s3)
  nequip-hessian info store.zarr.zip --json  the same facts as one JSON object
  nequip-hessian info store.zarr --html store.html    one page with plots, nothing from the network"""

BAR = 40  # columns of the longest bar
MAX_REACTIONS = 20
QUALITY_TITLES = {
    "largest": "max |H|, eV/A^2",
    "translation": "transl., eV/A^2",
    "rotation": "rotation, eV/A",
    "frequency": "freq., cm^-1",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "info",
        help="say what is in a Hessian store",
        description="Say what is in a Hessian store: sizes, elements, levels of theory, kinds and roles, which labels "
        "how many geometries have, reactions with barriers, splits, and histograms.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="store directory, zip file or address")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page with plots, too")
    parser.add_argument("--overwrite", action="store_true", help="replace an HTML file that is there")


def run(args: argparse.Namespace) -> int:
    """Print the summary."""
    from nequip_hessian.store.summary import summarise

    if args.html:
        refuse_same(args.html, args.path)
    if args.html and require_name(args.html).exists() and not args.overwrite:
        raise ConfigError(f"{args.html} is there already; name another file or give --overwrite")
    facts = summarise(args.path)
    print(json.dumps(facts) if args.json else plain("\n".join(_lines(facts))))
    if args.html:
        from nequip_hessian.store.page import write_page

        write_page(args.path, args.html)
    return 0


def _lines(facts: dict[str, Any]) -> list[str]:
    counts, labels = facts["counts"], {**facts["labels"], **facts["further"]}
    lines = [
        f"{facts['path']}: hessian_zarr {facts['version']}{_size(facts['bytes'])}",
        *(f"{key:<18} {facts[key]}" for key in ("title", "license") if facts[key]),
        f"{'geometries':<18} {counts['geometries']} ({facts['periodic']} periodic), {counts['atoms']} atoms",
        f"{'hessians':<18} {counts['hessians']}, {facts['hessian_dtype']}, {counts['hessian_elements']} elements",
        f"{'elements':<18} {_pairs(facts['elements'])}",
        f"{'charges':<18} {_pairs(facts['charges'])}",
        f"{'kinds':<18} {_pairs(facts['kinds'])}",
        f"{'roles':<18} {_pairs(facts['roles'])}",
        f"{'labels':<18} {_pairs({name: count for name, count in labels.items() if count})}",
    ]
    for key, title in (("largest_force", "max force, eV/A"), ("asymmetry", "asym., eV/A^2")):
        if facts[key]:
            lines.append(f"{title:<18} {_spread(facts[key])}")
    for key, title in QUALITY_TITLES.items():
        if key in facts["quality"]:
            found = facts["quality"][key]
            lines.append(f"{title:<18} median {found['median']:.3g}, worst {found['most']:.3g}")
    for level in facts["levels_of_theory"]:
        lines.append(f"{'level of theory':<18} {level['index']}: {_level(level)}")
    for scheme, parts in facts["splits"].items():
        lines.append(f"{'split ' + scheme:<18} {_pairs(parts)}")
    return lines + _reactions(facts["reactions"]) + _histograms(facts)


def _pairs(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in found.items()) or "none"


def _size(count: int | None) -> str:
    if count is None:  # behind a network
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f", {size:.4g} {unit}"
        size /= 1000
    return f", {size:.4g} TB"


def _level(level: dict[str, Any]) -> str:
    names = ("dispersion", "solvation", "program", "program_version", "hessian")
    said = [str(level[name]) for name in names if level.get(name) and str(level[name]) not in level["name"]]
    return f"{' '.join([level['name'], *said])}: {level['geometries']} geometries"


def _spread(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in found.items()) or "none"


def _reactions(reactions: list[dict[str, Any]]) -> list[str]:
    if not reactions:
        return []
    lines = [f"\n{'reaction':<32} {'barrier/eV':>10} {'energy/eV':>10} {'path points':>12}"]
    for one in reactions[:MAX_REACTIONS]:
        barrier, energy = ("-" if one[key] is None else f"{one[key]:.3f}" for key in ("barrier", "reaction_energy"))
        name = str(one["label"] or one["group"])
        name = name if len(name) <= 32 else name[:31] + "…"
        lines.append(f"{name:<32} {barrier:>10} {energy:>10} {one['path_points']:>12}")
    rest = len(reactions) - MAX_REACTIONS
    return [*lines, f"... and {rest} more (all with --json)"] if rest > 0 else lines


def _histograms(facts: dict[str, Any]) -> list[str]:
    import numpy as np

    from nequip_hessian.store.summary import histogram

    sizes = {int(n): count for n, count in facts["atoms_per_geometry"].items()}
    lines = _bars("atoms a geometry", histogram(np.repeat(list(sizes), list(sizes.values()))))
    for key, title in (("barrier", "barriers"), ("reaction_energy", "reaction energies")):
        values = [one[key] for one in facts["reactions"] if one[key] is not None]
        if len(values) > 1:
            lines += _bars(title, histogram(np.array(values), " eV"))
    return lines


def _bars(title: str, pairs: list[tuple[str, int]]) -> list[str]:
    width, most = max(len(label) for label, _ in pairs), max(count for _, count in pairs)
    bars = (f"  {label:>{width}} {'#' * round(BAR * count / most):<{BAR}} {count}" for label, count in pairs)
    return [f"\n{title}", *(bar.rstrip() for bar in bars)]
