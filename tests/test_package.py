"""What is installed, what importing it does, and what the versions agree on."""

import json
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import nequip_hessian

ROOT = Path(__file__).resolve().parents[1]


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_the_package_imports_nothing():
    loaded = json.loads(
        python(
            "import sys, json; before = set(sys.modules); import nequip_hessian; "
            "print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )
    assert [name for name in loaded if not name.startswith("__editable__")] == ["nequip_hessian"]


def test_importing_nequip_registers_our_fields():
    text = python(
        "import nequip; from nequip.data._key_registry import get_field_type; "
        "print(get_field_type('hessian_probe'), get_field_type('hessian_product'), get_field_type('hessian_weight'))"
    )
    assert text.split() == ["node", "node", "graph"]
    values = {entry.value for entry in entry_points(group="nequip.extension")}
    assert {"nequip_hessian._register", "nequip_hessian"} <= values


def test_a_wheel_holds_the_code_and_the_schemas(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = tmp_path.glob("nequip_hessian-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "nequip_hessian").rglob("*.py")}
    schemas = {f"nequip_hessian/{p.relative_to(ROOT)}" for p in (ROOT / "schemas").rglob("*.json")}
    assert schemas
    assert modules | schemas | {"nequip_hessian/schemas/SPEC.md", "nequip_hessian/py.typed"} <= names
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import nequip_hessian.schemas as s; "
    assert "SPEC.md" in python(
        code + "from importlib.resources import files; print(*[f.name for f in files(s).iterdir()])"
    )


def test_python_and_torch_are_not_narrower_than_promised():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert not any(name.startswith("torch") for name in project["dependencies"])
    assert nequip_hessian.__version__
