"""The documentation builds as a site without a warning, and no link in it is dead."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_is_in_the_site(site):
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file(), page.name
    assert "HessianCalculator" in (site / "reference.html").read_text()
    assert "docs/training.md" in (site / "index.html").read_text(), "the README is the first page"


def test_links_within_the_site_lead_somewhere(site):
    checked = 0
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its links start at the root of a server
            continue
        for link in re.findall(r'(?:href|src)="([^"#]+)', page.read_text()):
            if re.match(r"https?:|mailto:|data:", link):
                continue
            checked += 1
            assert (page.parent / unquote(link)).exists(), f"{page.relative_to(site)}: {link}"
    assert checked > 1000


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        found = re.findall(r'<(?:script|img|iframe)[^>]*src="(https?:[^"]+)', text)
        found += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(https?:[^"]+)', text)
        assert not found, f"{page.relative_to(site)}: {found[:3]}"
