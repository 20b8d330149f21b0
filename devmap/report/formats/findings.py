"""Findings for people and for machines: one module a format, behind one function."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import TYPE_CHECKING

from devmap.report.formats.results import Results, safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devmap.findings.model import Finding, Rule

__all__ = ["FORMATS", "render", "statistics"]

FORMATS = ("text", "concise", "json", "sarif", "junit", "github", "gitlab")
"""Each is a module `devmap.report.format_<name>` with a function `render(results) -> str`."""


def render(
    findings: Sequence[Finding],
    format: str = "text",  # noqa: A002 - the word of the command line
    *,
    files: Sequence[str] = (),
    rules: Sequence[Rule] = (),
    color: bool = False,
    width: int = 100,
    wraps: bool = False,
) -> str:
    """Return the findings in one of `FORMATS`, with a line end.

    Empty where a format says nothing about nothing.

    `files` are all that were checked, `rules` the metadata for SARIF. `color`, `width` (columns) and `wraps`
    (whether sentences are broken to fit it) count for text alone.

    Raises:
        ValueError: when there is no such format.
    """
    if format not in FORMATS:
        raise ValueError(f"no format '{format}'; there are {', '.join(FORMATS)}")
    module = importlib.import_module(f"devmap.report.formats.format_{format}")
    text = module.render(Results(tuple(map(safe, findings)), tuple(files), tuple(rules), color, width, wraps))
    assert isinstance(text, str)
    return text


def statistics(findings: Iterable[Finding]) -> str:
    """Return how often each rule has something to say, the most frequent first.

    Suppressed findings do not count.
    """
    counts = Counter((finding.code, finding.name) for finding in findings if finding.suppressed is None)
    if not counts:
        return ""
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    digits = len(str(rows[0][1]))
    return "".join(f"{count:>{digits}}  {code}  {name}\n" for (code, name), count in rows)
