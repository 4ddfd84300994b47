"""Validate a store, level by level, and compare two stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nequip_hessian.errors import StoreError
from nequip_hessian.store.arrays import RowReader, open_rows
from nequip_hessian.store.attributes import attributes_of, same_provenance
from nequip_hessian.store.check_metadata import check_attributes, check_hierarchy
from nequip_hessian.store.check_physics import check_physics
from nequip_hessian.store.check_values import ValueChecker
from nequip_hessian.store.checksum import KEY
from nequip_hessian.store.files import Files, open_files
from nequip_hessian.store.handle import as_handle
from nequip_hessian.store.report import ValidationReport

if TYPE_CHECKING:
    from nequip_hessian.store.files import Place


def validate(path: Place, level: int = 4) -> ValidationReport:
    """Validate a store: 1 attributes, 2 hierarchy, 3 values, 4 physics.

    A level with errors ends the validation, as the next one rests on it. Whatever lies at `path`, the
    answer is a report, not an exception.

    Args:
        path: store directory or zip file, address, or Zarr store object
        level: highest level to check, 1 to 4

    Raises:
        StoreError: `level` is not 1 to 4.
    """
    if level not in (1, 2, 3, 4):
        raise StoreError(f"level: expected 1 to 4, found {level!r}")
    report = ValidationReport(str(as_handle(path) or path), level, reached=1)
    opened = check_attributes(path, report)
    if opened is None or not report.valid or level < 2:
        return report
    files, own = opened
    report.reached = 2
    arrays = check_hierarchy(files, own, report)
    if not report.valid or level < 3:
        return report
    report.reached = 3
    ValueChecker(files, own, arrays, report).run()
    if not report.valid or level < 4:
        return report
    report.reached = 4
    check_physics(path, report)
    return report


def differences(first: Place, second: Place) -> list[str]:
    """Compare two stores in all that matters: arrays bit by bit, attributes except time, host and executor.

    Chunks, codecs and profile make no difference.

    Args:
        first, second: store directories, zip files, addresses, or Zarr store objects

    Returns:
        One line a difference, none where they are the same.

    Raises:
        StoreError: one of them is not a readable store.
    """
    files = [open_files(path) for path in (first, second)]
    own = [attributes_of(each) for each in files]
    found = _attribute_differences(*own)
    names = [{key[: -len("/zarr.json")] for key in one.names() if key.endswith("/zarr.json")} for one in files]
    found += [f"{path}: only in {first}" for path in sorted(names[0] - names[1])]
    found += [f"{path}: only in {second}" for path in sorted(names[1] - names[0])]
    for path in sorted(names[0] & names[1]):
        found += _array_differences(files[0], files[1], path)
    return found


def _attribute_differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    found = [
        f"attribute {key}: {a.get(key)!r} and {b.get(key)!r}"
        for key in sorted((set(a) | set(b)) - {"provenance", KEY})
        if a.get(key) != b.get(key)
    ]
    ours, theirs = ([entry for entry in one.get("provenance", []) if entry.get("routine") != "store"] for one in (a, b))
    if len(ours) != len(theirs) or not all(same_provenance(x, y) for x, y in zip(ours, theirs, strict=False)):
        found.append("attribute provenance: the entries differ in more than time, host and executor")
    return found


def _array_differences(a: Files, b: Files, path: str) -> list[str]:
    try:
        rows = [open_rows(one, path) for one in (a, b)]
    except StoreError:
        return []  # a group: it has no values
    left, right = rows
    if left is None or right is None:
        return []
    if left.shape != right.shape or left.dtype != right.dtype:
        return [f"{path}: {left.dtype} {left.shape} and {right.dtype} {right.shape}"]
    return _value_difference(left, right, path)


def _value_difference(left: RowReader, right: RowReader, path: str) -> list[str]:
    row = max(1, left.dtype.itemsize * int(np.prod(left.shape[1:], dtype=int)))
    step = max(1, 8 * 2**20 // row)
    for start in range(0, left.shape[0], step):
        stop = min(start + step, left.shape[0])
        x, y = left.rows(start, stop), right.rows(start, stop)
        if x.tobytes() != y.tobytes():
            different = np.flatnonzero([one.tobytes() != two.tobytes() for one, two in zip(x, y, strict=True)])
            return [f"{path}: rows differ, the first one is {start + int(different[0])}"]
    return []
