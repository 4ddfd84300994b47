"""Journal -> labelled store: `python datasets/reactions-xtb/build.py -o out/reactions-xtb.zarr`.

Labels the stationary and path points of the accepted reactions, displaces path points along their normal modes and
labels those too. Resumable: what is labelled is kept beside the output until the store is written.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses
from find import JOURNAL, read_journal
from selection import PARTS, accepted, by_composition, by_reaction, codes_of, formula

from nequip_hessian.curvature import mass_weight, project_out, rigid_motions
from nequip_hessian.errors import HessianDataError
from nequip_hessian.label.run import label
from nequip_hessian.label.tblite import TbliteEngine
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter
from nequip_hessian.store.target import Target
from nequip_hessian.units import WAVENUMBER

PATH_POINTS, DISPLACED = 3, 9  # path points a side, displaced points a reaction
LARGEST_ENERGY = 0.1  # eV, harmonic, of each displaced mode
SOFTEST = 400.0  # cm^-1; softer modes are displaced as if they had this wavenumber
CLEAR = 0.02  # eV
SEED = 20261122
ATTRIBUTES = {
    "id": "nequip-hessian-reactions-xtb",
    "title": "Elementary reactions of H, C, N, O molecules with GFN2-xTB energies, forces and Hessians",
    "license": "CC0-1.0",
    "dataset_version": "0.1",
}
STATES = (
    ("reactant_state", "minimum", "reactant"),
    ("transition_state", "transition_state", "transition_state"),
    ("product_state", "minimum", "product"),
)


def geometries(record: dict[str, Any], name: str) -> list[LabelledGeometry]:
    """Reactant, transition state, product, then path points in the order of the path, without labels."""
    shared = {"numbers": np.array(record["numbers"]), "group": name, "charge": 0, "multiplicity": 1}
    found = [
        LabelledGeometry(
            positions=np.array(record[state]["positions"]), kind=kind, role=role, label=f"{name}/{role}", **shared
        )
        for state, kind, role in STATES
    ]
    ends = [record[state]["energy"] for state in ("reactant_state", "product_state")]
    points = [point for side, end in zip(record["path"], ends, strict=True) for point in thinned(side, end)]
    for count, point in enumerate(sorted(points, key=lambda point: point["arc"])):
        found.append(
            LabelledGeometry(
                positions=np.array(point["positions"]),
                kind="path",
                path_coordinate=point["arc"],
                label=f"{name}/irc-{count}",
                **shared,
            )
        )
    return found


def thinned(side: list[dict[str, Any]], end: float) -> list[dict[str, Any]]:
    """At most PATH_POINTS points of one side, spread evenly, none within CLEAR of the minimum's energy."""
    clear = [point for point in side if point["energy"] > end + CLEAR]
    if not clear:
        return []
    return [clear[i] for i in sorted({round(i) for i in np.linspace(0, len(clear) - 1, PATH_POINTS)})]


def displaced(points: list[LabelledGeometry], name: str) -> list[LabelledGeometry]:
    """Displace transition state and path points of a reaction along all modes but the path's own.

    At each point the mass-weighted Hessian is projected free of rigid motions and of the direction of the path (the
    imaginary mode, or the forces); each mode gets an energy drawn evenly from 0 to LARGEST_ENERGY in the harmonic
    approximation, and a random sign.
    """
    starts = [p for p in points if p.role == "transition_state" or p.kind == "path"]
    random = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    found = []
    for count in range(DISPLACED):
        point = starts[count % len(starts)]
        root = np.sqrt(np.repeat(atomic_masses[point.numbers], 3))
        weighted = mass_weight(np.asarray(point.hessian, dtype=np.float64), root[::3] ** 2)
        basis = rigid_motions(point.positions, root[::3] ** 2)
        weighted = project_out(weighted, basis)
        values, vectors = np.linalg.eigh(weighted)
        along = (
            vectors[:, :1] if point.kind == "transition_state" else (np.asarray(point.forces).ravel() / root)[:, None]
        )
        along = along - basis @ (basis.T @ along)
        values, vectors = np.linalg.eigh(project_out(weighted, along / np.linalg.norm(along)))
        internal = np.abs(values) > 1e-6
        stiffness = np.maximum(np.abs(values[internal]), (SOFTEST / WAVENUMBER) ** 2)
        size = np.sqrt(2 * random.uniform(0, LARGEST_ENERGY, internal.sum()) / stiffness)
        move = vectors[:, internal] @ (size * random.choice([-1, 1], internal.sum())) / root
        found.append(
            LabelledGeometry(
                numbers=point.numbers,
                positions=point.positions + move.reshape(-1, 3),
                kind="displaced",
                label=f"{name}/displaced-{count}",
                group=name,
                charge=0,
                multiplicity=1,
            )
        )
    return found


def names_of(records: list[dict[str, Any]]) -> list[str]:
    """A readable name for each reaction: number, reactant, product."""
    return [f"{index:04d} {r['smiles'][0]} >> {r['smiles'][1]}" for index, r in enumerate(records)]


def fingerprint(geometries: list[LabelledGeometry]) -> str:
    """What tells one list of geometries from another."""
    digest = hashlib.sha256()
    for geometry in geometries:
        digest.update(f"{geometry.group} {geometry.label}".encode())
        digest.update(np.ascontiguousarray(geometry.numbers).tobytes())
        digest.update(np.ascontiguousarray(geometry.positions).tobytes())
    return digest.hexdigest()


def labelled(geometries: list[LabelledGeometry], output: Path, processes: int) -> dict[str, list[LabelledGeometry]]:
    """Label geometries and return them by group; a store of the same geometries that is there already is read.

    Raises:
        HessianDataError: what is there was made for others.
    """
    mark, wanted = output.with_suffix(".sha256"), fingerprint(geometries)
    if mark.exists() and mark.read_text() != wanted:
        raise HessianDataError(
            f"{output.parent}: holds labels of other geometries, of another --reactions or --journal; name another "
            "--work, or remove this one"
        )
    mark.write_text(wanted)
    if not output.exists():
        report = label(geometries, output, TbliteEngine(), workers=processes, progress=True)
        for failure in report.failures:
            print(f"left out: {failure.label}: {failure.reason}")
    groups: dict[str, list[LabelledGeometry]] = {}
    store = HessianStore(output)
    for index in range(len(store)):
        groups.setdefault(str(store[index].group), []).append(store[index])
    return groups


def build(
    records: list[dict[str, Any]],
    chosen: list[int],
    splits: dict[str, list[str]],
    output: Path,
    work: Path,
    processes: int,
    overwrite: bool,
) -> HessianStore:
    """Label the chosen reactions and write the store. Names and parts are those of all reactions."""
    all_names = names_of(records)
    names = [all_names[index] for index in chosen]
    work.mkdir(parents=True, exist_ok=True)
    wanted = [g for index in chosen for g in geometries(records[index], all_names[index])]
    points = labelled(wanted, work / "points.zarr", processes)
    moved = labelled([g for name in names for g in displaced(points[name], name)], work / "displaced.zarr", processes)
    with StoreWriter(output, dtype="float32", attributes=ATTRIBUTES, overwrite=overwrite) as writer:
        kinds, owner = [], []
        for index, name in zip(chosen, names, strict=True):
            for geometry in [*points[name], *moved.get(name, [])]:
                writer.append(geometry)
                kinds.append(geometry.kind)
                owner.append(index)
        for scheme, parts in splits.items():
            of_geometry = [parts[index] for index in owner]
            writer.set_split(scheme, list(PARTS), codes_of(of_geometry, kinds, False))
            writer.set_split(f"{scheme}_all", list(PARTS), codes_of(of_geometry, kinds, True))
        writer.add_provenance({"routine": "reactions-xtb", "reactions": len(chosen), "seed": SEED})
    return HessianStore(output)


def subset(splits: dict[str, list[str]], count: int) -> list[int]:
    """Which reactions: about `count`, each part of the scheme `reaction` in its share, spread evenly over those that
    every scheme gives a part; all where `count` is 0.
    """
    everything = range(len(splits["reaction"]))
    if not count:
        return list(everything)
    placed = [index for index in everything if all(parts[index] != "unused" for parts in splits.values())]
    chosen = []
    for part in ("train", "val", "test"):
        members = [index for index in placed if splits["reaction"][index] == part]
        wanted = max(round(count * len(members) / len(placed)), 1)
        chosen += [members[i] for i in np.linspace(0, len(members) - 1, wanted).round().astype(int)]
    return sorted(chosen)


def records_of(journal: Path) -> list[dict[str, Any]]:
    """The reactions of a folder of attempts.

    Raises:
        HessianDataError: there are none.
    """
    records = accepted(read_journal(journal))[0]
    if not records:
        raise HessianDataError(f"{journal}: expected a folder of attempts with reactions among them, found none")
    return records


def main() -> int:
    """Build, and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the store to write")
    parser.add_argument("--journal", type=Path, default=JOURNAL, help="folder of attempts; default: the one shipped")
    parser.add_argument(
        "--work", type=Path, help="folder of intermediate labels; default: OUTPUT.work, removed at the end"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument(
        "--reactions",
        type=int,
        help="about so many reactions, 3 at least, spread over the parts of the scheme `reaction`; default: all",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of small molecules wait for each other
    if args.reactions is not None and args.reactions < 3:
        parser.error(f"--reactions: expected 3 or more, one for each part of a split, found {args.reactions}")
    if args.processes < 1:
        parser.error(f"--processes: expected 1 or more, found {args.processes}")
    work = args.work or args.output.with_name(args.output.name + ".work")
    if work.exists() and not work.is_dir():
        print(f"build.py: error: --work {work}: expected a folder, found a file", file=sys.stderr)
        return 1
    try:
        Target(args.output, overwrite=args.overwrite)  # refuses before the labels, which take an hour, are made
        records = records_of(args.journal)
        splits = {"reaction": by_reaction(records, SEED), "composition": by_composition(records, SEED)}
        chosen = subset(splits, args.reactions or 0)
        store = build(records, chosen, splits, args.output, work, args.processes, args.overwrite)
    except (HessianDataError, OSError) as exc:
        print(f"build.py: error: {exc}", file=sys.stderr)
        return 1
    if args.work is None:
        shutil.rmtree(work)
    compositions = {formula(records[index]) for index in chosen}
    print(f"{len(chosen)} reactions of {len(compositions)} compositions, {len(store)} geometries")
    for scheme in store.split_schemes:
        codes, parts = store.split(scheme)
        print(f"  {scheme}: " + ", ".join(f"{part} {np.sum(codes == code)}" for code, part in enumerate(parts)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
