"""The frame of every page: head, style and script inlined, and the few pieces of HTML that pages share."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["color_of", "document", "section", "swatch", "table", "text", "unbroken"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_HUES = 8
"""Colours for accelerators in `page.css`; the ninth device looks like the first."""


def document(title: str, lead: Iterable[str], body: Iterable[str], *, data: object = None) -> str:
    """Return a whole page, ending in a line end.

    `lead` are the paragraphs below the heading, as HTML; `data` is given to the script as JSON.

    A policy in the head forbids every request, so that a page can be opened from anywhere and mailed.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{text(title)}</title>",
        f"<style>\n{_asset('page.css')}</style>",
        "</head>",
        "<body>",
        f"<header><h1>{text(title)}</h1>",
        *lead,
        "</header>",
        "<main>",
        *body,
        "</main>",
        "<footer><p>Written by devmap. Sizes in powers of ten: 1 GB is 1,000,000,000 bytes.</p></footer>",
    ]
    if data is not None:
        # "<" never stands in the JSON, so no name in a model can end the element early.
        written = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        parts.append(f'<script type="application/json" id="plan-data">{written}</script>')
        parts.append(f"<script>\n{_asset('page.js')}</script>")
    parts += ["</body>", "</html>"]
    # A lone surrogate, which a name may hold, has no UTF-8.
    return ("\n".join(parts) + "\n").encode("utf-8", "replace").decode()


def text(words: object) -> str:
    """Return words escaped for HTML."""
    return escape(str(words))


def unbroken(words: object) -> str:
    """Return a few words escaped for HTML that stay on one line.

    A figure and its unit, a device and its number.
    """
    return escape(str(words)).replace(" ", "\u00a0")


def section(heading: str, body: Iterable[str], *, name: str) -> str:
    """Return a section with a heading; empty where the body is."""
    inside = "\n".join(body)
    if not inside:
        return ""
    return (
        f'<section aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{text(heading)}</h2>\n{inside}\n</section>'
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: frozenset[int] = frozenset()
) -> str:
    """Return a table of cells that are HTML already; columns of `numbers` are set to the right."""
    aligned = [' class="number"' if at in numbers else "" for at in range(len(head))]
    titles = "".join(
        f'<th scope="col"{kind}>{text(title)}</th>' for title, kind in zip(head, aligned, strict=True)
    )
    lines = [
        "<tr>"
        + "".join(
            # The style sheet shows `data-head` where columns do not fit.
            f'<td{kind} data-head="{text(title)}">{cell}</td>'
            for title, kind, cell in zip(head, aligned, cells, strict=True)
        )
        + "</tr>"
        for cells in rows
    ]
    if not lines:
        return ""
    body = "\n".join(lines)
    head = f"<thead><tr>{titles}</tr></thead>"
    return f'<div class="scroll"><table>{head}\n<tbody>\n{body}\n</tbody></table></div>'


def swatch(home: str, executes: str) -> str:
    """Return a small square in the colour of a device.

    Striped with that of another which runs what lies there.
    """
    paint = f"var(--{home})"
    if executes != home:
        paint = f"repeating-linear-gradient(45deg,{paint} 0 4px,var(--{executes}) 4px 7px)"
    return f'<span class="swatch" style="background:{paint}"></span>'


def color_of(device: int | str) -> str:
    """Return the name of a device's colour in the style sheet."""
    return f"d{device % _HUES}" if isinstance(device, int) else device


def _asset(name: str) -> str:
    return files("devmap.report.page").joinpath(name).read_text(encoding="utf-8")
