"""Keep a store of the present format version for ever: `python tests/archives/make.py`.

Writes `v<version>/rich.zarr.zip`, a copy of the conformance fixture of that name,
and beside it `expected.json`: its values, in words that need no reader of the
format, and the SHA-256 of the schemas. The archive of a released version is
never written again; that of a development version is replaced, and goes when
its version is released.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from nequip_hessian.record import FIELD_NAMES, LabelledGeometry
from nequip_hessian.store import HessianStore
from nequip_hessian.store.layout import SCHEMA_FOLDER, VERSION

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def values(record: LabelledGeometry) -> dict:
    """All that a record holds, as JSON; arrays as lists."""
    found = {}
    for name in FIELD_NAMES:
        value = getattr(record, name)
        if value is None or name == "provenance":
            continue
        found[name] = value.as_dict() if name == "level" else value.tolist() if hasattr(value, "tolist") else value
    return found


def schemas() -> dict[str, str]:
    """SHA-256 of each schema of the format and its cards, of the present version."""
    files = (ROOT / "schemas" / SCHEMA_FOLDER / f"{name}.schema.json" for name in ("arrays", "card", "root"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main() -> int:
    """Write the archive."""
    folder = HERE / f"v{VERSION}"
    if folder.exists() and not VERSION.endswith(".dev"):
        print(f"{folder} is the archive of a released version and stays as it is")
        return 1
    shutil.rmtree(HERE / f"v{VERSION.removesuffix('.dev')}.dev", ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(ROOT / "tests" / "conformance" / "valid" / "rich.zarr.zip", folder / "rich.zarr.zip")
    expected = {
        "version": VERSION,
        "schema_folder": SCHEMA_FOLDER,
        "schemas": schemas(),
        "geometries": [values(record) for record in HessianStore(folder / "rich.zarr.zip")],
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
