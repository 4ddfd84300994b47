"""Keep a store of the present format version for ever: `python tests/archives/make.py`.

Writes `v<version>/rich.zarr.zip` and `phonon.zarr.zip`, copies of the conformance
fixtures of those names, and beside them their values, in words that need no reader
of the format: `expected.json`, with the SHA-256 of the schemas, and `phonon.json`.
What is there of a released version is never written again, what is not is added; the
folder of a development version is replaced, and goes when its version is released.
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
STORES = ("rich", "phonon")


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


def expected_of(store: Path) -> Path:
    """Where the values of an archived store are."""
    name = store.name.removesuffix(".zarr.zip")
    return store.with_name("expected.json" if name == "rich" else f"{name}.json")


def main() -> int:
    """Write what is not there yet."""
    folder = HERE / f"v{VERSION}"
    shutil.rmtree(HERE / f"v{VERSION.removesuffix('.dev')}.dev", ignore_errors=True)
    folder.mkdir(exist_ok=True)
    for name in STORES:
        store = folder / f"{name}.zarr.zip"
        if store.exists():
            print(f"{store} is of a released version and stays as it is")
            continue
        shutil.copyfile(ROOT / "tests" / "conformance" / "valid" / store.name, store)
        facts = {"schema_folder": SCHEMA_FOLDER, "schemas": schemas()} if name == "rich" else {}
        geometries = [values(record) for record in HessianStore(store)]
        text = json.dumps({"version": VERSION, **facts, "geometries": geometries}, indent=1)
        expected_of(store).write_text(text + "\n")
        print(store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
