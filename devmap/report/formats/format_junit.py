"""Findings as JUnit XML: a suite a file, a failed case a finding, one passed case for a file without any."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from devmap.config.values.words import escaped
from devmap.report.formats.results import file_of, relative_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.findings.model import Finding
    from devmap.report.formats.results import Results

__all__ = ["render"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(results: Results) -> str:
    """Return one XML document."""
    by_file: dict[str, list[Finding]] = {escaped(relative_path(file)): [] for file in results.files}
    for finding in results.findings:
        by_file.setdefault(escaped(file_of(finding)), []).append(finding)
    suites = "".join(_suite(file, findings) for file, findings in by_file.items())
    tests = sum(max(1, len(findings)) for findings in by_file.values())
    skipped = len(results.findings) - len(results.open)
    head = (
        f'<testsuites name="devmap" tests="{tests}" failures="{len(results.open)}" '
        f'skipped="{skipped}" errors="0">'
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}\n{suites}</testsuites>\n'


def _suite(file: str, findings: Sequence[Finding]) -> str:
    failures = sum(finding.suppressed is None for finding in findings)
    skipped = len(findings) - failures
    cases = (
        "".join(_case(file, finding) for finding in findings)
        or f'    <testcase classname={_attribute(file)} name="valid"/>\n'
    )
    counts = f'tests="{max(1, len(findings))}" failures="{failures}" skipped="{skipped}" errors="0"'
    return f"  <testsuite name={_attribute(file)} {counts}>\n{cases}  </testsuite>\n"


def _case(file: str, finding: Finding) -> str:
    place = f" {finding.position.start.line}:{finding.position.start.column}" if finding.position else ""
    line = f' line="{finding.position.start.line}"' if finding.position else ""
    name = _attribute(f"{finding.code} {finding.name}{place}")
    head = f"    <testcase classname={_attribute(file)} name={name} file={_attribute(file)}{line}>\n"
    message = _attribute(finding.message)
    if finding.suppressed is not None:
        return (
            f"{head}      <skipped "
            f"message={_attribute(finding.suppressed or 'suppressed by a comment')}/>\n "
            "   </testcase>\n"
        )
    text = _text("\n".join(part for part in (finding.message, finding.label, finding.help) if part))
    return (
        f'{head}      <failure type="{finding.severity.value}" '
        f"message={message}>{text}</failure>\n    </testcase>\n"
    )


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text))


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))
