"""Validation levels 1 (attributes) and 2 (hierarchy): metadata alone, no chunk is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonschema.exceptions import ValidationError

from nequip_hessian.errors import StoreError
from nequip_hessian.store.attributes import way_out_of
from nequip_hessian.store.checksum import KEY, metadata_checksum
from nequip_hessian.store.files import Files, open_files, read_metadata, why_no_metadata
from nequip_hessian.store.layout import ARRAYS, BY_PATH, EXTRA_GROUP, NAME, RAGGED, SPLIT_PREFIX, UUID, VERSION, spec_of
from nequip_hessian.store.report import ValidationReport
from nequip_hessian.store.schema import brief, complaints, place

if TYPE_CHECKING:
    from nequip_hessian.store.files import Place

Metadata = dict[str, dict[str, Any]]

_PHONON = ("phonon/supercell_matrix", "phonon/primitive_matrix")
TOGETHER = (*((offset, *data) for offset, data in RAGGED.items() if not BY_PATH[offset].required), _PHONON)


def check_attributes(path: Place, report: ValidationReport) -> tuple[Files, dict[str, Any]] | None:
    """Level 1. Return the open files and the `hessian_zarr` object, `None` where there is nothing to go on with."""
    try:
        files = open_files(path)
        metadata = read_metadata(files)
    except StoreError as exc:
        report.add("HZ-1.1", "zarr.json", "a readable store", str(exc))
        return None
    if metadata is None:
        report.add("HZ-1.1", "zarr.json", "a Zarr v3 group at the top", why_no_metadata(path))
        return None
    if metadata.get("zarr_format") != 3 or metadata.get("node_type") != "group":
        found = {key: metadata.get(key) for key in ("zarr_format", "node_type")}
        report.add("HZ-1.1", "zarr.json", "zarr_format 3 and node_type group", brief(found))
        return None
    attributes = metadata.get("attributes")
    own = attributes.get(NAME) if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict) or not isinstance(own, dict):
        report.add("HZ-1.4", NAME, f"the root attribute {NAME!r}, an object", brief(own))
        return None
    if own.get("version") != VERSION:
        version = own.get("version")
        report.add("HZ-1.3", f"{NAME}/version", repr(VERSION), f"{version!r}; {way_out_of(version)}")
        return None
    for error in complaints(attributes, "root"):
        where = place(error)
        rule = "HZ-1.2" if where.startswith("zarr_conventions") or "'zarr_conventions'" in error.message else "HZ-1.4"
        expected = f"an entry with uuid {UUID} and name {NAME}" if rule == "HZ-1.2" else _expected(error)
        report.add(rule, where, expected, brief(error.instance))
    if not own.get("license"):
        report.add("HZ-1.5", f"{NAME}/license", "an SPDX licence, so that others know what they may do", "none")
    if KEY not in own:
        report.add("HZ-1.6", f"{NAME}/{KEY}", "a checksum of the metadata", "none; 'repack' adds it")
    for index, level in enumerate(own.get("levels_of_theory") or []):
        if isinstance(level, dict) and level.get("method") == "unknown":
            report.add("HZ-1.5", f"{NAME}/levels_of_theory/{index}", "a method", "'unknown'")
    return files, own


def _expected(error: ValidationError) -> str:
    kind, wanted = str(error.validator), error.validator_value
    if kind == "additionalProperties":
        return f"no keys beyond the schema's ({error.message})"
    if kind == "required":
        return f"the keys {brief(wanted)}"
    return f"{kind} {brief(wanted)}"


def check_hierarchy(files: Files, own: dict[str, Any], report: ValidationReport) -> Metadata:
    """Level 2. Return the metadata of the arrays found, by path."""
    for name in files.odd_names():
        report.add("HZ-2.11", name, "a relative path without .., once", "another, or a second one of that name")
    arrays = _collect(files, report)
    for spec in ARRAYS:
        if spec.required and spec.path not in arrays and not _spoken_of(spec.path, report):
            report.add("HZ-2.1", spec.path, "the array", "nothing there")
    for together in TOGETHER:
        present = [path for path in together if path in arrays]
        if present and len(present) < len(together):
            for path in sorted(set(together) - set(present)):
                report.add("HZ-2.7", path, f"the array, as {present[0]} is there", "nothing there")
    for path, metadata in arrays.items():
        _check_array(path, metadata, report)
    if report.valid:
        _check_sizes(arrays, own, report)
        _check_checksum_names(arrays, own, report)
    if report.valid and KEY in own:
        root = (read_metadata(files) or {}).get("attributes", {})
        found = metadata_checksum(root, arrays)
        if found != own[KEY]:
            report.add("HZ-2.10", f"{NAME}/{KEY}", own[KEY], f"{found}: metadata were changed after they were sealed")
    return arrays


def _spoken_of(path: str, report: ValidationReport) -> bool:
    return any(message.rule == "HZ-2.8" and message.path == path for message in report.messages)


def _collect(files: Files, report: ValidationReport) -> Metadata:
    nodes = {key[: -len("/zarr.json")] for key in files.names() if key.endswith("/zarr.json")}
    arrays: Metadata = {}
    for path in sorted(nodes):
        if path.split("/")[0] == EXTRA_GROUP:
            continue
        try:
            metadata = read_metadata(files, path)
        except StoreError as exc:
            report.add("HZ-2.8", path, "a readable zarr.json", str(exc))
            continue
        kind = (metadata or {}).get("node_type")
        if metadata is None or kind not in ("array", "group") or metadata.get("zarr_format") != 3:
            report.add("HZ-2.8", path, "Zarr v3 array or group metadata", brief(metadata))
        elif (kind == "array") != (spec_of(path) is not None) or (kind == "group" and path not in _GROUPS):
            report.add("HZ-2.6", path, f"an array of the layout, or a place below {EXTRA_GROUP}/", f"an unknown {kind}")
        elif kind == "array":
            arrays[path] = metadata
    for group in sorted({path.split("/")[0] for path in arrays} - nodes):
        report.add("HZ-2.8", group, "a zarr.json of the group", "none")
    return arrays


_GROUPS = {spec.path.split("/")[0] for spec in ARRAYS} | {SPLIT_PREFIX.rstrip("/")}


def _check_array(path: str, metadata: dict[str, Any], report: ValidationReport) -> None:
    pointer = ("properties", path)
    if path.startswith(SPLIT_PREFIX):
        pointer = ("patternProperties", "^split/[A-Za-z0-9][A-Za-z0-9_.-]*$")
    for error in complaints(metadata, "arrays", *pointer):
        where = place(error)
        rule = {"data_type": "HZ-2.2", "shape": "HZ-2.3", "attributes": "HZ-2.4", "dimension_names": "HZ-2.4"}.get(
            where.split("/")[0], "HZ-2.4" if "'attributes'" in error.message else "HZ-2.8"
        )
        report.add(rule, f"{path}/{where}".rstrip("/"), _expected(error), brief(error.instance))


def _check_sizes(arrays: Metadata, own: dict[str, Any], report: ValidationReport) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for path, metadata in arrays.items():
        spec = spec_of(path)
        if spec is None:
            continue
        symbol, size = str(spec.shape[0]), int(metadata["shape"][0])
        if symbol.endswith("+1"):
            symbol, size = symbol[:-2], size - 1
        known, where = sizes.setdefault(symbol, (size, path))
        if size != known:
            report.add("HZ-2.5", path, f"{symbol} = {known} as in {where}", f"{symbol} = {size}")
    counts = own["counts"]
    for symbol, name in (("G", "geometries"), ("A", "atoms"), ("M", "hessian_elements"), ("K", "groups")):
        if symbol in sizes and sizes[symbol][0] != counts[name]:
            report.add("HZ-2.5", sizes[symbol][1], f"{counts[name]} as counts/{name} says", str(sizes[symbol][0]))


def _check_checksum_names(arrays: Metadata, own: dict[str, Any], report: ValidationReport) -> None:
    named = set(own["checksums"])
    for path in sorted(set(arrays) - named):
        report.add("HZ-2.9", f"checksums/{path}", "the checksum of an array that is there", "none")
    for path in sorted(named - set(arrays)):
        report.add("HZ-2.9", f"checksums/{path}", "an array of the layout", "nothing there")
