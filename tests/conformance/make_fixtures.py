"""Make the conformance fixtures: `python tests/conformance/make_fixtures.py`.

valid/ holds stores without an error, invalid/ stores with exactly one fault,
warning/ stores with one warning. What comes before the first `_` of an
invalid/ or warning/ name is the rule that speaks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from morse import WATER, molecule
from zarr.codecs import BloscCodec, BytesCodec

from nequip_hessian.errors import HessianDataError
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store import StoreWriter
from nequip_hessian.store.build import zip_directory
from nequip_hessian.store.checksum import KEY, metadata_checksum, read_logical
from nequip_hessian.store.files import DirectoryFiles

HERE = Path(__file__).resolve().parent
TIME = "2026-01-01T00:00:00Z"
CHARGES = np.array([-0.5, 0.25, 0.25])  # e, of the atoms of water, as points


class Draft:
    """A store directory that can be changed in one place without the rest noticing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def json(self, path: str = "") -> dict:
        return json.loads((self.path / path / "zarr.json").read_text())

    def put_json(self, value: dict, path: str = "") -> None:
        (self.path / path / "zarr.json").write_text(json.dumps(value, indent=1))

    def root(self, change: Callable[[dict], object]) -> None:
        """Change the hessian_zarr object in place."""
        value = self.json()
        change(value["attributes"]["hessian_zarr"])
        self.put_json(value)

    def meta(self, path: str, change: Callable[[dict], object]) -> None:
        """Change the metadata of one array in place."""
        value = self.json(path)
        change(value)
        self.put_json(value, path)

    def get(self, path: str) -> np.ndarray:
        return zarr.open_array(self.path / path, mode="r")[...]

    def put(self, path: str, values: np.ndarray, *, checksum: bool = True) -> None:
        """Replace the values of an array, shape and checksum included."""
        metadata = self.json(path)
        metadata["shape"] = list(values.shape)
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [max(1, size) for size in values.shape]
        self.put_json(metadata, path)
        chunk = self.path / path / "c" / "/".join("0" * values.ndim)
        shutil.rmtree(self.path / path / "c", ignore_errors=True)
        chunk.parent.mkdir(parents=True)
        chunk.write_bytes(values.tobytes())
        if checksum:
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            self.root(lambda own: own["checksums"].update({path: f"sha256:{digest}"}))

    def edit(self, path: str, index: object, value: object, *, checksum: bool = True) -> None:
        """Change one element of an array."""
        values = np.array(self.get(path))
        values[index] = value
        self.put(path, values, checksum=checksum)

    def drop(self, path: str, *, checksum: bool = True) -> None:
        shutil.rmtree(self.path / path)
        if checksum:
            self.root(lambda own: own["checksums"].pop(path))

    def seal(self) -> None:
        """Bring the checksum of the metadata up to date, as far as they can still be read."""
        try:
            files = DirectoryFiles(self.path)
            value = self.json()
            own = value["attributes"]["hessian_zarr"]
            if KEY in own:
                own[KEY] = metadata_checksum(value["attributes"], read_logical(files))
                self.put_json(value)
        except (HessianDataError, OSError, ValueError, KeyError):
            return

    def recode(self, path: str, **options: object) -> None:
        """Write an array anew with other chunks or codecs."""
        values, metadata = self.get(path), self.json(path)
        shutil.rmtree(self.path / path)
        zarr.open_group(self.path, mode="r+").create_array(
            path,
            shape=values.shape,
            dtype=values.dtype,
            fill_value=float("nan") if values.dtype.kind == "f" else 0,
            attributes=metadata["attributes"],
            dimension_names=metadata["dimension_names"],
            **{"chunks": values.shape, "compressors": None, "filters": None, **options},
        )[...] = values


def write(path: Path, records: list[LabelledGeometry], splits: dict | None = None, **options: object) -> None:
    with StoreWriter(path, attributes={"license": "CC0-1.0", "title": "fixture"}, **options) as writer:
        writer.extend(records)
        for scheme, (parts, codes) in (splits or {}).items():
            writer.set_split(scheme, parts, codes)


def plain() -> tuple[list[LabelledGeometry], dict]:
    """Three geometries with the arrays nearly every store has."""
    return [molecule(), molecule(1), molecule(2).replace(hessian=None)], {}


def rich() -> tuple[list[LabelledGeometry], dict]:
    """Each array of the layout the writer writes."""
    from ase.data import atomic_masses

    from nequip_hessian.curvature import normal_modes

    records = []
    for seed, role in ((None, "reactant"), (3, "transition_state"), (4, "product")):
        one = molecule(seed, group="a reaction", role=role, label=f"the {role}", path_coordinate=float(seed or 0))
        hessian, masses = np.asarray(one.hessian), atomic_masses[one.numbers]
        probe = np.random.default_rng(7).normal(size=(2, 9))
        probe /= np.linalg.norm(probe, axis=1)[:, None]
        records.append(
            one.replace(
                masses=masses,
                probes=probe.reshape(2, 3, 3),
                products=(probe @ hessian).reshape(2, 3, 3),
                dipole_derivatives=np.kron(CHARGES[:, None], np.eye(3)),
                born_charges=CHARGES[:, None, None] * np.eye(3),
                frequencies=normal_modes(hessian, one.positions, masses)[0],
                frequencies_projected=True,
            )
        )
    part = molecule(5, label="partial", group="else")
    rows = np.r_[0:3, 6:9]
    records.append(part.replace(hessian=np.asarray(part.hessian)[np.ix_(rows, rows)], active=np.array([0, 2])))
    return records, {"by_group": (("train", "val", "test"), [0, 0, 0, 2])}


def phonon() -> tuple[list[LabelledGeometry], dict]:
    """Rock salt with springs between neighbours, twice, and a molecule that is no supercell."""
    numbers, spacing = np.repeat([11, 17], 4), 2.82
    sodium = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    positions = spacing * np.concatenate([sodium, 1 - sodium])
    hessian = np.zeros((8, 3, 8, 3))
    for i, j in itertools.permutations(range(8), 2):
        step = np.abs(positions[i] - positions[j]) / spacing
        if step.sum() == 1:  # to the neighbour on this side and to its image on the other
            spring = 2 * (0.2 * np.eye(3) + 1.8 * np.diag(step))
            hessian[i, :, j] -= spring
            hessian[i, :, i] += spring
    crystal = LabelledGeometry(
        numbers=numbers,
        positions=positions,
        cell=2 * spacing * np.eye(3),
        pbc=True,
        energy=-27.0,
        forces=np.zeros((8, 3)),
        hessian=hessian.reshape(24, 24),
        kind="minimum",
        supercell_matrix=np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
        level=LevelOfTheory("springs", program="analytic", hessian="analytic"),
    )
    charges = np.where(numbers == 11, 1.08, -1.08)
    whole = crystal.replace(
        primitive_matrix=np.eye(3), dielectric=2.43 * np.eye(3), born_charges=charges[:, None, None] * np.eye(3)
    )
    return [molecule(), whole, crystal.replace(energy=-26.0)], {}


def _turned(record: LabelledGeometry, turn: np.ndarray) -> LabelledGeometry:
    """The same molecule in another frame, printed with four decimals."""
    all_atoms = np.kron(np.eye(len(record)), turn)
    hessian = all_atoms.T @ np.asarray(record.hessian) @ all_atoms
    positions = np.round(np.asarray(record.positions) @ turn, 4)
    return record.replace(positions=positions, forces=np.asarray(record.forces) @ turn, hessian=hessian)


def special(name: str) -> tuple[list[LabelledGeometry], dict]:
    """Stores that are at fault, or special, by their records."""
    one, other = molecule(1), molecule(2)
    in_group = {"group": "r", "path_coordinate": 0.0}
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    cases: dict[str, tuple[list[LabelledGeometry], dict]] = {
        "unit": ([one.replace(hessian=np.asarray(one.hessian) / 97.173624)], {}),
        "sign": ([one.replace(forces=-np.asarray(one.forces))], {}),
        "frame": ([one.replace(positions=one.positions @ turn, forces=np.asarray(one.forces) @ turn)], {}),
        "atoms": ([one.replace(**in_group), _reordered(other).replace(**in_group)], {}),
        "twice": ([one, one], {"s": (("train", "val"), [0, 1])}),
        "leak": ([one.replace(group="g"), other.replace(group="g")], {"s": (("train", "val"), [0, 1])}),
        "near": ([one, _turned(one, turn)], {"s": (("train", "val"), [0, 1])}),
        "products": ([_with_products(one)], {}),
        "grid": ([one.replace(hessian=np.asarray(one.hessian) + 0.1 * np.eye(9))], {}),
        "kind": ([molecule(kind="transition_state")], {}),
        "force": ([molecule(1, kind="minimum", shift=0.02)], {}),
        "stiff": ([molecule().replace(hessian=np.asarray(molecule().hessian) / 97.173624)], {}),
        "one_atom": ([_one_atom()], {}),
        "periodic": ([one.replace(cell=np.eye(3) * 30, pbc=pbc) for pbc in (True, [True, True, False])], {}),
        "no_hessians": ([one.replace(hessian=None), other.replace(hessian=None, forces=None, energy=None)], {}),
        "single_precision": ([one.replace(hessian=np.asarray(one.hessian, dtype=np.float32))], {}),
    }  # fmt: skip
    return cases[name]


def _reordered(record: LabelledGeometry) -> LabelledGeometry:
    order = np.array([1, 0, 2])
    rows = (3 * order[:, None] + np.arange(3)).ravel()
    return record.replace(
        numbers=record.numbers[order],
        positions=record.positions[order],
        forces=np.asarray(record.forces)[order],
        hessian=np.asarray(record.hessian)[np.ix_(rows, rows)],
    )


def _with_products(record: LabelledGeometry) -> LabelledGeometry:
    probe = np.random.default_rng(7).normal(size=9)
    probe /= np.linalg.norm(probe)
    value = np.asarray(molecule(8).hessian) @ probe  # of another geometry
    return record.replace(probes=probe.reshape(1, 3, 3), products=value.reshape(1, 3, 3))


def _one_atom() -> LabelledGeometry:
    return LabelledGeometry(
        numbers=np.array([2]),
        positions=np.zeros((1, 3)),
        energy=-79.0,
        forces=np.zeros((1, 3)),
        hessian=np.zeros((3, 3)),
        level=molecule().level,
    )


def _put(path: str, index: object, value: object) -> Callable[[Draft], None]:
    return lambda draft: draft.edit(path, index, value)


def _root(change: Callable[[dict], object]) -> Callable[[Draft], None]:
    return lambda draft: draft.root(change)


def _meta(path: str, **values: object) -> Callable[[Draft], None]:
    return lambda draft: draft.meta(path, lambda metadata: metadata.update(values))


def _attribute(path: str, **values: object) -> Callable[[Draft], None]:
    return lambda draft: draft.meta(path, lambda metadata: metadata["attributes"].update(values))


def _convention(draft: Draft) -> None:
    value = draft.json()
    value["attributes"]["zarr_conventions"][0]["uuid"] = "00000000-0000-4000-8000-000000000000"
    draft.put_json(value)


def _other_convention(draft: Draft) -> None:
    value = draft.json()
    value["attributes"]["zarr_conventions"].insert(0, {"name": "other", "uuid": "0b2b6a7e-2d57-4c58-9c7e-0f9c33ad2f11"})
    value["attributes"]["other"] = {"anything": 1}
    draft.put_json(value)


def _as_float32_energy(draft: Draft) -> None:
    draft.meta("geometry/energy", lambda metadata: metadata.update(data_type="float32"))


def _flat_positions(draft: Draft) -> None:
    draft.put("atom/position", draft.get("atom/position").reshape(-1))


def _short_energy(draft: Draft) -> None:
    draft.put("geometry/energy", draft.get("geometry/energy")[:-1])


def _unknown_array(draft: Draft) -> None:
    shutil.copytree(draft.path / "geometry/energy", draft.path / "geometry/enthalpy")


def _extra_group(draft: Draft) -> None:
    group = zarr.open_group(draft.path, mode="r+").create_group("extra")
    group.create_array("anything", data=np.arange(3.0))


def _offset_end(draft: Draft) -> None:
    draft.put("hessian/data", np.append(draft.get("hessian/data"), 0.0))
    draft.root(lambda own: own["counts"].update(hessian_elements=len(draft.get("hessian/data"))))


def _hessian_length(draft: Draft) -> None:
    draft.put("hessian/data", np.append(draft.get("hessian/data"), 0.0))
    draft.put("hessian/offset", np.array([0, 45, 91, 91]))
    draft.root(lambda own: own["counts"].update(hessian_elements=91))


def _cut_chunk(draft: Draft) -> None:
    chunk = draft.path / "hessian/data/c/0"
    chunk.write_bytes(chunk.read_bytes()[:-3])


def _missing_energy_chunk(draft: Draft) -> None:
    draft.put("geometry/energy", np.full(3, np.nan))  # the checksum is that of the fill value
    (draft.path / "geometry/energy/c/0").unlink()


def _missing_shard(draft: Draft) -> None:
    draft.recode("hessian/data", chunks=(10,), shards=(40,))
    (draft.path / "hessian/data/c/1").unlink()


def _dipole_rows(draft: Draft) -> None:
    offset = draft.get("dipole/offset").copy()
    offset[1] -= 1
    draft.put("dipole/offset", offset)


def _labels(values: bytes) -> Callable[[Draft], None]:
    return lambda draft: draft.edit("geometry/label_data", slice(0, len(values)), np.frombuffer(values, dtype=np.uint8))


def _nothing(_draft: Draft) -> None:
    """Change nothing: the records are what matters."""


NAN, INF = float("nan"), float("inf")
Change = Callable[[Draft], None]
Case = tuple[object, Change]
INVALID: dict[str, Case] = {
    "HZ-1.1_no_metadata": (plain, lambda draft: (draft.path / "zarr.json").unlink()),
    "HZ-1.1_not_json": (plain, lambda draft: (draft.path / "zarr.json").write_text("{") and None),
    "HZ-1.1_zarr_format_2": (plain, _meta("", zarr_format=2)),
    "HZ-1.2_other_uuid": (plain, _convention),
    "HZ-1.3_other_version": (plain, _root(lambda own: own.update(version="7.0"))),
    "HZ-1.4_unknown_key": (plain, _root(lambda own: own.update(licence="CC0"))),
    "HZ-1.4_no_counts": (plain, _root(lambda own: own.pop("counts"))),
    "HZ-1.4_level_without_method": (plain, _root(lambda own: own["levels_of_theory"][0].pop("method"))),
    "HZ-1.4_checksum_of_another_kind": (plain, _root(lambda own: own["checksums"].update({"atom/force": "md5:0"}))),
    "HZ-2.1_no_energy": (plain, lambda draft: draft.drop("geometry/energy")),
    "HZ-2.2_single_precision_energy": (plain, _as_float32_energy),
    "HZ-2.3_flat_positions": (plain, _flat_positions),
    "HZ-2.4_hartree": (plain, _attribute("geometry/energy", units="hartree")),
    "HZ-2.4_upper_packing": (plain, _attribute("hessian/data", packing="upper_row_major")),
    "HZ-2.4_kinds_renamed": (plain, _attribute("geometry/kind", categories=["minimum", "saddle"])),
    "HZ-2.5_short_energy": (plain, _short_energy),
    "HZ-2.5_counts": (plain, _root(lambda own: own["counts"].update(atoms=8))),
    "HZ-2.6_unknown_array": (plain, _unknown_array),
    "HZ-2.7_probe_without_value": (rich, lambda draft: draft.drop("product/value")),
    "HZ-2.8_array_not_json": (plain, lambda draft: (draft.path / "atom/force/zarr.json").write_text("x") and None),
    "HZ-2.8_no_group_metadata": (plain, lambda draft: (draft.path / "atom/zarr.json").unlink()),
    "HZ-2.9_no_checksum": (plain, _root(lambda own: own["checksums"].pop("atom/force"))),
    "HZ-2.10_title_changed": (plain, _root(lambda own: own.update(title="Fixture"))),
    "HZ-2.10_projected_changed": (rich, _attribute("frequency/value", projected=False)),
    "HZ-3.1_cut_chunk": (plain, _cut_chunk),
    "HZ-3.1_missing_chunk": (plain, _missing_energy_chunk),
    "HZ-3.1_missing_shard": (plain, _missing_shard),
    "HZ-3.2_offset_not_from_0": (plain, _put("hessian/offset", 0, 1)),
    "HZ-3.2_offset_falls": (plain, _put("hessian/offset", 1, 91)),
    "HZ-3.2_no_atoms": (plain, _put("geometry/atom_offset", 1, 0)),
    "HZ-3.2_offset_ends_early": (plain, _offset_end),
    "HZ-3.3_atomic_number_0": (plain, _put("atom/number", 4, 0)),
    "HZ-3.4_position_nan": (plain, _put("atom/position", (4, 1), NAN)),
    "HZ-3.5_one_element_too_many": (plain, _hessian_length),
    "HZ-3.6_hessian_nan": (plain, _put("hessian/data", 50, NAN)),
    "HZ-3.7_kind": (plain, _put("geometry/kind", 1, 6)),
    "HZ-3.7_level": (plain, _put("geometry/level", 1, 1)),
    "HZ-3.7_split": (rich, _put("split/by_group", 1, 3)),
    "HZ-3.8_group_left_out": (rich, _put("geometry/group", 3, 2)),
    "HZ-3.9_energy_infinite": (plain, _put("geometry/energy", 1, INF)),
    "HZ-3.10_active_order": (rich, _put("hessian/active_atom", slice(None), np.array([2, 0]))),
    "HZ-3.11_not_utf8": (rich, _labels(b"\xff")),
    "HZ-3.11_control_character": (rich, _labels(b"\n")),
    "HZ-3.12_one_bit": (plain, lambda draft: draft.edit("atom/force", (0, 0), 1e-9, checksum=False)),
    "HZ-3.13_probe_norm": (rich, _put("product/probe", (0, 0), 2.0)),
    "HZ-3.14_two_atoms_at_one_place": (plain, _put("atom/position", 1, WATER[1][0])),
    "HZ-3.15_no_volume": (plain, _put("geometry/pbc", 0, True)),
    "HZ-3.16_hessians_counted_wrong": (plain, _root(lambda own: own["counts"].update(hessians=3))),
    "HZ-3.17_mass_0": (rich, _put("atom/mass", 1, 0.0)),
    "HZ-3.18_dipole_rows": (rich, _dipole_rows),
    "HZ-3.19_no_unit_cell": (phonon, _put("phonon/supercell_matrix", 1, np.diag([1, 1, 0]))),
    "HZ-3.19_three_unit_cells_of_8_atoms": (phonon, _put("phonon/supercell_matrix", 1, np.diag([3, 1, 1]))),
    "HZ-3.19_primitive_cell_without_volume": (phonon, _put("phonon/primitive_matrix", (1, 2, 2), 0.0)),
    "HZ-3.19_supercell_of_a_slab": (phonon, _put("geometry/pbc", (1, 2), False)),
    "HZ-4.2_unit": ("unit", _nothing),
    "HZ-4.2_gradients_as_forces": ("sign", _nothing),
    "HZ-4.2_frame": ("frame", _nothing),
    "HZ-4.4_atoms_reordered": ("atoms", _nothing),
    "HZ-4.5_in_train_and_val": ("twice", _nothing),
    "HZ-4.7_products_of_another": ("products", _nothing),
}  # fmt: skip
WARNING: dict[str, Case] = {
    "HZ-1.5_no_licence": (plain, _root(lambda own: own.pop("license"))),
    "HZ-1.6_not_sealed": (plain, _root(lambda own: own.pop(KEY))),
    "HZ-4.1_grid": ("grid", _nothing),
    "HZ-4.3_no_imaginary_mode": ("kind", _nothing),
    "HZ-4.6_group_in_two_parts": ("leak", _nothing),
    "HZ-4.8_printed_frequencies": (rich, _put("frequency/value", 0, 100.0)),
    "HZ-4.9_forces_at_minimum": ("force", _nothing),
    "HZ-4.10_hartree_at_minimum": ("stiff", _nothing),
    "HZ-4.11_turned_and_rounded": ("near", _nothing),
    "HZ-4.12_dipole_about_the_centre_of_mass": (rich, _put("geometry/charge", 0, 1)),
    "HZ-4.13_born_charges_of_one_ion": (phonon, _put("atom/born_charge", (3, 0, 0), 1.3)),
    "HZ-4.14_dielectric_not_symmetric": (phonon, _put("phonon/dielectric", (1, 0, 1), 0.1)),
    "HZ-4.14_dielectric_not_positive": (phonon, _put("phonon/dielectric", (1, 2, 2), -2.43)),
}
ADDED: dict[str, tuple[str, bytes]] = {  # entries of a zip file that no directory could hold
    "HZ-2.11_parent_folder": ("../escape.txt", b"x"),
    "HZ-2.11_absolute_path": ("/etc/escape", b"x"),
    "HZ-2.11_two_of_one_name": ("atom/force/c/0/0", bytes(216)),
}
VALID: dict[str, Case] = {
    "plain": (plain, _nothing),
    "rich": (rich, _nothing),
    "phonon": (phonon, _nothing),
    "one_atom": ("one_atom", _nothing),
    "periodic": ("periodic", _nothing),
    "no_hessians": ("no_hessians", _nothing),
    "single_precision": ("single_precision", _nothing),
    "big_endian": (plain, lambda draft: draft.recode("hessian/data", serializer=BytesCodec(endian="big"))),
    "blosc": (plain, lambda draft: draft.recode("hessian/data", compressors=[BloscCodec(cname="zstd")])),
    "padded_chunks": (plain, lambda draft: draft.recode("hessian/data", chunks=(40,))),
    "shards": (plain, lambda draft: draft.recode("hessian/data", chunks=(10,), shards=(40,))),
    "extra_group": (plain, _extra_group),
    "extra_attributes": (plain, _root(lambda own: own.update(extra={"anything": [1]}))),
    "other_convention": (plain, _other_convention),
}


def build(case: Case, target: Path, *, deflate: bool) -> None:
    """Make one fixture, a zip file."""
    source, change = case
    records, splits = special(source) if isinstance(source, str) else source()  # type: ignore[operator]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zarr"
        write(path, records, splits)
        draft = Draft(path)
        draft.root(lambda own: [entry.update(time=TIME) for entry in own["provenance"]])
        if not target.name.startswith("HZ-2.10"):
            change(draft)
        draft.seal()
        if target.name.startswith("HZ-2.10"):  # after the seal was put on
            change(draft)
        zip_directory(path, target)
    if deflate:
        with zipfile.ZipFile(target) as old:
            entries = [(info, old.read(info)) for info in old.infolist()]
        with zipfile.ZipFile(target, "w") as new:
            for info, content in entries:
                info.compress_type = zipfile.ZIP_DEFLATED
                new.writestr(info, content)


def main() -> None:
    for folder, cases in (("valid", VALID), ("invalid", INVALID), ("warning", WARNING)):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
        for name, case in cases.items():
            build(case, HERE / folder / f"{name}.zarr.zip", deflate=name not in ("plain", "HZ-3.1_cut_chunk"))
    for name, (key, content) in ADDED.items():
        target = HERE / "invalid" / f"{name}.zarr.zip"
        build(VALID["plain"], target, deflate=True)
        with warnings.catch_warnings(), zipfile.ZipFile(target, "a") as archive:
            warnings.simplefilter("ignore")  # of zipfile, on two entries of one name: that is the fault
            archive.writestr(zipfile.ZipInfo(key, date_time=(1980, 1, 1, 0, 0, 0)), content)
    broken = HERE / "invalid"
    whole = (HERE / "valid" / "plain.zarr.zip").read_bytes()
    (broken / "HZ-1.1_cut_zip.zarr.zip").write_bytes(whole[: len(whole) // 2])
    (broken / "HZ-1.1_random_bytes.zarr.zip").write_bytes(np.random.default_rng(0).bytes(500))
    (broken / "HZ-1.1_empty_file.zarr.zip").write_bytes(b"")


if __name__ == "__main__":
    main()
