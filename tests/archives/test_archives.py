"""Every store that was ever released is read, with the values it had then; the schemas of a release never change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import make
import pytest

from nequip_hessian.store import HessianStore, validate
from nequip_hessian.store.layout import BY_PATH, VERSION

ARCHIVES = sorted(path for path in make.HERE.glob("v*") if path.is_dir())
ROOT = make.ROOT


@pytest.mark.parametrize(
    "path", [path for folder in ARCHIVES for path in sorted(folder.glob("*.zip"))], ids=lambda path: path.stem
)
def test_archive_is_read_as_it_was_written(path):
    expected = json.loads(make.expected_of(path).read_text())
    assert path.parent.name == f"v{expected['version']}"
    assert [make.values(record) for record in HessianStore(path)] == expected["geometries"]
    assert validate(path).valid


def test_an_archive_of_this_version_holds_every_array():
    found = set()
    for path in (make.HERE / f"v{VERSION}").glob("*.zip"):
        found |= set(HessianStore(path).attributes["checksums"])
    assert {path for path in found if not path.startswith("split/")} == set(BY_PATH)


def test_what_is_archived_is_not_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "HERE", tmp_path)
    assert make.main() == 0
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "expected.json", "phonon.json", "phonon.zarr.zip", "rich.zarr.zip",
    ]  # fmt: skip
    (folder / "rich.zarr.zip").write_bytes(b"as it was")
    (folder / "phonon.zarr.zip").unlink()
    assert make.main() == 0
    assert (folder / "rich.zarr.zip").read_bytes() == b"as it was"
    assert (folder / "phonon.zarr.zip").exists()


@pytest.mark.parametrize("folder", ARCHIVES, ids=lambda path: path.name)
def test_schemas_of_a_release_never_change(folder):
    expected = json.loads((folder / "expected.json").read_text())
    schemas = ROOT / "schemas" / expected["schema_folder"]
    found = {name: hashlib.sha256((schemas / name).read_bytes()).hexdigest() for name in expected["schemas"]}
    if not expected["version"].endswith(".dev"):
        assert found == expected["schemas"]
    assert all(Path(schemas / name).is_file() for name in expected["schemas"])


def test_there_is_an_archive_of_this_version():
    assert f"v{VERSION}" in [path.name for path in ARCHIVES], "python tests/archives/make.py"
    released = [path for path in ARCHIVES if not path.name.endswith(".dev")]
    for path in ARCHIVES:
        assert path in released or path.name == f"v{VERSION}", f"{path.name} is of a version under work no longer"


def test_release_is_one_line(tmp_path):
    """With the version in the schema changed to that of the release, writer, reader and validator follow."""
    import os
    import shutil
    import subprocess
    import sys

    shutil.copytree(ROOT / "nequip_hessian", tmp_path / "nequip_hessian", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "schemas", tmp_path / "nequip_hessian" / "schemas")
    schema = tmp_path / "nequip_hessian" / "schemas" / "v0.1" / "root.schema.json"
    text = schema.read_text()
    assert text.count(f'"{VERSION}"') == 1
    schema.write_text(text.replace(f'"{VERSION}"', '"0.9"'))
    code = (
        "import numpy as np, nequip_hessian; from nequip_hessian.store import *; "
        "from nequip_hessian.record import LabelledGeometry; assert 'site' not in nequip_hessian.__file__; "
        "w = StoreWriter('a.zarr'); w.append(LabelledGeometry(numbers=np.array([1]), positions=np.zeros((1, 3)))); "
        "w.finish(); print(HessianStore('a.zarr').attributes['version'], validate('a.zarr').valid)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.stdout.split() == ["0.9", "True"], done.stderr
