"""Records of a QCArchive server as JSON, old and new, turned into results of QCSchema.

A server's record is a result whose molecule may be named by its number, whose method
stands in a `specification` or at the top, and whose arrays are under `properties`.
An export holds them under `data`, `records` or `results`, as a list or by name, with
the molecules beside them under `molecules`, by number or as a list with `id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nequip_hessian.errors import FormatError

_CONTAINERS: Final = ("data", "records", "results")


def results_of(content: Any) -> list[Any]:
    """Return the results that a JSON file holds, each in the shape of QCSchema as far as that can be done.

    Args:
        content: the parsed file: one result or record, a list of them, or an export with molecules beside them

    Returns:
        The results; what is no record of a server comes back as it is.

    Raises:
        FormatError: a record that names a molecule which is not in the file.
    """
    if isinstance(content, list):
        return [_result(entry, {}) for entry in content]
    key = next((key for key in _CONTAINERS if _holds_records(content, key)), None)
    if key is None:
        return [_result(content, {})]
    molecules = _molecules(content.get("molecules"))
    inside = content[key]
    if isinstance(inside, Mapping):
        return [_result(entry, molecules, str(name)) for name, entry in inside.items()]
    return [_result(entry, molecules) for entry in inside]


def _holds_records(content: Any, key: str) -> bool:
    inside = content.get(key) if isinstance(content, dict) else None
    if not inside or "return_result" in content or not isinstance(inside, list | Mapping):
        return False
    first = next(iter(inside.values() if isinstance(inside, Mapping) else inside))
    return isinstance(first, dict) and ("molecule" in first or "molecule_id" in first or "molecule_" in first)


def _molecules(table: Any) -> dict[str, Any]:
    if isinstance(table, Mapping):
        return {str(number): molecule for number, molecule in table.items()}
    entries = table if isinstance(table, list) else []
    return {str(entry["id"]): entry for entry in entries if isinstance(entry, dict) and "id" in entry}


def _result(record: Any, molecules: Mapping[str, Any], name: str | None = None) -> Any:
    server = isinstance(record, dict) and any(key in record for key in ("record_type", "procedure", "molecule_id"))
    if not server:
        return record
    properties = record.get("properties") or {}
    given = record.get("specification") or {}
    driver = given.get("driver") or record.get("driver")
    value = record.get("return_result", properties.get("return_result", properties.get(f"return_{driver}")))
    extras = dict(record.get("extras") or {})
    if name is not None:
        extras["nequip_hessian"] = {"label": name, **(extras.get("nequip_hessian") or {})}
    failed = str(record.get("status", "complete")).lower() not in ("complete", "recordstatusenum.complete")
    made = dict(record.get("provenance") or {})
    made.setdefault("creator", given.get("program") or record.get("program"))
    found = {
        **record,
        "molecule": _molecule(record, molecules),
        "driver": driver,
        "model": {key: given.get(key) or record.get(key) for key in ("method", "basis")},
        "keywords": given.get("keywords") if isinstance(given.get("keywords"), dict) else {},
        "properties": properties,
        "provenance": made,
        "extras": extras,
        "success": not failed,
    }
    if failed:
        found["error"] = {"error_message": f"the status of this record is {record.get('status')}"}
    return found if value is None else {**found, "return_result": value}


def _molecule(record: Mapping[str, Any], molecules: Mapping[str, Any]) -> Any:
    for key in ("molecule", "molecule_"):
        if isinstance(record.get(key), dict):
            return record[key]
    number = record.get("molecule_id", record.get("molecule"))
    if str(number) not in molecules:
        raise FormatError(
            f"record {record.get('id', '?')}: its molecule is named by number only ({number}); export the molecules "
            "with it, under 'molecules'"
        )
    return molecules[str(number)]
