"""Hooks of the documentation's site: pages that live beside the code, and links out of docs/.

A link from one page to another works in both, the repository and the site. One that leads to a file that is no page
(a configuration, a schema) gets a copy of the file; one to a folder or a module keeps its words only.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BROUGHT_IN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "models/README.md": "models.md",
    "schemas/SPEC.md": "spec.md",
    "datasets/README.md": "data/index.md",
    "datasets/demo/README.md": "data/demo.md",
    "datasets/crystals/README.md": "data/crystals.md",
    "datasets/reactions-xtb/README.md": "data/reactions-xtb.md",
    "experiments/seed-table/README.md": "data/seed-table.md",
    "experiments/seed-table/tuning.md": "data/tuning.md",
    "experiments/crystals/README.md": "data/crystals-experiment.md",
}
COPIED = {".json", ".yaml", ".yml", ".svg", ".png", ".csv"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```.*?^```)", flags=re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Bring in the pages from outside docs/ and the files that any page links to."""
    for source, target in BROUGHT_IN.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    pages = [(f"docs/{path.name}", path.read_text()) for path in sorted((ROOT / "docs").glob("*.md"))]
    pages += [(source, (ROOT / source).read_text()) for source in BROUGHT_IN]
    for source, text in pages:
        for match in LINK.finditer(text):
            path = _resolved(source, match[3])
            target = _site_path(path)
            if target.startswith("files/") and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links lead to where the pages are in the site."""
    here = page.file.src_uri
    source = next((s for s, target in BROUGHT_IN.items() if target == here), f"docs/{here}")

    def rewritten(match: re.Match[str]) -> str:
        image, words, link, anchor = match[1], match[2], match[3], match[4] or ""
        target = _site_path(_resolved(source, link))
        if not target:
            return words
        return f"{image}[{words}]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in parts)


def _resolved(source: str, link: str) -> str:
    """Path from the root of the repository of what a page links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _site_path(path: str) -> str:
    """Where something of the repository is in the site; empty where it is not."""
    for candidate in (path, f"{path}/README.md"):
        if candidate in BROUGHT_IN:
            return BROUGHT_IN[candidate]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if Path(path).suffix in COPIED and (ROOT / path).is_file():
        return f"files/{path}"
    return ""
