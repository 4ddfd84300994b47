"""A page as a real browser shows it."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path


class Outline(HTMLParser):
    """Headings, numbers of table rows under each, and what the images say of themselves."""

    def __init__(self):
        super().__init__()
        self.rows, self.images, self.inside = {"": 0}, [], False

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "h2":
            self.inside = True
        elif tag == "tr":
            self.rows[list(self.rows)[-1]] += 1
        elif tag == "img":
            self.images.append((given["alt"], given["src"][:26]))

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "h2"

    def handle_data(self, data):
        if self.inside:
            self.rows[data] = 0


def outline(text: str) -> Outline:
    """Outline of a page or of what a browser made of it."""
    parser = Outline()
    parser.feed(text)
    return parser


def check_page(page: Path, work: Path) -> Outline:
    """Open a page in headless Chromium: its tables are as written, its images inside it and drawn.

    Args:
        page: an HTML file
        work: an empty folder for the browser

    Returns:
        What the browser shows.
    """
    text = page.read_text(encoding="utf-8")
    written = outline(text)
    assert {source for _, source in written.images} <= {"data:image/svg+xml;base64,"}
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser, "no browser: install chromium (apt install chromium); the page is to be seen in one"
    # the page is asked for the sizes its images have once they are drawn: an SVG that is broken has none
    script = (
        "<script>window.onload = () => document.querySelectorAll('img').forEach("
        "i => i.setAttribute('alt', i.complete && i.naturalWidth > 200 && i.offsetHeight > 100 ? 'drawn' : 'broken'))"
        "</script></body>"
    )
    assert "</body>" in text
    work.mkdir(parents=True, exist_ok=True)
    probe = work / "probe.html"
    probe.write_text(text.replace("</body>", script), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={work}", "--dump-dom"]
    done = subprocess.run([*command, probe.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    seen = outline(done.stdout)
    assert seen.rows == written.rows
    assert [alt for alt, _ in seen.images] == ["drawn"] * len(written.images)
    return seen
