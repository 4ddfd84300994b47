"""Every code block of the documentation runs or is checked; pages with tests of their own are named here."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_CODE = {"reference", "results"}
ELSEWHERE = {"store", "validate", "info", "evaluate", "metrics", "energy", "optimise", "vibrations"}
OTHERS = [*sorted(ROOT.glob("datasets/*/README.md")), ROOT / "models" / "README.md", ROOT / "README.md"]
PAGES = sorted(
    f"docs/{path.stem}.md" for path in (ROOT / "docs").glob("*.md") if path.stem not in ELSEWHERE | WITHOUT_CODE
)
PAGES += [str(path.relative_to(ROOT)) for path in OTHERS]
NOT_RUN = re.compile(r"<!-- not run: [^\n]+ -->\n```.*?\n```", flags=re.DOTALL)


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_run_one_after_the_other(page, tmp_path):
    for name in ("configs", "datasets", "models", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "out").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    found = re.findall(r"```(bash|python)\n(.*?)```", NOT_RUN.sub("", (ROOT / page).read_text()), flags=re.DOTALL)
    assert found, f"{page} shows nothing that runs"
    for kind, text in found:
        command = ["bash", "-e", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_every_block_runs_or_says_why_not():
    for path in [*(ROOT / "docs").glob("*.md"), *OTHERS, *ROOT.glob("experiments/*/README.md")]:
        lines = [line for line in NOT_RUN.sub("", path.read_text()).splitlines() if line.startswith("```")]
        runs = {"```bash", "```python"} if path.parent.name == "docs" or path in OTHERS else set()
        wrong = set(lines[::2]) - runs - {"```yaml", "```text", "```json"}
        assert not wrong, f"{path}: {wrong}: run it, or put <!-- not run: why --> above it"


def targets(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield value
            else:
                yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize("path", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_yaml_blocks_name_what_exists(path):
    for text in blocks(path, "yaml"):
        for target in targets(yaml.safe_load(text)):
            module, name = target.rsplit(".", 1)
            assert hasattr(importlib.import_module(module), name), target


def test_links_between_pages_lead_somewhere():
    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "schemas" / "SPEC.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_every_command_has_a_page():
    from nequip_hessian.cli import VERBS

    for verb in VERBS:
        assert (ROOT / "docs" / f"{verb}.md").is_file(), verb


def test_the_twin_configurations_of_the_demo_differ_in_the_marked_lines_only():
    first, second = (
        (ROOT / "configs" / f"demo_{name}.yaml").read_text().splitlines()
        for name in ("energy_forces", "energy_forces_hessians")
    )
    assert len(first) == len(second)
    for number, (one, two) in enumerate(zip(first, second, strict=True), 1):
        if one != two and number > 3:
            assert "(H)" in one, number
            assert "(H)" in two, number
