"""Pieces of a self-contained page for a single job: no script, no network, images inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure as Canvas

from nequip_hessian.report.html_table import table
from nequip_hessian.report.page import STYLE
from nequip_hessian.report.tables import versions

__all__ = [
    "cards",
    "document",
    "facts",
    "image",
    "note",
    "provenance",
    "section",
    "svg",
    "table",
    "verdict",
    "write_page",
]

_MORE: Final = """
.verdict { font-size: 15px; font-weight: 600; padding: 8px 12px; border-radius: 8px; margin: 8px 0; }
.verdict.good { background: #ecfdf5; color: var(--good); border: 1px solid #a7f3d0; }
.verdict.bad { background: #fef2f2; color: var(--bad); border: 1px solid #fecaca; }
.card .what { min-height: 1.3em; }
"""


def verdict(text: str, good: bool) -> str:
    """A box that says how a job ended."""
    return f'<p class="verdict {"good" if good else "bad"}">{escape(text)}</p>'


def cards(entries: Sequence[tuple[str, str, str]]) -> str:
    """Cards of (what, value, below)."""
    body = "".join(
        f'<div class="card"><div class="what">{escape(what)}</div><div class="value">{escape(value)}</div>'
        f'<div class="was">{escape(below)}</div></div>'
        for what, value, below in entries
    )
    return f'<div class="cards">{body}</div>'


def facts(entries: Mapping[str, Any]) -> str:
    """A list of names and values."""
    body = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in entries.items())
    return f"<dl>{body}</dl>"


def image(canvas: Canvas, caption: str) -> str:
    """A plot as an SVG inside the page, with its caption."""
    data = base64.b64encode(svg(canvas)).decode("ascii")
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'


def svg(canvas: Canvas) -> bytes:
    """A plot as SVG."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def note(text: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{escape(text)}</p>'


def section(title: str, *parts: str) -> str:
    """A section with its title."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def provenance(entries: Mapping[str, Any]) -> str:
    """The section on where the numbers come from: what is given, then the versions."""
    listed = ", ".join(f"{name} {number}" for name, number in versions().items())
    return section("Where the numbers come from", facts({**entries, "Versions": listed}))


def document(title: str, verb: str, sections: Sequence[str]) -> str:
    """The whole page."""
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{_MORE}</style></head><body><main><h1>{escape(title)}</h1>"
        f'<p class="meta">nequip-hessian {escape(verb)} · {created}</p>{"".join(sections)}</main></body></html>\n'
    )


def write_page(path: Path, title: str, verb: str, sections: Sequence[str]) -> None:
    """Write the whole page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(title, verb, sections), encoding="utf-8")
