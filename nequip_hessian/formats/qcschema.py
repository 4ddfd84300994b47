"""QCSchema results (.json, also .json.gz / .json.xz): the `AtomicResult` of a Hessian calculation.

`return_result` of driver `hessian` (or `properties.return_hessian`) is the
Cartesian Hessian, flat or square, in Eh/a0^2, in the frame of `molecule.geometry`
(a0). A file holds one result, a list of results, or an object with the result
under `result` or `output`, or records of a QCArchive server (see `_qcarchive`). The
schema has no place for a role in a reaction: `extras.nequip_hessian` may hold `kind`,
`role`, `group`, `path_coordinate`, `label` and `frequencies` (cm^-1, imaginary negative).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nequip_hessian.errors import FormatError, HessianDataError, NoHessianError
from nequip_hessian.formats._atoms import atomic_number, isotopic_masses
from nequip_hessian.formats._qcarchive import results_of
from nequip_hessian.formats._sink import atomic_hessian, new_file, require_molecule, symbols_of
from nequip_hessian.formats._source import (
    ATOMIC_UNITS,
    Source,
    atomic_conversions,
    guarded,
    provenance,
    read_source,
    stem,
)
from nequip_hessian.record import LabelledGeometry, LevelOfTheory

NAME = "qcschema"
PATTERNS = ("*.json", "*.json.xz", "*.json.gz", "*.json.bz2", "*.qcschema")

_EXTRA_FIELDS: Final = ("kind", "role", "group", "path_coordinate", "label")
_OWN: Final = (*_EXTRA_FIELDS, "frequencies", "unknown")
_DEFAULTS: Final = {"charge": 0, "multiplicity": 1}  # of the schema, where a molecule does not say them


def sniff(text: str) -> bool:
    """Say whether a file looks like a QCSchema result."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    failed = '"success"' in text and '"error_message"' in text
    record = '"molecule_id"' in text or '"record_type"' in text or '"procedure"' in text
    return '"return_result"' in text or failed or record or ('"schema_name"' in text and '"qcschema' in text)


@guarded("QCSchema")
def read_qcschema(path: str | Path) -> Iterator[LabelledGeometry]:
    """Read the results of a QCSchema file.

    Args:
        path: the JSON file, possibly compressed

    Yields:
        One record a result; a result of driver `gradient` or `energy` gives one without a Hessian.

    Raises:
        FormatError: no JSON, no QCSchema result, a failed calculation, or arrays that do not fit; of several
            results the sound ones come first.
    """
    source = read_source(path)
    try:
        content = json.loads(source.text)
    except json.JSONDecodeError as exc:
        raise source.error(f"no valid JSON ({exc.msg}); the file is cut or damaged", exc.lineno) from None
    try:
        results = results_of(content)
    except FormatError as exc:
        raise source.error(str(exc)) from exc
    if not results:
        raise source.error("an empty list; expected QCSchema results")
    refused: list[HessianDataError] = []
    for index, result in enumerate(results):
        try:
            record = _record(source, _unwrap(source, result), index if len(results) > 1 else None)
        except HessianDataError as exc:
            refused.append(exc)
            continue
        yield record
    if refused:  # at the end, so that one failed calculation does not hide those behind it
        raise (
            refused[0]
            if len(results) == 1
            else type(refused[0])(
                f"{source.path}: {len(refused)} of {len(results)} results are refused, the first one: "
                + str(refused[0]).removeprefix(f"{source.path}: ")
            )
        )


def _unwrap(source: Source, result: Any) -> dict[str, Any]:
    for key in ("result", "output"):
        if isinstance(result, dict) and "return_result" not in result and isinstance(result.get(key), dict):
            result = result[key]
    if not isinstance(result, dict):
        raise source.error(f"expected a QCSchema result (an object), found {type(result).__name__}")
    if result.get("success") is False or "FailedOperation" in str(result.get("schema_name")):
        reason = (result.get("error") or {}).get("error_message", "no reason given")
        raise source.error(f"the calculation failed: {str(reason).strip().splitlines()[-1][:100]}")
    if not isinstance(result.get("molecule"), dict) or "return_result" not in result:
        raise source.error(
            "expected a QCSchema result with 'molecule' and 'return_result', found the keys "
            f"{', '.join(map(str, list(result)[:8]))}"
        )
    return result


def _array(source: Source, value: Any, size: int, name: str) -> npt.NDArray[np.float64] | None:
    if value is None:
        return None
    try:
        array = np.array(value, dtype=np.float64).ravel()
    except (TypeError, ValueError) as exc:
        raise source.error(f"{name}: expected numbers ({exc})") from None
    if array.size != size:
        raise source.error(f"{name}: expected {size} numbers for the atoms of this molecule, found {array.size}")
    return array


def _record(source: Source, result: dict[str, Any], index: int | None) -> LabelledGeometry:
    molecule = result["molecule"]
    atoms = np.array([atomic_number(str(symbol)) for symbol in molecule.get("symbols", [])], dtype=int)
    n = len(atoms)
    if not n:
        raise source.error("molecule: expected symbols, found none")
    if not all(molecule.get("real") or [True]):
        raise source.error("molecule: ghost atoms have no place in a Hessian")
    positions = _array(source, molecule.get("geometry"), 3 * n, "molecule.geometry")
    if positions is None:
        raise source.error("molecule: expected a geometry, found none")
    properties = result.get("properties") or {}
    driver = str(result.get("driver") or _specification(result).get("driver") or "").lower()
    hessian, gradient, energy = _labels(source, result, properties, driver, n, index)
    masses = _array(source, molecule.get("masses"), n, "molecule.masses")
    dipole = _array(source, _variables(result).get("CURRENT DIPOLE GRADIENT"), 9 * n, "CURRENT DIPOLE GRADIENT")
    extras = _extras(source, result)
    frequencies = extras.pop("frequencies", None)
    unknown = extras.pop("unknown", ())
    spin: dict[str, Any] = {
        name: None if name in unknown else int(molecule.get(f"molecular_{name}", default))
        for name, default in _DEFAULTS.items()
    }
    label = extras.pop("label", None) or stem(source.path) + ("" if index is None else f"-{index}")
    return LabelledGeometry(
        numbers=atoms.astype(np.uint8),
        positions=positions.reshape(n, 3) * ATOMIC_UNITS["positions"][1],
        **spin,
        hessian=None if hessian is None else hessian * ATOMIC_UNITS["hessian"][1],
        forces=None if gradient is None else gradient.reshape(n, 3) * ATOMIC_UNITS["forces"][1],
        energy=None if energy is None else energy * ATOMIC_UNITS["energy"][1],
        masses=isotopic_masses(atoms) if masses is None else masses,
        dipole_derivatives=None if dipole is None else dipole.reshape(3 * n, 3),
        frequencies=None if frequencies is None else np.sort(np.asarray(frequencies, dtype=np.float64)),
        label=label,
        level=_level(result),
        provenance=provenance(
            source,
            NAME,
            atomic_conversions(energy=energy is not None, forces=gradient is not None)
            | ({} if dipole is None else {"dipole_derivatives": ("e", 1.0)}),
            hessian=None if hessian is None else hessian * ATOMIC_UNITS["hessian"][1],
            index=index,
            masses_from="file" if masses is not None else "convention: most abundant isotopes",
        ),
        **extras,
    )


def _labels(
    source: Source, result: dict[str, Any], properties: dict[str, Any], driver: str, n: int, index: int | None
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None, float | None]:
    variables = _variables(result)
    value = result["return_result"]
    hessian = _array(source, value if driver == "hessian" else properties.get("return_hessian"), 9 * n * n, "Hessian")
    gradient = value if driver == "gradient" else properties.get("return_gradient")
    if gradient is None:  # a result of scf_total_gradient alone would miss correlation: not taken
        gradient = variables.get("CURRENT GRADIENT")
    energy = value if driver == "energy" else properties.get("return_energy", variables.get("CURRENT ENERGY"))
    if hessian is None and gradient is None and (index is None or energy is None):
        raise source.error(
            f"no Hessian in this file: driver is {driver or 'not given'!r}, expected 'hessian'", kind=NoHessianError
        )
    return hessian, _array(source, gradient, 3 * n, "gradient"), None if energy is None else float(energy)


def _dipole_variables(record: LabelledGeometry) -> dict[str, Any]:
    """Dipole derivatives (e) under the name that Psi4 gives them."""
    if record.dipole_derivatives is None:
        return {}
    return {"qcvars": {"CURRENT DIPOLE GRADIENT": np.asarray(record.dipole_derivatives).tolist()}}


def _variables(result: dict[str, Any]) -> dict[str, Any]:
    """Return what Psi4 and others call their variables; atomic units."""
    found = (result.get("extras") or {}).get("qcvars") or {}
    return found if isinstance(found, dict) else {}


def _extras(source: Source, result: dict[str, Any]) -> dict[str, Any]:
    extras = (result.get("extras") or {}).get("nequip_hessian") or {}
    if not isinstance(extras, dict):
        raise source.error(f"extras.nequip_hessian: expected an object, found {type(extras).__name__}")
    return {key: extras[key] for key in _OWN if extras.get(key) is not None}


def _specification(result: dict[str, Any]) -> dict[str, Any]:
    """Return where version 2 of the schema keeps driver, model and keywords."""
    given = (result.get("input_data") or {}).get("specification") or {}
    return given if isinstance(given, dict) else {}


def _level(result: dict[str, Any]) -> LevelOfTheory:
    given = _specification(result)
    model = result.get("model") or given.get("model") or {}
    made = result.get("provenance") or {}
    keywords = result.get("keywords") or given.get("keywords") or {}
    basis = model.get("basis")
    return LevelOfTheory(
        method=str(model.get("method") or "unknown"),
        basis=basis.get("name") if isinstance(basis, dict) else basis,
        dispersion=keywords.get("dispersion"),
        program=made.get("creator"),
        program_version=None if made.get("version") is None else str(made["version"]),
        hessian=keywords.get("hessian") if keywords.get("hessian") in ("analytic", "finite_difference") else None,
    )


# -- writing --------------------------------------------------------------------------------


def write_qcschema(path: str | Path, records: Iterable[LabelledGeometry], *, overwrite: bool = False) -> int:
    """Write a list of QCSchema results (version 1), each with its Hessian, gradient and energy.

    Args:
        path: the .json file
        records: molecules; one without a Hessian becomes a result of driver `gradient` or `energy`. Charge and
            multiplicity that are unknown are left out, for which other programs read 0 and 1, and named in the
            result's extras, so that they are read back as unknown here. They are written one by one and not kept
        overwrite: replace a file that is there

    Returns:
        How many results were written.

    Raises:
        FormatError: a partial Hessian, a periodic geometry, no label at all, or something at `path`.
    """
    count = 0
    with new_file(path, overwrite=overwrite) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for record in records:
            file.write("[\n" if count == 0 else ",\n")
            json.dump(_result(record), file)
            count += 1
        if count == 0:
            raise FormatError(f"{path}: qcschema: no geometry to write")
        file.write("\n]\n")
    return count


def _result(record: LabelledGeometry) -> dict[str, Any]:
    require_molecule(record, NAME)
    properties: dict[str, Any] = {"calcinfo_natom": len(record)}
    if record.energy is not None:
        properties["return_energy"] = record.energy / ATOMIC_UNITS["energy"][1]
    if record.forces is not None and np.all(np.isfinite(record.forces)):
        properties["return_gradient"] = (record.forces / ATOMIC_UNITS["forces"][1]).tolist()
    if record.hessian is not None:
        properties["return_hessian"] = atomic_hessian(record, NAME).tolist()
    driver = next((name for name in ("hessian", "gradient", "energy") if f"return_{name}" in properties), None)
    if driver is None:
        raise FormatError("qcschema: expected a Hessian, forces or an energy, found none of them")
    molecule: dict[str, Any] = {
        "schema_name": "qcschema_molecule",
        "schema_version": 2,
        "symbols": symbols_of(record),
        "geometry": (record.positions / ATOMIC_UNITS["positions"][1]).ravel().tolist(),
        "fix_com": True,
        "fix_orientation": True,
    }
    known = {"masses": record.masses, "molecular_charge": record.charge, "molecular_multiplicity": record.multiplicity}
    molecule |= {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in known.items()
                 if value is not None}  # fmt: skip
    level = record.level
    extras = {key: getattr(record, key) for key in _EXTRA_FIELDS if getattr(record, key) is not None}
    if record.frequencies is not None:
        extras["frequencies"] = record.frequencies.tolist()
    if unknown := [name for name in _DEFAULTS if getattr(record, name) is None]:
        extras["unknown"] = unknown
    made = {"creator": level.program or "unknown", "version": level.program_version}
    keywords = {"dispersion": level.dispersion, "solvation": level.solvation, "hessian": level.hessian}
    return {
        "schema_name": "qcschema_output",
        "schema_version": 1,
        "molecule": molecule,
        "driver": driver,
        "model": {"method": level.method, "basis": level.basis},
        "keywords": {key: value for key, value in keywords.items() if value is not None},
        "extras": {"nequip_hessian": extras} | _dipole_variables(record),
        "provenance": {key: value for key, value in made.items() if value is not None},
        "properties": properties,
        "return_result": properties[f"return_{driver}"],
        "success": True,
    }
